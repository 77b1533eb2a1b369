//! What a coroutine does, for those who ask from outside: a report of what has not
//! ended.

use std::fmt;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use super::scheduled::Suspend;

/// It runs.
const RUNNING: i32 = -1;
/// It could run.
const READY: i32 = -2;
/// It waits for a deadline and nothing else.
const ASLEEP: i32 = -3;
/// It waits for somebody to wake it.
const PARKED: i32 = -4;
/// A thread of a pool does something for it.
const OFFLOADED: i32 = -5;
/// The driver does something for it that has no descriptor.
const DRIVEN: i32 = -6;
// What is not negative is the descriptor that it waits for.

/// What a coroutine does. It may be something else by the time one has asked.
pub(super) struct Activity(AtomicI32);

impl Activity {
    pub(super) fn new() -> Self {
        Self(AtomicI32::new(READY))
    }

    /// It runs, again or for the first time.
    #[inline]
    pub(super) fn run(&self) {
        self.0.store(RUNNING, Relaxed);
    }

    /// A thread of a pool will wake it from its next wait.
    pub(super) fn offload(&self) {
        self.0.store(OFFLOADED, Relaxed);
    }

    /// It is about to suspend.
    #[inline]
    pub(super) fn suspend(&self, reason: &Suspend) {
        let activity = match reason {
            Suspend::Yield | Suspend::Preempted | Suspend::Done { .. } => READY,
            Suspend::Park { .. } if self.0.load(Relaxed) == OFFLOADED => return,
            Suspend::Park { .. } => PARKED,
            Suspend::Sleep(_) => ASLEEP,
            // SAFETY: it lies in the frame that is about to suspend.
            Suspend::Io(wait) => unsafe { wait.as_ref() }.descriptor().unwrap_or(DRIVEN),
        };
        self.0.store(activity, Relaxed);
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.load(Relaxed) {
            RUNNING => "running",
            READY => "waiting for a worker",
            ASLEEP => "sleeping",
            PARKED => "waiting for a lock, a channel, a task or an unpark",
            OFFLOADED => "waiting for a call on a thread: a file, a child, a name",
            fd if fd >= 0 => return write!(f, "waiting for descriptor {fd}"),
            _ => "waiting for the kernel",
        })
    }
}
