//! `close(2)`, `dup(2)`: whoever waits on a descriptor learns of its end.

use std::ffi::c_int;

use open_coroutine_core::runtime;

use crate::real;

/// `close(2)`. Coroutines that wait on the descriptor get `EBADF`.
///
/// # Safety
///
/// The contract of `close(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    runtime::notify_close(fd);
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::close.get()(fd) }
}

/// `dup2(2)`. Coroutines that wait on the replaced descriptor get `EBADF`.
///
/// # Safety
///
/// The contract of `dup2(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(from: c_int, to: c_int) -> c_int {
    if from != to {
        runtime::notify_close(to);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::dup2.get()(from, to) }
}

/// `dup3(2)`. Coroutines that wait on the replaced descriptor get `EBADF`.
///
/// # Safety
///
/// The contract of `dup3(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    if from != to {
        runtime::notify_close(to);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::dup3.get()(from, to, flags) }
}
