//! crossbeam: channels that wait for several things, stealing, and epochs,
//! which keep a participant per thread.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use crossbeam_channel::{bounded, select, unbounded};
use crossbeam_deque::{Injector, Steal, Worker};
use crossbeam_epoch::{Atomic, Owned};
use open_coroutine::yield_now;

use super::{Round, crew, work};

pub(super) struct Shared {
    numbers: Injector<u64>,
    injected: AtomicU64,
    stolen: AtomicU64,
    current: Atomic<[u64; 8]>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            numbers: Injector::new(),
            injected: AtomicU64::new(0),
            stolen: AtomicU64::new(0),
            current: Atomic::new([0; 8]),
        }
    }
}

impl Shared {
    pub(super) fn check(&self) -> Result<(), String> {
        let mut left = 0;
        while let Steal::Success(number) = self.numbers.steal() {
            left += number;
        }
        let found = self.stolen.load(Relaxed) + left;
        match self.injected.load(Relaxed) {
            injected if injected == found => Ok(()),
            injected => Err(format!("injected {injected}, found {found}")),
        }
    }
}

pub(super) fn channels(_: &mut Round) {
    const MESSAGES: u64 = 40;
    let (numbers, received) = bounded(2);
    let (stops, stopped) = unbounded::<()>();
    let producer = open_coroutine::spawn(move || {
        for number in 0..MESSAGES {
            numbers.send(number).expect("the receiver is there");
        }
        // Both are dropped: the receiver sees the end of one or the other.
        drop(stops);
    });
    let mut next = 0;
    loop {
        select! {
            recv(received) -> number => match number {
                Ok(number) => {
                    assert_eq!(next, number);
                    next += 1;
                }
                Err(_) => break,
            },
            recv(stopped) -> _ => {
                for number in received.iter() {
                    assert_eq!(next, number);
                    next += 1;
                }
                break;
            },
            default(Duration::from_secs(60)) => panic!("nothing in a minute"),
        }
    }
    assert_eq!(MESSAGES, next);
    producer.join().expect("it only sends");
}

pub(super) fn deque(round: &mut Round) {
    let shared = &round.world.crossbeam;
    let local = Worker::new_lifo();
    let stealer = local.stealer();
    let thief = open_coroutine::spawn(move || {
        let mut sum = 0;
        for _ in 0..20 {
            if let Steal::Success(number) = stealer.steal() {
                sum += number;
            }
            yield_now();
        }
        sum
    });
    for number in 1..100 {
        shared.injected.fetch_add(number, Relaxed);
        shared.numbers.push(number);
        if let Steal::Success(number) = shared.numbers.steal_batch_and_pop(&local) {
            shared.stolen.fetch_add(number, Relaxed);
        }
    }
    while let Some(number) = local.pop() {
        shared.stolen.fetch_add(number, Relaxed);
    }
    let stolen = thief.join().expect("it only steals");
    while let Some(number) = local.pop() {
        shared.stolen.fetch_add(number, Relaxed);
    }
    shared.stolen.fetch_add(stolen, Relaxed);
}

/// Replaces a shared value, which is freed when nobody can see it any more.
pub(super) fn epoch(round: &mut Round) {
    let world = round.world.clone();
    let number = round.number;
    crew(2, move |index| {
        let current = &world.crossbeam.current;
        let filled = Owned::new([number + index as u64; 8]);
        let guard = crossbeam_epoch::pin();
        let before = current.load(Acquire, &guard);
        // SAFETY: it is never null, and freed only after this guard.
        let values = unsafe { before.deref() };
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        let old = current.swap(filled, AcqRel, &guard);
        work(3);
        yield_now();
        // SAFETY: as above.
        let values = unsafe { old.deref() };
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        // SAFETY: it is not reachable any more, and this swap alone took it.
        unsafe { guard.defer_destroy(old) };
    });
}
