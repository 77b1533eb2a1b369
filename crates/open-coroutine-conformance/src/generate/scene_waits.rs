//! Scenes of waits for several descriptors, for events and for time.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::values::{masked_waits, meanwhile, pause, sleeps, sockets, waits};
use crate::script::{Call, Kind, Round, SCENE_SLOTS, Slot, Via};

const A: Slot = SCENE_SLOTS;
const E: Slot = SCENE_SLOTS + 6;
const T: Slot = SCENE_SLOTS + 7;
const SET: Slot = SCENE_SLOTS + 8;

type Parts = (Vec<Call>, Vec<Vec<Call>>);

pub(super) fn scene() -> BoxedStrategy<Vec<Round>> {
    begun_by_any(prop_oneof![
        4 => several(),
        2 => masked(),
        2 => in_a_set(),
        2 => event(),
        1 => timer(),
        1 => full_event(),
        1 => sleepers(),
    ])
}

/// What makes a descriptor ready, at once and for good.
fn awakening(kind: Kind, peer: Slot) -> BoxedStrategy<Call> {
    let write = (1..500_usize).prop_map(move |len| Call::Write {
        slot: peer,
        pieces: vec![len],
        seed: 1,
        via: Via::Plain,
    });
    // Nobody learns of the end of the other datagram socket.
    if matches!(kind, Kind::Udp | Kind::Datagram) {
        return write.boxed();
    }
    let close = Just(Call::Close { slot: peer });
    if kind == Kind::Pipe {
        return prop_oneof![write, close].boxed();
    }
    let shutdown = select(&[libc::SHUT_WR, libc::SHUT_RDWR][..])
        .prop_map(move |how| Call::Shutdown { slot: peer, how });
    prop_oneof![2 => write, 1 => close, 1 => shutdown].boxed()
}

fn kinds() -> BoxedStrategy<Kind> {
    prop_oneof![sockets(), Just(Kind::Pipe)].boxed()
}

/// One of three becomes ready.
fn several() -> BoxedStrategy<Parts> {
    let events = &[
        libc::POLLIN,
        libc::POLLIN | libc::POLLRDHUP,
        libc::POLLIN | libc::POLLPRI,
    ][..];
    (
        vec(kinds(), 1..4),
        vec(select(events), 3),
        0..3_usize,
        waits(),
        pause(),
    )
        .prop_flat_map(|(kinds, events, ready, waits, pause)| {
            let ready = ready % kinds.len();
            let awakening = awakening(kinds[ready], A + 2 * ready as Slot + 1);
            (
                Just((kinds, events, ready, waits, pause)),
                awakening,
                any::<bool>(),
            )
        })
        .prop_map(
            |((kinds, events, ready, waits, pause), awakening, is_limited)| {
                let end = |index: usize| A + 2 * index as Slot;
                let setup = kinds.iter().enumerate().map(|(index, &kind)| Call::Pair {
                    kind,
                    slots: [end(index), end(index) + 1],
                    nonblock: false,
                });
                let slots: Vec<_> = events[..kinds.len()]
                    .iter()
                    .enumerate()
                    .map(|(index, &events)| (end(index), events))
                    .collect();
                let waiter = vec![
                    Call::Poll {
                        slots,
                        timeout: if is_limited { 900 } else { -1 },
                        waits,
                    },
                    Call::Read {
                        slot: end(ready),
                        pieces: vec![200],
                        via: Via::Plain,
                    },
                ];
                let mut waker = pause;
                waker.push(awakening);
                (setup.collect(), vec![waiter, waker])
            },
        )
        .boxed()
}

/// A wait that has a mask meanwhile.
fn masked() -> BoxedStrategy<Parts> {
    (kinds(), masked_waits(), meanwhile(), pause())
        .prop_flat_map(|parts| {
            let kind = parts.0;
            (Just(parts), awakening(kind, A + 1))
        })
        .prop_map(|((kind, waits, meanwhile, pause), awakening)| {
            let pair = Call::Pair {
                kind,
                slots: [A, A + 1],
                nonblock: false,
            };
            let waiter = vec![
                // What came before does not end the wait.
                Call::Mask {
                    blocks: false,
                    by_number: false,
                },
                Call::MaskedPoll {
                    slots: vec![(A, libc::POLLIN)],
                    timeout: -1,
                    waits,
                    meanwhile,
                },
            ];
            let mut waker = pause;
            waker.push(awakening);
            (vec![pair], vec![waiter, waker])
        })
        .boxed()
}

