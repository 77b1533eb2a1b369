//! Who runs, where and when.
//!
//! * `shared`: what all workers see of each other.
//! * `worker`: one scheduling thread and its loop; `idle`: what it does without
//!   work; `cache`: the coroutines that
//!   it keeps for the next tasks.
//! * `limit`: how many coroutines may be alive.
//! * `scheduled`: a started task: stack, thread-local storage, state; `wait`: the
//!   state of its wait.
//! * `cancel`: asking its task to end.
//! * `signals`: its signal mask, and the signals that wait for it;
//!   `process_signals`: which threads take those to the process.
//! * `handled`: what signal handlers wake.
//! * `local`: what the running code knows; `locals`: its coroutine-locals.
//! * `hooks`: the families of functions that suspend a coroutine.
//! * `ordered`: the queue of what has a priority.
//! * `sleep`: which worker sleeps and who wakes it; `watch`: who looks after
//!   run-next slots. `README.md` has the steps of both.
//! * `suspend`: what the layers above call on a coroutine.
//!
//! # Invariants
//!
//! 1. A coroutine is in at most one queue, and in none while it runs.
//! 2. The reason of a suspension is a value that the worker acts on after the
//!    switch, on its own stack; so a wake-up cannot overtake a suspension.
//! 3. Whoever may wake a waiting coroutine is shut out, by a lock that both
//!    take or because it is the same worker, before the wait's frame returns.
//! 4. The worker's state is never borrowed across a switch.

mod cache;
mod cancel;
mod handled;
mod hooks;
mod idle;
mod limit;
mod local;
mod locals;
mod ordered;
mod process_signals;
mod scheduled;
mod shared;
mod signals;
mod sleep;
mod suspend;
mod wait;
mod watch;
mod worker;

pub use cancel::{
    Cancel, PointWait, cancellation_point, is_cancelled, is_peer, must_unwind, without_cancellation,
};
pub use hooks::Hooks;
pub use locals::local;
pub use shared::{Settings, Shared};
pub(crate) use signals::{Carried, carry_signals, inherited_signal_mask};
pub use signals::{change_signal_mask, sent_signal_to_self};
pub use suspend::*;
pub use wait::{Waiter, Woken};
pub(crate) use worker::{Queue, start};
