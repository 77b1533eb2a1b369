//! Waiting for each other: futexes, and what is built on them.
//!
//! * `table`: coroutines that wait for an address; `list`: those of one bucket.
//! * `futex`: such waits as `futex(2)` has them. std's locks, channels and
//!   `thread::park` end here, through the `syscall` shim.
//! * `foreign`: waits for what somebody else implements: pthread's mutexes,
//!   condition variables, read-write locks, semaphores. `silent`: unlocks of
//!   these that nobody sees; `limit`: deadlines by their clocks.
//! * `park`: park and unpark of the own API; `signal`: the waker of futures.

mod count;
pub mod foreign;
pub mod futex;
mod limit;
mod list;
mod park;
mod signal;
mod silent;
mod table;

pub use limit::Limit;
pub use park::{park, park_timeout, unpark};
pub use signal::Signal;

/// Forgets whoever waits, in the child of a fork.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub(crate) unsafe fn abandon() {
    // SAFETY: the caller's promise.
    unsafe {
        futex::TABLE.abandon();
        foreign::TABLE.abandon();
        foreign::forget_silent_unlockers();
    }
}
