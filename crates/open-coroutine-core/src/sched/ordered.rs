//! The queue of everything that has a priority other than 0.
//!
//! A lock-free ordered map keyed by priority and arrival. Most programs never
//! use it, and then it costs one load per pick.

use std::cell::UnsafeCell;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};

use crossbeam_skiplist::SkipMap;

use super::runnable::Runnable;

/// What is queued, smallest priority first, first come first served within one.
pub(super) struct Ordered {
    map: SkipMap<(i64, u64), Slot>,
    sequence: AtomicU64,
    len: AtomicUsize,
    /// The priority that `pop_fair` served last.
    served: AtomicI64,
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
            served: AtomicI64::new(i64::MAX),
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

    /// How many entries there are, at most.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Takes the first entry of a priority, of each one in turn, so that none
    /// waits forever for those before it.
    pub(super) fn pop_fair(&self) -> Option<Runnable> {
        if self.is_empty() {
            return None;
        }
        let served = self.served.load(Relaxed);
        let after = (Excluded((served, u64::MAX)), Unbounded);
        loop {
            let next = self.map.range(after).next();
            let entry = next.or_else(|| self.map.front())?;
            if entry.remove() {
                self.served.store(entry.key().0, Relaxed);
                self.len.fetch_sub(1, SeqCst);
                // SAFETY: as in `pop_below`.
                return unsafe { (*entry.value().0.get()).take() };
            }
        }
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

#[cfg(test)]
mod tests {
    use super::super::runnable::Content;
    use super::*;
    use crate::task::{self, Meta};

    fn push(ordered: &Ordered, id: u64, priority: i64) {
        let meta = Meta {
            id,
            priority,
            ..Meta::default()
        };
        let (task, _) = task::new(meta, || ());
        ordered.push(priority, Runnable::task(task));
    }

    fn id(runnable: Option<Runnable>) -> Option<u64> {
        match runnable?.into_content() {
            Content::Task(task) => Some(task.meta().id),
            Content::Coroutine(_) => unreachable!("only tasks are pushed"),
        }
    }

    #[test]
    fn smaller_priorities_come_first_and_equal_ones_in_order() {
        let ordered = Ordered::new();
        for (id, priority) in [(1, 5), (2, -5), (3, i64::MAX), (4, -5), (5, i64::MIN)] {
            push(&ordered, id, priority);
        }
        assert_eq!(Some(5), id(ordered.pop_below(0)));
        let order: Vec<_> = std::iter::from_fn(|| id(ordered.pop())).collect();
        assert_eq!(vec![2, 4, 1, 3], order);
        assert!(ordered.is_empty());
    }

    #[test]
    fn fair_picks_serve_every_priority_in_turn_oldest_first() {
        let ordered = Ordered::new();
        for (id, priority) in [(1, -1), (2, -1), (3, 5), (4, 5), (5, 9)] {
            push(&ordered, id, priority);
        }
        let order: Vec<_> = std::iter::from_fn(|| id(ordered.pop_fair())).collect();
        assert_eq!(vec![1, 3, 5, 2, 4], order);
        assert!(ordered.is_empty());
    }
}
