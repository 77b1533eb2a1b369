//! std's and `parking_lot`'s locks, with what they guard changed in many steps.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::time::Duration;

use open_coroutine::yield_now;

use super::{Round, crew, work};

/// Words that are all the same while nobody changes them.
type Words = [u64; 16];

#[derive(Default)]
pub(super) struct Shared {
    mutex: Mutex<Words>,
    mutexes: AtomicU64,
    rwlock: RwLock<Words>,
    rwlocks: AtomicU64,
    parking_lot: parking_lot::Mutex<Words>,
    parking_lots: AtomicU64,
    parking_lot_words: parking_lot::RwLock<Words>,
}

impl Shared {
    pub(super) fn check(&self) -> Result<(), String> {
        let mutex = self.mutex.lock().map_err(|error| error.to_string())?[0];
        let rwlock = self.rwlock.read().map_err(|error| error.to_string())?[0];
        let parking_lot = self.parking_lot.lock()[0];
        let counts = [mutex, rwlock, parking_lot, self.parking_lot_words.read()[0]];
        let [mutexes, rwlocks, parking_lots] =
            [&self.mutexes, &self.rwlocks, &self.parking_lots].map(|count| count.load(Relaxed));
        if counts == [mutexes, rwlocks, parking_lots, parking_lots] {
            Ok(())
        } else {
            Err(format!(
                "counted {counts:?} under locks instead of {mutexes}, {rwlocks}, {parking_lots}"
            ))
        }
    }
}

/// Adds 1 to each word.
fn change(words: &mut Words) {
    assert_same(words);
    for word in words.iter_mut() {
        *word += 1;
        std::hint::black_box(word);
    }
}

fn assert_same(words: &Words) {
    assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
}

pub(super) fn mutex(round: &mut Round) {
    let shared = &round.world.locks;
    for step in 0..20 {
        let mut words = shared.mutex.lock().expect("nobody panics with it");
        change(&mut words);
        if step == 0 {
            // With the lock held.
            yield_now();
        }
        drop(words);
        shared.mutexes.fetch_add(1, Relaxed);
        if let Ok(words) = shared.mutex.try_lock() {
            assert_same(&words);
            work(1);
        }
    }
    // std's locks are not fair: who only pauses while he holds one keeps it.
    yield_now();
}

pub(super) fn rwlock(round: &mut Round) {
    let shared = &round.world.locks;
    for step in 0..20 {
        let words = shared.rwlock.read().expect("nobody panics with it");
        let before = words[0];
        if step % 8 == 0 {
            yield_now();
        } else {
            work(1);
        }
        assert_same(&words);
        assert_eq!(before, words[0]);
        drop(words);
        if step % 4 == 0 {
            change(&mut shared.rwlock.write().expect("nobody panics with it"));
            shared.rwlocks.fetch_add(1, Relaxed);
        }
    }
    yield_now();
}

pub(super) fn parking_lot(round: &mut Round) {
    let shared = &round.world.locks;
    for step in 0..20 {
        let mut words = shared.parking_lot.lock();
        change(&mut words);
        change(&mut shared.parking_lot_words.write());
        if step % 8 == 0 {
            yield_now();
        }
        shared.parking_lots.fetch_add(1, Relaxed);
        if step % 4 == 0 {
            parking_lot::MutexGuard::unlock_fair(words);
        }
        assert_same(&shared.parking_lot_words.read());
    }
    let pair = Arc::new((parking_lot::Mutex::new(0), parking_lot::Condvar::new()));
    crew(3, move |index| {
        let mut turn = pair.0.lock();
        pair.1.wait_while(&mut turn, |turn| *turn != index);
        *turn += 1;
        pair.1.notify_all();
    });
}

/// A baton that goes around, and a wait that ends by itself.
pub(super) fn condvar(_: &mut Round) {
    const MEMBERS: usize = 3;
    const LAPS: usize = 10;
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let baton = pair.clone();
    crew(MEMBERS, move |index| {
        for lap in 0..LAPS {
            let turn = baton.0.lock().expect("nobody panics with it");
            let own = lap * MEMBERS + index;
            let mut turn = baton
                .1
                .wait_while(turn, |turn| *turn != own)
                .expect("as above");
            *turn += 1;
            work(1);
            drop(turn);
            baton.1.notify_all();
        }
    });
    let turn = pair.0.lock().expect("nobody panics with it");
    let (turn, result) = pair
        .1
        .wait_timeout(turn, Duration::from_micros(300))
        .expect("as above");
    assert_eq!(MEMBERS * LAPS, *turn);
    // It may wake for no reason, but nobody is there to notify.
    let _ = result.timed_out();
}

/// One of several initialises, slowly, and the others wait.
pub(super) fn once(round: &mut Round) {
    struct Cells {
        once: Once,
        cell: OnceLock<u64>,
        lazy: LazyLock<u64>,
        calls: AtomicU64,
    }
    let cells = Arc::new(Cells {
        once: Once::new(),
        cell: OnceLock::new(),
        lazy: LazyLock::new(|| {
            yield_now();
            42
        }),
        calls: AtomicU64::new(0),
    });
    let number = round.number;
    let calls = cells.clone();
    let seen = crew(4, move |index| {
        cells.once.call_once(|| {
            work(2);
            yield_now();
            cells.calls.fetch_add(1, Relaxed);
        });
        assert_eq!(1, cells.calls.load(Relaxed));
        let value = *cells.cell.get_or_init(|| {
            yield_now();
            number * 4 + index as u64
        });
        assert_eq!(42, *cells.lazy);
        value
    });
    assert!(seen.iter().all(|value| *value == seen[0]), "{seen:?}");
    assert_eq!(1, calls.calls.load(Relaxed));
}

pub(super) fn barrier(_: &mut Round) {
    const MEMBERS: usize = 4;
    const LAPS: usize = 5;
    let barrier = Arc::new((Barrier::new(MEMBERS), AtomicU64::new(0)));
    let leads = crew(MEMBERS, move |index| {
        let (barrier, arrived) = &*barrier;
        let mut leads = 0;
        for lap in 1..=LAPS {
            work(index as u64);
            arrived.fetch_add(1, Relaxed);
            leads += usize::from(barrier.wait().is_leader());
            assert_eq!(lap * MEMBERS, arrived.load(Relaxed) as usize);
            barrier.wait();
        }
        leads
    });
    assert_eq!(LAPS, leads.iter().sum::<usize>());
}
