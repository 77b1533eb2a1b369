//! A token that any thread sets, and one coroutine or thread waits for: the waker of
//! futures, and of whoever waits for several tasks.
//!
//! # States
//!
//! `EMPTY`; `SET`; `AWAITED` (a coroutine waits in the futex table);
//! `AWAITED_BY_THREAD` (a thread waits in the kernel).

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::task::Wake;
use std::time::Instant;

use super::futex;
use crate::sched::{self, PointWait, Turn};

const EMPTY: u32 = 0;
const SET: u32 = 1;
const AWAITED: u32 = 2;
const AWAITED_BY_THREAD: u32 = 3;

/// A token that is set or not, see the header of its module.
#[derive(Debug, Default)]
pub struct Signal(AtomicU32);

impl Signal {
    /// Sets it, and wakes who waits.
    pub fn set(&self) {
        // Release: pairs with the Acquire in `take`. Acquire: orders the wake.
        match self.0.swap(SET, AcqRel) {
            AWAITED => futex::wake_all_coroutines(&self.0, Turn::Next),
            AWAITED_BY_THREAD => futex::wake_all(&self.0),
            _ => {}
        }
    }

    /// Takes it back. Returns whether it was set.
    pub fn take(&self) -> bool {
        // Acquire: pairs with the Release in `set`, whose writes are then seen.
        self.0.swap(EMPTY, AcqRel) == SET
    }

    /// Waits until it is set, at most until `deadline`. May return without reason.
    pub fn wait(&self, deadline: Option<Instant>) {
        if let Some(awaited) = self.await_it() {
            futex::wait_anywhere(&self.0, awaited, deadline);
        }
    }

    /// [`wait`](Self::wait), which also returns when the calling task is asked to
    /// end, unless nothing may unwind there.
    pub fn wait_at_point(&self) {
        if let Some(awaited) = self.await_it() {
            futex::wait_at_point(&self.0, awaited, None, PointWait::begin);
        }
    }

    /// Asks to be woken. The value to wait for a change of, or `None` if it is set.
    fn await_it(&self) -> Option<u32> {
        let awaited = if sched::on_coroutine() {
            AWAITED
        } else {
            AWAITED_BY_THREAD
        };
        let before = self
            .0
            .fetch_update(AcqRel, Acquire, |state| (state != SET).then_some(awaited));
        before.is_ok().then_some(awaited)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.set();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
    }
}
