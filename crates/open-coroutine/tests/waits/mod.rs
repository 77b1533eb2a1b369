//! Checks that a wait suspends its coroutine and leaves the worker to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Ticks that must happen while the others wait.
const TICKS: u32 = 10;

/// Runs `wait` as a coroutine, and beside it a ticker. When the ticker has
/// ticked often enough, `release` must end the wait. If the wait blocks the
/// only worker, nothing ever does.
pub(crate) fn ticks_during(wait: impl FnOnce() + Send + 'static, release: impl FnOnce()) {
    let began = Arc::new(AtomicBool::new(false));
    let begins = began.clone();
    let waiter = open_coroutine::spawn(move || {
        begins.store(true, Relaxed);
        wait();
    });
    let ticker = open_coroutine::spawn(move || {
        let mut ticks = 0;
        while ticks < TICKS {
            open_coroutine::sleep(Duration::from_millis(1));
            ticks += u32::from(began.load(Relaxed));
        }
    });
    ticker.join().unwrap();
    assert!(!waiter.is_finished(), "it did not wait");
    release();
    waiter.join().unwrap();
}
