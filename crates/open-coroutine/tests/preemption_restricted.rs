//! Preemption where coroutines share their thread's thread-local storage, and stay
//! on their worker. A process has one mode, so the test is one of its own.

mod child;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use open_coroutine::{Config, Mode, capabilities, init, shutdown, spawn};

const ENDED: u64 = u64::MAX;
const NAME: &str = "computations_that_stay_on_their_worker_share_it";

/// Computes until the other one has got on five times meanwhile, or has ended.
fn compute(own: &AtomicU64, other: &AtomicU64) {
    let mut seen = other.load(Relaxed);
    let mut changes = 0;
    while changes < 5 && seen != ENDED {
        own.store(black_box(own.load(Relaxed) + 1), Relaxed);
        let now = other.load(Relaxed);
        changes += u32::from(now != seen);
        seen = now;
    }
    own.store(ENDED, Relaxed);
}

#[test]
fn computations_that_stay_on_their_worker_share_it() {
    if !child::is_child() {
        let mut command = child::command(NAME);
        let output = command.env("OPEN_COROUTINE_MODE", "restricted").output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", output.status);
        return;
    }
    let config = Config::default().event_loop_size(1).preemptive(true);
    // SAFETY: the coroutines here only compute.
    init(unsafe { config.hook_with_shared_tls() }).unwrap();
    assert!(matches!(capabilities().mode, Mode::Restricted(_)));
    assert!(capabilities().preemptive);
    let counters = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let tasks = [0, 1].map(|index| {
        let counters = counters.clone();
        spawn(move || compute(&counters[index], &counters[1 - index]))
    });
    tasks.into_iter().for_each(|task| task.join().unwrap());
    shutdown().unwrap();
}
