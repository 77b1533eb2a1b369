//! Asking a task to end, from wherever it is.
//!
//! A task that has not started never does: whoever asks takes its closure away.
//! One that has started goes on, but what it waits for may end, and it unwinds at
//! points of this library's own. Only the worker that keeps a wait may end it, so
//! whoever asks sends a message to the worker that the coroutine ran on last.
//!
//! # Steps
//!
//! Asking (`Shared::cancel`):
//!
//! 1. Mark the task (`task::state`). It had a result, or was asked before: done.
//! 2. Claim its closure. If that succeeds it never runs: drop the closure, tell of
//!    the task's end. Its entry in a queue, and its coroutine if one is just about
//!    to run it, find it claimed and pass over it.
//! 3. With the list of all coroutines locked, read which one runs the task; lock
//!    that one's task, and compare. If it is another one, or none: the task has ended.
//! 4. Still locked: set `requested`, fence, read `home` and `key`. Unlock.
//! 5. Send the task to the worker `home`, and wake who waits for `key` in the table
//!    of futexes.
//!
//! Waiting for a driver or a timer:
//!
//! 6. The worker sets `wait` when it has the coroutine off its stack, then looks at
//!    `requested`; if it is set, it ends the wait at once (8).
//! 7. It clears `wait` when the wait has ended, before it queues the coroutine.
//! 8. A worker that is sent a task does 3. If the coroutine's `wait` is set and
//!    `home` is this worker, the coroutine waits here: if the wait is of a kind
//!    that may end, ask the driver to cancel the operation, or wake the sleeper.
//!
//! Moving to another worker:
//!
//! 9. A worker that resumes a coroutine of another one sets `home`, then fences.
//!
//! Waiting for a word, at a point that unwinds:
//!
//! 10. Set `key`, enter the table (which fences), look at `requested`: if it is set,
//!     do not wait. Clear `key` afterwards.
//!
//! # Invariants
//!
//! 1. Whoever has claimed the closure of a task, and nobody else, counts it as ended
//!    and wakes who joins it.
//! 2. A coroutine that a task names as its runner is allocated for as long as the list
//!    of all coroutines is locked: the name is deleted before the coroutine is taken
//!    out of that list, which needs the lock, and then freed.
//! 3. `requested` is only set while the coroutine's task is locked and is the one that
//!    was asked; the worker takes the task out, and resets the flag for the next
//!    one, behind the same lock. So no request reaches another task.
//! 4. `wait` is set and cleared by the worker that keeps the wait, and `home` set by a
//!    worker to itself. So a worker that reads `home` as itself behind a `wait` that
//!    is set reads the newest: had another worker set the `wait`, then that one's
//!    `home` would be seen with it; had this one cleared it since, it would know.
//!
//! # Why no request is lost
//!
//! Either the fence of 4 comes before that of a 9, and the looks at `requested` behind
//! that 9 see it; or whoever asks sees that `home`. So the message goes to a worker from which the
//! coroutine has not gone without knowing. That worker takes it before it does 6,
//! and the lock of its inbox makes `requested` visible; or after, and 8 finds the
//! wait. Steps 4 and 10 are two stores and two loads with a fence between each pair.

use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::scheduled::Scheduled;
use super::seat::Message;
use super::shared::Shared;
use super::suspend::{IoWait, current};
use super::worker::Worker;
use crate::driver::Op;
use crate::sys;
use crate::task::{self, Failure, Run};
use crate::util::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::util::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, fence};

/// The part of a coroutine that whoever asks its task to end looks at.
pub(super) struct Cancellation {
    /// The task was asked to end.
    requested: AtomicBool,
    /// The worker that the coroutine ran on last.
    home: AtomicUsize,
    /// What it waits for there: an operation, `ASLEEP`, or null.
    wait: AtomicPtr<IoWait>,
    /// The address of the word that it waits for at a point that unwinds, or 0.
    key: AtomicUsize,
}

/// The coroutine waits for nothing but a timer.
const ASLEEP: *mut IoWait = ptr::without_provenance_mut(1);

/// A wait that may be ended.
enum Wait {
    Sleep,
    Io(NonNull<IoWait>),
}

impl Cancellation {
    pub(super) fn new() -> Self {
        Self {
            requested: AtomicBool::new(false),
            home: AtomicUsize::new(usize::MAX),
            wait: AtomicPtr::new(ptr::null_mut()),
            key: AtomicUsize::new(0),
        }
    }

    /// Before the next task.
    pub(super) fn reset(&self) {
        // Relaxed: invariant 3.
        self.requested.store(false, Relaxed);
    }

