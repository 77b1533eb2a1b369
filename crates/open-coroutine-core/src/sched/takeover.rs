//! Taking a worker over from a thread that is stuck.
//!
//! A coroutine may block its thread after all: in a call that no hook sees, or with
//! a lock of libc's that a suspended coroutine holds, who could only go on here.
//! Then a spare thread takes over queue, timers and driver, and the thread is left
//! alone with its coroutine.
//!
//! # Steps
//!
//! 1. The monitor finds a thread stuck, and calls a spare.
//! 2. The spare makes a driver of its own, if the worker's is tied to the thread
//!    that made it, and takes the worker away (`carrier`). From here on it alone
//!    runs the worker.
//! 3. It puts its own driver into the worker. The old one stays with the thread,
//!    together with what is in flight there. Then it says that it is done (`is_lost`).
//! 4. It signals the thread, whose handler asks the kernel for the end of all that,
//!    and lets it complete ([`Driver::evacuate`]); no other thread can.
//! 5. The spare hands out what is complete, and submits to its own driver what only
//!    ended to be moved. It looks until nothing is left, and signals again when the
//!    old driver has something that needs its thread.
//! 6. When the thread's coroutine comes back, its scheduler finds that it has lost
//!    the worker ([`Lost`](super::carrier::Lost)), and acts on the reason without it
//!    ([`settle`]). It does what is left of step 4, and ends, or is a spare again.
//!
//! # Invariants
//!
//! 1. Only the worker's current thread counts waiters and submits. The thread that
//!    was left behind does no more than to enter the kernel.
//! 2. An old driver is dropped by its own thread, when it is empty.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::carrier::Carrier;
use super::runnable::Runnable;
use super::scheduled::{Scheduled, Suspend, destroy};
use super::seat::{Message, TimerEvent};
use super::shared::Shared;
use super::worker::{Worker, serve};
use super::{preempt, stuck};
use crate::driver::{Driver, Request};
use crate::sys;
use crate::util::lock::Lock;

/// How often a spare looks at a driver that was left behind.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// What a thread keeps of a worker that it has lost.
#[derive(Default)]
pub(super) struct Left {
    driver: Lock<Option<Driver>>,
    /// The worker is gone, and its driver is here.
    is_lost: AtomicBool,
    /// Step 4 was done.
    is_evacuated: AtomicBool,
    /// When its coroutine began to block it.
    pub(super) since: Lock<Option<Instant>>,
    pub(super) place: stuck::Place,
}

impl Left {
    /// Step 3.
    fn keep(&self, driver: Driver) {
        *self.driver.lock() = Some(driver);
    }

    /// In a signal handler on the thread itself: what is its part, if it has lost its
    /// worker.
    pub(super) fn in_handler(&self) {
        // Acquire: pairs with the Release in `take_over`.
        if self.is_lost.load(Acquire) {
            self.evacuate();
            self.place.note();
        }
    }

    /// Step 4, on the thread itself.
    fn evacuate(&self) {
        // The handler may have interrupted a use of it, and is called again then.
        if let Some(mut left) = self.driver.try_lock()
            && let Some(driver) = &mut *left
        {
            driver.evacuate();
            // Release: pairs with the Acquire in `needs_thread`.
            self.is_evacuated.store(true, Release);
            driver.waker().wake();
        }
    }

    /// Whether something is in flight there.
    fn is_busy(&self) -> bool {
        let left = self.driver.lock();
        left.as_ref().is_some_and(|driver| driver.in_flight() > 0)
    }

    /// Step 5: hands out what is complete. Returns whether something is left.
    #[must_use = "who has something left must look again"]
    fn harvest(&self, done: &mut impl FnMut(NonNull<Request>)) -> bool {
        let mut left = self.driver.lock();
        left.as_mut().is_some_and(|driver| {
            driver.harvest(done);
            driver.in_flight() > 0
        })
    }

    /// Whether the kernel has something that only the thread can let complete.
    fn needs_thread(&self) -> bool {
        // Acquire: pairs with the Release in `evacuate`.
        if !self.is_evacuated.load(Acquire) {
            return true;
        }
        let left = self.driver.lock();
        left.as_ref()
            .is_some_and(|driver| sys::is_readable(driver.fd()))
    }

    /// `fd` was closed: what waits on it is not to be moved.
    fn close_notice(&self, fd: i32, epoch: u64) {
        if let Some(driver) = &mut *self.driver.lock() {
            driver.close_notice_left(fd, epoch);
        }
    }
}

/// A thread that its coroutine blocks.
pub(super) struct Stuck {
    pub(super) carrier: Arc<Carrier>,
    /// The worker, and how often it has resumed a coroutine.
    pub(super) index: usize,
    pub(super) resumes: u64,
    pub(super) since: Instant,
}

impl Shared {
    /// Step 1. An error if there is no thread for it.
    pub(super) fn relieve(self: &Arc<Self>, stuck: Stuck) -> std::io::Result<()> {
        let shared = self.clone();
        self.spares().submit(move || shared.take_over(&stuck))
    }

