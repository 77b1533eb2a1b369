//! Operations in flight.
//!
//! # The close protocol
//!
//! Closing a descriptor must end the requests that wait on it, but not those on
//! a later descriptor that gets the same number. So every request carries the
//! epoch at which it was submitted, and a close draws a new one *before* the
//! kernel frees the number: requests with an older epoch are about the closed
//! file, younger ones cannot be about it.
//!
//! The thread that closes looks at each driver's [`FdWaiters`] first, and
//! bothers only workers that have such requests.

use std::cell::Cell;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::Op;

/// Drawn from by closes. Static because descriptors belong to the process.
static CLOSE_EPOCH: AtomicU64 = AtomicU64::new(1);

/// A new epoch: all requests submitted so far have a smaller one.
pub fn next_close_epoch() -> u64 {
    CLOSE_EPOCH.fetch_add(1, SeqCst) + 1
}

/// An operation in flight. Lives in the frame that waits for it.
#[derive(Debug)]
pub struct Request {
    op: Op,
    owner: *const (),
    result: Cell<c_int>,
    epoch: Cell<u64>,
    /// The error to end with if the kernel cancels it; 0 is none.
    cancelled: Cell<c_int>,
    previous: Cell<*const Request>,
    next: Cell<*const Request>,
}

impl Request {
    /// A request for `op`. `owner` is for whoever submits it.
    pub fn new(op: Op, owner: *const ()) -> Self {
        Self {
            op,
            owner,
            result: Cell::new(0),
            epoch: Cell::new(0),
            cancelled: Cell::new(0),
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
        }
    }

    /// Its operation.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// What it was submitted with.
    pub fn owner(&self) -> *const () {
        self.owner
    }

    /// Sets what [`owner`](Self::owner) returns.
    pub fn set_owner(&mut self, owner: *const ()) {
        self.owner = owner;
    }

    /// The result of the completed operation: what the system call returns, or
    /// minus the error number.
    pub fn result(&self) -> c_int {
        self.result.get()
    }

    pub(super) fn complete(&self, result: c_int) {
        self.result.set(result);
    }

    /// Marks it as cancelled for the reason `error`. The first reason stays.
    #[must_use]
    pub(super) fn mark_cancelled(&self, error: c_int) -> bool {
        let is_first = self.cancelled.get() == 0;
        if is_first {
            self.cancelled.set(error);
        }
        is_first
    }

    /// The error that it was cancelled with; 0 is none.
    pub(super) fn cancelled(&self) -> c_int {
        self.cancelled.get()
    }
}

/// How many requests of one driver wait on each descriptor, as other threads
/// may see it: counters shared by descriptors with equal low bits.
#[derive(Debug)]
pub struct FdWaiters {
    counts: [AtomicU32; FdWaiters::LEN],
}

impl FdWaiters {
    const LEN: usize = 1024;

    /// Whether some request may wait on `fd`.
    pub fn any(&self, fd: RawFd) -> bool {
        // Pairs with nothing on purpose: a request that begins while its
        // descriptor is being closed may miss the close, as a thread's would.
        fence(SeqCst);
        self.count(fd).load(Relaxed) > 0
    }

    fn count(&self, fd: RawFd) -> &AtomicU32 {
        &self.counts[fd as usize % Self::LEN]
    }
}

/// The requests of one driver that wait on descriptors, by descriptor. An entry
/// exists only as long as requests wait.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The youngest request of each descriptor; requests are linked.
    heads: Vec<*const Request>,
    counts: Arc<FdWaiters>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            heads: Vec::new(),
            counts: Arc::new(FdWaiters {
                counts: [const { AtomicU32::new(0) }; FdWaiters::LEN],
            }),
        }
    }

    pub(super) fn counts(&self) -> &Arc<FdWaiters> {
        &self.counts
    }

    /// # Safety
    ///
    /// The request is in no list, and stays in place until it is removed.
    pub(super) unsafe fn insert(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's promise.
        let request = unsafe { request.as_ref() };
        request.epoch.set(CLOSE_EPOCH.load(SeqCst));
        let Some(fd) = request.op.fd().filter(|&fd| fd >= 0) else {
            return;
        };
        if self.heads.len() <= fd as usize {
            self.heads.resize(fd as usize + 1, ptr::null());
        }
        let head = &mut self.heads[fd as usize];
        request.previous.set(ptr::null());
        request.next.set(*head);
        // SAFETY: linked requests are in place.
        if let Some(next) = unsafe { head.as_ref() } {
            next.previous.set(request);
        }
        *head = request;
        let count = self.counts.count(fd);
        // Only this thread writes it.
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// # Safety
    ///
    /// The request was inserted here, and has not been removed.
    pub(super) unsafe fn remove(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's promise.
        let request = unsafe { request.as_ref() };
        let Some(fd) = request.op.fd().filter(|&fd| fd >= 0) else {
            return;
        };
        let (previous, next) = (request.previous.get(), request.next.get());
        // SAFETY: linked requests are in place.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.heads[fd as usize] = next,
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.previous.set(previous);
        }
        let count = self.counts.count(fd);
        count.store(count.load(Relaxed) - 1, Relaxed);
    }

    /// The requests on `fd` for which `select` holds.
    pub(super) fn select(
        &self,
        fd: RawFd,
        select: impl Fn(&Request) -> bool,
    ) -> Vec<NonNull<Request>> {
        let mut selected = Vec::new();
        let head = self.heads.get(fd as usize).copied();
        let mut next = head.unwrap_or(ptr::null());
        // SAFETY: linked requests are in place.
        while let Some(request) = unsafe { next.as_ref() } {
            if select(request) {
                selected.push(NonNull::from(request));
            }
            next = request.next.get();
        }
        selected
    }

    /// The requests on `fd` that are older than `epoch`.
    pub(super) fn older(&self, fd: RawFd, epoch: u64) -> Vec<NonNull<Request>> {
        self.select(fd, |request| request.epoch.get() < epoch)
    }
}
