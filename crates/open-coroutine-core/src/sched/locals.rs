//! The values of coroutine-locals.
//!
//! Where a coroutine has thread-local storage of its own, a thread-local variable
//! holds its values, as it does on a plain thread. Else they lie in the coroutine.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::suspend::current;

/// The values of one coroutine or thread, by the addresses of their statics. Boxed,
/// so that they stay where they are; they are only taken out at the end.
pub(super) struct Locals(RefCell<BTreeMap<usize, Box<dyn Any>>>);

thread_local! {
    static LOCALS: Locals = const { Locals::new() };
}

impl Locals {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(BTreeMap::new()))
    }

    fn get(&self, key: usize) -> Option<*const dyn Any> {
        let values = self.0.borrow();
        values.get(&key).map(|value| &raw const **value)
    }

    /// Adds a value, unless there is one by now. Returns the one that stays.
    fn insert(&self, key: usize, value: Box<dyn Any>) -> *const dyn Any {
        let mut values = self.0.borrow_mut();
        let stays = values.entry(key).or_insert(value);
        &raw const **stays
    }

    /// Drops all values, also those that are made by destructors of others.
    pub(super) fn clear(&self) {
        loop {
            // Taken out one at a time: what is dropped may use the others.
            let value = self.0.borrow_mut().pop_last();
            if value.is_none() {
                return;
            }
        }
    }
}

impl Drop for Locals {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The calling coroutine's or thread's value for `key`, which `init` makes if there is
/// none. It stays until the end of the task or thread. `None` if that is over.
pub fn local(key: usize, init: impl FnOnce() -> Box<dyn Any>) -> Option<*const dyn Any> {
    if let Some(value) = with_locals(|locals| locals.get(key))? {
        return Some(value);
    }
    // Foreign code, so nothing is borrowed here.
    let value = init();
    with_locals(|locals| locals.insert(key, value))
}

fn with_locals<R>(body: impl FnOnce(&Locals) -> R) -> Option<R> {
    match current() {
        Some(coroutine) if !coroutine.is_isolated() => Some(body(coroutine.locals())),
        _ => LOCALS.try_with(body).ok(),
    }
}
