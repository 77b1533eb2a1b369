//! For tests: with `OPEN_COROUTINE_MIGRATE=1` whoever becomes runnable goes on on
//! the next worker, so that every switch changes the thread.

use std::env;
use std::ptr::NonNull;

use super::scheduled::Scheduled;
use super::seat::Message;
use super::shared::Shared;

/// Whether the environment asks for it.
pub(crate) fn migration_is_forced() -> bool {
    env::var_os("OPEN_COROUTINE_MIGRATE").is_some_and(|value| value == "1")
}

impl Shared {
    /// Sends a coroutine that is in no queue to the worker after its last one.
    pub(super) fn migrate(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: it cannot end before it is in a queue.
        let next = unsafe { coroutine.as_ref() }.home() + 1;
        self.send(next % self.seats().len(), Message::Ready(coroutine));
    }
}
