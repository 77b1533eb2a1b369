//! Scenes of locks, conditions and channels.

use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::values::{pause, sleeps};
use crate::script::{Call, Guard, Round};

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
