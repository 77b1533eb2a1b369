//! `poll(2)`, `epoll_wait(2)`.

use std::ffi::c_int;

use libc::{epoll_event, nfds_t, pollfd, sigset_t};
use open_coroutine_core::io;
use open_coroutine_core::sched::Hooks;

use crate::convert::{divert, to_int};
use crate::real;

/// `poll(2)`
///
/// # Safety
///
/// The contract of `poll(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if !divert(Hooks::WAITING) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::poll.get()(fds, count, timeout) };
    }
    // SAFETY: the caller keeps the entries valid until we return.
    to_int(unsafe { io::poll(fds, count, timeout) })
}

/// `epoll_wait(2)`
///
/// # Safety
///
/// The contract of `epoll_wait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    fd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    if !divert(Hooks::WAITING) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::epoll_wait.get()(fd, events, max, timeout) };
    }
    // SAFETY: the caller keeps the events valid until we return.
    to_int(unsafe { io::epoll_wait(fd, events, max, timeout) })
}

/// `epoll_pwait(2)`. With a signal mask it blocks the thread.
///
/// # Safety
///
/// The contract of `epoll_pwait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait(
    fd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    if !divert(Hooks::WAITING) || !mask.is_null() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::epoll_pwait.get()(fd, events, max, timeout, mask) };
    }
    // SAFETY: the caller keeps the events valid until we return.
    to_int(unsafe { io::epoll_wait(fd, events, max, timeout) })
}
