//! The queue of everything that has a priority other than 0.
//!
//! A lock-free ordered map keyed by priority and arrival. Most programs never
//! use it, and then it costs one load per pick.

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crossbeam_skiplist::SkipMap;

use super::shared::Runnable;

/// What is queued, smallest priority first, first come first served within one.
pub(super) struct Ordered {
    map: SkipMap<(i64, u64), Slot>,
    sequence: AtomicU64,
    len: AtomicUsize,
}

/// The map drops removed values late and hands out shared references only; the
/// one that removes an entry takes its content through this cell.
struct Slot(UnsafeCell<Option<Runnable>>);

// SAFETY: the content is written before the slot is shared, and read only by
// the one thread whose `remove` of the entry succeeded.
unsafe impl Sync for Slot {}

impl Ordered {
    pub(super) fn new() -> Self {
        Self {
            map: SkipMap::new(),
            sequence: AtomicU64::new(0),
            len: AtomicUsize::new(0),
        }
    }

    pub(super) fn push(&self, priority: i64, runnable: Runnable) {
        let sequence = self.sequence.fetch_add(1, Relaxed);
        // Before the insertion: a reader that misses the entry may see a length
        // that is too large, never one that is too small.
        self.len.fetch_add(1, SeqCst);
        let slot = Slot(UnsafeCell::new(Some(runnable)));
        self.map.insert((priority, sequence), slot);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Takes the first entry, if its priority is below `limit`.
    pub(super) fn pop_below(&self, limit: i64) -> Option<Runnable> {
        while let Some(entry) = self.map.front() {
            if entry.key().0 >= limit {
                return None;
            }
            if entry.remove() {
                self.len.fetch_sub(1, SeqCst);
                // SAFETY: of all threads only the one that removes the entry
                // comes here.
                return unsafe { (*entry.value().0.get()).take() };
            }
        }
        None
    }

    /// Takes the entry that would otherwise come last.
    pub(super) fn pop_last(&self) -> Option<Runnable> {
        if self.is_empty() {
            return None;
        }
        let entry = self.map.pop_back()?;
        self.len.fetch_sub(1, SeqCst);
        // SAFETY: as in `pop_below`; `pop_back` removed the entry.
        unsafe { (*entry.value().0.get()).take() }
    }

    /// Takes the first entry.
    pub(super) fn pop(&self) -> Option<Runnable> {
        // `i64::MAX` itself is a legal priority, so it is looked for last.
        self.pop_below(i64::MAX).or_else(|| {
            let entry = self.map.pop_front()?;
            self.len.fetch_sub(1, SeqCst);
            // SAFETY: as in `pop_below`; `pop_front` removed the entry.
            unsafe { (*entry.value().0.get()).take() }
        })
    }
}
