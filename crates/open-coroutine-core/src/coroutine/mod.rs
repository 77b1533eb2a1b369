//! The stack switch as a library: a coroutine that its owner resumes by hand.
//!
//! * [`Coroutine`]: a generator. It shares its thread's thread-local storage,
//!   never leaves its thread, and is unwound when it is dropped unfinished.
//! * `outermost`: where the backtraces of scheduled coroutines end.
//! * `segment`: the stack that the running code is on, for overflow reports and
//!   `maybe_grow`.
//!
//! The scheduler has coroutines of its own, with storage of their own; see
//! `sched`. What is here knows nothing of it.

mod generator;
mod outermost;
mod segment;

pub use generator::{Coroutine, Listener, Panic, State, StateKind, Suspender};
pub(crate) use outermost::outermost;
pub use segment::{Overflow, Segment, maybe_grow, remaining_stack};