    #[inline]
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Relaxed)
    }

    pub(super) fn home(&self) -> usize {
        self.home.load(Relaxed)
    }

    /// Step 9.
    #[inline]
    pub(super) fn arrive(&self, worker: usize) {
        if self.home.load(Relaxed) != worker {
            self.home.store(worker, Relaxed);
            // Pairs with the fence in `request`.
            fence(SeqCst);
        }
    }

    /// Step 4. Returns the worker to send the request to, and the key to wake.
    fn request(&self) -> (usize, usize) {
        self.requested.store(true, Relaxed);
        // Pairs with the fences in `arrive`, and of those who enter a table.
        fence(SeqCst);
        (self.home.load(Relaxed), self.key.load(Relaxed))
    }

    /// Step 6. Returns whether the wait must end at once.
    #[inline]
    #[must_use = "a wait of a task that was asked to end must not last"]
    pub(super) fn begin_wait(&self, wait: NonNull<IoWait>) -> bool {
        self.begin(wait.as_ptr())
    }

    #[inline]
    fn begin(&self, wait: *mut IoWait) -> bool {
        // Release: whoever reads it also sees `home`, see invariant 4.
        self.wait.store(wait, Release);
        self.is_requested()
    }

    /// Step 7.
    #[inline]
    pub(super) fn end_wait(&self) {
        // Relaxed: only its worker acts on it, see invariant 4.
        self.wait.store(ptr::null_mut(), Relaxed);
    }

    /// What the coroutine waits for on `worker`, which is the caller's.
    fn wait_on(&self, worker: usize) -> Option<Wait> {
        // Acquire: pairs with the Release in `begin`.
        let wait = NonNull::new(self.wait.load(Acquire))?;
        if self.home() != worker {
            return None;
        }
        Some(match wait.as_ptr() {
            ASLEEP => Wait::Sleep,
            _ => Wait::Io(wait),
        })
    }
}

/// Which waits for a driver end when their task is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// None.
    Never,
    /// For sockets and pipes; never for files, terminals and the like, nor for
    /// standard input, output and error.
    Peers,
    /// All.
    Always,
}

impl Cancel {
    /// What is so for the caller's next wait: nothing shows while it unwinds.
    #[inline]
    pub(super) fn now(self) -> Self {
        if thread::panicking() {
            Self::Never
        } else {
            self
        }
    }

    fn allows(self, op: &Op) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Peers => waits_for_peer(op),
        }
    }
}

fn waits_for_peer(op: &Op) -> bool {
    let is_for_sockets = matches!(
        op,
        Op::Recv { .. }
            | Op::Send { .. }
            | Op::RecvMsg { .. }
            | Op::SendMsg { .. }
            | Op::Accept { .. }
            | Op::Connect { .. }
    );
    op.readiness()
        .and(op.fd())
        .is_some_and(|fd| match is_for_sockets {
            true => is_own(fd),
            false => is_peer(fd),
        })
}

/// Whether `fd` is none that the process began with.
pub fn is_own(fd: RawFd) -> bool {
    fd > libc::STDERR_FILENO
}

/// Whether waits on `fd` end when their task is asked to: whether it is a socket or
/// a pipe, and none that the process began with.
fn is_peer(fd: RawFd) -> bool {
    is_own(fd) && matches!(sys::file_kind(fd), libc::S_IFSOCK | libc::S_IFIFO)
}

impl Shared {
    /// Asks `task` to end. `None` if it cannot any more, or was asked before. Else
    /// the caller must wake who waits for the returned address in the table of
    /// futexes, if it is not 0.
    ///
    /// A task that has not started is dropped here.
    #[must_use = "whoever waits for the address must be woken"]
    pub fn cancel(&self, task: &Arc<dyn Run>) -> Option<usize> {
        if !task.cancel() {
            return None;
        }
        if task.fail(Failure::Cancelled) {
            self.tell_end(&**task);
            return Some(0);
        }
        let asked = self.with_runner(task, |coroutine| coroutine.cancellation().request());
        let (home, key) = asked?;
        self.send(home, Message::Cancel(task.clone()));
        Some(key)
    }

    /// Step 3. Calls `body` with the coroutine that runs `task`, which it does not
    /// end meanwhile.
    fn with_runner<R>(&self, task: &Arc<dyn Run>, body: impl FnOnce(&Scheduled) -> R) -> Option<R> {
        let _all = self.all.lock();
        let runner = NonNull::new(task.runner().load(Relaxed).cast::<Scheduled>())?;
        // SAFETY: the list is locked (invariant 2).
        let coroutine = unsafe { runner.as_ref() };
        let running = coroutine.lock_task();
        let running = running.as_ref()?;
        ptr::addr_eq(Arc::as_ptr(running), Arc::as_ptr(task)).then(|| body(coroutine))
    }
}

