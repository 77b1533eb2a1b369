//! Who runs, where and when.
//!
//! * `shared`: what all workers see of each other; `seat`: what they see of one.
//! * `worker`: its queues and its driver; `run`: the loop that runs coroutines;
//!   `turn`: what it looks at in between; `idle`: what it does without work;
//!   `runnable`: what is in the queues; `cache`: the coroutines that it keeps for the
//!   next tasks; `carrier`: the thread that runs it; `holding`: whether that one uses it.
//! * `monitor`: who looks after workers that run one coroutine for long;
//!   `preempt`: how such a coroutine is suspended; `takeover`: how another thread
//!   takes over from one that is stuck; `stuck`: where that was.
//! * `ending`: how all of it stops; `activity`: what the report about it says of a
//!   coroutine.
//! * `limit`: how many coroutines may be alive.
//! * `scheduled`: a started task: stack, thread-local storage, state; `wait`: the
//!   state of its wait.
//! * `forecast`: whether what it asks a peer for is there already.
//! * `cancel`: asking its task to end.
//! * `signals`: its signal mask, and the signals that wait for it;
//!   `process_signals`: which threads take those to the process.
//! * `handled`: what signal handlers wake.
//! * `local`: what the running code knows; `locals`: its coroutine-locals.
//! * `hooks`: the families of functions that suspend a coroutine.
//! * `ordered`: the queue of what has a priority.
//! * `sleep`: which worker sleeps and who wakes it; `README.md` has the steps.
//! * `migrate`: moves every coroutine all the time, for tests; `census`: counts them.
//! * `suspend`: what the layers above call on a coroutine.
//!
//! # Invariants
//!
//! 1. A coroutine is in at most one queue, and in none while it runs.
//! 2. The reason of a suspension lies in the frame that suspends. The worker acts
//!    on it after the switch, on its own stack, and on storage that is not that of who
//!    suspends; so a wake-up cannot overtake a suspension.
//! 3. Whoever may wake a waiting coroutine is done with the wait's frame before that
//!    returns: it is shut out, by a lock that both take or because it is the same
//!    worker, or the wake-up is the last that it does with it.
//! 4. The worker's state is never borrowed across a switch.

mod activity;
mod cache;
mod cancel;
mod carrier;
mod census;
mod ending;
mod forecast;
mod handled;
mod holding;
mod hooks;
mod idle;
mod limit;
mod local;
mod locals;
mod migrate;
mod monitor;
mod ordered;
mod preempt;
mod process_signals;
mod run;
mod runnable;
mod scheduled;
mod seat;
mod shared;
mod signals;
mod sleep;
mod stuck;
mod suspend;
mod takeover;
mod turn;
mod wait;
mod worker;

pub use cancel::{
    Cancel, PointWait, cancellation_point, is_cancelled, is_own, must_unwind, without_cancellation,
};
pub use census::Census;
pub use forecast::{
    Source, has_emptied, is_worth_trying, learn, take_emptied, waits_without_trying,
};
pub use hooks::Hooks;
pub use locals::local;
pub(crate) use migrate::migration_is_forced;
pub(crate) use monitor::monitor;
pub(crate) use preempt::install as install_preemption;
pub use preempt::{action_before_preemption, chain, preempts_by};
pub use shared::{Settings, Shared};
pub(crate) use signals::{Carried, carry_signals, inherited_signal_mask};
pub use signals::{change_signal_mask, sent_signal_to_self};
pub(crate) use stuck::abandon;
pub use suspend::*;
pub use wait::{Turn, Waiter, Woken};
pub(crate) use worker::{Queue, start};
