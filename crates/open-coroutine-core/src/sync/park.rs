//! Park and unpark, for tasks by their own token.
//!
//! # States of a token
//!
//! `EMPTY`; `PARKED` (the task waits in the futex table); `NOTIFIED` (an unpark
//! came, the next park returns at once).

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use super::futex;
use crate::sched::{self, PointWait, Turn};
use crate::task::Run;

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// Waits until the calling task is unparked; at once if it was already. Like
/// `std::thread::park` it may return without reason. On a plain thread it is
/// `std::thread::park`.
///
/// A point of cancellation: it unwinds if the calling task was asked to end.
pub fn park() {
    park_until(None);
}

/// [`park`], for `timeout` at most.
pub fn park_timeout(timeout: Duration) {
    match Instant::now().checked_add(timeout) {
        Some(deadline) => park_until(Some(deadline)),
        None => park_until(None),
    }
}

fn park_until(deadline: Option<Instant>) {
    let parked = sched::with_current_task(|task| park_task(task, deadline));
    if parked.is_none() {
        match deadline {
            None => std::thread::park(),
            Some(at) => {
                std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
            }
        }
    }
}

fn park_task(task: &dyn Run, deadline: Option<Instant>) {
    let token = task.park_token();
    // Acquire: pairs with the Release in `unpark`, whose writes are then seen.
    if token
        .compare_exchange(EMPTY, PARKED, Acquire, Acquire)
        .is_ok()
    {
        futex::wait_at_point(token, PARKED, deadline, PointWait::begin_to_return);
    }
    token.swap(EMPTY, Acquire);
    sched::cancellation_point();
    if cfg!(panic = "abort") && sched::is_cancelled() {
        // Whoever parks in a loop comes back at once, and lets others run.
        sched::try_yield();
    }
}

/// Lets the task's next or current [`park`] return.
pub fn unpark(task: &dyn Run) {
    let token: &AtomicU32 = task.park_token();
    // Release: pairs with the Acquire in `park_until`.
    if token.swap(NOTIFIED, Release) == PARKED {
        futex::wake_all_coroutines(token, Turn::Next);
    }
}
