//! `nanosleep(2)`, `clock_nanosleep(2)`, `sleep(3)`, `usleep(3)`.

use std::ffi::{c_int, c_uint};
use std::time::{Duration, Instant};

use libc::{clockid_t, timespec};
use open_coroutine_core::sched::{self, Hooks, Wake};
use open_coroutine_core::sys;
use open_coroutine_core::time::now;

use crate::convert::{divert, to_int};
use crate::real;

/// Returns false if the task was asked to end before the time was over.
pub(crate) fn sleep_for(duration: Duration) -> bool {
    // Without a deadline if that is so far away that it never comes.
    sched::sleep_until(Instant::now().checked_add(duration)) != Some(Wake::Notified)
}

/// `nanosleep(2)`
///
/// # Safety
///
/// The contract of `nanosleep(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nanosleep(request: *const timespec, remaining: *mut timespec) -> c_int {
    // A pointer that cannot be read is the kernel's to report.
    if !divert(Hooks::SLEEPS) || request.is_null() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::nanosleep.get()(request, remaining) };
    }
    // SAFETY: the caller passes a readable time.
    let Some(time) = sys::to_duration(unsafe { &*request }) else {
        return to_int(-(libc::EINVAL as isize));
    };
    sleep_for(time);
    0
}

/// `clock_nanosleep(2)`: for the clocks that go by themselves; a process's or a
/// thread's own clock blocks the thread.
///
/// # Safety
///
/// The contract of `clock_nanosleep(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    remaining: *mut timespec,
) -> c_int {
    let is_known = matches!(
        clock,
        libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME | libc::CLOCK_TAI
    );
    if !divert(Hooks::SLEEPS) || !is_known || request.is_null() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::clock_nanosleep.get()(clock, flags, request, remaining) };
    }
    // SAFETY: the caller passes a readable time.
    let Some(time) = sys::to_duration(unsafe { &*request }) else {
        return libc::EINVAL;
    };
    if flags & libc::TIMER_ABSTIME == 0 {
        sleep_for(time);
        return 0;
    }
    // The clock may be set while we sleep, so look again when it is over.
    loop {
        let left = time.saturating_sub(now(clock));
        if left.is_zero() || !sleep_for(left) {
            return 0;
        }
    }
}

/// `usleep(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn usleep(microseconds: c_uint) -> c_int {
    if !divert(Hooks::SLEEPS) {
        // SAFETY: takes an integer.
        return unsafe { real::usleep.get()(microseconds) };
    }
    sleep_for(Duration::from_micros(microseconds.into()));
    0
}

/// `sleep(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sleep(seconds: c_uint) -> c_uint {
    if !divert(Hooks::SLEEPS) {
        // SAFETY: takes an integer.
        return unsafe { real::sleep.get()(seconds) };
    }
    sleep_for(Duration::from_secs(seconds.into()));
    0
}
