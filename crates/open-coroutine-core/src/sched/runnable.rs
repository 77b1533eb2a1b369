//! What is in the queues of things that a worker can run.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use super::scheduled::Scheduled;
use crate::task::{Run, Thin};

/// Something that a worker can run, in one word: queues copy it in a register. What is
/// put together from two words and copied as one waits until both are in the cache.
///
/// The address of a coroutine, or that of a task, marked as `TASK`.
pub(crate) struct Runnable(NonNull<()>);

/// What a [`Runnable`] is.
pub(super) enum Content {
    /// A task that has no coroutine yet.
    Task(Arc<dyn Run>),
    /// A coroutine that was suspended, and is in no other queue.
    Coroutine(NonNull<Scheduled>),
}

/// Both kinds of addresses are ones of pointers, so their last bit is free.
const TASK: usize = 1;

// SAFETY: a coroutine in a queue belongs to whoever takes it out.
unsafe impl Send for Runnable {}

impl Runnable {
    pub(super) fn task(task: Arc<dyn Run>) -> Self {
        let task = task.into_thin().into_raw();
        Self(task.map_addr(|address| address | TASK))
    }

    #[inline]
    pub(super) fn coroutine(coroutine: NonNull<Scheduled>) -> Self {
        const { assert!(align_of::<Scheduled>() > TASK) };
        Self(coroutine.cast())
    }

    #[inline]
    fn is_task(&self) -> bool {
        self.0.addr().get() & TASK != 0
    }

    /// The coroutine that it is, if that has begun to run its task, and runs with the
    /// signal mask of its worker.
    #[inline]
    pub(super) fn suspended(&self) -> Option<NonNull<Scheduled>> {
        if self.is_task() {
            return None;
        }
        let coroutine = self.0.cast::<Scheduled>();
        // SAFETY: it belongs to whoever has taken it out of a queue.
        let target = unsafe { coroutine.as_ref() };
        (target.has_begun() && !target.signals().is_own()).then_some(coroutine)
    }

    #[inline]
    pub(super) fn into_content(self) -> Content {
        let this = ManuallyDrop::new(self);
        if this.is_task() {
            // SAFETY: `task` left it here.
            Content::Task(unsafe { this.thin() }.widen())
        } else {
            Content::Coroutine(this.0.cast())
        }
    }

    /// # Safety
    ///
    /// It is a task, and not used again.
    unsafe fn thin(&self) -> Thin {
        // SAFETY: not 0 without the mark, as it was when `task` set that.
        let task = unsafe { NonNull::new_unchecked(self.0.as_ptr().map_addr(|a| a & !TASK)) };
        // SAFETY: the caller's promise.
        unsafe { Thin::from_raw(task) }
    }
}

impl Drop for Runnable {
    fn drop(&mut self) {
        if self.is_task() {
            // SAFETY: `task` left it here.
            drop(unsafe { self.thin() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{self, Failure, Join, Meta};

    fn task(id: u64) -> (Arc<dyn Run>, Arc<dyn Join<u64>>) {
        let meta = Meta {
            id,
            ..Meta::default()
        };
        task::new(meta, move || id)
    }

    #[test]
    fn a_task_comes_out_as_it_went_in() {
        let (run, join) = task(7);
        let Content::Task(run) = Runnable::task(run).into_content() else {
            panic!("it is a task");
        };
        assert_eq!(7, run.meta().id);
        assert!(run.fail(Failure::Cancelled));
        assert!(run.finish().is_none());
        assert!(matches!(join.take(), Some(Err(Failure::Cancelled))));
    }

    #[test]
    fn what_stays_in_a_queue_is_dropped_with_it() {
        let (run, join) = task(7);
        let alive = Arc::downgrade(&run);
        // Twice in the queue: each owns it.
        let queue = vec![Runnable::task(run.clone()), Runnable::task(run)];
        drop(join);
        assert_eq!(2, alive.strong_count());
        drop(queue);
        assert_eq!(0, alive.strong_count());
    }
}
