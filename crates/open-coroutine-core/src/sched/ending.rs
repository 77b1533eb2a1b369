//! How a runtime stops.
//!
//! # Steps
//!
//! 1. Close: new tasks are refused. Those that are there go on, for as long as the
//!    configuration says.
//! 2. Cancel: tasks that have not started never do, and all others are asked to end
//!    (`cancel`). Who has begun a task just before that is asked in the next round.
//! 3. Stop: the workers leave their loops, after the coroutine that they run has
//!    come back. Coroutines that have not ended stay in memory as they are, and
//!    their tasks tell joiners so.
//! 4. A worker that stops frees the coroutines that it has cached, and drops its
//!    driver, which ends what is in flight. What others may still refer to then
//!    (whoever wakes a coroutine that was left behind) goes to the next driver.
//!
//! # Invariants
//!
//! 1. A coroutine that was left behind is never resumed: no worker takes anything
//!    out of the queues of this runtime any more, whoever puts it there.

use std::iter;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Instant;

use super::runnable::{Content, Runnable};
use super::scheduled::Scheduled;
use super::shared::{Shared, retry};
use crate::driver;
use crate::sys;
use crate::task::{Failure, Run};

/// How far a runtime is on its way to the end.
pub(super) struct Ending {
    /// Step 1.
    closing: AtomicBool,
    /// Step 2.
    cancelling: AtomicBool,
    /// Step 3.
    stopping: AtomicBool,
    /// Tasks are left behind.
    leaves: AtomicBool,
    /// Changes when no task is left while somebody waits for that.
    drained: AtomicU32,
    /// Workers that have not stopped.
    workers: AtomicU32,
}

impl Ending {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            closing: AtomicBool::new(false),
            cancelling: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            drained: AtomicU32::new(0),
            workers: AtomicU32::new(workers as u32),
        }
    }

    /// Whether new tasks are refused. SeqCst: pairs with the number of tasks, which
    /// spawners change first.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// The last task has ended.
    pub(super) fn drain(&self) {
        self.drained.fetch_add(1, SeqCst);
        sys::futex_wake(&self.drained, u32::MAX >> 1);
    }
}

/// Waits while `is_pending` says so, for `word` to change, at most until `deadline`.
/// Returns whether it came true.
fn wait(word: &AtomicU32, deadline: Option<Instant>, is_pending: impl Fn() -> bool) -> bool {
    loop {
        let seen = word.load(SeqCst);
        if !is_pending() {
            return true;
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        sys::futex_wait(word, seen, left);
    }
}

impl Shared {
    /// Step 1: refuses new tasks from now on.
    pub fn close(&self) {
        self.ending.closing.store(true, SeqCst);
    }

    /// Waits until every task has ended, at most until `deadline`. Call it on a
    /// plain thread. Returns whether they have.
    pub fn wait_drained(&self, deadline: Option<Instant>) -> bool {
        wait(&self.ending.drained, deadline, || self.tasks() > 0)
    }

    /// Step 2. To be called again while tasks are left. Whoever waits for one of the
    /// returned addresses in the table of futexes must be woken.
    #[must_use = "whoever waits for the addresses must be woken"]
    pub fn cancel_all(&self) -> Vec<usize> {
        self.ending.cancelling.store(true, SeqCst);
        while let Some(task) = self.limit.give_up() {
            self.refuse(&*task);
        }
        let asked = self
            .begun()
            .into_iter()
            .filter_map(|task| self.cancel(&task));
        asked.filter(|&address| address != 0).collect()
    }

    /// Whether tasks that have not started are not to start any more.
    #[inline]
    pub(super) fn is_cancelling(&self) -> bool {
        self.ending.cancelling.load(Relaxed)
    }

    /// Ends a task that has not started, unless somebody else has done that.
    #[cold]
    pub(super) fn refuse(&self, task: &dyn Run) {
        if task.fail(Failure::Cancelled) {
            self.tell_end(task);
        }
    }

    /// The tasks that have a coroutine.
    fn begun(&self) -> Vec<Arc<dyn Run>> {
        let all = self.all.lock();
        // SAFETY: registered objects are alive; `unregister` takes the lock.
        let task = |coroutine: &NonNull<Scheduled>| unsafe { coroutine.as_ref() }.task();
        all.iter().filter_map(task).collect()
    }

    /// What has not ended: the names of tasks that have begun and what they do, and
    /// how many there are in all, those that have not started included.
    pub fn unfinished(&self) -> (Vec<String>, usize) {
        let all = self.all.lock();
        let names = all.iter().filter_map(|coroutine| {
            // SAFETY: registered objects are alive; `unregister` takes the lock.
            let coroutine = unsafe { coroutine.as_ref() };
            let task = coroutine.task()?;
            let meta = task.meta();
            let activity = coroutine.activity();
            Some(match &meta.name {
                Some(name) => format!("{name} (task {}, {activity})", meta.id),
                None => format!("task {} ({activity})", meta.id),
            })
        });
        (names.collect(), self.tasks())
    }

    /// Step 3: makes the workers leave their loops. Whoever joins a task that has
    /// not ended by then learns that it was cancelled; one that has not started
    /// never does.
    pub fn stop(&self) {
        self.ending.leaves.store(self.tasks() > 0, Relaxed);
        // SeqCst: pairs with the Acquire in `worker_stopped`, which reads the above.
        self.ending.stopping.store(true, SeqCst);
        self.wake_all();
        self.monitor.wake();
        self.cancel_unstarted();
        for task in self.begun() {
            if let Some((word, waiters)) = task.abandon() {
                (self.settings().wake_joiners)(word, waiters);
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.ending.stopping.load(Relaxed)
    }

    /// Ends all tasks in the queues. Coroutines in them stay as they are.
    pub(super) fn cancel_unstarted(&self) {
        let stealers = self.seats().iter().map(|seat| &seat.stealer);
        let local = stealers.flat_map(|queue| iter::from_fn(|| retry(|| queue.steal())));
        let injected = iter::from_fn(|| self.take_injected_only());
        let ordered = iter::from_fn(|| self.ordered.pop());
        let waiting = iter::from_fn(|| self.limit.give_up().map(Runnable::task));
        for runnable in local.chain(injected).chain(ordered).chain(waiting) {
            if let Content::Task(task) = runnable.into_content() {
                self.refuse(&*task);
            }
        }
    }

    /// Step 4: worker `index` has left its loop, and its driver is gone.
    pub(super) fn worker_stopped(&self, index: usize) {
        // Acquire: pairs with the Release in `stop`.
        let leaves = self.ending.stopping.load(Acquire) && self.ending.leaves.load(Relaxed);
        // A thread that was relieved of this worker may have a driver of it still.
        if let Some(outside) = self.seats()[index].outside.get()
            && leaves
            && self.takeovers.load(Relaxed) == 0
        {
            driver::leave(&outside.waker, &outside.waiters);
        }
        self.ending.workers.fetch_sub(1, SeqCst);
        sys::futex_wake(&self.ending.workers, u32::MAX >> 1);
    }

    /// Waits until every worker has stopped, whatever thread runs it by now, at most
    /// until `deadline`. Returns whether they have.
    pub fn wait_stopped(&self, deadline: Option<Instant>) -> bool {
        let workers = &self.ending.workers;
        wait(workers, deadline, || workers.load(SeqCst) > 0)
    }
}
