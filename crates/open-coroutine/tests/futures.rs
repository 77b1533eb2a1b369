//! `block_on`: futures on coroutines and on threads.

mod runtimes;
mod ticker;

use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use open_coroutine::{block_on, current, sleep, spawn, yield_now};
use runtimes::on_every_runtime;
use ticker::Ticker;

/// A value that comes later.
#[derive(Clone, Default)]
struct Promise(Arc<Mutex<(Option<u64>, Option<Waker>)>>);

impl Promise {
    fn keep(&self, value: u64) {
        let mut state = self.0.lock().unwrap();
        state.0 = Some(value);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Promise {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let mut state = self.0.lock().unwrap();
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[test]
fn what_is_ready_needs_no_runtime() {
    assert_eq!(7, block_on(ready(7)));
    assert_eq!(
        9,
        block_on(async { block_on(async { 4 }) + ready(5).await })
    );
}

#[test]
fn threads_and_coroutines_wake_each_other() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        for from_thread in [false, true] {
            for to_thread in [false, true] {
                let promise = Promise::default();
                let kept = promise.clone();
                let keep = move || {
                    thread::sleep(Duration::from_millis(1));
                    kept.keep(7);
                };
                let (sender, receiver) = mpsc::channel();
                let wait = move || sender.send(block_on(promise)).unwrap();
                if from_thread {
                    drop(thread::spawn(keep));
                } else {
                    drop(spawn(keep));
                }
                if to_thread {
                    thread::spawn(wait).join().unwrap();
                } else {
                    spawn(wait).join().unwrap();
                }
                assert_eq!(7, receiver.recv().unwrap());
            }
        }
        ticker.wait();
    });
}

#[test]
fn a_future_is_polled_once_per_wake() {
    on_every_runtime(|| {
        let polls = Arc::new(AtomicUsize::new(0));
        let promise = Promise::default();
        let (counted, kept) = (polls.clone(), promise.clone());
        let task = spawn(move || {
            let mut promise = promise;
            block_on(poll_fn(move |context| {
                counted.fetch_add(1, SeqCst);
                Pin::new(&mut promise).poll(context)
            }))
        });
        Ticker::start().wait();
        kept.keep(3);
        assert_eq!(3, task.join().unwrap());
        assert!(polls.load(SeqCst) <= 2);
    });
}

#[test]
fn a_future_that_wakes_itself_lets_others_run() {
    on_every_runtime(|| {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let busy = spawn(move || {
            block_on(poll_fn(|context| {
                if over.load(SeqCst) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }));
        });
        for _ in 0..10 {
            yield_now();
        }
        is_over.store(true, SeqCst);
        busy.join().unwrap();
    });
}

#[test]
fn tasks_are_awaited_on_coroutines() {
    on_every_runtime(|| {
        let sum = block_on(async {
            let tasks = (0..100u64).map(|n| {
                spawn(move || {
                    yield_now();
                    n
                })
            });
            let mut sum = 0;
            for task in tasks.collect::<Vec<_>>() {
                sum += task.await.unwrap();
            }
            sum
        });
        assert_eq!(4950, sum);
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn cancellation_drops_the_future() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    on_every_runtime(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        for pause in 0..3 {
            let held = Dropped(drops.clone());
            let (begins, began) = mpsc::channel();
            let task = spawn(move || {
                begins.send(()).unwrap();
                block_on(async {
                    let _held = held;
                    pending::<()>().await;
                });
            });
            began.recv().unwrap();
            sleep(Duration::from_millis(pause));
            assert!(task.cancel());
            assert!(task.join().unwrap_err().is_cancelled());
        }
        assert_eq!(3, drops.load(SeqCst));
        assert_eq!(5, block_on(spawn(|| 5).cancel_on_drop()).unwrap());
        // One that is ready is no point.
        let task = spawn(|| {
            current().unwrap().cancel();
            block_on(ready(7))
        });
        assert_eq!(7, task.join().unwrap());
    });
}

#[test]
fn no_wake_is_lost() {
    on_every_runtime(|| {
        for round in 0..50u64 {
            let promises: Vec<_> = (0..8).map(|_| Promise::default()).collect();
            let waiters: Vec<_> = promises
                .iter()
                .cloned()
                .map(|promise| spawn(move || block_on(promise)))
                .collect();
            let mut threads = Vec::new();
            for (value, promise) in (0..).zip(promises) {
                for _ in 0..(round + value) % 4 {
                    yield_now();
                }
                match round * (value + 1) % 7 % 3 {
                    0 => drop(spawn(move || promise.keep(value))),
                    1 => threads.push(thread::spawn(move || promise.keep(value))),
                    _ => promise.keep(value),
                }
            }
            for (value, waiter) in (0..).zip(waiters) {
                assert_eq!(value, waiter.join().unwrap());
            }
            for thread in threads {
                thread.join().unwrap();
            }
        }
    });
}
