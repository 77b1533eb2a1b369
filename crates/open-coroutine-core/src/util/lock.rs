//! A mutex for the runtime's own state.
//!
//! `std::sync::Mutex` waits through the C library's `syscall`, which the hook
//! replaces by a function that may suspend the calling coroutine. State that
//! the scheduler itself uses must not depend on the scheduler, so this lock
//! talks to the kernel directly. It is held for a few instructions at a time
//! and never across a suspension (a guard is `!Send`, and nothing that
//! suspends takes one), and its holder is not preempted.
//!
//! # Protocol
//!
//! The word is `FREE`, `HELD` or `CONTENDED` (held, and somebody may sleep).
//!
//! 1. `lock` tries `FREE -> HELD`; on failure it spins briefly.
//! 2. Then it swaps in `CONTENDED`: if the old value was `FREE` it owns the
//!    lock (and `CONTENDED` makes its unlock wake a sleeper, if there is one),
//!    else it sleeps while the word is `CONTENDED`, and repeats 2.
//! 3. `unlock` swaps in `FREE` and wakes one sleeper if the word was
//!    `CONTENDED`.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::preempt;
use crate::sys;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// How often `lock` looks at a held word before it sleeps.
const SPINS: u32 = 100;

/// Mutual exclusion that never goes through a hooked function.
pub struct Lock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands `&mut T` to one thread at a time, which is what
// sending a `T` back and forth would do.
unsafe impl<T: Send> Send for Lock<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until the lock is free and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        preempt::enter();
        // Acquire: pairs with the swap in `Guard::drop`.
        if self
            .word
            .compare_exchange(FREE, HELD, Acquire, Relaxed)
            .is_err()
        {
            self.lock_contended();
        }
        Guard {
            lock: self,
            not_send: PhantomData,
        }
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        preempt::enter();
        // Acquire: pairs with `Guard::drop`. SeqCst on failure: what the caller did
        // before comes before the unlock that it missed, in the order of all such
        // operations.
        if self
            .word
            .compare_exchange(FREE, HELD, Acquire, SeqCst)
            .is_err()
        {
            preempt::leave();
            return None;
        }
        Some(Guard {
            lock: self,
            not_send: PhantomData,
        })
    }

    /// Whether nobody holds it, at the moment.
    pub fn is_free(&self) -> bool {
        self.word.load(Relaxed) == FREE
    }

    /// Frees the lock of a thread that does not exist any more, in the child of
    /// a fork. The value that it may have left half changed is overwritten, and
    /// not dropped.
    ///
    /// # Safety
    ///
    /// No other thread exists, and the caller's does not hold the lock.
    pub unsafe fn abandon(&self, value: T) {
        // SAFETY: the caller's promise makes the access exclusive.
        unsafe { self.value.get().write(value) };
        self.word.store(FREE, Relaxed);
    }

    /// What it guards, as the thread has left it that held it.
    ///
    /// # Safety
    ///
    /// As for `abandon`.
    pub unsafe fn peek(&self) -> &T {
        // SAFETY: the caller's promise makes the access exclusive.
        unsafe { &*self.value.get() }
    }

    /// [`abandon`](Self::abandon)s a lock that is held: what a free one guards is
    /// whole.
    ///
    /// # Safety
    ///
    /// As for `abandon`.
    pub unsafe fn abandon_held(&self, value: T) {
        if !self.is_free() {
            // SAFETY: the caller's promise.
            unsafe { self.abandon(value) };
        }
    }

    #[cold]
    fn lock_contended(&self) {
        for _ in 0..SPINS {
            if self.word.load(Relaxed) == FREE
                && self
                    .word
                    .compare_exchange(FREE, HELD, Acquire, Relaxed)
                    .is_ok()
            {
                return;
            }
            std::hint::spin_loop();
        }
        while self.word.swap(CONTENDED, Acquire) != FREE {
            sys::futex_wait(&self.word, CONTENDED, None);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => f.debug_tuple("Lock").field(&*value).finish(),
            None => f.write_str("Lock(<held>)"),
        }
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Access to the value; dropping it frees the lock.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    not_send: PhantomData<*const ()>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard exists, so its thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release, for the Acquire of the next `lock`. SeqCst for who looks after it
        // at what others do that have failed to take it.
        if self.lock.word.swap(FREE, SeqCst) == CONTENDED {
            sys::futex_wake(&self.lock.word, 1);
        }
        preempt::leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_from_many_threads_are_all_kept() {
        let lock = Lock::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        *lock.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(400_000, *lock.lock());
    }

    #[test]
    fn a_held_lock_is_not_taken_twice() {
        let lock = Lock::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
    }
}
