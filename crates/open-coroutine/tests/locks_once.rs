//! `RwLock`, `Barrier`, `Once`, `OnceLock` and `LazyLock` between coroutines.

mod runtimes;
mod ticker;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, LazyLock, Once, OnceLock, RwLock};
use std::thread;
use std::time::Duration;

use runtimes::on_every_runtime;
use ticker::Ticker;

#[test]
fn readers_share_and_a_writer_waits_for_them() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let lock = Arc::new(RwLock::new(0));
        let first = lock.read().unwrap();
        let own = lock.clone();
        let second = open_coroutine::spawn(move || *own.read().unwrap());
        assert_eq!(0, second.join().unwrap());
        let own = lock.clone();
        let writer = open_coroutine::spawn(move || *own.write().unwrap() = 7);
        ticker.wait();
        assert!(!writer.is_finished());
        drop(first);
        writer.join().unwrap();
        assert_eq!(7, *lock.read().unwrap());
    });
}

#[test]
fn readers_wait_for_a_writer_that_sleeps() {
    on_every_runtime(|| {
        let lock = Arc::new(RwLock::new(0u32));
        let tasks: Vec<_> = (0..60)
            .map(|number| {
                let lock = lock.clone();
                open_coroutine::spawn(move || {
                    if number % 3 == 0 {
                        let mut value = lock.write().unwrap();
                        *value += 1;
                        thread::sleep(Duration::from_micros(50));
                        *value += 1;
                    } else {
                        let value = lock.read().unwrap();
                        let before = *value;
                        thread::yield_now();
                        assert!(before.is_multiple_of(2) && before == *value);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(40, *lock.read().unwrap());
    });
}

#[test]
fn a_barrier_lets_all_go_when_the_last_has_come() {
    on_every_runtime(|| {
        let barrier = Arc::new(Barrier::new(21));
        let before = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (barrier, before) = (barrier.clone(), before.clone());
                open_coroutine::spawn(move || {
                    let mut led = 0;
                    for round in 1..=10 {
                        before.fetch_add(1, SeqCst);
                        led += u32::from(barrier.wait().is_leader());
                        assert!(before.load(SeqCst) >= round * 20);
                    }
                    led
                })
            })
            .collect();
        let own = barrier.clone();
        let thread = thread::spawn(move || (0..10).filter(|_| own.wait().is_leader()).count());
        let led: u32 = tasks.into_iter().map(|task| task.join().unwrap()).sum();
        assert_eq!(10, led + thread.join().unwrap() as u32);
    });
}

#[test]
fn an_initialiser_that_sleeps_runs_once() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let state = Arc::new((Once::new(), OnceLock::new(), AtomicU32::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let state = state.clone();
                open_coroutine::spawn(move || {
                    let (once, cell, runs) = &*state;
                    once.call_once(|| {
                        thread::sleep(Duration::from_millis(2));
                        runs.fetch_add(1, SeqCst);
                    });
                    assert_eq!(1, runs.load(SeqCst) & 1);
                    *cell.get_or_init(|| {
                        thread::sleep(Duration::from_millis(2));
                        runs.fetch_add(2, SeqCst)
                    })
                })
            })
            .collect();
        ticker.wait();
        for task in tasks {
            assert_eq!(1, task.join().unwrap());
        }
        assert_eq!(3, state.2.load(SeqCst));
    });
}

#[test]
fn a_lazy_value_is_made_once_by_whoever_comes_first() {
    on_every_runtime(|| {
        static MADE: AtomicU32 = AtomicU32::new(0);
        fn make() -> u32 {
            thread::sleep(Duration::from_millis(2));
            MADE.fetch_add(1, SeqCst)
        }
        let lazy = Arc::new(LazyLock::new(make as fn() -> u32));
        let before = MADE.load(SeqCst);
        let own = lazy.clone();
        let thread = thread::spawn(move || **own);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let lazy = lazy.clone();
                open_coroutine::spawn(move || **lazy)
            })
            .collect();
        for task in tasks {
            assert_eq!(before, task.join().unwrap());
        }
        assert_eq!(before, thread.join().unwrap());
        assert_eq!(before + 1, MADE.load(SeqCst));
    });
}
