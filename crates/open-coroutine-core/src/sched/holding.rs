//! Whether a thread uses its worker, so that nobody takes it away meanwhile.
//!
//! # Steps
//!
//! 1. The thread sets `holds`, and then loads `state`. `HERE`: it uses the worker, and
//!    clears `holds` when it is done.
//! 2. Who wants to take the worker away moves `HERE` to `TAKING`, has every thread of
//!    the process pass a memory barrier, and then loads `holds`. If it is set he goes
//!    back to `HERE`, else on to `GONE`: the worker is his.
//!    If the kernel refuses the barrier he goes back too.
//! 3. A thread that finds `TAKING` does without the worker if it can. If it must know
//!    for good it waits for the decision.
//!
//! Either the load of 1 comes after that barrier and does not find `HERE`, or the store
//! of 1 comes before and is seen by 2. So step 1 needs no barrier of its own, and
//! costs two plain stores and a load; but the compiler must keep their order.

use crate::util::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use crate::util::sync::atomic::{AtomicBool, AtomicU8};

/// The thread has its worker.
const HERE: u8 = 0;
/// Somebody is about to take it away, or to leave it after all.
const TAKING: u8 = 1;
/// It was taken away.
const GONE: u8 = 2;

/// See the module's header.
pub(super) struct Holding {
    state: AtomicU8,
    holds: AtomicBool,
}

cfg_select! {
    loom => {
        use crate::util::sync::atomic::fence;

        // The model checker has no barrier for all threads: here both sides have one.
        fn light_barrier() {
            fence(SeqCst);
        }

        fn heavy_barrier() -> bool {
            fence(SeqCst);
            true
        }

        fn pause() {
            loom::thread::yield_now();
        }
    }
    _ => {
        use std::sync::atomic::compiler_fence;

        use crate::sys::{memory_barrier_everywhere as heavy_barrier, sched_yield as pause};

        #[inline(always)]
        fn light_barrier() {
            compiler_fence(SeqCst);
        }
    }
}

impl Holding {
    /// A thread that holds its worker.
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(HERE),
            holds: AtomicBool::new(true),
        }
    }

    /// Step 1: whether the worker may be used until [`end`](Self::end). To that the
    /// first value must be given, which tells whether it was held before.
    #[inline]
    pub(super) fn begin(&self) -> (bool, bool) {
        let before = self.holds.load(Relaxed);
        self.holds.store(true, Relaxed);
        light_barrier();
        // Acquire: pairs with the stores of `take`.
        (before, self.state.load(Acquire) == HERE)
    }

    /// The end of step 1.
    #[inline]
    pub(super) fn end(&self, before: bool) {
        light_barrier();
        self.holds.store(before, Relaxed);
    }

    /// [`begin`](Self::begin), for good: false if the worker is gone.
    #[inline]
    #[must_use = "a worker that is gone must not be used"]
    pub(super) fn hold(&self) -> bool {
        self.begin().1 || self.wait_for_decision()
    }

    #[cold]
    fn wait_for_decision(&self) -> bool {
        loop {
            match self.state.load(Acquire) {
                HERE => return true,
                GONE => return false,
                _ => pause(),
            }
        }
    }

    /// Step 2, for another thread, whose the worker is if this returns true.
    #[must_use = "whoever took a worker has to run it"]
    pub(super) fn take(&self) -> bool {
        let claimed = self.state.compare_exchange(HERE, TAKING, SeqCst, Relaxed);
        if claimed.is_err() {
            return false;
        }
        // Without the barrier nothing is known, and it stays where it is.
        // Acquire: what the thread did with the worker before it let go.
        let is_free = heavy_barrier() && !self.holds.load(Acquire);
        self.state.store(if is_free { GONE } else { HERE }, SeqCst);
        is_free
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use loom::cell::UnsafeCell;
    use loom::thread;

    struct Model {
        holding: Holding,
        /// What only one thread may use at a time.
        worker: UnsafeCell<u32>,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                holding: Holding::new(),
                worker: UnsafeCell::new(0),
            })
        }

        fn touch(&self) {
            self.worker.with_mut(|worker| unsafe { *worker += 1 });
        }

        /// A thread that takes the worker away, if it can, and tells whether it did.
        fn spawn_taker(model: &Arc<Self>) -> thread::JoinHandle<bool> {
            let model = model.clone();
            thread::spawn(move || {
                let is_taken = model.holding.take();
                if is_taken {
                    model.touch();
                }
                is_taken
            })
        }

        /// Code of a coroutine that uses the worker once.
        fn section(&self) {
            let (before, is_here) = self.holding.begin();
            if is_here {
                self.touch();
            }
            self.holding.end(before);
        }
    }

    #[test]
    fn a_worker_that_is_taken_away_is_used_by_nobody_else() {
        loom::model(|| {
            let model = Model::new();
            let taker = Model::spawn_taker(&model);
            model.touch();
            // The scheduler runs a coroutine.
            model.holding.end(false);
            model.section();
            let is_mine = model.holding.hold();
            if is_mine {
                model.touch();
            }
            let is_taken = taker.join().unwrap();
            assert_ne!(is_mine, is_taken);
        });
    }

    #[test]
    fn one_of_two_takes_it() {
        loom::model(|| {
            let model = Model::new();
            model.holding.end(false);
            let takers = [(); 2].map(|()| Model::spawn_taker(&model));
            let taken = takers.into_iter().map(|taker| taker.join().unwrap());
            assert_eq!(1, taken.filter(|is_taken| *is_taken).count());
            assert!(!model.holding.hold());
        });
    }
}
