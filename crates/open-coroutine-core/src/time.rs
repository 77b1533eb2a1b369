//! Sleeping, and what clocks say.

use std::mem;
use std::time::{Duration, Instant};

use crate::sched;
use crate::sys;

/// Suspends the calling coroutine for at least `duration`; on a plain thread
/// it is `std::thread::sleep`.
pub fn sleep(duration: Duration) {
    // So far away that it never comes.
    const FOREVER: Duration = Duration::from_secs(1 << 33);
    if !sched::on_coroutine() {
        return std::thread::sleep(duration);
    }
    let deadline = Instant::now() + duration.min(FOREVER);
    sched::try_sleep_until(deadline);
}

/// Lets other coroutines run; on a plain thread it is `std::thread::yield_now`.
pub fn yield_now() {
    if !sched::try_yield() {
        std::thread::yield_now();
    }
}

/// The time of `clock`.
pub fn now(clock: libc::clockid_t) -> Duration {
    // SAFETY: all-zero bytes are a valid time, and `now` lives across the call.
    let now = unsafe {
        let mut now: libc::timespec = mem::zeroed();
        libc::clock_gettime(clock, &raw mut now);
        now
    };
    sys::to_duration(&now).unwrap_or_default()
}
