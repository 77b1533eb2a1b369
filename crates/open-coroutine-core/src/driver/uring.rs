//! The io_uring driver: the kernel performs operations and posts completions.
//!
//! * [`ring`]: the queues shared with the kernel, and entering it.
//! * [`entry`]: what an operation looks like in the submission queue.
//!
//! A completion carries the address of its [`Request`], so it needs no look-up.
//! The table of requests serves those who must find them all: cancellation at
//! shutdown, and closing a descriptor. It is dense and touches no request but
//! the one that comes or goes, because the others lie on cold stacks.
//!
//! The waker's eventfd is watched by a multishot poll: every write to it is a
//! completion, and nobody has to read it.
//!
//! The kernel waits also for a file that is `O_NONBLOCK` (Linux 6.18 does for
//! `recv`, `read` and `accept`). Who owes a caller `EAGAIN` at once passes
//! `MSG_DONTWAIT` or `RWF_NOWAIT`, or [attempts](Op::attempt) the operation.

mod entry;
mod ring;

use std::collections::VecDeque;
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{cqueue, opcode};

use super::op::Op;
use super::request::{Request, State};
use super::waiters::{self, FdWaiters};
use super::waker::Waker;
use ring::Ring;

pub(super) use ring::{Opcodes, probe};

/// Completion of a cancellation: of no interest.
const CANCELLATION: u64 = 0;
/// Completion of the poll of the waker's eventfd.
const WAKE_UP: u64 = 1;
// Any other value is the address of a request, which is aligned to 8 bytes.

/// See the [module](self).
pub struct Uring {
    ring: Ring,
    requests: Table,
    /// Submitted, but the ring had no room; in order.
    backlog: VecDeque<NonNull<Request>>,
    /// Finished without a completion of the kernel.
    finished: Vec<NonNull<Request>>,
    /// A cancellation found no room in the ring.
    owes_cancellations: bool,
    /// The kernel knows no multishot poll (before 5.13).
    wakes_once: bool,
    /// The eventfd is not being polled.
    is_deaf: bool,
    /// Another driver has its waker.
    is_relieved: bool,
    waker: Arc<Waker>,
    waiters: Arc<FdWaiters>,
}

impl Uring {
    /// # Errors
    ///
    /// What the kernel lacks, or why it refuses; out of resources.
    pub(super) fn new() -> io::Result<Self> {
        let (waker, waiters) = super::outside()?;
        Self::with(waker, waiters)
    }

