//! `pthread_mutex_lock(3)` and its kin, `pthread_spin_lock(3)`.
//!
//! Owner, recursion count and kind are libc's: a coroutine has a thread id of its
//! own in its thread-local storage, and locks with `pthread_mutex_trylock`.

use std::ffi::c_int;

use libc::{clockid_t, pthread_mutex_t, pthread_spinlock_t, timespec};
use open_coroutine_core::sched;
use open_coroutine_core::sync::{Limit, foreign};

use crate::properties::{
    CHECKING_MUTEX, INHERITING_MUTEX, PROTECTING_MUTEX, RECURSIVE_MUTEX, ROBUST_MUTEX, SHARED_MUTEX,
};
use crate::real;

/// A time that is over: with it the functions that take one do not wait.
pub(crate) const PAST: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// How often a coroutine looks at a spin lock before others have a turn.
const SPINS: u32 = 100;

/// `mutex` as the layer below sees it.
///
/// # Safety
///
/// It is an initialised mutex.
pub(crate) unsafe fn as_foreign(mutex: *mut pthread_mutex_t) -> foreign::Mutex {
    foreign::Mutex {
        word: mutex.cast(),
        // SAFETY: the caller's promise.
        is_shared: unsafe { SHARED_MUTEX.holds(mutex.cast()) },
    }
}

/// Whether a coroutine cannot have `mutex`: if the kernel must know the owner,
/// or if other processes look at the owner's id, which is unique in this one.
///
/// # Safety
///
/// It is an initialised mutex.
unsafe fn is_refused(mutex: *mut pthread_mutex_t) -> bool {
    let mutex = mutex.cast();
    // SAFETY: the caller's promise. Adaptive mutexes have both types' bits.
    unsafe {
        let looks_at_owner = RECURSIVE_MUTEX.holds(mutex) != CHECKING_MUTEX.holds(mutex);
        ROBUST_MUTEX.holds(mutex)
            || INHERITING_MUTEX.holds(mutex)
            || PROTECTING_MUTEX.holds(mutex)
            || looks_at_owner && SHARED_MUTEX.holds(mutex)
    }
}

/// Locks `mutex` for the calling coroutine.
///
/// # Safety
///
/// The contract of `pthread_mutex_lock(3)`.
pub(crate) unsafe fn lock(mutex: *mut pthread_mutex_t, limit: Option<&Limit>) -> c_int {
    // SAFETY: the caller's contract, here and in the closure.
    unsafe {
        if is_refused(mutex) {
            return libc::ENOTSUP;
        }
        let attempt = || {
            let result = real::pthread_mutex_trylock.get()(mutex);
            (result != libc::EBUSY).then_some(result)
        };
        if let Some(result) = attempt() {
            return result;
        }
        // Only this one tells that the caller is the one who holds it.
        if CHECKING_MUTEX.holds(mutex.cast()) {
            let past = PAST;
            let result = real::pthread_mutex_timedlock.get()(mutex, &raw const past);
            if result != libc::ETIMEDOUT {
                return result;
            }
        }
        let result = as_foreign(mutex).lock(limit, attempt);
        result.unwrap_or(libc::ETIMEDOUT)
    }
}

shims! { LOCKS:
    /// `pthread_mutex_lock(3)`
    fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int => lock(mutex, None);
    /// `pthread_mutex_trylock(3)`
    fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int =>
        if is_refused(mutex) {
            libc::ENOTSUP
        } else {
            real::pthread_mutex_trylock.get()(mutex)
        };
    /// `pthread_mutex_timedlock(3)`
    fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, time: *const timespec) -> c_int =>
        match limit(libc::CLOCK_REALTIME, time) {
            Some(limit) => lock(mutex, Some(&limit)),
            None => real::pthread_mutex_timedlock.get()(mutex, time),
        };
    /// `pthread_mutex_clocklock(3)`
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec
    ) -> c_int => match limit(clock, time) {
        Some(limit) => lock(mutex, Some(&limit)),
        None => real::pthread_mutex_clocklock.get()(mutex, clock, time),
    };
    /// `pthread_spin_lock(3)`: its holder may be a coroutine of this worker, so
    /// others have a turn now and then.
    fn pthread_spin_lock(lock: *mut pthread_spinlock_t) -> c_int => spin(lock);
}

/// The limit that a caller has given. `None` if libc's function is to be called
/// after all, which does not wait then: it refuses the time or the clock.
///
/// # Safety
///
/// `time` is null or readable.
pub(crate) unsafe fn limit(clock: clockid_t, time: *const timespec) -> Option<Limit> {
    // SAFETY: the caller's promise.
    Limit::new(clock, unsafe { time.as_ref() }?)
}

/// `pthread_mutex_unlock(3)`: libc's function, and then a coroutine may wait for
/// the mutex.
///
/// # Safety
///
/// The contract of `pthread_mutex_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::pthread_mutex_unlock.get()(mutex) };
    foreign::changed(mutex.cast());
    result
}

/// # Safety
///
/// The contract of `pthread_spin_lock(3)`. Called on a coroutine.
unsafe fn spin(lock: *mut pthread_spinlock_t) -> c_int {
    loop {
        for _ in 0..SPINS {
            // SAFETY: the caller's contract.
            let result = unsafe { libc::pthread_spin_trylock(lock) };
            if result != libc::EBUSY {
                return result;
            }
            std::hint::spin_loop();
        }
        sched::try_yield();
    }
}

/// `pthread_mutex_lock(3)`, as libraries that were linked with an old libc know it.
///
/// # Safety
///
/// The contract of `pthread_mutex_lock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_mutex_lock(mutex) }
}

/// `pthread_mutex_trylock(3)`, as `__pthread_mutex_lock`.
///
/// # Safety
///
/// The contract of `pthread_mutex_trylock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_mutex_trylock(mutex) }
}

/// `pthread_mutex_unlock(3)`, as `__pthread_mutex_lock`.
///
/// # Safety
///
/// The contract of `pthread_mutex_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_mutex_unlock(mutex) }
}