/// An epoll set, to which the descriptor may be added while it is waited for.
fn in_a_set() -> BoxedStrategy<Parts> {
    let events = &[
        libc::EPOLLIN,
        libc::EPOLLIN | libc::EPOLLET,
        libc::EPOLLIN | libc::EPOLLONESHOT,
    ][..];
    (kinds(), select(events), pause(), any::<bool>())
        .prop_flat_map(|parts| {
            let kind = parts.0;
            (Just(parts), awakening(kind, A + 1))
        })
        .prop_map(|((kind, events, pause, is_added_late), awakening)| {
            let pair = Call::Pair {
                kind,
                slots: [A, A + 1],
                nonblock: false,
            };
            let mut setup = vec![pair, Call::Epoll { slot: SET }];
            let operation = libc::EPOLL_CTL_ADD;
            let add = Call::EpollControl {
                set: SET,
                operation,
                slot: A,
                events: events as u32,
            };
            let mut waker = pause;
            if is_added_late {
                waker.push(add);
            } else {
                setup.push(add);
            }
            waker.push(awakening);
            let waiter = vec![
                Call::EpollWait {
                    set: SET,
                    max: 4,
                    timeout: -1,
                },
                Call::EpollWait {
                    set: SET,
                    max: 4,
                    timeout: 0,
                },
            ];
            (setup, vec![waiter, waker])
        })
        .boxed()
}

/// An event counter.
fn event() -> BoxedStrategy<Parts> {
    let ways = &[Via::Plain, Via::Vector][..];
    (any::<bool>(), pause(), select(ways), select(ways))
        .prop_map(|(is_semaphore, pause, read, write)| {
            let flags = if is_semaphore { libc::EFD_SEMAPHORE } else { 0 };
            let read = Call::Read {
                slot: E,
                pieces: vec![8],
                via: read,
            };
            let mut waker = pause;
            waker.push(Call::Write {
                slot: E,
                pieces: vec![8],
                seed: 1,
                via: write,
            });
            (
                vec![Call::Event {
                    slot: E,
                    value: 0,
                    flags,
                }],
                vec![vec![read], waker],
            )
        })
        .boxed()
}

/// An event counter that has no room.
fn full_event() -> BoxedStrategy<Parts> {
    (pause(), 1..100_u64)
        .prop_map(|(pause, value)| {
            let add = |value| Call::AddEvents { slot: E, value };
            let setup = vec![
                Call::Event {
                    slot: E,
                    value: 0,
                    flags: 0,
                },
                add(u64::MAX - 1),
            ];
            let read = Call::Read {
                slot: E,
                pieces: vec![8],
                via: Via::Plain,
            };
            let mut reader = pause;
            reader.extend([read.clone(), read]);
            (setup, vec![vec![add(value)], reader])
        })
        .boxed()
}

fn timer() -> BoxedStrategy<Parts> {
    (1..5_u8, waits(), any::<bool>())
        .prop_map(|(after, waits, is_polled)| {
            let setup = vec![Call::Timer {
                slot: T,
                after,
                flags: 0,
            }];
            let mut calls = vec![Call::Read {
                slot: T,
                pieces: vec![8],
                via: Via::Plain,
            }];
            if is_polled {
                calls.insert(
                    0,
                    Call::Poll {
                        slots: vec![(T, libc::POLLIN)],
                        timeout: -1,
                        waits,
                    },
                );
            }
            (setup, vec![calls])
        })
        .boxed()
}

fn sleepers() -> BoxedStrategy<Parts> {
    vec((sleeps(), 0..4_u8), 2)
        .prop_map(|sleeps| {
            let sleep = |(by, milliseconds)| vec![Call::Sleep { by, milliseconds }];
            (Vec::new(), sleeps.into_iter().map(sleep).collect())
        })
        .boxed()
}