    /// # Errors
    ///
    /// What the kernel lacks, or why it refuses; out of resources.
    pub(super) fn with(waker: Arc<Waker>, waiters: Arc<FdWaiters>) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new()?,
            requests: Table::default(),
            backlog: VecDeque::new(),
            finished: Vec::new(),
            owes_cancellations: false,
            wakes_once: false,
            is_deaf: true,
            is_relieved: false,
            waker,
            waiters,
        })
    }

    pub(super) fn opcodes(&self) -> Opcodes {
        self.ring.opcodes()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ring.fd()
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    pub(super) fn waiters(&self) -> &Arc<FdWaiters> {
        &self.waiters
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.len
    }

    /// # Safety
    ///
    /// That of [`Driver::submit`](super::Driver::submit).
    pub(super) unsafe fn submit(&mut self, request: NonNull<Request>) {
        // SAFETY: the request stays valid until it is handed out.
        let shared = unsafe { request.as_ref() };
        shared.begin(waiters::epoch());
        shared.slot.set(self.requests.insert(request));
        if let Some(fd) = shared.op.waits_on() {
            self.waiters.add(fd);
        }
        if !self.backlog.is_empty() || !self.arm(request) {
            self.backlog.push_back(request);
        }
    }

    /// Queues a request for the kernel. Returns false if there is no room.
    fn arm(&mut self, request: NonNull<Request>) -> bool {
        // SAFETY: the request is in the table, so it is valid (invariant 1).
        let shared = unsafe { request.as_ref() };
        let entry = entry::entry(&shared.op).filter(|entry| self.ring.knows(entry));
        let Some(entry) = entry else {
            self.finish(request, -libc::EOPNOTSUPP);
            return true;
        };
        let entry = entry.user_data(request.as_ptr().expose_provenance() as u64);
        // SAFETY: what the operation points to is valid until it is handed
        // out (invariant 1), which is not before its completion.
        let queued = unsafe { self.ring.push(&entry) };
        if queued {
            shared.state.set(State::Armed);
        }
        queued
    }

    fn finish(&mut self, request: NonNull<Request>, result: i32) {
        // SAFETY: the request is in the table, so it is valid (invariant 1).
        unsafe { request.as_ref() }.finish(result);
        self.finished.push(request);
    }

    /// # Safety
    ///
    /// That of [`Driver::cancel`](super::Driver::cancel).
    pub(super) unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        // SAFETY: the caller says that the request is submitted, so it is
        // valid.
        let shared = unsafe { request.as_ref() };
        if shared.cancel.get() != 0 {
            return;
        }
        match shared.state.get() {
            // It has its result; or (by the contract, never) is not ours.
            State::Finished | State::Idle => {}
            // The kernel has never seen it: `catch_up` finishes it.
            State::Held => shared.cancel.set(error),
            State::Armed => {
                shared.cancel.set(error);
                self.ask_kernel_to_cancel(request);
            }
        }
    }

    fn ask_kernel_to_cancel(&mut self, request: NonNull<Request>) {
        self.ask_kernel_to_forget(request.as_ptr().expose_provenance() as u64);
    }

    fn ask_kernel_to_forget(&mut self, user_data: u64) {
        let mut entry = opcode::AsyncCancel::new(user_data)
            .build()
            .user_data(CANCELLATION);
        if self.ring.can_leave_out_completions() {
            entry = entry.flags(Flags::SKIP_SUCCESS);
        }
        // SAFETY: the entry names the request by value and points to nothing.
        if !unsafe { self.ring.push(&entry) } {
            self.owes_cancellations = true;
        }
    }

    pub(super) fn cancel_all(&mut self, error: c_int) {
        for slot in 0..self.requests.slots.len() {
            if let Some(request) = self.requests.slots[slot] {
                // SAFETY: what is in the table is submitted.
                unsafe { self.cancel(request, error) };
            }
        }
    }

    /// See [`Driver::evacuate`](super::Driver::evacuate). Allocates nothing.
    pub(super) fn evacuate(&mut self) {
        for slot in 0..self.requests.slots.len() {
            let Some(request) = self.requests.slots[slot] else {
                continue;
            };
            // SAFETY: what is in the table is valid (invariant 1).
            let shared = unsafe { request.as_ref() };
            // What is connecting would go on, and could not be begun again.
            if shared.state.get() == State::Finished || matches!(shared.op, Op::Connect { .. }) {
                continue;
            }
            if shared.cancel.get() == 0 {
                shared.cancel.set(super::MOVED);
            }
            if shared.state.get() == State::Armed {
                // Asking a second time does no harm.
                self.ask_kernel_to_cancel(request);
            }
        }
        self.owes_cancellations = false;
        self.ask_kernel_to_forget(WAKE_UP);
        self.ring.run_completions();
    }

    /// See [`Driver::harvest`](super::Driver::harvest). The waker belongs to the
    /// driver that relieves this one.
    pub(super) fn harvest(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        let backlog = std::mem::take(&mut self.backlog);
        for request in backlog {
            // SAFETY: what is in the backlog is in the table as well.
            let error = unsafe { request.as_ref() }.cancel.get();
            self.finish(request, -if error == 0 { super::MOVED } else { error });
        }
        self.is_relieved = true;
        self.reap(done);
        self.hand_out_finished(done);
    }

    /// See [`Driver::close_notice_left`](super::Driver::close_notice_left).
    pub(super) fn close_notice_left(&mut self, fd: RawFd, epoch: u64) {
        for request in self.requests.slots.iter().flatten() {
            // SAFETY: what is in the table is valid (invariant 1).
            let shared = unsafe { request.as_ref() };
            if shared.is_ended_by_close(fd, epoch) {
                shared.cancel.set(libc::EBADF);
            }
        }
    }

    /// # Safety
    ///
    /// The request is valid.
    pub(super) unsafe fn has(&self, request: NonNull<Request>) -> bool {
        // SAFETY: the caller's promise.
        let slot = unsafe { request.as_ref() }.slot.get() as usize;
        self.requests.slots.get(slot) == Some(&Some(request))
    }

    pub(super) fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        if self.waiters.count(fd) == 0 {
            return;
        }
        for slot in 0..self.requests.slots.len() {
            let Some(request) = self.requests.slots[slot] else {
                continue;
            };
            // SAFETY: what is in the table is valid (invariant 1).
            if unsafe { request.as_ref() }.is_ended_by_close(fd, epoch) {
                // SAFETY: what is in the table is submitted.
                unsafe { self.cancel(request, libc::EBADF) };
            }
        }
        // Queued operations take hold of the file now, while the number still
        // means the old one (step 3 of the close protocol).
        self.ring.flush();
    }

    pub(super) fn poll(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        self.catch_up();
        self.ring.turn();
        self.hand_out(done);
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        done: &mut impl FnMut(NonNull<Request>),
    ) {
        self.catch_up();
        if timeout == Some(Duration::ZERO) || self.has_work() || !self.waker.prepare() {
            self.ring.turn();
        } else {
            self.ring.sleep(timeout);
            self.waker.finish();
        }
        self.hand_out(done);
    }

    /// Whether something is left that no completion will announce.
    fn has_work(&self) -> bool {
        !self.finished.is_empty()
            || !self.backlog.is_empty()
            || self.owes_cancellations
            || self.is_deaf
    }

    /// Brings to the ring what found no room earlier.
    fn catch_up(&mut self) {
        if self.is_deaf {
            self.watch_waker();
        }
        if self.owes_cancellations {
            self.owes_cancellations = false;
            for slot in 0..self.requests.slots.len() {
                let Some(request) = self.requests.slots[slot] else {
                    continue;
                };
                // SAFETY: what is in the table is valid (invariant 1).
                let shared = unsafe { request.as_ref() };
                // Asking a second time does no harm.
                if shared.cancel.get() != 0 && shared.state.get() == State::Armed {
                    self.ask_kernel_to_cancel(request);
                }
            }
        }
        while let Some(&request) = self.backlog.front() {
            // SAFETY: what is in the backlog is in the table as well.
            let error = unsafe { request.as_ref() }.cancel.get();
            if error != 0 {
                self.finish(request, -error);
            } else if !self.arm(request) {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Polls the waker's eventfd.
    fn watch_waker(&mut self) {
        let entry: Entry = opcode::PollAdd::new(Fd(self.waker.fd()), libc::POLLIN as u32)
            .multi(!self.wakes_once)
            .build()
            .user_data(WAKE_UP);
        // SAFETY: the entry points to nothing.
        self.is_deaf = !unsafe { self.ring.push(&entry) };
    }

    fn hand_out(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        loop {
            self.reap(done);
            if !self.ring.has_overflow() {
                break;
            }
            self.ring.turn();
        }
        self.hand_out_finished(done);
    }

    fn hand_out_finished(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        for request in self.finished.drain(..) {
            forget(&mut self.requests, &self.waiters, request);
            done(request);
        }
    }

    /// Hands out what is in the completion queue.
    fn reap(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        for completion in self.ring.completions() {
            match completion.user_data() {
                CANCELLATION => {}
                WAKE_UP if cqueue::more(completion.flags()) => {}
                WAKE_UP if self.is_relieved => {}
                WAKE_UP => {
                    // What was written so far has woken us; a poll that begins
                    // with it would end at once.
                    self.waker.clear();
                    self.is_deaf = true;
                    self.wakes_once |= completion.result() == -libc::EINVAL;
                }
                address => {
                    let address =
                        std::ptr::with_exposed_provenance_mut::<Request>(address as usize);
                    let request = NonNull::new(address).expect("zero is CANCELLATION");
                    // SAFETY: each request completes once, and is valid until
                    // it is handed out, below (invariant 1).
                    let shared = unsafe { request.as_ref() };
                    shared.finish(outcome(completion.result(), shared.cancel.get()));
                    forget(&mut self.requests, &self.waiters, request);
                    done(request);
                }
            }
        }
    }
}

/// Whether a ring of a kernel with `opcodes` performs `op`.
pub(super) fn supports(opcodes: Opcodes, op: &Op) -> bool {
    entry::entry(op).is_some_and(|entry| opcodes.contain(&entry))
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still write where requests point to: see all of them
        // completed before their owners can go away.
        self.cancel_all(libc::ECANCELED);
        while self.in_flight() > 0 {
            self.wait(None, &mut |_| {});
        }
    }
}

/// What to report: the kernel's result, unless that says that the operation
/// was given up for the sake of a cancellation.
fn outcome(result: i32, cancel: c_int) -> i32 {
    match -result {
        libc::ECANCELED | libc::EINTR if cancel != 0 => -cancel,
        _ => result,
    }
}

/// Takes a finished request out of the books.
fn forget(requests: &mut Table, waiters: &FdWaiters, request: NonNull<Request>) {
    // SAFETY: the request is in the table, so it is valid (invariant 1).
    let shared = unsafe { request.as_ref() };
    requests.remove(shared.slot.get());
    if let Some(fd) = shared.op.waits_on() {
        waiters.remove(fd);
    }
    shared.release();
}

/// All requests that are submitted and not handed out.
#[derive(Default)]
struct Table {
    slots: Vec<Option<NonNull<Request>>>,
    free: Vec<u32>,
    len: usize,
}

impl Table {
    fn insert(&mut self, request: NonNull<Request>) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(request);
            return slot;
        }
        self.slots.push(Some(request));
        (self.slots.len() - 1) as u32
    }

    fn remove(&mut self, slot: u32) {
        let request = self.slots[slot as usize].take();
        assert!(request.is_some(), "a request completes once");
        self.free.push(slot);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests;
