//! `sem_wait(3)` and its kin, `pthread_barrier_wait(3)`.
//!
//! A semaphore has no owner, and neither has a barrier: where other processes
//! may post, and for barriers, a thread of the pool waits in the place of a
//! coroutine. A thread's wait may be ended by `pthread_cancel`, see `conditions`.

use std::ffi::c_int;

use libc::{clockid_t, pthread_barrier_t, sem_t, timespec};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sync::{Limit, foreign};
use open_coroutine_core::sys;

use crate::convert::{divert, offload};
use crate::mutexes::limit;
use crate::properties::SHARED_SEMAPHORE;
use crate::real;

/// Waits on a coroutine; `real` does if processes share the semaphore.
///
/// # Safety
///
/// The contract of `sem_wait(3)`.
unsafe fn wait(
    semaphore: *mut sem_t,
    limit: Option<&Limit>,
    real: impl FnOnce() -> c_int,
) -> c_int {
    let before = sys::errno();
    let attempt = || {
        // SAFETY: the caller's contract.
        let result = unsafe { libc::sem_trywait(semaphore) };
        (result == 0 || sys::errno() != libc::EAGAIN).then_some(result)
    };
    let mut result = attempt();
    if result.is_none() {
        // SAFETY: the caller's contract.
        if unsafe { SHARED_SEMAPHORE.holds(semaphore.cast()) } {
            sys::set_errno(before);
            return offload(Awaits::Others, real);
        }
        result = foreign::wait_until(semaphore.cast(), limit, attempt);
    }
    match result {
        Some(0) => sys::set_errno(before),
        Some(_) => {}
        None => sys::set_errno(libc::ETIMEDOUT),
    }
    result.unwrap_or(-1)
}

/// `sem_wait(3)`
///
/// # Safety
///
/// The contract of `sem_wait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::sem_wait.get()(semaphore) };
    if !divert(Hooks::LOCKS) {
        return real();
    }
    // SAFETY: the caller's contract.
    unsafe { wait(semaphore, None, real) }
}

/// `sem_timedwait(3)`
///
/// # Safety
///
/// The contract of `sem_timedwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_timedwait(
    semaphore: *mut sem_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::sem_timedwait.get()(semaphore, time) };
    if !divert(Hooks::LOCKS) {
        return real();
    }
    // SAFETY: the caller's contract.
    unsafe {
        match limit(libc::CLOCK_REALTIME, time) {
            Some(limit) => wait(semaphore, Some(&limit), real),
            None => real(),
        }
    }
}

/// `sem_clockwait(3)`
///
/// # Safety
///
/// The contract of `sem_clockwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::sem_clockwait.get()(semaphore, clock, time) };
    if !divert(Hooks::LOCKS) {
        return real();
    }
    // SAFETY: the caller's contract.
    unsafe {
        match limit(clock, time) {
            Some(limit) => wait(semaphore, Some(&limit), real),
            None => real(),
        }
    }
}

/// `sem_post(3)`: libc's function, and then a coroutine may wait. It may be
/// called in a signal handler.
///
/// # Safety
///
/// The contract of `sem_post(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::sem_post.get()(semaphore) };
    foreign::changed(semaphore.cast());
    result
}

offloaded! { LOCKS, Others:
    /// `pthread_barrier_wait(3)`
    fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int;
}
