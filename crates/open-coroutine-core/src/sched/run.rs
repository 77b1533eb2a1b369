//! The loop of a worker: it takes what is runnable, resumes it, and acts on the reason
//! for which it suspended.
//!
//! From one coroutine to the next it does not return to where the first was resumed
//! ([`resume_isolated`]): the processor predicts where a function returns to by who
//! called it, and after a switch of stacks that is wrong.
//!
//! # Crossing
//!
//! To write the thread pointer takes as long as the rest of a switch. So where it can,
//! a thread goes from one coroutine's storage to the next one's without its own in
//! between:
//!
//! 1. The coroutine suspends. The thread is on its own stack again, and on the
//!    storage of the coroutine. It takes the next one out of a queue
//!    ([`Worker::follower`]).
//! 2. It writes the thread pointer.
//! 3. On the storage of the next one it acts on the reason for which the first has
//!    suspended ([`Worker::follow`]), and resumes the next one.
//!
//! # Invariants
//!
//! 1. Nobody may resume a coroutine while a thread is on its storage, so nothing that
//!    makes it runnable or lets others wake it comes before 2. The next one has been
//!    taken out of a queue, and is in none.
//! 2. What runs in 1 and 3 is to thread-local storage what the runtime's code is that a
//!    coroutine calls: a part of the flow of the first and of the next one, which both are in
//!    a section, have begun their task and not ended it, and whose `carrier` is the
//!    thread. While they are suspended nothing diverts, since the stack is not theirs, and
//!    afterwards they find `errno` as it was ([`Scheduled::suspend`]). It calls no code of
//!    the program but its allocator; and not that either if it has state per coroutine,
//!    in the middle of whose change one of them may be (`may_cross`). It leaves nothing in
//!    that storage ([`Worker::settles`]).
//! 3. What is about the thread is done on its own storage: to end a task or to begin
//!    one, to change the signal mask, to look for completions, to wait.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use super::carrier::{Carrier, Lost};
use super::runnable::{Content, Runnable};
use super::scheduled::{Scheduled, Suspend, resume_isolated};
use super::takeover;
use super::worker::Worker;

/// Coroutines run between two looks at timers, inbox and driver.
const TURN: u32 = 61;

impl Worker {
    /// Until the runtime stops.
    pub(super) fn run(&self) -> Result<(), Lost> {
        while !self.shared().is_stopping() {
            self.left_of_turn.set(TURN);
            if let Some(first) = self.next() {
                self.run_from(first)?;
            }
            if self.has_local_work() {
                self.drive();
            } else {
                self.idle()?;
            }
        }
        Ok(())
    }

    /// What another worker left, and nothing else.
    pub(super) fn run_one(&self, runnable: Runnable) -> Result<(), Lost> {
        self.left_of_turn.set(0);
        match self.coroutine_of(runnable) {
            Some(coroutine) => self.run_from(coroutine),
            None => Ok(()),
        }
    }

    /// The next coroutine of this turn.
    fn next(&self) -> Option<NonNull<Scheduled>> {
        loop {
            let left = self.left_of_turn.get().checked_sub(1)?;
            let runnable = self.picked.take().or_else(|| self.pick())?;
            self.knows_next.set(false);
            self.left_of_turn.set(left);
            self.found_work();
            if let Some(coroutine) = self.coroutine_of(runnable) {
                return Some(coroutine);
            }
        }
    }

    /// The coroutine that `runnable` is, or is given, if there is something to run.
    fn coroutine_of(&self, runnable: Runnable) -> Option<NonNull<Scheduled>> {
        let task = match runnable.into_content() {
            Content::Coroutine(coroutine) => return Some(coroutine),
            Content::Task(task) => task,
        };
        if task.is_claimed() {
            return None;
        }
        if self.shared().is_cancelling() {
            self.shared().refuse(&*task);
            return None;
        }
        match self.assign(self.shared().limit.admit(task)?) {
            Ok(coroutine) => Some(coroutine),
            Err(failed) => {
                self.end(failed);
                None
            }
        }
    }

    /// Runs `first`, and then the next ones of this turn.
    fn run_from(&self, first: NonNull<Scheduled>) -> Result<(), Lost> {
        let carrier = self.carrier();
        self.prepare(first, carrier);
        if let Some(thread) = carrier.tls() {
            // SAFETY: all coroutines are isolated where the thread has `tls`, and this
            // is its own stack and storage. `first` was taken out of a queue, or is new.
            return unsafe { resume_isolated((carrier, thread), self, first) };
        }
        let mut next = Some(first);
        while let Some(coroutine) = next {
            // SAFETY: as above; alive until it is queued again or done.
            let reason = unsafe { coroutine.as_ref().resume_shared() };
            // SAFETY: as above.
            next = unsafe { self.came_back(carrier, coroutine, reason) }?;
        }
        Ok(())
    }

    /// `coroutine` is resumed next.
    fn prepare(&self, coroutine: NonNull<Scheduled>, carrier: &Carrier) {
        // SAFETY: taken out of a queue just now, or new (invariant 1).
        let target = unsafe { coroutine.as_ref() };
        target.arrive(self, carrier);
        self.release_to(target, carrier);
    }

