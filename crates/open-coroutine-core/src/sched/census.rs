//! How much there is, for tests that nothing leaks.

use std::sync::atomic::Ordering::Relaxed;

use super::shared::Shared;

/// What a runtime holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Tasks that were spawned and have not ended.
    pub tasks: usize,
    /// Coroutine objects with stacks, those that wait for a task included.
    pub coroutines: usize,
    /// How often a coroutine was suspended against its will.
    pub preemptions: u64,
    /// How often another thread has taken over a worker, because a coroutine had
    /// blocked its thread.
    pub takeovers: u64,
}

impl Shared {
    pub(crate) fn census(&self) -> Census {
        Census {
            tasks: self.tasks.load(Relaxed),
            coroutines: self.all.lock().len(),
            preemptions: self.preemptions.load(Relaxed),
            takeovers: self.takeovers.load(Relaxed),
        }
    }
}
