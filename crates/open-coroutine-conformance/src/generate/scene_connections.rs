//! Scenes of connections: how they come about, and how not.

use proptest::prelude::*;

use super::scene_streams::*;
use super::values::{accept_flags, pause, waiting_read, waits};
use crate::script::{Call, Kind, Named, SCENE_SLOTS, Slot, Via};

const C: Slot = SCENE_SLOTS + 2;
const D: Slot = SCENE_SLOTS + 3;

/// Accepted and connected at once.
pub(super) fn connecting() -> BoxedStrategy<Parts> {
    (
        any::<[bool; 2]>(),
        accept_flags(),
        any::<bool>(),
        pause(),
        pause(),
        0..1000_usize,
    )
        .prop_map(
            |([unix, by_number], flags, with_address, first, second, len)| {
                let mut server = first;
                // What a flag that is refused leaves behind is accepted without.
                server.push(Call::Accept {
                    slot: A,
                    into: B,
                    flags: flags.filter(|flags| *flags != 0x40),
                    with_address,
                    by_number,
                });
                server.push(Call::SetNonblock {
                    slot: B,
                    on: false,
                    by_ioctl: false,
                });
                server.push(Call::Write {
                    slot: B,
                    pieces: vec![len],
                    seed: 1,
                    via: Via::Plain,
                });
                server.push(Call::Shutdown {
                    slot: B,
                    how: libc::SHUT_WR,
                });
                let mut client = second;
                client.push(Call::Connect {
                    slot: C,
                    to: A,
                    nonblock: false,
                    by_number,
                });
                client.push(Call::ReadAll {
                    slot: C,
                    total: len + 1,
                    piece: len + 1,
                    via: Via::Plain,
                });
                (listen(unix, 8), vec![server, client])
            },
        )
        .boxed()
}

pub(super) fn accept_timeout() -> BoxedStrategy<Parts> {
    (any::<[bool; 2]>(), accept_flags(), 1..5_u16)
        .prop_map(|([unix, by_number], flags, milliseconds)| {
            let mut setup = listen(unix, 8);
            setup.push(Call::SetTimeout {
                slot: A,
                is_send: false,
                milliseconds,
            });
            let accept = Call::Accept {
                slot: A,
                into: B,
                flags,
                with_address: true,
                by_number,
            };
            (setup, vec![vec![accept]])
        })
        .boxed()
}

/// What makes a listener in slot A, on a path if `unix`.
fn listen(unix: bool, backlog: i32) -> Vec<Call> {
    let name = A % 5;
    vec![
        Call::Names {
            what: Named::Unlink,
            name,
            other: 0,
        },
        Call::Listen {
            slot: A,
            unix,
            nonblock: false,
            backlog,
        },
    ]
}

fn accept(into: Slot) -> Call {
    Call::Accept {
        slot: A,
        into,
        flags: None,
        with_address: true,
        by_number: false,
    }
}

/// A UNIX socket waits for room in the listener's queue.
pub(super) fn full_backlog() -> BoxedStrategy<Parts> {
    (pause(), any::<bool>())
        .prop_map(|(pause, by_number)| {
            let connect = |slot| Call::Connect {
                slot,
                to: A,
                nonblock: false,
                by_number,
            };
            let mut setup = listen(true, 0);
            setup.push(connect(C));
            let mut acceptor = pause;
            acceptor.extend([accept(B), Call::Close { slot: B }, accept(B)]);
            (setup, vec![vec![connect(D)], acceptor])
        })
        .boxed()
}

pub(super) fn listener_shut_down() -> BoxedStrategy<Parts> {
    (any::<bool>(), pause())
        .prop_map(|(unix, pause)| {
            let mut other = pause;
            other.push(Call::Shutdown {
                slot: A,
                how: libc::SHUT_RDWR,
            });
            (listen(unix, 1), vec![vec![accept(B)], other])
        })
        .boxed()
}

/// A connection that is closed with `SO_LINGER` of 0 is reset.
pub(super) fn reset() -> BoxedStrategy<Parts> {
    (waiting_read(Kind::Tcp), pause(), 1..100_usize)
        .prop_map(|(via, pause, len)| {
            let write = Call::Write {
                slot: A,
                pieces: vec![len],
                seed: 6,
                via: Via::Plain,
            };
            let error = Call::GetOption {
                slot: A,
                option: libc::SO_ERROR,
            };
            let read = Call::Read {
                slot: A,
                pieces: vec![len],
                via,
            };
            let peer = Call::Address {
                slot: A,
                is_peer: true,
            };
            let reader = vec![read.clone(), error, peer, read, write];
            let mut other = pause;
            other.push(Call::SetLinger {
                slot: B,
                on: true,
                seconds: 0,
            });
            other.push(Call::Close { slot: B });
            (vec![pair(Kind::Tcp)], vec![reader, other])
        })
        .boxed()
}

/// Nobody listens any more where one connects without waiting.
pub(super) fn refused() -> BoxedStrategy<Parts> {
    (any::<[bool; 2]>(), waits())
        .prop_map(|([unix, by_number], waits)| {
            let mut setup = listen(unix, 1);
            setup.push(Call::Shutdown {
                slot: A,
                how: libc::SHUT_RDWR,
            });
            let address = |is_peer| Call::Address { slot: B, is_peer };
            let error = Call::GetOption {
                slot: B,
                option: libc::SO_ERROR,
            };
            let client = vec![
                Call::Connect {
                    slot: B,
                    to: A,
                    nonblock: true,
                    by_number,
                },
                Call::Poll {
                    slots: vec![(B, libc::POLLOUT)],
                    timeout: 900,
                    waits,
                },
                address(true),
                error.clone(),
                error,
                address(false),
            ];
            (setup, vec![client])
        })
        .boxed()
}