impl Worker {
    /// Step 8.
    pub(super) fn cancel(&self, task: &Arc<dyn Run>) {
        let found = self.shared().with_runner(task, |coroutine| {
            let wait = coroutine.cancellation().wait_on(self.index());
            wait.map(|wait| (wait, NonNull::from(coroutine)))
        });
        match found.flatten() {
            // It waits here, so it stays until this worker queues it.
            Some((Wait::Sleep, coroutine)) => self.end_sleep(coroutine),
            Some((Wait::Io(wait), _)) => self.end_io(wait),
            None => {}
        }
    }

    /// Has `coroutine` wait until `deadline`, which lies in its frame, unless its task
    /// is asked to end.
    #[inline(never)]
    pub(super) fn sleep_until(
        &self,
        coroutine: NonNull<Scheduled>,
        deadline: NonNull<Option<Instant>>,
    ) {
        // SAFETY: it has just been switched from, and is in no queue; so its frame
        // is there too.
        let (target, deadline) = unsafe { (coroutine.as_ref(), *deadline.as_ref()) };
        if target.cancellation().begin(ASLEEP) && !target.is_shielded() {
            target.cancellation().end_wait();
            self.requeue(coroutine);
            return self.share();
        }
        self.park(coroutine, deadline);
    }

    fn end_sleep(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: it waits on this worker.
        if unsafe { coroutine.as_ref() }.is_shielded() {
            return;
        }
        // SAFETY: only this worker's timers wake it otherwise (invariant 3 of `sched`).
        if unsafe { &*Scheduled::wait_state(coroutine) }.notify() {
            // SAFETY: as above; it is in no queue yet.
            unsafe { coroutine.as_ref() }.cancellation().end_wait();
            self.requeue(coroutine);
        }
    }

    /// Asks the driver to end the operation of a task that was asked to end, if it
    /// is of a kind that may.
    #[cold]
    pub(super) fn end_io(&self, wait: NonNull<IoWait>) {
        // SAFETY: pending in this worker's driver, so its frame is suspended.
        let pending = unsafe { wait.as_ref() };
        // SAFETY: the coroutine of that frame.
        let is_shielded = unsafe { pending.coroutine.as_ref() }.is_shielded();
        if !is_shielded && pending.cancel.allows(&pending.request.op) {
            let request = NonNull::from(&pending.request);
            let mut driver = self.driver();
            // SAFETY: submitted, and not handed out (step 7). To a driver that was
            // left behind: it comes here again when it has been moved.
            unsafe {
                if driver.has(request) {
                    driver.cancel(request, libc::ECANCELED);
                }
            }
        }
    }
}

/// Whether the calling task was asked to end. False on a plain thread.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::runtime::spawn;
/// use open_coroutine_core::sched::is_cancelled;
///
/// let task = spawn(|| {
///     let mut rounds = 0u64;
///     while !is_cancelled() {
///         rounds += 1;
///         std::thread::yield_now();
///     }
///     rounds
/// });
/// task.cancel();
/// match task.join() {
///     Ok(rounds) => println!("{rounds} rounds"),
///     Err(error) => assert!(error.is_cancelled(), "it had not started"),
/// }
/// ```
#[inline]
pub fn is_cancelled() -> bool {
    current().is_some_and(|coroutine| coroutine.cancellation().is_requested())
}

/// Unwinds the calling task if it was asked to end, except where nothing may unwind:
/// while it unwinds already, or in a section that must not suspend or be cancelled.
#[inline]
pub fn cancellation_point() {
    if must_unwind() {
        task::unwind();
    }
}

/// Whether [`cancellation_point`] would unwind.
#[inline]
pub fn must_unwind() -> bool {
    current()
        .is_some_and(|coroutine| coroutine.cancellation().is_requested() && may_unwind(coroutine))
}

#[cold]
fn may_unwind(coroutine: &Scheduled) -> bool {
    cfg!(panic = "unwind") && is_shown_to(coroutine)
}

/// Whether points show that the task was asked to end.
fn is_shown_to(coroutine: &Scheduled) -> bool {
    coroutine.pass_through().get() == 0 && !coroutine.is_shielded() && !thread::panicking()
}

/// Runs `body` as if nobody had asked the calling task to end; only [`is_cancelled`]
/// tells. For what must be brought to its end, as the goodbye to a peer.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::runtime::{current, spawn};
/// use open_coroutine_core::sched::without_cancellation;
/// use open_coroutine_core::time::yield_now;
///
/// let task = spawn(|| {
///     current().unwrap().cancel();
///     without_cancellation(yield_now);
///     yield_now();
/// });
/// assert!(task.join().unwrap_err().is_cancelled());
/// ```
pub fn without_cancellation<R>(body: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a Scheduled);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.shields().set(self.0.shields().get() - 1);
        }
    }
    let Some(coroutine) = current() else {
        return body();
    };
    coroutine.shields().set(coroutine.shields().get() + 1);
    let _leave = Leave(coroutine);
    body()
}

