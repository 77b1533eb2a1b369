//! What other threads see of one worker, and what they send to it.

use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_deque::Stealer;

use super::carrier::Carrier;
use super::handled::Handled;
use super::runnable::Runnable;
use super::scheduled::Scheduled;
use super::suspend::IoWait;
use super::worker::Queue;
use crate::driver::{self, FdWaiters, Request};
use crate::task::Run;
use crate::timer::Timers;
use crate::util::lock::Lock;

/// What is sent to one certain worker.
pub(super) enum Message {
    /// A coroutine that is pinned to this worker.
    Ready(NonNull<Scheduled>),
    /// A file descriptor that is closed under its waiters.
    Closed { fd: RawFd, epoch: u64 },
    /// An operation of a coroutine that ran on a thread without a worker.
    Submit(NonNull<IoWait>),
    /// The same for one that sleeps, until a time in its frame.
    Sleep(NonNull<Scheduled>, NonNull<Option<Instant>>),
    /// A task that was asked to end, and may wait on this worker.
    Cancel(Arc<dyn Run>),
}

// SAFETY: a coroutine belongs to whom it was sent to.
unsafe impl Send for Message {}

/// What happens at a deadline.
pub(super) enum TimerEvent {
    /// The wait of this coroutine ends.
    Wake(NonNull<Scheduled>),
    /// This operation is cancelled; its completion ends the wait.
    Cancel(NonNull<Request>),
    /// The worker looks for coroutines that have been idle for long.
    Trim,
}

// SAFETY: entries are removed before what they point to goes away, and `Cancel`
// is only acted on by the worker whose driver has the request.
unsafe impl Send for TimerEvent {}

/// What other threads see of one worker.
pub(super) struct Seat {
    pub(super) stealer: Stealer<Runnable>,
    /// The coroutine that the running one woke last.
    pub(super) run_next: AtomicPtr<Scheduled>,
    /// How many coroutines it has resumed; for the monitor.
    pub(super) resumes: AtomicU64,
    /// Whether the one that runs was preempted the last time; for the monitor.
    pub(super) computes: AtomicBool,
    /// Whether it has coroutines that nobody can steal; for the monitor.
    pub(super) has_pinned: AtomicBool,
    /// What its driver waits for; for the monitor.
    io: AtomicU8,
    /// The thread that runs it.
    pub(super) carrier: Lock<Option<Arc<Carrier>>>,
    pub(super) timers: Lock<Timers<TimerEvent>>,
    inbox: Lock<Vec<Message>>,
    has_mail: AtomicBool,
    /// Coroutines that signal handlers have woken.
    pub(super) handled: Handled,
    pub(super) outside: OnceLock<Outside>,
}

/// The parts of a worker's driver that other threads may use.
pub(super) struct Outside {
    pub(super) waker: Arc<driver::Waker>,
    pub(super) waiters: Arc<FdWaiters>,
    pub(super) support: driver::Support,
    /// See [`Driver::fd`](driver::Driver::fd).
    pub(super) fd: AtomicI32,
}

/// Its driver has nothing to wait for.
const NO_IO: u8 = 0;
/// Its driver waits for the kernel.
const WAITS: u8 = 1;
/// Its driver has something that the kernel does not know yet.
const BATCHES: u8 = 2;

impl Seat {
    pub(super) fn new(queue: &Queue) -> Self {
        Self {
            stealer: queue.stealer(),
            run_next: AtomicPtr::new(ptr::null_mut()),
            resumes: AtomicU64::new(0),
            computes: AtomicBool::new(false),
            has_pinned: AtomicBool::new(false),
            io: AtomicU8::new(NO_IO),
            carrier: Lock::new(None),
            timers: Lock::new(Timers::new()),
            inbox: Lock::new(Vec::new()),
            has_mail: AtomicBool::new(false),
            handled: Handled::new(),
            outside: OnceLock::new(),
        }
    }

    /// Leaves a message for the worker, who must then be woken.
    pub(super) fn post(&self, message: Message) {
        let mut inbox = self.inbox.lock();
        inbox.push(message);
        // Under the lock, so that a drain clears it only with the messages.
        self.has_mail.store(true, SeqCst);
    }

    /// Takes the messages out.
    pub(super) fn take_mail(&self) -> Vec<Message> {
        if !self.has_mail.load(Acquire) {
            return Vec::new();
        }
        let mut inbox = self.inbox.lock();
        self.has_mail.store(false, Relaxed);
        mem::take(&mut inbox)
    }

    /// Whether others have left something for the worker: messages, or coroutines
    /// that signal handlers have woken.
    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Relaxed) || !self.handled.is_empty()
    }

    /// Something was submitted. For the worker itself, as the next.
    #[inline]
    pub(super) fn note_submission(&self, is_batching: bool) {
        self.io
            .store(if is_batching { BATCHES } else { WAITS }, Relaxed);
    }

    /// Its driver has looked at the kernel.
    #[inline]
    pub(super) fn note_in_flight(&self, in_flight: usize) {
        self.io
            .store(if in_flight > 0 { WAITS } else { NO_IO }, Relaxed);
    }

    /// Whether its driver waits for something.
    pub(super) fn has_io(&self) -> bool {
        self.io.load(Relaxed) != NO_IO
    }

    /// Whether its driver should submit.
    pub(super) fn has_unsubmitted_io(&self) -> bool {
        self.io.load(Relaxed) == BATCHES
    }

    /// Whether it has something to run besides what it runs.
    pub(super) fn has_runnable(&self) -> bool {
        !self.stealer.is_empty()
            || !self.run_next.load(Relaxed).is_null()
            || self.has_pinned.load(Relaxed)
            || self.has_mail()
    }
}
