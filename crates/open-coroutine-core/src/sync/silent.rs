//! Unlocks that nobody sees.
//!
//! `pthread_cond_wait` on a plain thread unlocks the mutex inside of libc, and
//! no hook is told. So a coroutine that waited for that mutex in the table would
//! never be woken. Before such a call the thread therefore marks the mutex, and
//! coroutines wait for a marked one in the kernel, like threads, where libc wakes.
//!
//! # Protocol
//!
//! A thread that is about to unlock silently:
//!
//! 1. Add one to the mark. Fence, then load the `count` of waiters.
//! 2. If it is not 0: wake all that wait for the mutex; they look again.
//! 3. Unlock silently, wait, lock. Then take one from the mark.
//!
//! A coroutine, with the bucket locked:
//!
//! 4. Add one to `count`. Fence, then try to lock the mutex.
//! 5. If it is held, load the mark. Marked: leave, wait in the kernel. Else link.
//!
//! The fences of 1 and 4 order the two loads: either the thread sees the count,
//! and its wake, which needs the bucket's lock, comes after the link; or the
//! coroutine's attempt comes after the mark. If the mark has gone again by the
//! load in step 5, then the thread has locked the mutex again, which it does
//! before it takes the mark back; and its next unlock, seen or announced, finds
//! the count.

use super::count::Number;
use crate::util::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::util::sync::atomic::fence;

/// How many threads may unlock silently.
pub(super) struct SilentUnlockers(Number);

impl SilentUnlockers {
    pub(super) const fn new() -> Self {
        Self(Number::new())
    }

    /// Step 1, its first half.
    pub(super) fn begin(&self) {
        self.0.get().fetch_add(1, SeqCst);
        fence(SeqCst);
    }

    /// Step 3, after the unlock.
    pub(super) fn end(&self) {
        // SeqCst: behind the lock that ends the silent wait, see the header.
        self.0.get().fetch_sub(1, SeqCst);
    }

    /// None any more: in the child of a fork.
    pub(super) fn clear(&self) {
        self.0.get().store(0, Relaxed);
    }

    /// Step 5.
    pub(super) fn are_there(&self) -> bool {
        // Relaxed: the fence of step 4 comes before.
        self.0.get().load(Relaxed) != 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::count::WaiterCount;
    use crate::util::sync::Arc;
    use crate::util::sync::atomic::AtomicU32;
    use crate::util::sync::atomic::Ordering::{Acquire, Release};
    use loom::sync::{Mutex, Notify};
    use loom::thread;

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    const CONTENDED: u32 = 2;

    /// A mutex of libc's, a bucket, a place to sleep in the kernel.
    struct Model {
        word: AtomicU32,
        /// Who sleeps in the kernel, and everybody's token there.
        sleepers: Mutex<Vec<usize>>,
        kernel: [Notify; 3],
        count: WaiterCount,
        silent: SilentUnlockers,
        /// Whether the coroutine is linked.
        linked: Mutex<bool>,
        token: Notify,
        signal: Notify,
    }

    impl Model {
        fn try_lock(&self) -> bool {
            self.word
                .compare_exchange(FREE, HELD, Acquire, Relaxed)
                .is_ok()
        }

        fn unlock(&self) {
            if self.word.swap(FREE, Release) == CONTENDED
                && let Some(sleeper) = self.sleepers.lock().unwrap().pop()
            {
                self.kernel[sleeper].notify();
            }
        }

        fn wake(&self) {
            let mut linked = self.linked.lock().unwrap();
            if *linked {
                *linked = false;
                self.count.leave();
                self.token.notify();
            }
        }

        /// The unlock of a shim.
        fn unlock_visibly(&self) {
            self.unlock();
            if self.count.after_change() != 0 {
                self.wake();
            }
        }

        /// What `pthread_cond_wait` does: the coroutine signals when it has locked.
        fn wait_for_signal(&self) {
            self.silent.begin();
            if self.count.after_change() != 0 {
                self.wake();
            }
            self.unlock();
            self.signal.wait();
            self.lock_in_kernel(0);
            self.silent.end();
        }

        /// `FUTEX_WAIT`, which looks at the word with its queue locked.
        fn sleep_in_kernel(&self, own: usize) {
            let mut sleepers = self.sleepers.lock().unwrap();
            if self.word.load(Relaxed) != CONTENDED {
                return;
            }
            sleepers.push(own);
            drop(sleepers);
            self.kernel[own].wait();
        }

        /// A coroutine's lock.
        fn lock(&self) {
            loop {
                let mut linked = self.linked.lock().unwrap();
                self.count.enter();
                if self.try_lock() {
                    return self.count.leave();
                }
                if self.silent.are_there() {
                    self.count.leave();
                    drop(linked);
                    return self.lock_in_kernel(1);
                }
                *linked = true;
                drop(linked);
                self.token.wait();
            }
        }

        fn lock_in_kernel(&self, own: usize) {
            loop {
                if self.try_lock() {
                    // Step K1 of `foreign`.
                    self.word.swap(CONTENDED, Relaxed);
                    return;
                }
                let marked = self
                    .word
                    .compare_exchange(HELD, CONTENDED, Relaxed, Relaxed);
                if marked != Err(FREE) {
                    self.sleep_in_kernel(own);
                }
            }
        }
    }

    /// Checks interleavings of few switches; all of them would take days.
    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    fn model() -> Arc<Model> {
        let model = Arc::new(Model {
            word: AtomicU32::new(HELD),
            sleepers: Mutex::new(Vec::new()),
            kernel: [Notify::new(), Notify::new(), Notify::new()],
            count: WaiterCount::new(),
            silent: SilentUnlockers::new(),
            linked: Mutex::new(false),
            token: Notify::new(),
            signal: Notify::new(),
        });
        // Made before there are threads that use them.
        model.count.enter();
        model.count.leave();
        let _ = model.silent.0.get();
        model
    }

    #[test]
    fn a_silent_unlock_lets_a_waiting_coroutine_lock() {
        check(|| {
            let model = model();
            let own = model.clone();
            let coroutine = thread::spawn(move || {
                own.lock();
                own.signal.notify();
                own.unlock_visibly();
            });
            model.wait_for_signal();
            model.unlock_visibly();
            coroutine.join().unwrap();
        });
    }

    #[test]
    fn a_visible_unlock_lets_a_waiting_coroutine_lock() {
        check(|| {
            let model = model();
            let own = model.clone();
            let coroutine = thread::spawn(move || own.lock());
            model.unlock_visibly();
            coroutine.join().unwrap();
        });
    }

    #[test]
    fn all_that_wait_in_the_kernel_lock_in_the_end() {
        check(|| {
            let model = model();
            let coroutines: Vec<_> = (1..3)
                .map(|own| {
                    let model = model.clone();
                    thread::spawn(move || {
                        model.lock_in_kernel(own);
                        model.unlock();
                    })
                })
                .collect();
            model.unlock();
            for coroutine in coroutines {
                coroutine.join().unwrap();
            }
        });
    }
}
