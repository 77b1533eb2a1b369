//! `std::sync::Mutex` held by a coroutine that is suspended.

mod runtimes;
mod ticker;

use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::Duration;

use runtimes::on_every_runtime;
use ticker::Ticker;

#[test]
fn fifty_coroutines_wait_for_one_that_sleeps_with_the_lock() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let count = Arc::new(Mutex::new(0));
        let held = count.lock().unwrap();
        let waiters: Vec<_> = (0..50)
            .map(|_| {
                let count = count.clone();
                open_coroutine::spawn(move || {
                    let mut held = count.lock().unwrap();
                    let before = *held;
                    thread::sleep(Duration::from_micros(100));
                    *held = before + 1;
                })
            })
            .collect();
        ticker.wait();
        assert!(!waiters.iter().any(|waiter| waiter.is_finished()));
        drop(held);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!(50, *count.lock().unwrap());
    });
}

#[test]
fn a_lock_held_by_another_coroutine_is_refused_at_once() {
    on_every_runtime(|| {
        let lock = Arc::new(Mutex::new(()));
        let held = lock.lock().unwrap();
        let other = lock.clone();
        let task = open_coroutine::spawn(move || {
            matches!(other.try_lock(), Err(TryLockError::WouldBlock))
        });
        assert!(task.join().unwrap());
        drop(held);
    });
}

#[test]
fn a_panic_poisons_the_lock_for_the_other_coroutines() {
    on_every_runtime(|| {
        let lock = Arc::new(Mutex::new(1));
        let (own, waiting) = (lock.clone(), lock.clone());
        let ticker = Ticker::start();
        let held = lock.lock().unwrap();
        let panics = open_coroutine::spawn(move || {
            let _held = own.lock().unwrap_or_else(|error| error.into_inner());
            thread::sleep(Duration::from_millis(1));
            panic!("as planned");
        });
        ticker.wait();
        let waits = open_coroutine::spawn(move || waiting.lock().is_err());
        ticker.wait();
        drop(held);
        assert!(panics.join().unwrap_err().is_panic());
        // The two may have had the lock in either order.
        waits.join().unwrap();
        assert!(lock.is_poisoned());
        assert!(lock.lock().is_err());
    });
}

#[test]
fn coroutines_and_threads_exclude_each_other() {
    on_every_runtime(|| {
        const TURNS: u32 = 200;
        let count = Arc::new(Mutex::new(0));
        let work = |count: Arc<Mutex<u32>>| {
            for turn in 0..TURNS {
                let mut held = count.lock().unwrap();
                let before = *held;
                if turn % 16 == 0 {
                    thread::yield_now();
                }
                *held = before + 1;
            }
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let count = count.clone();
                thread::spawn(move || work(count))
            })
            .collect();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let count = count.clone();
                open_coroutine::spawn(move || work(count))
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(22 * TURNS, *count.lock().unwrap());
    });
}