    /// Steps 2 to 4, and then whatever the worker has to do.
    fn take_over(self: &Arc<Self>, stuck: &Stuck) {
        let seat = &self.seats()[stuck.index];
        let Some(outside) = seat.outside.get() else {
            return;
        };
        let kind = self.settings().driver;
        let Ok(driver) = Driver::relieving(kind, &outside.waker, &outside.waiters) else {
            // The monitor tries again.
            return;
        };
        if seat.resumes.load(Relaxed) != stuck.resumes || self.is_stopping() {
            return;
        }
        let Some(worker) = stuck.carrier.take() else {
            return;
        };
        self.takeovers.fetch_add(1, Relaxed);
        let left = stuck.carrier.left();
        *left.since.lock() = Some(stuck.since);
        let is_busy = driver.is_some_and(|driver| {
            let old = worker.exchange_driver(driver);
            let is_busy = old.in_flight() > 0;
            left.keep(old);
            if is_busy {
                worker.leave_behind(stuck.carrier.clone());
            }
            is_busy
        });
        // Release: pairs with the Acquire in `in_handler`.
        left.is_lost.store(true, Release);
        if is_busy || stuck::may_interrupt(stuck.carrier.thread()) {
            preempt::signal(&stuck.carrier);
        }
        let before = sys::set_signal_mask(self.worker_mask(stuck.index));
        (self.settings().on_thread)(&mut || serve(worker.clone()));
        sys::set_signal_mask(before);
    }
}

impl Worker {
    /// Step 5, for the current thread of the worker.
    pub(super) fn harvest(&self) {
        let left = std::mem::take(&mut *self.left_behind.borrow_mut());
        for carrier in left {
            if carrier.left().needs_thread() {
                preempt::signal(&carrier);
            }
            if carrier
                .left()
                .harvest(&mut |request| self.completed(request))
            {
                self.leave_behind(carrier);
            }
        }
    }

    fn leave_behind(&self, carrier: Arc<Carrier>) {
        self.left_behind.borrow_mut().push(carrier);
    }

    /// Whether a driver was left behind that is not empty.
    #[inline]
    pub(super) fn has_left_behind(&self) -> bool {
        !self.left_behind.borrow().is_empty()
    }

    /// `fd` was closed: see [`Left::close_notice`].
    pub(super) fn close_notice_left(&self, fd: i32, epoch: u64) {
        for carrier in &*self.left_behind.borrow() {
            carrier.left().close_notice(fd, epoch);
        }
    }
}

/// Step 6: acts on the reason for which `coroutine` comes back to a thread that has
/// lost worker `index`.
pub(super) fn settle(
    shared: &Arc<Shared>,
    index: usize,
    carrier: &Carrier,
    (coroutine, reason): (NonNull<Scheduled>, Suspend),
) {
    // SAFETY: it is in no queue, and does not end before it is.
    let priority = || unsafe { coroutine.as_ref() }.priority();
    match reason {
        Suspend::Preempted if priority() == 0 => {
            shared.computing.push(Runnable::coroutine(coroutine));
            shared.wake_one();
        }
        Suspend::Yield | Suspend::Preempted => {
            shared.enqueue(Runnable::coroutine(coroutine), priority());
        }
        Suspend::Park { deadline } => park(shared, index, coroutine, deadline),
        Suspend::Io(wait) => shared.send(index, Message::Submit(wait)),
        Suspend::Sleep(deadline) => shared.send(index, Message::Sleep(coroutine, deadline)),
        Suspend::Done { ran } => {
            // SAFETY: it has ended its task, and is in no queue.
            let task = unsafe { coroutine.as_ref() }.take_task().filter(|_| ran);
            shared.unregister(coroutine);
            // SAFETY: on the thread's own storage, after a task.
            drop(unsafe { destroy(coroutine, carrier.tls()) });
            let start = |task| shared.assign(task, None);
            let queue = |next| shared.enqueue(Runnable::coroutine(next), 0);
            shared.end(task, start, queue);
        }
    }
}

fn park(
    shared: &Arc<Shared>,
    index: usize,
    coroutine: NonNull<Scheduled>,
    deadline: Option<Instant>,
) {
    // SAFETY: until `commit` below succeeds nobody resumes it.
    let target = unsafe { coroutine.as_ref() };
    let priority = target.priority();
    let timers = &shared.seats()[index].timers;
    let timer = deadline.map(|at| timers.lock().insert(at, TimerEvent::Wake(coroutine)));
    target.set_timer(timer.map(|key| (index, key)));
    // SAFETY: as above; once this succeeds it is not touched any more.
    if !unsafe { &*Scheduled::wait_state(coroutine) }.commit() {
        shared.enqueue(Runnable::coroutine(coroutine), priority);
    } else if timer.is_some() {
        // It may sleep for longer than that.
        shared.wake(index);
    }
}

/// The rest of step 6, when its coroutine has come back: the thread is free.
pub(super) fn end(shared: &Arc<Shared>, index: usize, carrier: &Carrier) {
    let left = carrier.left();
    // Whoever has just taken the worker may not have left the driver here yet.
    // Acquire: pairs with the Release in `take_over`.
    while !left.is_lost.load(Acquire) {
        sys::sched_yield();
    }
    left.evacuate();
    stuck::report(left);
    let mut pause = Duration::from_millis(1);
    while left.is_busy() && !shared.is_stopping() {
        left.evacuate();
        shared.wake(index);
        sys::pause(pause);
        pause = (2 * pause).min(Duration::from_millis(64));
    }
    // Invariant 2. If the runtime stops meanwhile, it waits for the rest.
    let driver = left.driver.lock().take();
    drop(driver);
}
