//! The state of one wait, between the coroutine, its worker and its waker; and
//! the waker's side of it.
//!
//! `RUNNING` (nobody has woken it), `SUSPENDED` (it has left the processor, a
//! wake-up must make it runnable), `NOTIFIED` (a wake-up came). The coroutine
//! sets `RUNNING` before it publishes a waiter; its worker moves `RUNNING` to
//! `SUSPENDED` after the switch, and runs it on if that fails; a waker swaps in
//! `NOTIFIED`, and makes it runnable if it was `SUSPENDED`. So exactly one of
//! the two makes it runnable, and only after it is off its stack.

use std::ptr::NonNull;

use super::scheduled::Scheduled;
use super::shared::Shared;
use crate::util::handler;
use crate::util::sync::atomic::AtomicU8;
use crate::util::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const RUNNING: u8 = 0;
const SUSPENDED: u8 = 1;
const NOTIFIED: u8 = 2;

/// See the module's header.
pub(super) struct WaitState(AtomicU8);

impl WaitState {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(RUNNING))
    }

    /// Before a wait: forget earlier wake-ups.
    pub(super) fn prepare(&self) {
        // Relaxed: whatever publishes the waiter orders it.
        self.0.store(RUNNING, Relaxed);
    }

    /// After the switch: whether it now waits; if not, it was woken already.
    /// Once it waits, the coroutine belongs to whoever wakes it.
    #[must_use = "a coroutine that was woken already must be made runnable"]
    pub(super) fn commit(&self) -> bool {
        // Release: a waker resumes what was suspended. Acquire on failure: it
        // goes on after the wake-up.
        self.0
            .compare_exchange(RUNNING, SUSPENDED, AcqRel, Acquire)
            .is_ok()
    }

    /// A wake-up. Returns whether the caller must make it runnable.
    #[must_use = "a suspended coroutine must be made runnable"]
    pub(super) fn notify(&self) -> bool {
        // AcqRel: pairs with `commit`, both ways.
        self.0.swap(NOTIFIED, AcqRel) == SUSPENDED
    }
}

/// A coroutine that waits, for the one that is to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter(NonNull<Scheduled>);

// SAFETY: `wake` may be called on any thread.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

impl Waiter {
    pub(super) fn new(coroutine: NonNull<Scheduled>) -> Self {
        Self(coroutine)
    }

    /// Ends the wait that this waiter was made for. Returns the coroutine if
    /// it must now be made runnable, which may happen later and without locks.
    ///
    /// # Safety
    ///
    /// The coroutine has not returned from the wait yet, and cannot before this
    /// call ends (invariant 3 of `sched`): the caller holds a lock that the
    /// coroutine takes after its wait, or is the only one that can wake it.
    #[must_use = "a woken coroutine must be made runnable"]
    pub unsafe fn notify(self) -> Option<Woken> {
        // SAFETY: the caller keeps the coroutine from ending.
        let must_run = unsafe { &*Scheduled::wait_state(self.0) }.notify();
        must_run.then_some(Woken(self.0))
    }

    /// [`notify`](Self::notify), and makes it runnable.
    ///
    /// # Safety
    ///
    /// As for `notify`.
    pub unsafe fn wake(self) {
        // SAFETY: the caller's promise.
        if let Some(woken) = unsafe { self.notify() } {
            woken.run(Turn::Next);
        }
    }
}

/// When a coroutine runs that was woken by code of the same worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// When the current one suspends: it goes on with what that one has just made.
    Next,
    /// After all that are queued: most often it waits for more of them.
    Last,
}

/// A coroutine whose wait has ended and which is in no queue yet. Dropping it
/// without [`run`](Self::run) loses the coroutine.
#[derive(Debug)]
pub struct Woken(NonNull<Scheduled>);

// SAFETY: it belongs to the holder, who may be on any thread.
unsafe impl Send for Woken {}

impl Woken {
    /// Makes it runnable, as `turn` says. In a signal handler its turn comes when it
    /// comes.
    pub fn run(self, turn: Turn) {
        // SAFETY: `notify` found it suspended, and told only us.
        unsafe {
            if handler::is_inside() {
                Shared::make_runnable_in_handler(self.0);
            } else {
                Shared::make_runnable(self.0, turn);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use loom::cell::UnsafeCell;
    use loom::thread;

    /// A coroutine: its state, what lies on its stack, how often it was queued.
    struct Model {
        wait: WaitState,
        stack: UnsafeCell<u32>,
        message: UnsafeCell<u32>,
        resumed: UnsafeCell<u32>,
    }

    impl Model {
        /// What whoever makes it runnable does with it, at once.
        fn resume(&self) {
            self.stack.with_mut(|stack| unsafe { *stack += 1 });
            self.resumed.with_mut(|count| unsafe { *count += 1 });
            assert_eq!(7, self.message.with(|message| unsafe { *message }));
        }
    }

    #[test]
    fn exactly_one_of_worker_and_waker_resumes_it_off_its_stack() {
        loom::model(|| {
            let model = Arc::new(Model {
                wait: WaitState::new(),
                stack: UnsafeCell::new(0),
                message: UnsafeCell::new(0),
                resumed: UnsafeCell::new(0),
            });
            model.wait.prepare();
            let waker = {
                let model = model.clone();
                thread::spawn(move || {
                    model.message.with_mut(|message| unsafe { *message = 7 });
                    if model.wait.notify() {
                        model.resume();
                    }
                })
            };
            model.stack.with_mut(|stack| unsafe { *stack += 1 });
            if !model.wait.commit() {
                model.resume();
            }
            waker.join().unwrap();
            assert_eq!(1, model.resumed.with(|count| unsafe { *count }));
        });
    }
}