/// A wait for a word that ends when the task is asked to: step 10.
pub struct PointWait(&'static Scheduled);

impl PointWait {
    /// Begins a wait for the word at `key`, at a point that unwinds. `None` if the caller
    /// is no coroutine, or one that must not unwind now.
    pub fn begin(key: usize) -> Option<Self> {
        Self::begin_if(key, may_unwind)
    }

    /// Begins a wait for the word at `key`, which may return without reason. `None` if the
    /// caller is no coroutine, or one to which nothing shows now.
    pub fn begin_to_return(key: usize) -> Option<Self> {
        Self::begin_if(key, is_shown_to)
    }

    fn begin_if(key: usize, may_end: impl FnOnce(&Scheduled) -> bool) -> Option<Self> {
        let coroutine = current().filter(|coroutine| may_end(coroutine))?;
        coroutine.cancellation().key.store(key, Relaxed);
        Some(Self(coroutine))
    }

    /// Whether there is no reason to wait. Called after a fence.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancellation().is_requested()
    }
}

impl Drop for PointWait {
    fn drop(&mut self) {
        self.0.cancellation().key.store(0, Relaxed);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex, Notify};
    use loom::thread;

    /// One coroutine, the queue that it is in, and the inboxes of two workers.
    struct Model {
        cancellation: Cancellation,
        /// What lies on its stack: for whoever runs it or ends its wait.
        frame: UnsafeCell<u32>,
        queue: Mutex<bool>,
        queued: Notify,
        inboxes: [Mutex<bool>; 2],
        mail: [Notify; 2],
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                cancellation: Cancellation::new(),
                frame: UnsafeCell::new(0),
                queue: Mutex::new(false),
                queued: Notify::new(),
                inboxes: [Mutex::new(false), Mutex::new(false)],
                mail: [Notify::new(), Notify::new()],
            })
        }

        /// Steps 4 and 5.
        fn ask(&self) {
            let (home, _) = self.cancellation.request();
            *self.inboxes[home].lock().unwrap() = true;
            self.mail[home].notify();
        }

        fn touch(&self) {
            self.frame.with_mut(|frame| unsafe { *frame += 1 });
        }

        fn run(&self, worker: usize) {
            self.cancellation.arrive(worker);
            self.touch();
        }

        /// Step 8. Returns whether the coroutine's wait on `worker` has ended.
        fn read_mail(&self, worker: usize) -> bool {
            let is_asked = std::mem::take(&mut *self.inboxes[worker].lock().unwrap());
            let ends = is_asked && self.cancellation.wait_on(worker).is_some();
            if ends {
                self.touch();
                self.cancellation.end_wait();
            }
            ends
        }

        /// A wait that nothing but a request ends; if none does, the checker finds a
        /// deadlock.
        fn wait_for_ever(&self, worker: usize) {
            if self.cancellation.begin(ASLEEP) {
                return self.cancellation.end_wait();
            }
            while !self.read_mail(worker) {
                self.mail[worker].wait();
            }
        }
    }

    #[test]
    fn a_coroutine_that_moves_is_found_or_knows() {
        let mut checker = loom::model::Builder::new();
        checker.preemption_bound = Some(3);
        checker.check(|| {
            let model = Model::new();
            model.run(0);
            let asks = {
                let model = model.clone();
                thread::spawn(move || model.ask())
            };
            let thief = {
                let model = model.clone();
                thread::spawn(move || {
                    while !std::mem::take(&mut *model.queue.lock().unwrap()) {
                        model.queued.wait();
                    }
                    model.run(1);
                    model.wait_for_ever(1);
                })
            };
            // A wait that is over soon, on the first worker.
            if model.cancellation.begin(ASLEEP) || !model.read_mail(0) {
                model.touch();
                model.cancellation.end_wait();
            }
            *model.queue.lock().unwrap() = true;
            model.queued.notify();
            assert!(!model.read_mail(0), "it does not wait here any more");
            asks.join().unwrap();
            thief.join().unwrap();
        });
    }

    #[test]
    fn who_waits_at_a_point_is_woken_or_knows() {
        loom::model(|| {
            let model = Model::new();
            model.run(0);
            let asks = {
                let model = model.clone();
                thread::spawn(move || {
                    if model.cancellation.request().1 != 0 {
                        model.mail[0].notify();
                    }
                })
            };
            // Step 10, with the fence of the table.
            model.cancellation.key.store(1, Relaxed);
            fence(SeqCst);
            if !model.cancellation.is_requested() {
                model.mail[0].wait();
            }
            asks.join().unwrap();
        });
    }
}