    /// `target`, which has arrived, is resumed next.
    fn release_to(&self, target: &Scheduled, carrier: &Carrier) {
        let resumes = &self.seat().resumes;
        // Only this thread writes it.
        resumes.store(resumes.load(Relaxed).wrapping_add(1), Relaxed);
        self.seat().computes.store(target.computes().get(), Relaxed);
        carrier.release();
    }

    #[cold]
    fn preempted(&self, coroutine: NonNull<Scheduled>) {
        self.shared().preemptions.fetch_add(1, Relaxed);
        // First of all, so that those who are due come before it.
        self.drive();
        self.note_computation();
        self.requeue(coroutine);
        self.share();
    }

    /// Acts on the `reason` for which `coroutine` has suspended. What is not short stays
    /// out of line: it made a yield slower by a twentieth.
    #[inline]
    fn act(&self, coroutine: NonNull<Scheduled>, reason: Suspend) {
        match reason {
            Suspend::Yield => {
                self.requeue(coroutine);
                self.share();
            }
            Suspend::Preempted => self.preempted(coroutine),
            Suspend::Park { deadline } => self.park(coroutine, deadline),
            Suspend::Sleep(deadline) => self.sleep_until(coroutine, deadline),
            Suspend::Io(wait) => self.submit(wait),
            Suspend::Done { ran } => self.recycle(coroutine, ran),
        }
    }

    /// Step 1: the coroutine that the thread may cross to from `coroutine`, which has
    /// suspended for `reason`; `coroutine` itself if it may go on at once, because nobody
    /// else would. `None` if this is to be found out on the thread's own storage.
    ///
    /// Never inlined: `resume_isolated` says why.
    ///
    /// # Safety
    ///
    /// As for [`came_back`](Self::came_back). If it is another one,
    /// [`follow`](Self::follow) is called next.
    #[inline(never)]
    pub(super) unsafe fn follower(
        &self,
        carrier: &Carrier,
        coroutine: NonNull<Scheduled>,
        reason: NonNull<Suspend>,
    ) -> Option<NonNull<Scheduled>> {
        // SAFETY: the caller's promise.
        let (target, reason) = unsafe { (coroutine.as_ref(), reason.as_ref()) };
        let is_about_thread = matches!(reason, Suspend::Preempted | Suspend::Done { .. })
            || target.signals().is_own();
        // One that has a priority may come before all that are queued.
        if is_about_thread || target.priority() != 0 || carrier.hold().is_err() {
            return None;
        }
        let goes_on = matches!(reason, Suspend::Yield) && !self.shared().settings().migrates;
        if !self.may_cross || !self.settles() || !(goes_on || self.has_local_work()) {
            return None;
        }
        let left = self.left_of_turn.get().checked_sub(1)?;
        let Some(picked) = self.pick() else {
            if !goes_on {
                return None;
            }
            self.left_of_turn.set(left);
            target.computes().set(false);
            self.release_to(target, carrier);
            return Some(coroutine);
        };
        self.knows_next.set(true);
        let Some(next) = picked.suspended() else {
            self.picked.set(Some(picked));
            return None;
        };
        self.left_of_turn.set(left);
        self.found_work();
        // SAFETY: taken out of a queue just now.
        unsafe { next.as_ref() }.arrive(self, carrier);
        Some(next)
    }

    /// Step 3, for the `next` one that [`follower`](Self::follower) has returned.
    ///
    /// Never inlined, as that one.
    ///
    /// # Safety
    ///
    /// As for [`came_back`](Self::came_back).
    #[inline(never)]
    pub(super) unsafe fn follow(
        &self,
        carrier: &Carrier,
        (coroutine, reason): (NonNull<Scheduled>, NonNull<Suspend>),
        next: NonNull<Scheduled>,
    ) {
        // SAFETY: the caller's promise: `coroutine` is not resumed before it is queued
        // below.
        unsafe {
            coroutine.as_ref().computes().set(false);
            self.act(coroutine, *reason.as_ref());
            self.knows_next.set(false);
            self.release_to(next.as_ref(), carrier);
        }
    }

    /// `coroutine` has suspended for `reason`, on which this acts. Returns the one to
    /// resume next.
    ///
    /// Never inlined: `resume_isolated` says why.
    ///
    /// # Safety
    ///
    /// It was prepared and resumed by this worker on the calling thread, which is
    /// `carrier`, is in no queue, and `reason` is there until it is resumed or freed.
    #[inline(never)]
    pub(super) unsafe fn came_back(
        &self,
        carrier: &Carrier,
        coroutine: NonNull<Scheduled>,
        reason: NonNull<Suspend>,
    ) -> Result<Option<NonNull<Scheduled>>, Lost> {
        // SAFETY: the caller's promise: it is not resumed or freed before it is queued
        // below.
        let (target, reason) = unsafe { (coroutine.as_ref(), reason.as_ref()) };
        target.depart(self);
        let is_preempted = matches!(*reason, Suspend::Preempted);
        target.computes().set(is_preempted);
        if let Err(Lost) = carrier.hold() {
            takeover::settle(self.shared(), self.index(), carrier, (coroutine, *reason));
            return Err(Lost);
        }
        self.act(coroutine, *reason);
        let next = self.next();
        if let Some(next) = next {
            self.prepare(next, carrier);
        }
        Ok(next)
    }
}
