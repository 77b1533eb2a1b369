//! Variables of which every coroutine has its own.

use std::any::Any;
use std::fmt;
use std::ptr;

use crate::sched;

/// A variable of which every coroutine has a value of its own, and so has every plain
/// thread. `coroutine_local!` declares them.
pub struct CoroutineLocal<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> CoroutineLocal<T> {
    /// A variable whose values begin as `init` makes them.
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `body` with the caller's value, which is made at the first use, and
    /// dropped at the end of the task or thread.
    ///
    /// # Panics
    ///
    /// At the end of a thread, in destructors that run when its values are gone.
    pub fn with<R>(&'static self, body: impl FnOnce(&T) -> R) -> R {
        let key = ptr::from_ref(self).addr();
        let value = sched::local(key, || Box::new((self.init)()) as Box<dyn Any>)
            .expect("coroutine-locals are used before they are destroyed");
        // SAFETY: the value stays until the end of the task or thread, which runs
        // `body`; only shared references to it are handed out.
        let value = unsafe { &*value };
        body(value.downcast_ref().expect("a static has one type"))
    }
}

impl<T: 'static> fmt::Debug for CoroutineLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoroutineLocal").finish_non_exhaustive()
    }
}
