//! Signals, without the ceremony of C.

#![allow(dead_code, reason = "not every test file uses every function")]

use std::ffi::c_int;
use std::mem;
use std::ptr;

pub(crate) fn set_of(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: writes to a set on this frame.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn contains(set: &libc::sigset_t, signal: c_int) -> bool {
    // SAFETY: reads a set.
    unsafe { libc::sigismember(set, signal) == 1 }
}

fn change(how: c_int, signals: &[c_int]) {
    let set = set_of(signals);
    // SAFETY: reads a set.
    let result = unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
    assert_eq!(0, result);
}

pub(crate) fn block(signals: &[c_int]) {
    change(libc::SIG_BLOCK, signals);
}

pub(crate) fn unblock(signals: &[c_int]) {
    change(libc::SIG_UNBLOCK, signals);
}

pub(crate) fn is_blocked(signal: c_int) -> bool {
    let mut set = set_of(&[]);
    // SAFETY: writes a set.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut set) };
    assert_eq!(0, result);
    contains(&set, signal)
}

/// The mask, signal `n` as bit `n - 1`.
pub(crate) fn blocked() -> u64 {
    (1..=64).fold(0, |set, signal| {
        set | u64::from(is_blocked(signal)) << (signal - 1)
    })
}

pub(crate) fn is_pending(signal: c_int) -> bool {
    let mut set = set_of(&[]);
    // SAFETY: writes a set.
    assert_eq!(0, unsafe { libc::sigpending(&raw mut set) });
    contains(&set, signal)
}

pub(crate) fn raise(signal: c_int) {
    // SAFETY: takes an integer.
    assert_eq!(0, unsafe { libc::raise(signal) });
}

pub(crate) fn send_to_process(signal: c_int) {
    // SAFETY: takes integers.
    assert_eq!(0, unsafe { libc::kill(libc::getpid(), signal) });
}

/// An action with the address of a handler, which must be of the kind that the
/// flags say.
pub(crate) fn action(handler: usize, flags: c_int, mask: &[c_int]) -> libc::sigaction {
    // SAFETY: all-zero bytes are valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action.sa_mask = set_of(mask);
    action
}

/// Sets an action and returns the one before.
pub(crate) fn set_action(signal: c_int, new: &libc::sigaction) -> libc::sigaction {
    let mut old = action(0, 0, &[]);
    // SAFETY: the handlers of these tests do what handlers may.
    assert_eq!(0, unsafe { libc::sigaction(signal, new, &raw mut old) });
    old
}

pub(crate) fn get_action(signal: c_int) -> libc::sigaction {
    let mut old = action(0, 0, &[]);
    // SAFETY: only asks.
    let result = unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) };
    assert_eq!(0, result);
    old
}

/// Installs a handler without `SA_SIGINFO`.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    set_action(signal, &action(handler as *const () as usize, flags, &[]));
}
