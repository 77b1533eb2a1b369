//! The threads of C11: `mtx_lock(3)`, `cnd_wait(3)`, `thrd_join(3)`,
//! `call_once(3)`, `tss_create(3)`.
//!
//! libc builds them of pthread's, inside, where no hook sees that. Their types
//! are pthread's; only results differ.

use std::ffi::c_int;
use std::ptr;

use libc::{pthread_cond_t, pthread_key_t, pthread_mutex_t, pthread_once_t, pthread_t, timespec};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::sync::{Limit, foreign};
use open_coroutine_core::{sys, tls};

use crate::convert::{divert, offload};
use crate::mutexes::{self, limit};
use crate::{conditions, identity, real, times};

const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const NO_MEMORY: c_int = 3;
const TIMED_OUT: c_int = 4;

/// A result of pthread's as one of C11's.
fn from_pthread(error: c_int) -> c_int {
    match error {
        0 => SUCCESS,
        libc::EBUSY => BUSY,
        libc::ENOMEM => NO_MEMORY,
        libc::ETIMEDOUT => TIMED_OUT,
        _ => ERROR,
    }
}

/// One of C11's as pthread's, for what both kinds pass through.
fn to_pthread(result: c_int) -> c_int {
    match result {
        SUCCESS => 0,
        BUSY => libc::EBUSY,
        NO_MEMORY => libc::ENOMEM,
        TIMED_OUT => libc::ETIMEDOUT,
        _ => libc::EINVAL,
    }
}

shims! { LOCKS:
    /// `mtx_lock(3)`
    fn mtx_lock(mutex: *mut pthread_mutex_t) -> c_int => from_pthread(mutexes::lock(mutex, None));
    /// `mtx_timedlock(3)`
    fn mtx_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int =>
        match limit(libc::CLOCK_REALTIME, until) {
            Some(limit) => from_pthread(mutexes::lock(mutex, Some(&limit))),
            None => real::mtx_timedlock.get()(mutex, until),
        };
}

/// `mtx_unlock(3)`
///
/// # Safety
///
/// The contract of `mtx_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mtx_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::mtx_unlock.get()(mutex) };
    foreign::changed(mutex.cast());
    result
}

/// Waits for `condition`, by `real` on a thread.
///
/// # Safety
///
/// The contract of `cnd_timedwait(3)`.
unsafe fn wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    limit: Option<&Limit>,
    real: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        if divert(Hooks::LOCKS) {
            let real = || to_pthread(real());
            from_pthread(conditions::wait(condition, mutex, limit, real))
        } else {
            conditions::silently(mutex, real)
        }
    }
}

/// `cnd_wait(3)`
///
/// # Safety
///
/// The contract of `cnd_wait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cnd_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::cnd_wait.get()(condition, mutex) };
    // SAFETY: the caller's contract.
    unsafe { wait(condition, mutex, None, real) }
}

/// `cnd_timedwait(3)`
///
/// # Safety
///
/// The contract of `cnd_timedwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cnd_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::cnd_timedwait.get()(condition, mutex, until) };
    // SAFETY: the caller's contract. Without a limit libc refuses the time.
    unsafe {
        match limit(libc::CLOCK_REALTIME, until) {
            Some(limit) => wait(condition, mutex, Some(&limit), real),
            None => real(),
        }
    }
}

/// `cnd_signal(3)`
///
/// # Safety
///
/// The contract of `cnd_signal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cnd_signal(condition: *mut pthread_cond_t) -> c_int {
    if !foreign::signal(condition.cast()) {
        return SUCCESS;
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::cnd_signal.get()(condition) }
}

/// `cnd_broadcast(3)`
///
/// # Safety
///
/// The contract of `cnd_broadcast(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cnd_broadcast(condition: *mut pthread_cond_t) -> c_int {
    foreign::changed_for_all(condition.cast());
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::cnd_broadcast.get()(condition) }
}

/// `thrd_join(3)`: a coroutine cannot be joined by its id.
///
/// # Safety
///
/// The contract of `thrd_join(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn thrd_join(thread: pthread_t, result: *mut c_int) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let real = || unsafe { real::thrd_join.get()(thread, result) };
    // SAFETY: the caller's contract.
    if unsafe { identity::check_thread(thread) }.is_err() {
        return ERROR;
    }
    if divert(Hooks::LOCKS) {
        return offload(Awaits::Others, real);
    }
    real()
}

/// `thrd_exit(3)`: refused like `pthread_exit` on a coroutine.
///
/// # Safety
///
/// The contract of `thrd_exit(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn thrd_exit(result: c_int) -> ! {
    let value = ptr::without_provenance_mut(result as isize as usize);
    // SAFETY: the caller's contract; libc does the same.
    unsafe { identity::pthread_exit(value) }
}

/// `thrd_sleep(3)`
///
/// # Safety
///
/// The contract of `thrd_sleep(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn thrd_sleep(
    period: *const timespec,
    remaining: *mut timespec,
) -> c_int {
    // SAFETY: the caller passes a readable time.
    let valid = unsafe { period.as_ref() }.and_then(sys::to_duration);
    match valid {
        Some(period) if divert(Hooks::SLEEPS) => {
            times::sleep_for(period);
            0
        }
        // SAFETY: the caller's contract, passed on unchanged.
        _ => unsafe { real::thrd_sleep.get()(period, remaining) },
    }
}

/// `thrd_yield(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thrd_yield() {
    if divert(Hooks::SLEEPS) {
        sched::try_yield();
    } else {
        // SAFETY: takes nothing.
        unsafe { real::thrd_yield.get()() };
    }
}

/// `call_once(3)`, see `pthread_once`.
///
/// # Safety
///
/// The contract of `call_once(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn call_once(
    flag: *mut pthread_once_t,
    routine: Option<unsafe extern "C" fn()>,
) {
    // SAFETY: the caller's contract, passed on unchanged.
    sched::without_diversion(|| unsafe { real::call_once.get()(flag, routine) });
}

/// `tss_create(3)`: its destructors run at the end of tasks too.
///
/// # Safety
///
/// The contract of `tss_create(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tss_create(
    key: *mut pthread_key_t,
    destructor: Option<real::Destructor>,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::tss_create.get()(key, destructor) };
    if result == SUCCESS {
        // SAFETY: libc has stored the new key, and will call the destructor
        // with its values, as the caller promised it may.
        unsafe { tls::key_created(*key, destructor) };
    }
    result
}

/// `tss_delete(3)`
///
/// # Safety
///
/// The contract of `tss_delete(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tss_delete(key: pthread_key_t) {
    tls::key_deleted(key);
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::tss_delete.get()(key) };
}
