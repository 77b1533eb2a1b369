//! `poll(2)`, `select(2)`, `epoll_wait(2)`.
//!
//! A call with a signal mask waits on a thread of its own, which then has that
//! mask: the mask is the thread's, and so is the signal that ends the wait.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use open_coroutine_core::io::{self, Awaits, FdSets};
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sys;

use crate::convert::{divert, offload, to_int};
use crate::real;

const EINVAL: isize = -(libc::EINVAL as isize);

/// A time-out in milliseconds, of which negative ones mean none.
fn milliseconds(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// A time-out in seconds and nanoseconds, of which a null pointer means none.
///
/// # Safety
///
/// `timeout` is null or points to a time.
unsafe fn time_limit(timeout: *const timespec) -> Result<Option<Duration>, isize> {
    // SAFETY: the caller's promise.
    match unsafe { timeout.as_ref() } {
        None => Ok(None),
        Some(time) => sys::to_duration(time).map(Some).ok_or(EINVAL),
    }
}

shims! { WAITING:
    /// `poll(2)`
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int => {
        to_int(io::poll(fds, count, milliseconds(timeout)))
    };
    /// `epoll_wait(2)`
    fn epoll_wait(fd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int => {
        to_int(io::epoll_wait(fd, events, max, milliseconds(timeout)))
    };
    /// `ppoll(2)`
    fn ppoll(
        fds: *mut pollfd,
        count: nfds_t,
        timeout: *const timespec,
        mask: *const sigset_t
    ) -> c_int => {
        if !mask.is_null() {
            return offload(Awaits::Others, move || {
                real::ppoll.get()(fds, count, timeout, mask)
            });
        }
        to_int(match time_limit(timeout) {
            Ok(timeout) => io::poll(fds, count, timeout),
            Err(error) => error,
        })
    };
    /// `epoll_pwait(2)`
    fn epoll_pwait(
        fd: c_int,
        events: *mut epoll_event,
        max: c_int,
        timeout: c_int,
        mask: *const sigset_t
    ) -> c_int => {
        if !mask.is_null() {
            return offload(Awaits::Others, move || {
                real::epoll_pwait.get()(fd, events, max, timeout, mask)
            });
        }
        to_int(io::epoll_wait(fd, events, max, milliseconds(timeout)))
    };
    /// `epoll_pwait2(2)`
    fn epoll_pwait2(
        fd: c_int,
        events: *mut epoll_event,
        max: c_int,
        timeout: *const timespec,
        mask: *const sigset_t
    ) -> c_int => {
        if !mask.is_null() {
            return offload(Awaits::Others, move || {
                real::epoll_pwait2.get()(fd, events, max, timeout, mask)
            });
        }
        to_int(match time_limit(timeout) {
            Ok(timeout) => io::epoll_wait(fd, events, max, timeout),
            Err(error) => error,
        })
    };
    /// `select(2)`
    fn select(
        count: c_int,
        read: *mut fd_set,
        write: *mut fd_set,
        except: *mut fd_set,
        timeout: *mut timeval
    ) -> c_int => {
        let sets = FdSets { count, read, write, except };
        to_int(select_for(sets, timeout.as_mut()))
    };
    /// `pselect(2)`
    fn pselect(
        count: c_int,
        read: *mut fd_set,
        write: *mut fd_set,
        except: *mut fd_set,
        timeout: *const timespec,
        mask: *const sigset_t
    ) -> c_int => {
        if !mask.is_null() {
            return offload(Awaits::Others, move || {
                real::pselect.get()(count, read, write, except, timeout, mask)
            });
        }
        let sets = FdSets { count, read, write, except };
        to_int(match time_limit(timeout) {
            Ok(timeout) => io::select(sets, timeout),
            Err(error) => error,
        })
    };
}

/// `select(2)`: what is left of the time-out is stored there, as Linux does.
///
/// # Safety
///
/// The contract of `select(2)`. Called on a coroutine.
unsafe fn select_for(sets: FdSets, timeout: Option<&mut timeval>) -> isize {
    let Some(timeout) = timeout else {
        // SAFETY: the caller's contract.
        return unsafe { io::select(sets, None) };
    };
    let (Ok(seconds), Ok(microseconds)) = (
        u64::try_from(timeout.tv_sec),
        u64::try_from(timeout.tv_usec),
    ) else {
        return EINVAL;
    };
    let limit = Duration::from_secs(seconds).saturating_add(Duration::from_micros(microseconds));
    let begin = Instant::now();
    // SAFETY: the caller's contract.
    let result = unsafe { io::select(sets, Some(limit)) };
    let left = limit.saturating_sub(begin.elapsed());
    timeout.tv_sec = left.as_secs() as libc::time_t;
    timeout.tv_usec = left.subsec_micros().into();
    result
}

/// `poll(2)`, as programs call it that are compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// The contract of `poll(2)`; `size` is that of the array in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    size: size_t,
) -> c_int {
    // SAFETY: the caller's contract; libc's function ends a program whose array
    // is too small.
    unsafe {
        if !divert(Hooks::WAITING) || size / size_of::<pollfd>() < count as usize {
            return real::__poll_chk.get()(fds, count, timeout, size);
        }
        poll(fds, count, timeout)
    }
}

/// `ppoll(2)`, as programs call it that are compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// The contract of `ppoll(2)`; `size` is that of the array in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    size: size_t,
) -> c_int {
    // SAFETY: the caller's contract; libc's function ends a program whose array
    // is too small.
    unsafe {
        if !divert(Hooks::WAITING) || size / size_of::<pollfd>() < count as usize {
            return real::__ppoll_chk.get()(fds, count, timeout, mask, size);
        }
        ppoll(fds, count, timeout, mask)
    }
}
