//! `pthread_sigmask(3)`, `sigprocmask(2)` and its kin: a coroutine has a signal
//! mask of its own.

use std::ffi::c_int;

use libc::sigset_t;
use open_coroutine_core::sched;
use open_coroutine_core::sys::{self, LIBC_SIGNALS, SignalSet};

use crate::convert::to_int;
use crate::real;

/// The signals of a C set.
///
/// # Safety
///
/// `set` points to a valid set.
pub(crate) unsafe fn read_set(set: *const sigset_t) -> SignalSet {
    // SAFETY: glibc's sets begin with the kernel's.
    unsafe { set.cast::<SignalSet>().read() }
}

/// Changes the mask of the calling coroutine or thread. Returns the one before.
pub(crate) fn change(change: impl Fn(SignalSet) -> SignalSet) -> SignalSet {
    let change = |mask| change(mask) & !LIBC_SIGNALS;
    sched::change_signal_mask(change).unwrap_or_else(|| {
        let before = sys::signal_mask();
        sys::set_signal_mask(change(before));
        before
    })
}

/// Changes the mask of the calling coroutine, and returns 0 or an error number.
/// `None` if the mask is its thread's.
///
/// # Safety
///
/// The contract of `pthread_sigmask(3)`.
unsafe fn change_own(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> Option<c_int> {
    // SAFETY: the caller passes a valid set, or null.
    let set = (!set.is_null()).then(|| unsafe { read_set(set) } & !LIBC_SIGNALS);
    let mut is_valid = true;
    let before = sched::change_signal_mask(|mask| match (set, how) {
        (None, _) => mask,
        (Some(set), libc::SIG_BLOCK) => mask | set,
        (Some(set), libc::SIG_UNBLOCK) => mask & !set,
        (Some(set), libc::SIG_SETMASK) => set,
        _ => {
            is_valid = false;
            mask
        }
    })?;
    if !is_valid {
        return Some(libc::EINVAL);
    }
    if !old.is_null() {
        // SAFETY: the caller passes a place for a set; glibc, too, writes no
        // more of it than the kernel does.
        unsafe { old.cast::<SignalSet>().write(before) };
    }
    Some(0)
}

/// `pthread_sigmask(3)`
///
/// # Safety
///
/// The contract of `pthread_sigmask(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { change_own(how, set, old) }
        .unwrap_or_else(|| unsafe { real::pthread_sigmask.get()(how, set, old) })
}

/// `sigprocmask(2)`
///
/// # Safety
///
/// The contract of `sigprocmask(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    match unsafe { change_own(how, set, old) } {
        Some(error) => to_int(-(error as isize)),
        // SAFETY: as above.
        None => unsafe { real::sigprocmask.get()(how, set, old) },
    }
}

/// The first 32 signals, as the functions of BSD take them.
pub(crate) fn from_bits(mask: c_int) -> SignalSet {
    SignalSet::from(mask as u32)
}

/// `sigblock(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigblock(mask: c_int) -> c_int {
    change(|before| before | from_bits(mask)) as c_int
}

/// `sigsetmask(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigsetmask(mask: c_int) -> c_int {
    change(|_| from_bits(mask)) as c_int
}

/// `siggetmask(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siggetmask() -> c_int {
    change(|mask| mask) as c_int
}

/// The set of a signal that a program may block, or `EINVAL`.
fn set_of(signal: c_int) -> Result<SignalSet, c_int> {
    match sys::signal_set(signal) & !LIBC_SIGNALS {
        0 => Err(to_int(-(libc::EINVAL as isize))),
        set => Ok(set),
    }
}

/// `sighold(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sighold(signal: c_int) -> c_int {
    match set_of(signal) {
        Ok(set) => {
            change(|mask| mask | set);
            0
        }
        Err(failure) => failure,
    }
}

/// `sigrelse(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigrelse(signal: c_int) -> c_int {
    match set_of(signal) {
        Ok(set) => {
            change(|mask| mask & !set);
            0
        }
        Err(failure) => failure,
    }
}
