//! How many coroutines wait in a bucket, for wakers that do not lock it.

cfg_select! {
    all(target_arch = "x86_64", not(loom)) => {
        use std::sync::atomic::compiler_fence;
    }
    _ => {}
}

use crate::util::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::util::sync::atomic::{AtomicUsize, fence};

cfg_select! {
    loom => {
        /// A number in a static. The checker's atomics cannot be made there; the
        /// first use does.
        pub(super) struct Number(std::sync::OnceLock<AtomicUsize>);

        impl Number {
            pub(super) const fn new() -> Self {
                Self(std::sync::OnceLock::new())
            }

            pub(super) fn get(&self) -> &AtomicUsize {
                self.0.get_or_init(|| AtomicUsize::new(0))
            }
        }
    }
    _ => {
        /// A number in a static.
        pub(super) struct Number(AtomicUsize);

        impl Number {
            pub(super) const fn new() -> Self {
                Self(AtomicUsize::new(0))
            }

            #[inline(always)]
            pub(super) fn get(&self) -> &AtomicUsize {
                &self.0
            }
        }
    }
}

/// Steps 1, 2 and 5 of the protocol in `futex`. Changed with the bucket locked.
pub(super) struct WaiterCount(Number);

impl WaiterCount {
    pub(super) const fn new() -> Self {
        Self(Number::new())
    }

    /// Steps 1 and 2: one more; the caller looks at the word after this.
    pub(super) fn enter(&self) {
        self.0.get().fetch_add(1, SeqCst);
        // Pairs with the fence in `after_change`: either the waker sees this
        // waiter, or the waiter sees the changed word.
        fence_after_atomic();
    }

    /// One fewer. Relaxed, and no atomic subtraction: the lock orders those that
    /// change it, and who reads it without the lock may find one too many.
    pub(super) fn leave(&self) {
        let count = self.0.get();
        count.store(count.load(Relaxed) - 1, Relaxed);
    }

    /// None any more; see `Table::abandon`.
    pub(super) fn clear(&self) {
        self.0.get().store(0, Relaxed);
    }

    /// How many may wait, in no order with anything else.
    #[inline(always)]
    pub(super) fn now(&self) -> usize {
        self.0.get().load(Relaxed)
    }

    /// Step 5, after the word was changed: how many may wait.
    #[inline]
    pub(super) fn after_change(&self) -> usize {
        // Pairs with the fence in `enter`. A load alone may overtake the
        // caller's store, also on x86.
        fence(SeqCst);
        self.0.get().load(Relaxed)
    }

    /// [`after_change`](Self::after_change), where an atomic read-modify-write
    /// instruction made the change.
    #[inline(always)]
    pub(super) fn after_atomic_change(&self) -> usize {
        fence_after_atomic();
        self.0.get().load(Relaxed)
    }
}

cfg_select! {
    // Atomic read-modify-write instructions are fences already.
    all(target_arch = "x86_64", not(loom)) => {
        /// A fence behind an atomic read-modify-write instruction.
        #[inline(always)]
        fn fence_after_atomic() {
            compiler_fence(SeqCst);
        }
    }
    _ => {
        /// A fence behind an atomic read-modify-write instruction.
        fn fence_after_atomic() {
            fence(SeqCst);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use crate::util::sync::atomic::AtomicU32;
    use loom::sync::{Mutex, Notify};
    use loom::thread;

    /// One bucket with one word, and a token per waiter.
    struct Model {
        count: WaiterCount,
        word: AtomicU32,
        linked: Mutex<Vec<usize>>,
        tokens: Vec<Notify>,
    }

    impl Model {
        fn wait(&self, waiter: usize) {
            let mut linked = self.linked.lock().unwrap();
            self.count.enter();
            if self.word.load(Relaxed) != 0 {
                return self.count.leave();
            }
            linked.push(waiter);
            drop(linked);
            self.tokens[waiter].wait();
        }

        fn wake_all(&self) {
            if self.count.after_change() == 0 {
                return;
            }
            for waiter in self.linked.lock().unwrap().drain(..) {
                self.count.leave();
                self.tokens[waiter].notify();
            }
        }
    }

    #[test]
    fn a_waiter_sees_the_changed_word_or_is_woken() {
        loom::model(|| {
            let model = Arc::new(Model {
                count: WaiterCount::new(),
                word: AtomicU32::new(0),
                linked: Mutex::new(Vec::new()),
                tokens: (0..2).map(|_| Notify::new()).collect(),
            });
            // Made before there are threads that use it.
            let _ = model.count.0.get();
            let waiters: Vec<_> = (0..2)
                .map(|waiter| {
                    let model = model.clone();
                    thread::spawn(move || model.wait(waiter))
                })
                .collect();
            model.word.store(1, Relaxed);
            model.wake_all();
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}
