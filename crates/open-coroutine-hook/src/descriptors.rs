//! `close(2)`, `dup(2)`, `fcntl(2)`, `ioctl(2)`: whoever waits on a descriptor
//! learns of its end, and whether it blocks is asked anew after a change.

use std::ffi::{c_int, c_ulong};

use open_coroutine_core::{io, runtime};

use crate::real;

/// `fd` is about to be closed or replaced.
fn ends(fd: c_int) {
    io::forget(fd);
    runtime::notify_close(fd);
}

/// `close(2)`. Coroutines that wait on the descriptor get `EBADF`.
///
/// # Safety
///
/// The contract of `close(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    ends(fd);
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
        ends(to);
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
        ends(to);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::dup3.get()(from, to, flags) }
}

/// `fcntl(2)`, with the one argument that any of its commands takes.
///
/// # Safety
///
/// The contract of `fcntl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::fcntl.get()(fd, command, argument) };
    control(command, result);
    result
}

/// `fcntl(2)`
///
/// # Safety
///
/// The contract of `fcntl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::fcntl64.get()(fd, command, argument) };
    control(command, result);
    result
}

fn control(command: c_int, result: c_int) {
    match command {
        libc::F_SETFL => io::modes_changed(),
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => io::forget(result),
        _ => {}
    }
}

/// `ioctl(2)`, with the one argument that any of its requests takes.
///
/// # Safety
///
/// The contract of `ioctl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::ioctl.get()(fd, request, argument) };
    if request == libc::FIONBIO {
        io::modes_changed();
    }
    result
}
