//! The watcher: a sleeping worker that looks after the others' run-next slots.
//!
//! See "The run-next slot and the watcher" in `README.md`; the comments cite its
//! steps.

use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

use super::scheduled::Scheduled;
use super::shared::{Seat, Shared};
use super::worker::Worker;

/// How long a run-next slot may wait before the watcher takes it over.
pub(super) const WATCH_PERIOD: Duration = Duration::from_millis(1);

/// Nobody watches.
const NOBODY: usize = usize::MAX;
/// Somebody should: the next worker that goes to sleep does.
const WANTED: usize = usize::MAX - 1;

/// Which worker watches, if one does.
pub(super) struct Watcher(AtomicUsize);

impl Watcher {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(NOBODY))
    }

    fn is(&self, worker: usize) -> bool {
        self.0.load(Acquire) == worker
    }

    /// Whether `worker` watches now: because it was wanted or, with `sees_slot`,
    /// because nobody else does.
    fn take_office(&self, worker: usize, sees_slot: bool) -> bool {
        let current = self.0.load(Acquire);
        let is_open = current == WANTED || (current == NOBODY && sees_slot);
        current == worker
            || is_open
                && self
                    .0
                    .compare_exchange(current, worker, AcqRel, Relaxed)
                    .is_ok()
    }

    /// Only for the worker that watches.
    fn resign(&self) {
        self.0.store(NOBODY, SeqCst);
        // Pairs with the fence in `push_next` (R1): a slot that was filled by a
        // worker that still saw this watcher is seen after this.
        fence(SeqCst);
    }

    /// Returns whether a worker must be woken to become the watcher.
    #[must_use = "nobody watches until a worker has been woken"]
    fn hire(&self) -> bool {
        self.0.load(SeqCst) == NOBODY
            && self
                .0
                .compare_exchange(NOBODY, WANTED, AcqRel, Relaxed)
                .is_ok()
    }
}

impl Shared {
    /// Step R1, after a slot was filled and a fence: makes a sleeping worker
    /// watch, if none does.
    #[inline]
    pub(super) fn want_watcher(&self) {
        if self.sleepers.any_asleep() && self.watcher.hire() {
            self.wake_one();
        }
    }
}

/// What the watcher sees of one worker before it sleeps.
pub(super) struct Seen {
    slot: *mut Scheduled,
    resumes: u64,
}

impl Worker {
    /// Step R2: called by a worker that has announced its sleep. What it sees
    /// of the others if it is the watcher.
    pub(super) fn watch(&self) -> Option<Vec<Seen>> {
        let shared = self.shared();
        if shared.seats().len() == 1 || !shared.watcher.take_office(self.index(), self.sees_slot())
        {
            return None;
        }
        if shared.sleepers.asleep() == shared.seats().len() {
            shared.watcher.resign();
            if !self.sees_slot() || !shared.watcher.take_office(self.index(), true) {
                return None;
            }
        }
        let seen = shared.seats().iter().map(|seat| Seen {
            slot: seat.run_next.load(Relaxed),
            resumes: seat.resumes.load(Relaxed),
        });
        Some(seen.collect())
    }

    /// Step R3: the watcher's sleep is over. Takes over slots whose worker has
    /// run one coroutine all the while, and resigns if it has work.
    pub(super) fn end_watch(&self, before: &[Seen]) {
        for (seat, seen) in self.shared().seats().iter().zip(before) {
            let is_stranded = !seen.slot.is_null() && seat.resumes.load(Relaxed) == seen.resumes;
            if !is_stranded || ptr::eq(&raw const **seat, self.seat()) {
                continue;
            }
            // AcqRel: pairs with `push_next`. The content may have changed; any
            // coroutine in the slot is runnable and in no other queue.
            if let Some(stranded) = NonNull::new(seat.run_next.swap(ptr::null_mut(), AcqRel)) {
                self.requeue(stranded);
            }
        }
        if self.searching.get() || self.has_local_work() {
            self.resign();
        }
    }

    /// The watcher will be busy: another sleeper watches in its place, if there
    /// is a slot to look after. Without a sleeper, the next one sees it (R2).
    fn resign(&self) {
        let shared = self.shared();
        if shared.watcher.is(self.index()) {
            shared.watcher.resign();
            if self.sees_slot() {
                shared.want_watcher();
            }
        }
    }

    fn sees_slot(&self) -> bool {
        let is_filled = |seat: &Seat| !seat.run_next.load(Relaxed).is_null();
        let seats = self.shared().seats().iter();
        seats
            .filter(|seat| !ptr::eq(&raw const ***seat, self.seat()))
            .any(|seat| is_filled(seat))
    }
}
