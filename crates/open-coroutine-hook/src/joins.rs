//! `pthread_timedjoin_np(3)` and its kin.
//!
//! As with `pthread_join`: a thread of the pool waits, and a coroutine cannot be
//! joined by its id.

use std::ffi::{c_int, c_void};

use libc::{clockid_t, pthread_t, timespec};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::Hooks;

use crate::convert::{divert, offload};
use crate::{identity, real};

/// Joins `thread` by `real`, where that does not block a worker.
///
/// # Safety
///
/// The contract of `pthread_join(3)`.
pub(crate) unsafe fn join(thread: pthread_t, real: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller's contract.
    if let Err(error) = unsafe { identity::check_thread(thread) } {
        return error;
    }
    if divert(Hooks::LOCKS) {
        return offload(Awaits::Others, real);
    }
    real()
}

/// `pthread_timedjoin_np(3)`
///
/// # Safety
///
/// The contract of `pthread_timedjoin_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_timedjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::pthread_timedjoin_np.get()(thread, value, time) };
    // SAFETY: the caller's contract.
    unsafe { join(thread, real) }
}

/// `pthread_clockjoin_np(3)`
///
/// # Safety
///
/// The contract of `pthread_clockjoin_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_clockjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::pthread_clockjoin_np.get()(thread, value, clock, time) };
    // SAFETY: the caller's contract.
    unsafe { join(thread, real) }
}

/// `pthread_tryjoin_np(3)`: it does not wait.
///
/// # Safety
///
/// The contract of `pthread_tryjoin_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_tryjoin_np(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe {
        match identity::check_thread(thread) {
            Ok(()) => real::pthread_tryjoin_np.get()(thread, value),
            Err(error) => error,
        }
    }
}
