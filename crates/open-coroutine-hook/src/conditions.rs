//! `pthread_cond_wait(3)` and its kin.
//!
//! A thread's wait unlocks the mutex inside of libc, where no hook sees it, so
//! it is announced to the coroutines that wait for the mutex. It may be ended by
//! `pthread_cancel`, which unwinds through the functions here: where they call
//! libc's they own nothing that must be dropped.

use std::ffi::c_int;

use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, timespec};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sync::Limit;
use open_coroutine_core::sync::foreign::{self, Signal};

use crate::convert::{divert, offload};
use crate::mutexes::{self, as_foreign, limit};
use crate::properties::{CHECKING_MUTEX, MONOTONIC_CONDITION, RECURSIVE_MUTEX, SHARED_CONDITION};
use crate::real;

/// Runs `wait`, which unlocks `mutex` for a while where no hook sees it.
///
/// # Safety
///
/// It is an initialised mutex that the caller holds.
pub(crate) unsafe fn silently(mutex: *mut pthread_mutex_t, wait: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller's promise.
    let foreign = unsafe { as_foreign(mutex) };
    foreign.begins_silence();
    let result = wait();
    foreign.ends_silence();
    result
}

/// Waits for `condition` on a coroutine. `real` waits for one that processes
/// share, which is signalled in the kernel.
///
/// # Safety
///
/// The contract of `pthread_cond_wait(3)`.
pub(crate) unsafe fn wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    limit: Option<&Limit>,
    real: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        if SHARED_CONDITION.holds(condition.cast()) {
            return wait_on_other_thread(mutex, real);
        }
        let unlock = || mutexes::pthread_mutex_unlock(mutex);
        let signal = foreign::wait_for_signal(condition.cast(), limit, unlock);
        if let Signal::Refused(error) = signal {
            return error;
        }
        match mutexes::lock(mutex, None) {
            0 if signal == Signal::TimedOut => libc::ETIMEDOUT,
            result => result,
        }
    }
}

/// A thread of the pool unlocks and locks the mutex for the calling coroutine,
/// so it must be of a type that does not look at its owner.
///
/// # Safety
///
/// `mutex` is an initialised mutex that the caller holds.
unsafe fn wait_on_other_thread(mutex: *mut pthread_mutex_t, real: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if RECURSIVE_MUTEX.holds(mutex.cast()) != CHECKING_MUTEX.holds(mutex.cast()) {
            return libc::ENOTSUP;
        }
        silently(mutex, || offload(Awaits::Others, real))
    }
}

/// `pthread_cond_wait(3)`
///
/// # Safety
///
/// The contract of `pthread_cond_wait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_cond_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::pthread_cond_wait.get()(condition, mutex) };
    // SAFETY: the caller's contract.
    unsafe {
        if divert(Hooks::LOCKS) {
            wait(condition, mutex, None, real)
        } else {
            silently(mutex, real)
        }
    }
}

/// `pthread_cond_timedwait(3)`
///
/// # Safety
///
/// The contract of `pthread_cond_timedwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::pthread_cond_timedwait.get()(condition, mutex, time) };
    // SAFETY: the caller's contract.
    unsafe {
        if !divert(Hooks::LOCKS) {
            return silently(mutex, real);
        }
        let is_monotonic = MONOTONIC_CONDITION.holds(condition.cast());
        let clock = if is_monotonic {
            libc::CLOCK_MONOTONIC
        } else {
            libc::CLOCK_REALTIME
        };
        match limit(clock, time) {
            Some(limit) => wait(condition, mutex, Some(&limit), real),
            None => real(),
        }
    }
}

/// `pthread_cond_clockwait(3)`
///
/// # Safety
///
/// The contract of `pthread_cond_clockwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_cond_clockwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::pthread_cond_clockwait.get()(condition, mutex, clock, time) };
    // SAFETY: the caller's contract.
    unsafe {
        if !divert(Hooks::LOCKS) {
            return silently(mutex, real);
        }
        match limit(clock, time) {
            Some(limit) => wait(condition, mutex, Some(&limit), real),
            None => real(),
        }
    }
}

/// `pthread_cond_signal(3)`: of coroutines and threads that wait, one of a kind.
///
/// # Safety
///
/// The contract of `pthread_cond_signal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int {
    if !foreign::signal(condition.cast()) {
        return 0;
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::pthread_cond_signal.get()(condition) }
}

/// `pthread_cond_broadcast(3)`
///
/// # Safety
///
/// The contract of `pthread_cond_broadcast(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int {
    foreign::changed_for_all(condition.cast());
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::pthread_cond_broadcast.get()(condition) }
}
