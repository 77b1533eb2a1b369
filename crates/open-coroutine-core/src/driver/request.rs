//! A submitted operation: the slot that a driver fills in.
//!
//! A request lies in the frame that waits for it. It is touched by the thread
//! that owns the driver, from [`Driver::submit`](super::Driver::submit) until
//! the driver has handed it out, and by its owner before and after.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::NonNull;

use super::op::Op;

/// Where a request is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With its owner: not submitted, or handed out again.
    Idle,
    /// The driver has it, the kernel does not know it yet.
    Held,
    /// The kernel knows it.
    Armed,
    /// The result is known, and will be handed out by the next poll or wait.
    Finished,
}

/// One operation in the hands of a driver.
///
/// `owner` is the owner's own and means nothing to the driver.
#[derive(Debug)]
#[repr(C)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// Whoever waits for it.
    pub owner: *const (),
    pub(super) state: Cell<State>,
    /// Error number to report if the kernel cancels the operation; 0 if
    /// nobody has asked for that.
    pub(super) cancel: Cell<c_int>,
    pub(super) result: Cell<i32>,
    /// Index in the table of an io_uring driver.
    pub(super) slot: Cell<u32>,
    /// Value of the close epoch when the operation was submitted.
    pub(super) epoch: Cell<u64>,
    /// The other waiters for the same descriptor in an epoll driver.
    pub(super) previous: Cell<Option<NonNull<Request>>>,
    pub(super) next: Cell<Option<NonNull<Request>>>,
}

impl Request {
    /// A request that has not been submitted.
    pub const fn new(op: Op, owner: *const ()) -> Self {
        Self {
            op,
            owner,
            state: Cell::new(State::Idle),
            cancel: Cell::new(0),
            result: Cell::new(0),
            slot: Cell::new(0),
            epoch: Cell::new(0),
            previous: Cell::new(None),
            next: Cell::new(None),
        }
    }

    /// What the operation returned, or minus an error number. Meaningful once
    /// the driver has handed the request out.
    pub fn result(&self) -> i32 {
        self.result.get()
    }

    /// Whether a driver has the request, so that it must stay where it is.
    pub fn is_submitted(&self) -> bool {
        self.state.get() != State::Idle
    }

    /// Takes the request over from its owner.
    pub(super) fn begin(&self, epoch: u64) {
        assert_eq!(
            State::Idle,
            self.state.get(),
            "a request is submitted once at a time"
        );
        self.state.set(State::Held);
        self.cancel.set(0);
        self.epoch.set(epoch);
    }

    /// Notes the result.
    pub(super) fn finish(&self, result: i32) {
        self.result.set(result);
        self.state.set(State::Finished);
    }

    /// Gives the request back to its owner.
    pub(super) fn release(&self) {
        self.state.set(State::Idle);
    }

    /// Whether closing its descriptor at `epoch` ends this request.
    pub(super) fn is_ended_by_close(&self, fd: i32, epoch: u64) -> bool {
        self.epoch.get() <= epoch && self.op.waits_on() == Some(fd)
    }
}
