//! Calls that are to block a thread after all: this one, or one of the pool's.

use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched;

/// Runs `body` with every hooked function as it is on a thread: a call that
/// waits blocks the worker below the calling coroutine, and all that is queued
/// there. For short calls where a suspension would be wrong, because the code
/// around holds a lock that the runtime cannot see.
///
/// Sections may be nested. On a plain thread it only calls `body`. Panics pass
/// through.
///
/// # Examples
///
/// ```
/// # #[open_coroutine::main]
/// # fn main() {
/// let length = open_coroutine::without_hooks(|| std::fs::metadata("/").unwrap().len());
/// # assert_eq!(std::fs::metadata("/").unwrap().len(), length);
/// # }
/// ```
pub fn without_hooks<R>(body: impl FnOnce() -> R) -> R {
    sched::without_diversion(body)
}

/// Runs `body` on a thread of a pool, and suspends the calling coroutine until
/// it has ended: for what would block or occupy the worker for long, such as
/// calls that are not hooked, or long computations.
///
/// `body` sees that thread's thread-local storage. The pool has at most 512
/// threads; calls beyond that wait for one. On a plain thread, or if no thread
/// can be started, `body` runs right here.
///
/// # Panics
///
/// If `body` does, with the same payload.
///
/// # Examples
///
/// ```
/// # #[open_coroutine::main]
/// # fn main() {
/// let numbers = vec![3, 1, 2];
/// let sorted = open_coroutine::unblock(|| {
///     let mut sorted = numbers.clone();
///     sorted.sort();
///     sorted
/// });
/// assert_eq!(vec![1, 2, 3], sorted);
/// # }
/// ```
pub fn unblock<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    io::offload(Awaits::System, body)
}
