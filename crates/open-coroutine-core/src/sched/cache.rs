//! The idle coroutines of one worker.
//!
//! Last in, first out, so that the next task finds a warm stack. How long the
//! others have been idle is told without a clock: `untouched` is the smallest
//! length since the last trim, and as many at the front were not used since.

use std::ptr::NonNull;
use std::time::Instant;

use super::scheduled::Scheduled;
use super::seat::TimerEvent;
use super::worker::Worker;
use crate::stack;
use crate::sys;

/// The most that one worker keeps.
const MAX: usize = 1024;
/// From so many freed coroutines on, malloc is asked to give memory back too.
const MANY: usize = 256;

/// Idle coroutines, which the owner of the cache owns.
#[derive(Default)]
pub(super) struct Cache {
    idle: Vec<NonNull<Scheduled>>,
    untouched: usize,
}

impl Cache {
    /// The one that was used last.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<NonNull<Scheduled>> {
        let coroutine = self.idle.pop();
        self.untouched = self.untouched.min(self.idle.len());
        coroutine
    }

    /// Keeps an idle coroutine. False if there are enough.
    #[inline]
    #[must_use = "a coroutine that is not kept must be freed"]
    pub(super) fn push(&mut self, coroutine: NonNull<Scheduled>) -> bool {
        let has_room = self.idle.len() < MAX;
        if has_room {
            self.idle.push(coroutine);
        }
        has_room
    }

    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }

    /// Takes out those that were not used since the last trim, as long as `min`
    /// are left.
    fn trim(&mut self, min: usize) -> Vec<NonNull<Scheduled>> {
        let count = self.untouched.min(self.idle.len().saturating_sub(min));
        let trimmed = self.idle.drain(..count).collect();
        self.untouched = self.idle.len();
        trimmed
    }

    /// Starts to look at which ones are used.
    fn watch(&mut self) {
        self.untouched = self.idle.len();
    }

    /// Takes out all of them.
    pub(super) fn take(&mut self) -> Vec<NonNull<Scheduled>> {
        self.untouched = 0;
        std::mem::take(&mut self.idle)
    }
}

/// `keep_alive_time`: a worker that goes to sleep with something to trim arms
/// one timer. With nothing left to trim there is none, so that an idle runtime
/// does not wake up.
impl Worker {
    /// Called before each sleep.
    pub(super) fn arm_trim(&self) {
        if self.trim_armed.get() {
            return;
        }
        let mut cache = self.cache.borrow_mut();
        if cache.len() > self.shared().settings().min_size || self.has_warm_stacks.get() {
            cache.watch();
            drop(cache);
            self.arm_trim_at(Instant::now().checked_add(self.shared().settings().keep_alive_time));
        }
    }

    /// Never, if the time to keep is so long that there is no such `Instant`.
    fn arm_trim_at(&self, at: Option<Instant>) {
        if let Some(at) = at {
            self.trim_armed.set(true);
            self.seat().timers.lock().insert(at, TimerEvent::Trim);
        }
    }

    /// At that timer: frees what has not been used since it was armed.
    pub(super) fn trim(&self) {
        self.trim_armed.set(false);
        let settings = self.shared().settings();
        let trimmed = self.cache.borrow_mut().trim(settings.min_size);
        let freed = trimmed.len();
        for coroutine in trimmed {
            // Idle for long enough as a coroutine: its pages go at once.
            self.free(coroutine).release();
        }
        let stacks = stack::pool().trim(settings.keep_alive_time);
        if freed + stacks >= MANY {
            sys::release_free_memory();
        }
        let next = stack::pool().next_trim(settings.keep_alive_time);
        self.has_warm_stacks.set(next.is_some());
        if self.cache.borrow().len() > settings.min_size {
            self.arm_trim_at(Instant::now().checked_add(settings.keep_alive_time));
        } else {
            self.arm_trim_at(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never dereferenced: the cache only moves pointers.
    fn coroutine(number: usize) -> NonNull<Scheduled> {
        NonNull::without_provenance(std::num::NonZeroUsize::new(number * 64).unwrap())
    }

    #[test]
    fn only_what_was_not_used_since_the_last_trim_is_freed() {
        let mut cache = Cache::default();
        for number in 1..=4 {
            assert!(cache.push(coroutine(number)));
        }
        cache.watch();
        let (last, third) = (cache.pop().unwrap(), cache.pop().unwrap());
        assert!(cache.push(third));
        assert!(cache.push(last));
        assert_eq!(vec![coroutine(1), coroutine(2)], cache.trim(0));
        assert_eq!(vec![coroutine(3), coroutine(4)], cache.trim(0));
        assert_eq!(0, cache.len());
    }

    #[test]
    fn the_minimum_is_kept_however_long_it_is_idle() {
        let mut cache = Cache::default();
        for number in 1..=4 {
            assert!(cache.push(coroutine(number)));
        }
        cache.watch();
        assert_eq!(1, cache.trim(3).len());
        assert_eq!(0, cache.trim(3).len());
        assert_eq!(3, cache.len());
    }
}
