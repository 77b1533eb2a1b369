//! The state of a task's result, between the task and its join handle.
//!
//! Bits of one word, only ever set:
//!
//! * `STORED`: the result is in its place. Whoever sets the later one of
//!   `STORED` and `DETACHED` drops the result.
//! * `DONE`: the task's thread-locals are gone too; joiners may return.
//! * `AWAITED`: a coroutine waits for `DONE` in the futex table.
//! * `AWAITED_BY_THREAD`: a thread waits for it in the kernel.
//! * `DETACHED`: the handle was dropped; nobody will take the result.
//! * `TAKEN`: the result was taken.
//! * `ABANDONED`: the runtime stopped without it; joiners return without it.
//! * `CANCELLED`: it was asked to end.
//!
//! The thread that sets `TAKEN` (or the second of `STORED` and `DETACHED`) is
//! the only one that touches the result from there on.

use crate::util::sync::atomic::AtomicU32;
use crate::util::sync::atomic::Ordering::{AcqRel, Acquire};

const STORED: u32 = 1;
const DONE: u32 = 2;
const AWAITED: u32 = 4;
const AWAITED_BY_THREAD: u32 = 8;
const DETACHED: u32 = 16;
const TAKEN: u32 = 32;
const ABANDONED: u32 = 64;
const CANCELLED: u32 = 128;

/// Who waits for the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiters {
    /// Coroutines only.
    Coroutines,
    /// Threads, and maybe coroutines.
    Threads,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct State(AtomicU32);

impl State {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    cfg_select! {
        loom => {
            pub(super) fn word(&self) -> &std::sync::atomic::AtomicU32 {
                unreachable!("the model checker has no futexes")
            }
        }
        _ => {
            /// The word to wait on.
            pub(super) fn word(&self) -> &AtomicU32 {
                &self.0
            }
        }
    }

    /// The result is in its place. Returns whether the caller must drop it.
    #[must_use = "a result that nobody will take must be dropped"]
    pub(super) fn store(&self) -> bool {
        // AcqRel: publishes the result; and if the handle is gone, pairs with
        // `detach`, after which the result is ours again.
        self.0.fetch_or(STORED, AcqRel) & DETACHED != 0
    }

    /// The task has ended. Returns who must be woken.
    #[must_use = "whoever waits must be woken"]
    pub(super) fn finish(&self) -> Option<Waiters> {
        self.end(DONE)
    }

    /// The runtime stopped without the task. Returns who must be woken.
    #[must_use = "whoever waits must be woken"]
    pub(super) fn abandon(&self) -> Option<Waiters> {
        self.end(ABANDONED)
    }

    fn end(&self, bit: u32) -> Option<Waiters> {
        // AcqRel: everything the task did happens before `join` returns; and a
        // waiter's bit is seen.
        let before = self.0.fetch_or(bit, AcqRel);
        if before & AWAITED_BY_THREAD != 0 {
            Some(Waiters::Threads)
        } else {
            (before & AWAITED != 0).then_some(Waiters::Coroutines)
        }
    }

    /// The task is asked to end. Returns whether it still can: nobody has asked
    /// before, and it has no result yet.
    #[must_use = "the request must be passed on"]
    pub(super) fn cancel(&self) -> bool {
        // AcqRel: what the caller did before it asked is seen by the task.
        let before = self.0.fetch_or(CANCELLED, AcqRel);
        before & (CANCELLED | STORED | DONE | ABANDONED) == 0
    }

    pub(super) fn is_cancelled(&self) -> bool {
        // Acquire: pairs with `cancel`.
        self.0.load(Acquire) & CANCELLED != 0
    }

    pub(super) fn is_done(&self) -> bool {
        // Acquire: pairs with `finish`.
        self.0.load(Acquire) & DONE != 0
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_over(&self) -> bool {
        // Acquire: pairs with `end`.
        self.0.load(Acquire) & (DONE | ABANDONED) != 0
    }

    /// Asks to be woken. Returns the value to wait for a change of, or `None`
    /// if there is nothing to wait for.
    #[must_use = "the caller waits, or the task is over"]
    pub(super) fn begin_wait(&self, waiter: Waiters) -> Option<u32> {
        let bit = match waiter {
            Waiters::Coroutines => AWAITED,
            Waiters::Threads => AWAITED_BY_THREAD,
        };
        // AcqRel: pairs with `finish`, which sees the bit if it comes later.
        let before = self.0.fetch_or(bit, AcqRel);
        (before & (DONE | ABANDONED) == 0).then_some(before | bit)
    }

    /// Returns whether the result is the caller's.
    #[must_use = "the result must be taken"]
    pub(super) fn take(&self) -> bool {
        self.is_done() && self.0.fetch_or(TAKEN, AcqRel) & TAKEN == 0
    }

    /// The handle is gone. Returns whether the caller must drop the result.
    #[must_use = "a result that nobody will take must be dropped"]
    pub(super) fn detach(&self) -> bool {
        // AcqRel: pairs with `store`.
        self.0.fetch_or(DETACHED, AcqRel) & STORED != 0
            && self.0.fetch_or(TAKEN, AcqRel) & TAKEN == 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use loom::cell::UnsafeCell;
    use loom::sync::Notify;
    use loom::thread;

    struct Model {
        state: State,
        result: UnsafeCell<u32>,
        /// What the destructors of its thread-locals write, after the result.
        last_words: UnsafeCell<u32>,
        token: Notify,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                state: State::new(),
                result: UnsafeCell::new(0),
                last_words: UnsafeCell::new(0),
                token: Notify::new(),
            })
        }

        /// The task: its result is 7. Returns whether it dropped it.
        fn run(&self) -> bool {
            self.result.with_mut(|result| unsafe { *result = 7 });
            let discards = self.state.store();
            if discards {
                self.result.with_mut(|result| unsafe { *result = 0 });
            }
            self.last_words.with_mut(|words| unsafe { *words = 8 });
            if self.state.finish().is_some() {
                self.token.notify();
            }
            discards
        }
    }

    #[test]
    fn a_joiner_is_woken_and_has_the_result() {
        loom::model(|| {
            let model = Model::new();
            let task = {
                let model = model.clone();
                thread::spawn(move || model.run())
            };
            while model.state.begin_wait(Waiters::Coroutines).is_some() {
                model.token.wait();
            }
            assert!(model.state.take());
            assert_eq!(7, model.result.with(|result| unsafe { *result }));
            assert_eq!(8, model.last_words.with(|words| unsafe { *words }));
            assert!(!model.state.take());
            assert!(!task.join().unwrap());
        });
    }

    #[test]
    fn a_detached_result_is_dropped_once_by_one_of_the_two() {
        loom::model(|| {
            let model = Model::new();
            let task = {
                let model = model.clone();
                thread::spawn(move || model.run())
            };
            let discards = model.state.detach();
            if discards {
                model.result.with_mut(|result| unsafe { *result = 0 });
            }
            assert_ne!(discards, task.join().unwrap());
        });
    }
}
