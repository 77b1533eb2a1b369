//! Kernel I/O: what submits operations and reports their completions.
//!
//! A driver is pulled: it does nothing but when its owner calls it. It knows
//! nothing of coroutines: a [`Request`] carries an opaque `owner`. Which driver
//! serves is decided at run time:
//!
//! * `uring`: the kernel performs the operation itself (completion style).
//! * `epoll`: the kernel tells when a descriptor is ready ([`Op::Poll`] only);
//!   its user [attempts](Op::attempt) the operation and leaves the rest to the
//!   [pool](crate::pool::Pool).
//!
//! A driver belongs to the thread that created it. Other threads reach it
//! through its [`Waker`] and its [`FdWaiters`].
//!
//! # Invariants
//!
//! 1. A submitted request is handed out exactly once, by [`Driver::poll`] or
//!    [`Driver::wait`], also when it was cancelled. Until then it and what its
//!    operation points to stay valid and in place.
//! 2. Cancelling asks; it does not discard. If the kernel completed the
//!    operation all the same, that result is handed out, so no byte is lost.
//! 3. Waits end by completion, wake-up or timeout (or a signal); there is no
//!    polling in slices.
//!
//! After `fork` the child must not use a driver of its parent, which would act
//! on the parent's queues; it must not drop it either (`mem::forget`).

pub mod op;

mod epoll;
mod request;
mod uring;
mod waiters;
mod waker;

use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use epoll::Epoll;
use uring::Uring;

pub use op::Op;
pub use request::Request;
pub use waiters::{FdWaiters, abandon, anyone_waits, anyone_waits_on, begin_close};
pub use waker::Waker;

/// What to do about `EMFILE` and `ENFILE`.
const OUT_OF_DESCRIPTORS: &str = "out of file descriptors, see RLIMIT_NOFILE and fs.file-max";

/// The kinds of driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `io_uring(7)`.
    IoUring,
    /// `epoll(7)`.
    Epoll,
}

impl Kind {
    /// Whether this machine lets us use the driver.
    ///
    /// # Errors
    ///
    /// Why not, in words fit for a user.
    pub fn probe(self) -> io::Result<()> {
        match self {
            Self::IoUring => uring::probe(),
            Self::Epoll => Epoll::new().map(drop),
        }
    }
}

/// A driver of either kind.
pub enum Driver {
    /// `io_uring(7)`.
    IoUring(Box<Uring>),
    /// `epoll(7)`.
    Epoll(Epoll),
}

impl Driver {
    /// A driver for the calling thread.
    ///
    /// # Errors
    ///
    /// Those of [`Kind::probe`]; out of file descriptors or memory.
    pub fn new(kind: Kind) -> io::Result<Self> {
        let driver = match kind {
            Kind::IoUring => Uring::new().map(|driver| Self::IoUring(Box::new(driver))),
            Kind::Epoll => Epoll::new().map(Self::Epoll),
        };
        driver.map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                io::Error::new(error.kind(), format!("{OUT_OF_DESCRIPTORS} ({error})"))
            }
            _ => error,
        })
    }

    /// Which kind of driver this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::IoUring(_) => Kind::IoUring,
            Self::Epoll(_) => Kind::Epoll,
        }
    }

    /// Whether the driver can perform `op`. Submitting anything else completes
    /// with `-EOPNOTSUPP`.
    pub fn supports(&self, op: &Op) -> bool {
        match self {
            Self::IoUring(driver) => driver.supports(op),
            Self::Epoll(_) => Epoll::supports(op),
        }
    }

    /// Starts an operation. Never waits for it and never fails: errors are
    /// results. Submissions are batched; the next [`Driver::poll`] or
    /// [`Driver::wait`] brings them to the kernel.
    ///
    /// # Safety
    ///
    /// The request is not submitted already. It stays valid and in place, and
    /// so does what its operation points to, until the driver has handed it
    /// out or has been dropped.
    ///
    /// # Panics
    ///
    /// If the request is submitted already.
    pub unsafe fn submit(&mut self, request: NonNull<Request>) {
        match self {
            // SAFETY: the caller's contract.
            Self::IoUring(driver) => unsafe { driver.submit(request) },
            // SAFETY: the caller's contract.
            Self::Epoll(driver) => unsafe { driver.submit(request) },
        }
    }

    /// Asks for the end of an operation. The request is still handed out, with
    /// the result if the operation completed nevertheless, else with `-error`.
    /// Does nothing to a request that is finished or being cancelled.
    ///
    /// # Safety
    ///
    /// The request is submitted to this driver and not handed out yet.
    pub unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        match self {
            // SAFETY: the caller's contract.
            Self::IoUring(driver) => unsafe { driver.cancel(request, error) },
            // SAFETY: the caller's contract.
            Self::Epoll(driver) => unsafe { driver.cancel(request, error) },
        }
    }

    /// [Cancels](Driver::cancel) everything in flight, to shut down.
    pub fn cancel_all(&mut self, error: c_int) {
        match self {
            Self::IoUring(driver) => driver.cancel_all(error),
            Self::Epoll(driver) => driver.cancel_all(error),
        }
    }

    /// Submits what is queued and hands out what is complete, without waiting.
    /// Makes no system call if there is nothing to do.
    pub fn poll(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        match self {
            Self::IoUring(driver) => driver.poll(done),
            Self::Epoll(driver) => driver.poll(done),
        }
    }

    /// Like [`Driver::poll`], but sleeps until something completes, a
    /// [`Waker`] is used, or `timeout` has passed. It may return early without
    /// any of these; it does not return late on purpose: the timeout is exact
    /// to the resolution of the kernel's timers.
    pub fn wait(&mut self, timeout: Option<Duration>, done: &mut impl FnMut(NonNull<Request>)) {
        match self {
            Self::IoUring(driver) => driver.wait(timeout, done),
            Self::Epoll(driver) => driver.wait(timeout, done),
        }
    }

    /// What ends a [`Driver::wait`] from elsewhere.
    pub fn waker(&self) -> &Arc<Waker> {
        match self {
            Self::IoUring(driver) => driver.waker(),
            Self::Epoll(driver) => driver.waker(),
        }
    }

    /// How many requests wait on each descriptor, for those who close one.
    pub fn waiters(&self) -> &Arc<FdWaiters> {
        match self {
            Self::IoUring(driver) => driver.waiters(),
            Self::Epoll(driver) => driver.waiters(),
        }
    }

    /// How many requests have been submitted and not handed out.
    pub fn in_flight(&self) -> usize {
        match self {
            Self::IoUring(driver) => driver.in_flight(),
            Self::Epoll(driver) => driver.in_flight(),
        }
    }

    /// Ends with `EBADF` what waits on `fd` since before [`begin_close`]
    /// returned `epoch`. Newer requests, on a reused number, stay.
    pub fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        match self {
            Self::IoUring(driver) => driver.close_notice(fd, epoch),
            Self::Epoll(driver) => driver.close_notice(fd, epoch),
        }
    }
}

#[cfg(test)]
mod tests;
