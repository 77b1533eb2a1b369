//! `pthread_rwlock_rdlock(3)` and its kin.

use std::ffi::c_int;

use libc::{clockid_t, pthread_rwlock_t, timespec};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sync::{Limit, foreign};

use crate::convert::{divert, offload};
use crate::mutexes::{PAST, limit};
use crate::properties::SHARED_RWLOCK;
use crate::real;

/// Which of the two ways to lock.
#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

impl Way {
    /// # Safety
    ///
    /// The contract of `pthread_rwlock_tryrdlock(3)`.
    unsafe fn attempt(self, lock: *mut pthread_rwlock_t) -> c_int {
        // SAFETY: the caller's contract.
        unsafe {
            match self {
                Self::Read => libc::pthread_rwlock_tryrdlock(lock),
                Self::Write => libc::pthread_rwlock_trywrlock(lock),
            }
        }
    }

    /// Waits on the calling thread.
    ///
    /// # Safety
    ///
    /// The contract of `pthread_rwlock_clockrdlock(3)`.
    unsafe fn wait(
        self,
        lock: *mut pthread_rwlock_t,
        time: Option<&(clockid_t, timespec)>,
    ) -> c_int {
        // SAFETY: the caller's contract.
        unsafe {
            match (self, time) {
                (Self::Read, None) => real::pthread_rwlock_rdlock.get()(lock),
                (Self::Write, None) => real::pthread_rwlock_wrlock.get()(lock),
                (Self::Read, Some((clock, time))) => {
                    real::pthread_rwlock_clockrdlock.get()(lock, *clock, time)
                }
                (Self::Write, Some((clock, time))) => {
                    real::pthread_rwlock_clockwrlock.get()(lock, *clock, time)
                }
            }
        }
    }
}

/// Locks `lock` for the calling coroutine.
///
/// # Safety
///
/// The contract of `pthread_rwlock_clockrdlock(3)`.
unsafe fn lock(
    lock: *mut pthread_rwlock_t,
    way: Way,
    until: Option<(clockid_t, timespec, Limit)>,
) -> c_int {
    let attempt = || {
        // SAFETY: the caller's contract.
        let result = unsafe { way.attempt(lock) };
        (result != libc::EBUSY).then_some(result)
    };
    if let Some(result) = attempt() {
        return result;
    }
    // Only this one tells that the caller is the writer that holds it. While it
    // tries, attempts of others may fail.
    // SAFETY: the caller's contract; the time is over, so it does not wait.
    let result = unsafe { way.wait(lock, Some(&(libc::CLOCK_REALTIME, PAST))) };
    foreign::changed_for_all(lock.cast());
    if result != libc::ETIMEDOUT {
        return result;
    }
    let limit = until.as_ref().map(|(.., limit)| limit);
    // SAFETY: the caller's contract.
    let result = if unsafe { SHARED_RWLOCK.holds(lock.cast()) } {
        let time = until.map(|(clock, time, _)| (clock, time));
        // SAFETY: the caller's contract.
        unsafe { lock_shared(lock, way, time) }
    } else {
        foreign::wait_until(lock.cast(), limit, attempt)
    };
    result.unwrap_or(libc::ETIMEDOUT)
}

/// Locks what other processes unlock. A thread of the pool waits until it has
/// the lock, and unlocks it: the owner is to be the calling coroutine.
///
/// # Safety
///
/// As for [`lock`].
unsafe fn lock_shared(
    lock: *mut pthread_rwlock_t,
    way: Way,
    time: Option<(clockid_t, timespec)>,
) -> Option<c_int> {
    loop {
        // SAFETY: the caller's contract, here and below.
        let result = offload(Awaits::Others, || unsafe {
            let result = way.wait(lock, time.as_ref());
            if result == 0 {
                real::pthread_rwlock_unlock.get()(lock);
            }
            result
        });
        // SAFETY: as above.
        let attempted = unsafe { way.attempt(lock) };
        if attempted != libc::EBUSY {
            return Some(attempted);
        }
        if result != 0 {
            return Some(result);
        }
    }
}

