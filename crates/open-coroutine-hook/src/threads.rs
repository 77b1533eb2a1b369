//! `sched_yield(2)`, `pthread_join(3)`, `pthread_once(3)`, thread-local
//! keys, `dl_iterate_phdr(3)`.

use std::ffi::{c_int, c_void};

use libc::{dl_phdr_info, pthread_key_t, pthread_once_t, pthread_t, size_t};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::tls;

use crate::convert::{divert, offload, to_int};
use crate::{identity, real};

/// `sched_yield(2)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_yield() -> c_int {
    if !divert(Hooks::SLEEPS) {
        // SAFETY: takes nothing.
        return unsafe { real::sched_yield.get()() };
    }
    sched::try_yield();
    0
}

/// `pthread_join(3)`: a thread of the pool waits for the other thread. A
/// coroutine cannot be joined by its id; libc would wait for ever.
///
/// # Safety
///
/// The contract of `pthread_join(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's contract.
    if let Err(error) = unsafe { identity::check_thread(thread) } {
        return error;
    }
    if !divert(Hooks::LOCKS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pthread_join.get()(thread, value) };
    }
    // SAFETY: the caller's contract.
    offload(Awaits::Others, move || unsafe {
        real::pthread_join.get()(thread, value)
    })
}

/// `pthread_once(3)`: others that come meanwhile block their thread, so the
/// routine must not be suspended: hooked functions pass through in it.
///
/// # Safety
///
/// The contract of `pthread_once(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_once(
    control: *mut pthread_once_t,
    routine: Option<unsafe extern "C" fn()>,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    sched::without_diversion(|| unsafe { real::pthread_once.get()(control, routine) })
}

/// `dl_iterate_phdr(3)`: libc holds a lock of its own around the callbacks.
///
/// # Safety
///
/// The contract of `dl_iterate_phdr(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dl_iterate_phdr(
    callback: Option<unsafe extern "C" fn(*mut dl_phdr_info, size_t, *mut c_void) -> c_int>,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    sched::without_diversion(|| unsafe { real::dl_iterate_phdr.get()(callback, data) })
}

/// `pthread_key_create(3)`: its destructors run at the end of tasks too.
///
/// # Safety
///
/// The contract of `pthread_key_create(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_create(
    key: *mut pthread_key_t,
    destructor: Option<real::Destructor>,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::pthread_key_create.get()(key, destructor) };
    if result == 0 {
        // SAFETY: libc has stored the new key, and will call the destructor
        // with its values, as the caller promised it may.
        unsafe { tls::key_created(*key, destructor) };
    }
    result
}

/// `pthread_key_delete(3)`
///
/// # Safety
///
/// The contract of `pthread_key_delete(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_delete(key: pthread_key_t) -> c_int {
    tls::key_deleted(key);
    // SAFETY: the caller's contract, passed on unchanged.
    to_int(unsafe { real::pthread_key_delete.get()(key) } as isize)
}

/// `pthread_once(3)`, as libraries that were linked with an old libc know it.
///
/// # Safety
///
/// The contract of `pthread_once(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_once(
    control: *mut pthread_once_t,
    routine: Option<unsafe extern "C" fn()>,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_once(control, routine) }
}

/// `pthread_key_create(3)`, as the C++ library knows it.
///
/// # Safety
///
/// The contract of `pthread_key_create(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_key_create(
    key: *mut pthread_key_t,
    destructor: Option<real::Destructor>,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_key_create(key, destructor) }
}
