//! epoll: tells when a descriptor is ready; performs nothing.
//!
//! There is one registration per descriptor, one-shot, and every wait arms it
//! anew (`EPOLL_CTL_MOD`, and `ADD` if the kernel does not know it). So nothing
//! has to be trusted about a number whose descriptor may have been closed
//! unseen; and an event of a predecessor with the same number is no more than a
//! spurious wake-up, after which the caller tries again and waits again.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::request::Waiting;
use super::{Done, FdWaiters, Op, Request, Waker};
use crate::sys::{self, check};

/// Events taken from the kernel at once.
const BATCH: usize = 256;
/// The data of the waker's registration: no descriptor has this number.
const WAKER: u64 = u64::MAX;

/// An epoll set and what waits in it.
#[derive(Debug)]
pub struct Epoll {
    fd: RawFd,
    waker: Arc<Waker>,
    waiting: Waiting,
    /// Completed before the kernel was asked: errors, cancellations.
    ready: Vec<NonNull<Request>>,
    events: Box<[libc::epoll_event; BATCH]>,
    in_flight: usize,
    has_pwait2: bool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        // SAFETY: takes one integer.
        let fd = check(unsafe {
            sys::syscall(
                libc::SYS_epoll_create1,
                [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0],
            )
        })? as RawFd;
        let this = Self {
            fd,
            waker,
            waiting: Waiting::new(),
            ready: Vec::new(),
            events: Box::new([libc::epoll_event { events: 0, u64: 0 }; BATCH]),
            in_flight: 0,
            has_pwait2: true,
        };
        let result = this.control(
            libc::EPOLL_CTL_ADD,
            this.waker.event().fd(),
            libc::EPOLLIN as u32,
            WAKER,
        );
        check(result as isize)?;
        Ok(this)
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    pub(super) fn waiters(&self) -> &Arc<FdWaiters> {
        self.waiting.counts()
    }

    fn control(&self, operation: c_int, fd: RawFd, events: u32, data: u64) -> c_int {
        let mut event = libc::epoll_event { events, u64: data };
        let args = [
            self.fd as usize,
            operation as usize,
            fd as usize,
            &raw mut event as usize,
            0,
            0,
        ];
        // SAFETY: `event` lives across the call.
        unsafe { sys::syscall(libc::SYS_epoll_ctl, args) as c_int }
    }

    /// # Safety
    ///
    /// As `Driver::submit`.
    pub(super) unsafe fn submit(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's promise.
        let Op::Poll { fd, .. } = *unsafe { request.as_ref() }.op() else {
            unreachable!("epoll supports nothing else");
        };
        // SAFETY: the caller's promise; removed by `finish`.
        unsafe { self.waiting.insert(request) };
        self.in_flight += 1;
        let result = self.arm(fd);
        if result < 0 {
            // SAFETY: inserted above.
            unsafe { self.finish(request, result) };
        }
    }

    /// Arms the registration of `fd` for all that waits on it.
    fn arm(&self, fd: RawFd) -> c_int {
        let mut events = libc::EPOLLONESHOT as u32;
        for request in self.waiting.select(fd, |_| true) {
            // SAFETY: waiting requests are in place.
            events |= wanted(unsafe { request.as_ref() });
        }
        let modify = |operation| self.control(operation, fd, events, fd as u64);
        match modify(libc::EPOLL_CTL_MOD) {
            result if result == -libc::ENOENT => modify(libc::EPOLL_CTL_ADD),
            result => result,
        }
    }

    /// # Safety
    ///
    /// As `Driver::cancel`.
    pub(super) unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        // SAFETY: the caller's promise. A request that has been put into
        // `ready` is marked, and keeps its result.
        unsafe {
            if request.as_ref().mark_cancelled(error) {
                self.finish(request, -error);
            }
        }
    }

    pub(super) fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        for request in self.waiting.older(fd, epoch) {
            // SAFETY: it waits here.
            unsafe { self.cancel(request, libc::EBADF) };
        }
    }

    /// # Safety
    ///
    /// The request waits here.
    unsafe fn finish(&mut self, request: NonNull<Request>, result: c_int) {
        // SAFETY: the caller's promise. Marked so that a later cancellation
        // leaves it alone.
        unsafe {
            self.waiting.remove(request);
            request.as_ref().complete(result);
            let _ = request.as_ref().mark_cancelled(libc::ECANCELED);
        }
        self.in_flight -= 1;
        self.ready.push(request);
    }

    pub(super) fn poll(&mut self, done: Done<'_>) {
        if self.in_flight > 0 {
            self.collect(Some(Duration::ZERO));
        }
        self.deliver(done);
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>, done: Done<'_>) {
        if self.ready.is_empty() && timeout != Some(Duration::ZERO) && self.waker.fall_asleep() {
            self.collect(timeout);
        } else {
            self.collect(Some(Duration::ZERO));
        }
        self.waker.wake_up();
        self.deliver(done);
    }

    fn deliver(&mut self, done: Done<'_>) {
        for request in mem::take(&mut self.ready) {
            done(request);
        }
    }

    fn collect(&mut self, timeout: Option<Duration>) {
        let count = self.epoll_wait(timeout);
        for index in 0..count {
            let event = self.events[index];
            if event.u64 == WAKER {
                self.waker.event().clear();
            } else {
                self.dispatch(event.u64 as RawFd, event.events);
            }
        }
    }

    fn dispatch(&mut self, fd: RawFd, revents: u32) {
        let all = self.waiting.select(fd, |_| true);
        let mut left = 0;
        for request in all {
            // SAFETY: it waits here.
            unsafe {
                if revents & wanted(request.as_ref()) != 0 {
                    self.finish(request, revents as c_int);
                } else {
                    left += 1;
                }
            }
        }
        if left > 0 {
            self.arm(fd);
        }
    }

    fn epoll_wait(&mut self, timeout: Option<Duration>) -> usize {
        let events = self.events.as_mut_ptr() as usize;
        if self.has_pwait2 && timeout != Some(Duration::ZERO) {
            let timespec = timeout.map(sys::to_timespec);
            let pointer = timespec
                .as_ref()
                .map_or(0, |timespec| &raw const *timespec as usize);
            let args = [self.fd as usize, events, BATCH, pointer, 0, 8];
            // SAFETY: room for `BATCH` events; `timespec` lives across the call.
            let result = unsafe { sys::syscall(libc::SYS_epoll_pwait2, args) };
            if result != -(libc::ENOSYS as isize) {
                return result.max(0) as usize;
            }
            self.has_pwait2 = false;
        }
        // Rounded up, so that the wait is not over before the deadline.
        let milliseconds = timeout.map_or(-1, |timeout| {
            timeout
                .as_nanos()
                .div_ceil(1_000_000)
                .min(c_int::MAX as u128) as c_int
        });
        let args = [self.fd as usize, events, BATCH, milliseconds as usize, 0, 8];
        // SAFETY: room for `BATCH` events.
        unsafe { sys::syscall(libc::SYS_epoll_pwait, args).max(0) as usize }
    }
}

/// The events that complete `request`; epoll reports errors unasked.
fn wanted(request: &Request) -> u32 {
    match *request.op() {
        Op::Poll { events, .. } => events | (libc::EPOLLERR | libc::EPOLLHUP) as u32,
        _ => unreachable!("epoll supports nothing else"),
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // SAFETY: `self` owns the descriptor.
        unsafe { sys::close(self.fd) };
    }
}
