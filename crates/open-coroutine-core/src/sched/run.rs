//! The loop of a worker: it takes what is runnable, resumes it, and acts on the reason
//! for which it suspended.
//!
//! From one coroutine to the next it does not return to where the first was resumed
//! ([`resume_isolated`]): the processor predicts where a function returns to by who
//! called it, and after a switch of stacks that is wrong.

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
            let runnable = self.pick()?;
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
        let resumes = &self.seat().resumes;
        // Only this thread writes it.
        resumes.store(resumes.load(Relaxed).wrapping_add(1), Relaxed);
        // SAFETY: taken out of a queue just now, or new (invariant 1).
        let target = unsafe { coroutine.as_ref() };
        self.seat().computes.store(target.computes().get(), Relaxed);
        target.arrive(self, carrier);
        carrier.release();
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
        match *reason {
            Suspend::Yield => {
                self.requeue(coroutine);
                self.share();
            }
            Suspend::Preempted => {
                self.shared().preemptions.fetch_add(1, Relaxed);
                // First of all, so that those who are due come before it.
                self.drive();
                self.note_computation();
                self.requeue(coroutine);
                self.share();
            }
            Suspend::Park { deadline } => self.park(coroutine, deadline),
            Suspend::Sleep(deadline) => self.sleep_until(coroutine, deadline),
            Suspend::Io(wait) => self.submit(wait),
            Suspend::Done { ran } => self.recycle(coroutine, ran),
        }
        let next = self.next();
        if let Some(next) = next {
            self.prepare(next, carrier);
        }
        Ok(next)
    }
}
