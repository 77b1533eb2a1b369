//! `std::thread::park` and `unpark` of coroutines.

mod runtimes;
mod ticker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use open_coroutine::JoinHandle;
use runtimes::on_every_runtime;
use ticker::Ticker;

/// A coroutine that parks until it is told to go, and its thread handle.
fn parked(go: Arc<AtomicBool>) -> (JoinHandle<()>, Thread) {
    let (sender, receiver) = mpsc::channel();
    let task = open_coroutine::spawn(move || {
        sender.send(thread::current()).unwrap();
        while !go.load(SeqCst) {
            thread::park();
        }
    });
    (task, receiver.recv().unwrap())
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn two_parked_coroutines_are_unparked_in_either_order() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        for order in [[0, 1], [1, 0]] {
            let go = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let both = go.clone().map(|go| Some(parked(go)));
            let mut both = both;
            ticker.wait();
            for index in order {
                let (task, thread) = both[index].take().unwrap();
                assert!(!task.is_finished());
                go[index].store(true, SeqCst);
                thread.unpark();
                task.join().unwrap();
            }
        }
    });
}

#[test]
fn an_unpark_before_the_park_is_kept() {
    on_every_runtime(|| {
        let task = open_coroutine::spawn(|| {
            thread::current().unpark();
            let _ = thread::current().name();
            thread::yield_now();
            thread::park();
        });
        task.join().unwrap();
    });
}

#[test]
fn a_park_with_a_time_limit_ends() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (limit, begin) = (Duration::from_millis(5), Instant::now());
        while begin.elapsed() < limit {
            thread::park_timeout(limit);
        }
        ticker.wait();
    });
}

#[test]
fn coroutines_and_threads_unpark_each_other() {
    on_every_runtime(|| {
        let turn = Arc::new(AtomicU32::new(0));
        let player = |turn: Arc<AtomicU32>, own: u32, other: mpsc::Receiver<Thread>| {
            let other = other.recv().unwrap();
            for round in 0..100 {
                while turn.load(SeqCst) != 2 * round + own {
                    thread::park();
                }
                turn.store(2 * round + own + 1, SeqCst);
                other.unpark();
            }
        };
        let ((to_thread, for_thread), (to_task, for_task)) = (mpsc::channel(), mpsc::channel());
        let (first, second) = (turn.clone(), turn.clone());
        let thread = thread::spawn(move || player(first, 0, for_thread));
        to_task.send(thread.thread().clone()).unwrap();
        let task = open_coroutine::spawn(move || {
            to_thread.send(thread::current()).unwrap();
            player(second, 1, for_task);
        });
        task.join().unwrap();
        thread.join().unwrap();
        assert_eq!(200, turn.load(SeqCst));
    });
}
