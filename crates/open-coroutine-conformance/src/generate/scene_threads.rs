//! Scenes of locks, conditions and channels.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::values::{masked_waits, patience, pause, sleeps};
use crate::script::{Call, Guard, Meanwhile, Patience, Round};

type Parts = (Vec<Call>, Vec<Vec<Call>>);

pub(super) fn scene() -> BoxedStrategy<Vec<Round>> {
    let raising = (0..3_u8, sleeps()).prop_map(|(by, sleep)| {
        let sleep = Call::Sleep {
            by: sleep,
            milliseconds: 2,
        };
        (
            vec![Call::Raise { by }],
            vec![vec![sleep.clone()], vec![Call::Yield, sleep]],
        )
    });
    prop_oneof![
        3 => locked(),
        2 => begun_by_any(tickets()),
        2 => written_and_read(),
        2 => begun_by_any(interrupted()),
        2 => begun_by_any(pending()),
        1 => begun_by_any(condition()),
        1 => begun_by_any(channel()),
        1 => begun_by_any(raising),
    ]
    .boxed()
}

fn guards() -> BoxedStrategy<Guard> {
    select(
        &[
            Guard::Mutex,
            Guard::RwLock,
            Guard::PthreadMutex,
            Guard::PthreadRwLock,
            Guard::Semaphore,
        ][..],
    )
    .boxed()
}

/// Nothing is lost of what several add under a lock.
fn locked() -> BoxedStrategy<Vec<Round>> {
    let parts = (guards(), 1..20_u8, 1..20_u8).prop_map(|(guard, first, second)| {
        let add = |times| vec![Call::Add { guard, times }];
        (vec![Call::Counter], vec![add(first), add(second)])
    });
    begun_by_any(parts)
        .prop_map(|mut rounds| {
            rounds.push(Round::Solo {
                actor: 0,
                call: Call::Counter,
            });
            rounds
        })
        .boxed()
}

/// Each ticket that is given, one by one or several at once, is taken.
fn tickets() -> BoxedStrategy<Parts> {
    let by = prop_oneof![Just(Patience::Endless), patience()];
    (vec(1..4_u8, 1..4), by, pause())
        .prop_map(|(given, by, pause)| {
            let taken = given.iter().map(|tickets| usize::from(*tickets)).sum();
            let mut giver = Vec::new();
            for tickets in given {
                giver.extend(pause.iter().cloned());
                giver.push(Call::Signal { tickets });
            }
            let wait = Call::WaitTicket { by };
            // Gives as many as it takes, if there are actors enough.
            let other = vec![Call::Signal { tickets: 1 }, wait.clone()];
            (Vec::new(), vec![vec![wait; taken], giver, other])
        })
        .boxed()
}

/// Readers see what is written together, and never a part of it.
fn written_and_read() -> BoxedStrategy<Vec<Round>> {
    let times = || (1..12_u8, any::<bool>());
    let parts = (times(), times(), times()).prop_map(|(first, second, third)| {
        let write = |(times, is_timed)| Call::WriteBoth { times, is_timed };
        let read = |(times, is_timed)| Call::ReadBoth { times, is_timed };
        let parts = vec![
            vec![write(first), read(second)],
            vec![read(first), write(third)],
            vec![read(third)],
        ];
        (Vec::new(), parts)
    });
    begun_by_any(parts)
}

/// A signal that comes by the mask of a wait ends it.
fn interrupted() -> BoxedStrategy<Parts> {
    (masked_waits(), pause(), 0..2_u8)
        .prop_map(|(waits, pause, by)| {
            let mut waiter = vec![
                Call::Mask {
                    blocks: true,
                    by_number: false,
                },
                Call::Raise { by },
            ];
            waiter.extend(pause);
            waiter.push(Call::MaskedPoll {
                slots: Vec::new(),
                timeout: -1,
                waits,
                meanwhile: Meanwhile::Unblocked,
            });
            waiter.push(Call::Mask {
                blocks: false,
                by_number: false,
            });
            (Vec::new(), vec![waiter, vec![Call::Yield]])
        })
        .boxed()
}

/// A blocked signal that came stays with who it came to.
fn pending() -> BoxedStrategy<Parts> {
    let signals = select(&[0, 1, 3][..]);
    (signals, pause(), any::<bool>(), any::<bool>())
        .prop_map(|(by, pause, is_taken, by_number)| {
            let mask = |blocks| Call::Mask { blocks, by_number };
            let mut blocker = vec![mask(true), Call::Raise { by }];
            blocker.extend(pause.iter().cloned());
            blocker.push(Call::PendingSignals);
            if is_taken {
                blocker.push(Call::WaitSignal {
                    limit: Some(1),
                    by_number,
                });
            }
            blocker.push(mask(false));
            let mut other = vec![Call::Yield, Call::PendingSignals];
            other.extend(pause);
            other.push(Call::PendingSignals);
            (Vec::new(), vec![blocker, other])
        })
        .boxed()
}

fn condition() -> BoxedStrategy<Parts> {
    (1..4_usize, pause())
        .prop_map(|(times, pause)| {
            let mut notifier = Vec::new();
            for _ in 0..times {
                notifier.extend(pause.iter().cloned());
                notifier.push(Call::Notify);
            }
            (Vec::new(), vec![vec![Call::WaitNotified; times], notifier])
        })
        .boxed()
}

fn channel() -> BoxedStrategy<Parts> {
    (1..40_u8, pause())
        .prop_map(|(values, pause)| {
            let mut sender = pause;
            sender.push(Call::ChannelSend { values });
            (
                Vec::new(),
                vec![vec![Call::ChannelReceive { values }], sender],
            )
        })
        .boxed()
}
