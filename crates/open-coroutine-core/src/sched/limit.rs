//! How many coroutines may be alive at once (`max_size`).
//!
//! # Invariants
//!
//! 1. `live` tasks hold a place: they were admitted and have not ended.
//! 2. A task waits only while all places are taken. A place that becomes free
//!    passes to the first that waits, so that no newcomer can overtake it.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use crate::task::Run;
use crate::util::lock::Lock;

/// Places for coroutines. Without a maximum it counts nothing.
pub(super) struct Limit {
    max: Option<usize>,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    live: usize,
    /// By priority, first come first served within one.
    waiting: BTreeMap<(i64, u64), Arc<dyn Run>>,
    sequence: u64,
}

impl Limit {
    pub(super) fn new(max: Option<usize>) -> Self {
        Self {
            max,
            state: Lock::default(),
        }
    }

    /// Asks for a place. Returns the task if it may start now; otherwise it is
    /// kept until a place passes to it.
    pub(super) fn admit(&self, task: Arc<dyn Run>) -> Option<Arc<dyn Run>> {
        let Some(max) = self.max else {
            return Some(task);
        };
        let mut state = self.state.lock();
        if state.live < max {
            state.live += 1;
            return Some(task);
        }
        state.sequence += 1;
        let key = (task.meta().priority, state.sequence);
        state.waiting.insert(key, task);
        None
    }

    /// A task that had a place has ended. Returns the one to which its place
    /// passes: it must be started.
    #[must_use = "the task has a place, and nobody else will start it"]
    pub(super) fn release(&self) -> Option<Arc<dyn Run>> {
        self.max?;
        let mut state = self.state.lock();
        // Those that were asked to end while they waited never start.
        let next = iter::from_fn(|| state.waiting.pop_first()).find(|(_, task)| !task.is_claimed());
        if next.is_none() {
            state.live -= 1;
        }
        next.map(|(_, task)| task)
    }

    /// Takes out a task that waits. It has no place.
    pub(super) fn give_up(&self) -> Option<Arc<dyn Run>> {
        self.max?;
        self.state.lock().waiting.pop_first().map(|(_, task)| task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{self, Failure, Meta};

    fn task(id: u64, priority: i64) -> Arc<dyn Run> {
        let meta = Meta {
            id,
            priority,
            ..Meta::default()
        };
        task::new(meta, || ()).0
    }

    fn id(task: Option<Arc<dyn Run>>) -> Option<u64> {
        task.map(|task| task.meta().id)
    }

    #[test]
    fn a_place_passes_to_the_first_that_waits_before_any_newcomer() {
        let limit = Limit::new(Some(1));
        assert_eq!(Some(1), id(limit.admit(task(1, 0))));
        assert_eq!(None, id(limit.admit(task(2, 0))));
        assert_eq!(None, id(limit.admit(task(3, 0))));
        assert_eq!(Some(2), id(limit.release()));
        assert_eq!(None, id(limit.admit(task(4, 0))));
        assert_eq!(Some(3), id(limit.release()));
        assert_eq!(Some(4), id(limit.release()));
        assert_eq!(None, id(limit.release()));
        assert_eq!(Some(5), id(limit.admit(task(5, 0))));
    }

    #[test]
    fn those_that_wait_start_by_priority() {
        let limit = Limit::new(Some(1));
        assert!(limit.admit(task(1, 0)).is_some());
        for (id, priority) in [(2, 0), (3, -1), (4, 0), (5, -1)] {
            assert!(limit.admit(task(id, priority)).is_none());
        }
        let order: Vec<_> = std::iter::from_fn(|| id(limit.release())).collect();
        assert_eq!(vec![3, 5, 2, 4], order);
    }

    #[test]
    fn a_task_that_was_cancelled_while_it_waits_takes_no_place() {
        let limit = Limit::new(Some(1));
        assert!(limit.admit(task(1, 0)).is_some());
        let cancelled = task(2, 0);
        assert!(limit.admit(cancelled.clone()).is_none());
        assert!(limit.admit(task(3, 0)).is_none());
        assert!(cancelled.fail(Failure::Cancelled));
        assert_eq!(Some(3), id(limit.release()));
        assert_eq!(None, id(limit.release()));
        assert_eq!(Some(4), id(limit.admit(task(4, 0))));
    }

    #[test]
    fn without_a_maximum_everything_is_admitted() {
        let limit = Limit::new(None);
        assert!(limit.admit(task(1, 0)).is_some());
        assert!(limit.release().is_none());
    }
}
