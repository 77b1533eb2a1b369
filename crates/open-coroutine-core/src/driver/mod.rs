//! How a worker asks the kernel for I/O.
//!
//! A driver belongs to one worker thread. It is pulled: the worker submits
//! requests and collects completions; a driver knows nothing of coroutines.
//! Which one is used is decided at start, so that tests can force each.
//!
//! * `op`: one operation, described once for every driver.
//! * `request`: an operation in flight, in the frame that waits for it.
//! * `waker`: how other threads end a driver's wait.
//! * `uring`, `epoll`: the drivers.
//!
//! # Invariants
//!
//! 1. A submitted request stays in place until it is handed to `done`, which
//!    happens exactly once; the kernel does not touch its buffers after that.
//! 2. A wake before a wait makes the wait return at once.
//! 3. Without requests, wakes and deadlines a wait makes no system call but one.

mod epoll;
mod op;
mod request;
mod uring;
mod waker;

pub use op::Op;
pub use request::{FdWaiters, Request, next_close_epoch};
pub use waker::Waker;

use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `io_uring(7)`: operations are performed by the kernel.
    IoUring,
    /// `epoll(7)`: only tells readiness.
    Epoll,
}

/// One worker's driver.
#[derive(Debug)]
pub enum Driver {
    /// See [`Kind::IoUring`].
    IoUring(uring::Uring),
    /// See [`Kind::Epoll`].
    Epoll(epoll::Epoll),
}

/// What a driver does with a completed request.
type Done<'a> = &'a mut dyn FnMut(NonNull<Request>);

impl Driver {
    /// A driver for the calling thread, which alone may use it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it, or for want of descriptors or memory.
    pub fn new(kind: Kind) -> io::Result<Self> {
        Ok(match kind {
            Kind::IoUring => Self::IoUring(uring::Uring::new()?),
            Kind::Epoll => Self::Epoll(epoll::Epoll::new()?),
        })
    }

    /// Whether io_uring can be used here.
    ///
    /// # Errors
    ///
    /// Why not: switched off (`kernel.io_uring_disabled`), forbidden by seccomp,
    /// or a kernel that lacks operations.
    pub fn probe() -> io::Result<()> {
        uring::Uring::new().map(drop)
    }

    /// Whether it can perform `op` itself.
    pub fn supports(&self, op: &Op) -> bool {
        match self {
            Self::IoUring(uring) => uring.supports(op),
            Self::Epoll(_) => matches!(op, Op::Poll { .. }),
        }
    }

    /// Begins an operation.
    ///
    /// # Safety
    ///
    /// The driver supports the operation. The request and what its operation
    /// points to stay in place until it is handed to `done`, and the contract
    /// of its system call holds as long.
    pub unsafe fn submit(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::IoUring(uring) => uring.submit(request),
                Self::Epoll(epoll) => epoll.submit(request),
            }
        }
    }

    /// Asks for an early end. The request still completes, once: with what the
    /// kernel delivered if that came first, else with minus `error`.
    ///
    /// # Safety
    ///
    /// The request was submitted to this driver and has not completed.
    pub unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::IoUring(uring) => uring.cancel(request, error),
                Self::Epoll(epoll) => epoll.cancel(request, error),
            }
        }
    }

    /// Hands all that has completed to `done`, without waiting.
    pub fn poll(&mut self, done: Done<'_>) {
        match self {
            Self::IoUring(uring) => uring.poll(done),
            Self::Epoll(epoll) => epoll.poll(done),
        }
    }

    /// Waits for a completion or a wake, at most for `timeout`; hands what has
    /// completed to `done`.
    pub fn wait(&mut self, timeout: Option<Duration>, done: Done<'_>) {
        match self {
            Self::IoUring(uring) => uring.wait(timeout, done),
            Self::Epoll(epoll) => epoll.wait(timeout, done),
        }
    }

    /// Ends the wait of this driver from any thread.
    pub fn waker(&self) -> Arc<Waker> {
        match self {
            Self::IoUring(uring) => uring.waker().clone(),
            Self::Epoll(epoll) => epoll.waker().clone(),
        }
    }

    /// Which descriptors requests wait on, for whoever closes one.
    pub fn waiters(&self) -> &Arc<FdWaiters> {
        match self {
            Self::IoUring(uring) => uring.waiters(),
            Self::Epoll(epoll) => epoll.waiters(),
        }
    }

    /// Ends every request on `fd` that began before `epoch` with `EBADF`: the
    /// descriptor has been closed. Younger ones are about its successor.
    pub fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        match self {
            Self::IoUring(uring) => uring.close_notice(fd, epoch),
            Self::Epoll(epoll) => epoll.close_notice(fd, epoch),
        }
    }
}
