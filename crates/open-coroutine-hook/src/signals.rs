//! `sigwait(3)`, `sigtimedwait(2)`, `pause(2)`, `sigsuspend(2)`, `raise(3)`.
//!
//! A signal to the process goes to any thread that does not block it, workers
//! between two coroutines among them. So a program that waits for one blocks it
//! before it spawns: in the only coroutine there is, whose mask the workers and
//! later coroutines then have too, or before it starts the runtime. Threads of the
//! program's own, the one that called `init` among them, must block it as well.

use std::ffi::c_int;
use std::mem;
use std::ptr;
use std::time::Duration;

use libc::{siginfo_t, sigset_t, timespec};
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::sys::{LIBC_SIGNALS, SignalSet};
use open_coroutine_core::{io, sys};

use crate::convert::{divert, to_int};
use crate::masks;
use crate::real;

/// `sigwait(3)`
///
/// # Safety
///
/// The contract of `sigwait(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int {
    if !divert(Hooks::SIGNALS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sigwait.get()(set, signal) };
    }
    // SAFETY: the caller's contract, in both.
    unsafe {
        match wait(set, ptr::null_mut(), None) {
            taken @ 1.. => {
                *signal = taken as c_int;
                0
            }
            error => -error as c_int,
        }
    }
}

/// `sigwaitinfo(2)`
///
/// # Safety
///
/// The contract of `sigwaitinfo(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int {
    if !divert(Hooks::SIGNALS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sigwaitinfo.get()(set, info) };
    }
    // SAFETY: the caller's contract.
    to_int(unsafe { wait(set, info, None) })
}

/// `sigtimedwait(2)`
///
/// # Safety
///
/// The contract of `sigtimedwait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigtimedwait(
    set: *const sigset_t,
    info: *mut siginfo_t,
    timeout: *const timespec,
) -> c_int {
    if !divert(Hooks::SIGNALS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sigtimedwait.get()(set, info, timeout) };
    }
    // SAFETY: the caller passes a valid time, or null for none.
    let timeout = match unsafe { timeout.as_ref() }.map(sys::to_duration) {
        Some(None) => return to_int(-(libc::EINVAL as isize)),
        Some(timeout) => timeout,
        None => None,
    };
    // SAFETY: the caller's contract.
    to_int(unsafe { wait(set, info, timeout) })
}

/// # Safety
///
/// The contract of `sigtimedwait(2)`. Called on a coroutine.
unsafe fn wait(set: *const sigset_t, info: *mut siginfo_t, timeout: Option<Duration>) -> isize {
    // SAFETY: the caller passes a valid set, and a place for the details or null.
    unsafe {
        let taken = io::wait_for_signal(masks::read_set(set), info, timeout);
        // As glibc, which hides the difference from a signal to the process.
        if taken > 0 && !info.is_null() && (*info).si_code == libc::SI_TKILL {
            (*info).si_code = libc::SI_USER;
        }
        taken
    }
}

offloaded! { SIGNALS, Others:
    /// `pause(2)`: a thread of the pool waits, with the coroutine's mask.
    fn pause() -> c_int;

    /// `sigsuspend(2)`: a thread of the pool waits, and the handler runs there.
    fn sigsuspend(mask: *const sigset_t) -> c_int;
}

/// `sigsuspend(2)`, by glibc's other name.
///
/// # Safety
///
/// The contract of `sigsuspend(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigsuspend(mask: *const sigset_t) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { sigsuspend(mask) }
}

fn suspend_with(mask: SignalSet) -> c_int {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: sigset_t = unsafe { mem::zeroed() };
    // SAFETY: glibc's sets begin with the kernel's, and this one is valid.
    unsafe {
        (&raw mut set).cast::<SignalSet>().write(mask);
        sigsuspend(&raw const set)
    }
}

/// `sigpause(3)`, that of BSD, which takes a mask.
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigpause(mask: c_int) -> c_int {
    suspend_with(masks::from_bits(mask))
}

/// `sigpause(3)`, that of System V, which takes a signal.
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __xpg_sigpause(signal: c_int) -> c_int {
    match sys::signal_set(signal) & !LIBC_SIGNALS {
        0 => to_int(-(libc::EINVAL as isize)),
        set => suspend_with(masks::change(|mask| mask) & !set),
    }
}

/// `raise(3)`: to the coroutine, which takes the signal along if it is blocked.
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raise(signal: c_int) -> c_int {
    // SAFETY: takes an integer.
    let result = unsafe { real::raise.get()(signal) };
    sched::sent_signal_to_self(signal);
    result
}

/// `gsignal(3)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gsignal(signal: c_int) -> c_int {
    // SAFETY: takes an integer.
    unsafe { raise(signal) }
}
