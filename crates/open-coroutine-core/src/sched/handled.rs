//! Coroutines that signal handlers wake.
//!
//! A handler may have interrupted, on its own thread, the use of a run queue or
//! the memory allocator. So it queues nothing: it pushes the coroutine to a list
//! of that coroutine's last worker, linked by the coroutines themselves, and
//! wakes the worker, which queues what it finds there.
//!
//! A push comes before the wake, and the worker looks at its list before it
//! sleeps (step S2 of `README.md`), so nothing stays there.

use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::scheduled::Scheduled;
use super::shared::Shared;

/// The list of one worker: the latest first, linked by `woken_before`.
pub(super) struct Handled(AtomicPtr<Scheduled>);

impl Handled {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Relaxed).is_null()
    }

    /// # Safety
    ///
    /// `coroutine` is suspended and in no queue; the caller alone has woken it.
    unsafe fn push(&self, coroutine: NonNull<Scheduled>) {
        let mut first = self.0.load(Relaxed);
        loop {
            // SAFETY: the caller's promise; it is not in the list yet.
            unsafe { coroutine.as_ref() }.woken_before().set(first);
            let pushed = self
                .0
                // Release: pairs with the swap in `take`.
                .compare_exchange_weak(first, coroutine.as_ptr(), Release, Relaxed);
            match pushed {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> impl Iterator<Item = NonNull<Scheduled>> + use<> {
        let mut next = if self.is_empty() {
            ptr::null_mut()
        } else {
            // Acquire: pairs with the push.
            self.0.swap(ptr::null_mut(), Acquire)
        };
        iter::from_fn(move || {
            let coroutine = NonNull::new(next)?;
            // SAFETY: it is suspended, and ours alone since the swap.
            next = unsafe { coroutine.as_ref() }.woken_before().get();
            Some(coroutine)
        })
    }
}

impl Shared {
    /// [`make_runnable`](Self::make_runnable) in a signal handler.
    ///
    /// # Safety
    ///
    /// As for `make_runnable`.
    pub(super) unsafe fn make_runnable_in_handler(coroutine: NonNull<Scheduled>) {
        // SAFETY: it cannot end before it has been taken from the list.
        let target = unsafe { coroutine.as_ref() };
        // Once it is pushed it may end and drop its reference. Only if the whole
        // runtime ends before the next lines do would this one be the last.
        let shared = target.shared().clone();
        let index = target.home();
        // SAFETY: the caller's promise.
        unsafe { shared.seats()[index].handled.push(coroutine) };
        shared.wake(index);
    }
}
