//! `yield`, `spawn` and `priority`: the scheduler without any I/O.

use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::{Builder, JoinHandle, spawn, yield_now};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Tells whether two tasks really alternate: a scheduler that runs the yielding task again at
/// once would look fast.
#[derive(Default)]
struct Turns {
    last: AtomicUsize,
    changes: AtomicU64,
}

impl Turns {
    fn take(&self, task: usize) {
        // Loads and stores, no read-modify-write: with one worker nobody interferes between two
        // yields, and the bookkeeping stays small beside what is measured.
        if self.last.load(Relaxed) != task {
            self.last.store(task, Relaxed);
            self.changes.store(self.changes.load(Relaxed) + 1, Relaxed);
        }
    }
}

/// `yield`: two tasks yield `n` times each.
pub fn take_turns(options: &Options, report: &Report) {
    let count = options.count(1_000_000);
    let turns = Arc::new(Turns::default());
    let shared = turns.clone();
    let elapsed = in_root(move || {
        let start = Instant::now();
        let tasks = [1, 2].map(|task| {
            let turns = shared.clone();
            spawn(move || {
                for _ in 0..count {
                    turns.take(task);
                    yield_now();
                }
            })
        });
        for task in tasks {
            task.join().expect("a yielding task ends");
        }
        start.elapsed()
    });
    let yields = 2 * count;
    report.nanoseconds_each("yield", elapsed, yields);
    let share = turns.changes.load(Relaxed) as f64 / yields as f64;
    report.metric("alternation", share, "fraction");
}

/// `spawn`: `n` trivial tasks, all spawned before the first is joined.
pub fn spawn_and_join(options: &Options, report: &Report) {
    let count = options.count(100_000);
    let (elapsed, sum) = in_root(move || {
        let start = Instant::now();
        let tasks: Vec<_> = (0..count)
            .map(|i| spawn(move || black_box(i).wrapping_add(1)))
            .collect();
        let sum = tasks.into_iter().fold(0_u64, |sum, task| {
            sum.wrapping_add(task.join().expect("a trivial task ends"))
        });
        (start.elapsed(), sum)
    });
    assert_eq!(count * (count + 1) / 2, sum, "every task ran once");
    report.nanoseconds_each("per_task", elapsed, count);
}

/// `priority`: `n` low tasks, then `n` high ones, are queued while the root keeps the only
/// worker busy. Which share of the high ones starts before the last low one, and which among
/// the first `n` of all?
pub fn priorities(options: &Options, report: &Report) {
    const LOW: i64 = 100;
    const HIGH: i64 = -100;
    if options.workers() != 1 {
        return report.skip("the order of starts means something with one worker only");
    }
    let count = options.count(1000);
    let (queued, low, high) = in_root(move || {
        let order = Arc::new(AtomicU64::new(0));
        let queue = |priority| -> Vec<_> {
            (0..count)
                .map(|_| {
                    let order = order.clone();
                    Builder::new()
                        .priority(priority)
                        .spawn(move || order.fetch_add(1, Relaxed))
                        .expect("a task with a priority is accepted")
                })
                .collect()
        };
        let start = Instant::now();
        let (low, high) = (queue(LOW), queue(HIGH));
        let queued = start.elapsed();
        let places = |tasks: Vec<JoinHandle<u64>>| -> Vec<u64> {
            tasks
                .into_iter()
                .map(|task| task.join().expect("a task with a priority ends"))
                .collect()
        };
        (queued, places(low), places(high))
    });
    warn_if_preempted(queued);
    let last_low = low.into_iter().max().unwrap_or(0);
    let share_before = |limit: u64| {
        let before = high.iter().filter(|place| **place < limit).count();
        before as f64 / count as f64
    };
    report.metric("high_before_last_low", share_before(last_low), "fraction");
    report.metric("high_in_first_half", share_before(count), "fraction");
}

/// The root must not have lost the worker while it queued: low tasks would have run early.
fn warn_if_preempted(queued: Duration) {
    let slice = Duration::from_millis(10);
    if queued > slice {
        eprintln!("priority: queueing took {queued:?}, longer than a time slice");
    }
}