/// # Safety
///
/// The contract of `pthread_rwlock_clockrdlock(3)`.
unsafe fn lock_until(
    object: *mut pthread_rwlock_t,
    way: Way,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let Some(limit) = limit(clock, time) else {
            return way.refuse(object, clock, time);
        };
        lock(object, way, Some((clock, *time, limit)))
    }
}

impl Way {
    /// What libc says about a time or a clock that it does not take.
    ///
    /// # Safety
    ///
    /// The contract of `pthread_rwlock_clockrdlock(3)`.
    unsafe fn refuse(
        self,
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's contract.
        unsafe {
            match self {
                Self::Read => real::pthread_rwlock_clockrdlock.get()(lock, clock, time),
                Self::Write => real::pthread_rwlock_clockwrlock.get()(lock, clock, time),
            }
        }
    }
}

shims! { LOCKS:
    /// `pthread_rwlock_rdlock(3)`
    fn pthread_rwlock_rdlock(object: *mut pthread_rwlock_t) -> c_int =>
        lock(object, Way::Read, None);
    /// `pthread_rwlock_wrlock(3)`
    fn pthread_rwlock_wrlock(object: *mut pthread_rwlock_t) -> c_int =>
        lock(object, Way::Write, None);
}

/// Declares functions that stop waiting at a time. A thread that gives up has
/// kept others from locking meanwhile, who now may.
macro_rules! timed {
    ($($(#[$doc:meta])* fn $name:ident($($clock:ident: $kind:ty)?), $way:ident, $of:expr;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The contract of the man page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            object: *mut pthread_rwlock_t,
            $($clock: $kind,)?
            time: *const timespec,
        ) -> c_int {
            // SAFETY: the caller's contract.
            unsafe {
                if divert(Hooks::LOCKS) {
                    return lock_until(object, Way::$way, $of, time);
                }
                let result = real::$name.get()(object, $($clock,)? time);
                if result != 0 {
                    foreign::changed_for_all(object.cast());
                }
                result
            }
        }
    )* };
}

timed! {
    /// `pthread_rwlock_timedrdlock(3)`
    fn pthread_rwlock_timedrdlock(), Read, libc::CLOCK_REALTIME;
    /// `pthread_rwlock_timedwrlock(3)`
    fn pthread_rwlock_timedwrlock(), Write, libc::CLOCK_REALTIME;
    /// `pthread_rwlock_clockrdlock(3)`
    fn pthread_rwlock_clockrdlock(clock: clockid_t), Read, clock;
    /// `pthread_rwlock_clockwrlock(3)`
    fn pthread_rwlock_clockwrlock(clock: clockid_t), Write, clock;
}

/// `pthread_rwlock_unlock(3)`: all coroutines that wait for it look again.
///
/// # Safety
///
/// The contract of `pthread_rwlock_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_unlock(object: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::pthread_rwlock_unlock.get()(object) };
    foreign::changed_for_all(object.cast());
    result
}

/// `pthread_rwlock_rdlock(3)`, as libraries that were linked with an old libc
/// know it.
///
/// # Safety
///
/// The contract of `pthread_rwlock_rdlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_rwlock_rdlock(object: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_rwlock_rdlock(object) }
}

/// `pthread_rwlock_wrlock(3)`, as `__pthread_rwlock_rdlock`.
///
/// # Safety
///
/// The contract of `pthread_rwlock_wrlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_rwlock_wrlock(object: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_rwlock_wrlock(object) }
}

/// `pthread_rwlock_unlock(3)`, as `__pthread_rwlock_rdlock`.
///
/// # Safety
///
/// The contract of `pthread_rwlock_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_rwlock_unlock(object: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_rwlock_unlock(object) }
}
