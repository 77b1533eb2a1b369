//! `std::sync::Condvar` between coroutines.

mod runtimes;
mod ticker;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use runtimes::on_every_runtime;
use ticker::Ticker;

#[test]
fn notify_one_wakes_a_coroutine_that_waits() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let own = pair.clone();
        let waiter = open_coroutine::spawn(move || {
            let (lock, condition) = &*own;
            let _ready = condition
                .wait_while(lock.lock().unwrap(), |ready| !*ready)
                .unwrap();
        });
        ticker.wait();
        assert!(!waiter.is_finished());
        *pair.0.lock().unwrap() = true;
        pair.1.notify_one();
        waiter.join().unwrap();
    });
}

#[test]
fn notify_all_wakes_every_coroutine_and_thread() {
    on_every_runtime(|| {
        let pair = Arc::new((Mutex::new((0, false)), Condvar::new(), Condvar::new()));
        type Pair = (Mutex<(u32, bool)>, Condvar, Condvar);
        let wait = |pair: Arc<Pair>| {
            let (lock, all, counted) = &*pair;
            let mut state = lock.lock().unwrap();
            state.0 += 1;
            counted.notify_one();
            let _state = all.wait_while(state, |(_, ready)| !*ready).unwrap();
        };
        let own = pair.clone();
        let thread = std::thread::spawn(move || wait(own));
        let waiters: Vec<_> = (0..99)
            .map(|_| {
                let own = pair.clone();
                open_coroutine::spawn(move || wait(own))
            })
            .collect();
        let (lock, all, counted) = &*pair;
        let mut state = counted
            .wait_while(lock.lock().unwrap(), |(count, _)| *count < 100)
            .unwrap();
        state.1 = true;
        drop(state);
        all.notify_all();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_wait_with_a_time_limit_ends_and_has_the_lock_again() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (lock, condition) = (Mutex::new(1), Condvar::new());
        let limit = Duration::from_millis(10);
        let begin = Instant::now();
        let (mut held, result) = condition
            .wait_timeout_while(lock.lock().unwrap(), limit, |_| true)
            .unwrap();
        assert!(result.timed_out() && begin.elapsed() >= limit);
        *held = 2;
        assert!(lock.try_lock().is_err());
        ticker.wait();
    });
}

#[test]
fn a_wait_with_a_time_limit_is_ended_by_a_notification() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let own = pair.clone();
        let waiter = open_coroutine::spawn(move || {
            let (lock, condition) = &*own;
            let limit = Duration::from_secs(3600);
            let held = lock.lock().unwrap();
            condition
                .wait_timeout_while(held, limit, |ready| !*ready)
                .unwrap()
                .1
                .timed_out()
        });
        ticker.wait();
        *pair.0.lock().unwrap() = true;
        pair.1.notify_one();
        assert!(!waiter.join().unwrap());
    });
}

#[test]
fn a_bounded_queue_loses_and_repeats_nothing() {
    on_every_runtime(|| {
        struct Queue {
            items: Mutex<VecDeque<u32>>,
            not_full: Condvar,
            not_empty: Condvar,
        }
        let queue = Arc::new(Queue {
            items: Mutex::new(VecDeque::new()),
            not_full: Condvar::new(),
            not_empty: Condvar::new(),
        });
        let producers: Vec<_> = (0..8)
            .map(|_| {
                let queue = queue.clone();
                open_coroutine::spawn(move || {
                    for number in 0..200 {
                        let items = queue.items.lock().unwrap();
                        let mut items = queue
                            .not_full
                            .wait_while(items, |items| items.len() >= 2)
                            .unwrap();
                        items.push_back(number);
                        queue.not_empty.notify_one();
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (0..8)
            .map(|_| {
                let queue = queue.clone();
                open_coroutine::spawn(move || {
                    let take = |_| {
                        let items = queue.items.lock().unwrap();
                        let mut items = queue
                            .not_empty
                            .wait_while(items, |items| items.is_empty())
                            .unwrap();
                        queue.not_full.notify_one();
                        items.pop_front().unwrap()
                    };
                    (0..200).map(take).sum::<u32>()
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        let sum: u32 = consumers
            .into_iter()
            .map(|consumer| consumer.join().unwrap())
            .sum();
        assert_eq!(8 * 19_900, sum);
    });
}
