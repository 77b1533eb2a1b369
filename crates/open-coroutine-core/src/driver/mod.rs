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
mod refusals;
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

use crate::util::lock::Lock;
use epoll::Epoll;
use uring::Uring;

pub use op::{Op, Reader};
pub use request::Request;
pub use waiters::{FdWaiters, anyone_waits, anyone_waits_on, begin_close};
pub use waker::Waker;

/// What to do about `EMFILE` and `ENFILE`.
const OUT_OF_DESCRIPTORS: &str = "out of file descriptors, see RLIMIT_NOFILE and fs.file-max";

/// Minus this is the result of a request that must be submitted again, to another
/// driver. No operation has it of its own.
pub const MOVED: c_int = libc::ERESTART;

/// What drivers have used that are gone, while others may refer to it for ever: the
/// next drivers use it again, so that it does not become more. Static because it
/// belongs to no runtime any more.
static LEFT: Lock<Vec<(Arc<Waker>, Arc<FdWaiters>)>> = Lock::new(Vec::new());

/// The driver of these is gone, but not all references to them: wake-ups that still
/// come are for the next driver, for which they mean nothing.
pub fn leave(waker: &Arc<Waker>, waiters: &Arc<FdWaiters>) {
    waker.clear();
    waiters.clear();
    LEFT.lock().push((waker.clone(), waiters.clone()));
}

/// What a new driver wakes up by, and counts its waiters with.
fn outside() -> io::Result<(Arc<Waker>, Arc<FdWaiters>)> {
    // A statement of its own, so that the lock is free again after it.
    let left = LEFT.lock().pop();
    left.map_or_else(
        || Ok((Arc::new(Waker::new()?), Arc::new(FdWaiters::new()?))),
        Ok,
    )
}

/// Forgets what belongs to the parent, in the child of a fork.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub unsafe fn abandon() {
    // SAFETY: the caller's promise.
    unsafe {
        waiters::abandon();
        LEFT.abandon(Vec::new());
    }
}

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

/// The operations that a driver can perform.
#[derive(Clone, Copy, Debug)]
pub struct Support(Option<uring::Opcodes>);

impl Support {
    /// Whether `op` is one of them.
    pub fn includes(&self, op: &Op) -> bool {
        match &self.0 {
            Some(opcodes) => uring::supports(*opcodes, op),
            None => Epoll::supports(op),
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

    /// A driver for the calling thread, in place of one of another thread that is
    /// stuck; `None` if that one goes on to serve, on any thread. It has the same waker
    /// and counts the same waiters, so only one of the two may be used at a time.
    ///
    /// # Errors
    ///
    /// As for [`Driver::new`].
    pub fn relieving(
        kind: Kind,
        waker: &Arc<Waker>,
        waiters: &Arc<FdWaiters>,
    ) -> io::Result<Option<Self>> {
        match kind {
            Kind::IoUring => {
                let driver = Uring::with(waker.clone(), waiters.clone())?;
                Ok(Some(Self::IoUring(Box::new(driver))))
            }
            Kind::Epoll => Ok(None),
        }
    }

    /// On the thread that created it, when another driver [relieves] this one: asks
    /// for the end of all that can be started again elsewhere. It is then handed out
    /// with the result minus [`MOVED`]. May be called again, and in a signal handler
    /// that interrupted no use of this driver.
    ///
    /// [relieves]: Self::relieving
    pub fn evacuate(&mut self) {
        self.relieved().evacuate();
    }

    /// Hands out what is complete, after [`evacuate`](Self::evacuate), without
    /// entering the kernel: so any thread may call it.
    pub fn harvest(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        self.relieved().harvest(done);
    }

    /// [`close_notice`](Self::close_notice), after [`evacuate`](Self::evacuate) and
    /// on any thread: what waits on `fd` ends with `EBADF` and is not moved.
    pub fn close_notice_left(&mut self, fd: RawFd, epoch: u64) {
        self.relieved().close_notice_left(fd, epoch);
    }

    fn relieved(&mut self) -> &mut Uring {
        match self {
            Self::IoUring(driver) => driver,
            Self::Epoll(_) => unreachable!("it serves on any thread, and is never relieved"),
        }
    }

    /// [Submits](Self::submit) a request that another driver has handed out as
    /// [`MOVED`]: it is as old as it was.
    ///
    /// # Safety
    ///
    /// As for [`submit`](Self::submit).
    pub unsafe fn resubmit(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's contract, in all.
        unsafe {
            let epoch = request.as_ref().epoch.get();
            self.submit(request);
            request.as_ref().epoch.set(epoch);
        }
    }

    /// Whether `request` is in the hands of this driver, and not of one that it
    /// relieves.
    ///
    /// # Safety
    ///
    /// The request is submitted to one of the two.
    pub unsafe fn has(&self, request: NonNull<Request>) -> bool {
        match self {
            // SAFETY: the caller's contract: it is valid.
            Self::IoUring(driver) => unsafe { driver.has(request) },
            Self::Epoll(_) => true,
        }
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
        self.support().includes(op)
    }

    /// What the driver can perform. It is the same for all of its kind.
    pub fn support(&self) -> Support {
        Support(match self {
            Self::IoUring(driver) => Some(driver.opcodes()),
            Self::Epoll(_) => None,
        })
    }

    /// A descriptor that is readable, to `poll(2)`, when something waits in the
    /// kernel to be handed out. Any thread may look, as long as the driver lives.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::IoUring(driver) => driver.fd(),
            Self::Epoll(driver) => driver.fd(),
        }
    }

    /// Whether something was submitted that the kernel does not know yet.
    #[inline]
    pub fn is_batching(&self) -> bool {
        matches!(self, Self::IoUring(_))
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
