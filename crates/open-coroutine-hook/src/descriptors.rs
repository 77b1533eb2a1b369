//! `close(2)`, `close_range(2)`, `dup(2)`, `pipe(2)`, `socketpair(2)`, `eventfd(2)`, `fcntl(2)`,
//! `ioctl(2)`, `fclose(3)`: whoever waits on a descriptor learns of its end, and
//! whether it blocks is asked anew after a change.
//!
//! A number that is closed unseen (libc's own calls, raw system calls) is
//! forgotten when it comes back from one of the functions that make descriptors.

use std::ffi::{c_int, c_uint, c_ulong};

use libc::FILE;
use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::{runtime, sys};

use crate::convert::{divert, offload};
use crate::real;

/// `fd` is about to be closed or replaced.
pub(crate) fn ends(fd: c_int) {
    io::forget(fd);
    runtime::notify_close(fd);
}

/// Of the new descriptor `fd`, or of a failure, nothing is known.
pub(crate) fn begins(fd: c_int) -> c_int {
    io::forget(fd);
    fd
}

/// [`begins`], for the descriptor that `make` makes. As long as nothing is known of
/// any, `make` is the last call, and costs no return behind a system call.
#[inline(always)]
pub(crate) fn beginning(make: impl FnOnce() -> c_int) -> c_int {
    if io::remembers() {
        begins(make())
    } else {
        make()
    }
}

/// [`beginning`], for a call that makes two descriptors.
///
/// # Safety
///
/// `make` stores two numbers at `fds` if it returns 0.
#[inline(always)]
unsafe fn both_beginning(make: impl FnOnce() -> c_int, fds: *const c_int) -> c_int {
    if !io::remembers() {
        return make();
    }
    let result = make();
    if result == 0 {
        // SAFETY: the caller's promise.
        unsafe {
            begins(*fds);
            begins(*fds.add(1));
        }
    }
    result
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
    let close = || unsafe { real::close.get()(fd) };
    if divert(Hooks::SOCKETS) && io::lingers(fd) {
        return offload(Awaits::Others, close);
    }
    close()
}

/// All descriptors from `first` to `last` are about to be closed.
fn range_ends(first: c_uint, last: c_uint) {
    let number = |fd: c_uint| c_int::try_from(fd).unwrap_or(c_int::MAX);
    io::modes_changed();
    runtime::notify_close_range(number(first), number(last));
}

/// `close_range(2)`. Coroutines that wait on one of the descriptors get `EBADF`.
///
/// # Safety
///
/// The contract of `close_range(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if flags == 0 && first <= last {
        range_ends(first, last);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::close_range.get()(first, last, flags) }
}

/// `closefrom(3)`. Coroutines that wait on one of the descriptors get `EBADF`.
///
/// # Safety
///
/// The contract of `closefrom(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    range_ends(first.max(0) as c_uint, c_uint::MAX);
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::closefrom.get()(first) };
}

/// `fclose(3)`. Coroutines that wait on the stream's descriptor get `EBADF`.
///
/// # Safety
///
/// The contract of `fclose(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fclose(file: *mut FILE) -> c_int {
    let errno = sys::errno();
    // SAFETY: the caller passes an open stream; it may have no descriptor.
    let fd = unsafe { libc::fileno(file) };
    sys::set_errno(errno);
    if fd >= 0 {
        ends(fd);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::fclose.get()(file) }
}

/// `dup(2)`
///
/// # Safety
///
/// The contract of `dup(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    beginning(|| unsafe { real::dup.get()(fd) })
}

/// `pipe(2)`
///
/// # Safety
///
/// The contract of `pipe(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe(fds: *mut c_int) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { both_beginning(|| real::pipe.get()(fds), fds) }
}

/// `pipe2(2)`
///
/// # Safety
///
/// The contract of `pipe2(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { both_beginning(|| real::pipe2.get()(fds, flags), fds) }
}

/// `socketpair(2)`
///
/// # Safety
///
/// The contract of `socketpair(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    fds: *mut c_int,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { both_beginning(|| real::socketpair.get()(domain, kind, protocol, fds), fds) }
}

/// `eventfd(2)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eventfd(value: c_uint, flags: c_int) -> c_int {
    // SAFETY: takes integers.
    beginning(|| unsafe { real::eventfd.get()(value, flags) })
}

/// `timerfd_create(2)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn timerfd_create(clock: c_int, flags: c_int) -> c_int {
    // SAFETY: takes integers.
    beginning(|| unsafe { real::timerfd_create.get()(clock, flags) })
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
    control(command, || unsafe {
        real::fcntl.get()(fd, command, argument)
    })
}

/// `fcntl(2)`
///
/// # Safety
///
/// The contract of `fcntl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    control(command, || unsafe {
        real::fcntl64.get()(fd, command, argument)
    })
}

/// Performs an fcntl; one that waits for a lock has a thread of its own.
fn control(command: c_int, call: impl FnOnce() -> c_int) -> c_int {
    let is_lock = matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW);
    if is_lock && divert(Hooks::FILES) {
        return offload(Awaits::Others, call);
    }
    let result = call();
    match command {
        libc::F_SETFL => io::modes_changed(),
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => io::forget(result),
        _ => {}
    }
    result
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
