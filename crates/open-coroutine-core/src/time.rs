//! Sleeping, and what clocks say.

use std::mem;
use std::time::{Duration, Instant};

use crate::sched;
use crate::sys;

/// Suspends the calling coroutine for at least `duration`; on a plain thread
/// it is `std::thread::sleep`.
///
/// A point of cancellation: it unwinds if the calling task was asked to end.
pub fn sleep(duration: Duration) {
    if !sched::on_coroutine() {
        return std::thread::sleep(duration);
    }
    // Without a deadline if that is so far away that it never comes.
    sched::sleep_until(Instant::now().checked_add(duration));
    sched::cancellation_point();
}

/// Lets other coroutines run; on a plain thread it is `std::thread::yield_now`.
///
/// A point of cancellation: it unwinds if the calling task was asked to end.
// See `Scheduled::suspend`: no return is predicted after a switch of stacks.
#[inline(always)]
pub fn yield_now() {
    if !sched::try_yield() {
        return std::thread::yield_now();
    }
    sched::cancellation_point();
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
