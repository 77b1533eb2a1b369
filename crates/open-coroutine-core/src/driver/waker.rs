//! How other threads end a driver's wait.
//!
//! # States
//!
//! `AWAKE`; `ASLEEP` (the owner waits in the kernel, or is about to);
//! `NOTIFIED` (a wake came; the next wait returns at once). Only the step
//! `ASLEEP -> NOTIFIED` writes to the eventfd, which the owner's wait watches.

use std::io;

use crate::sys::EventFd;
use crate::util::sync::atomic::AtomicU8;
use crate::util::sync::atomic::Ordering::{AcqRel, Acquire};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends the wait of one driver.
#[derive(Debug)]
pub struct Waker {
    state: AtomicU8,
    event: EventFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: AtomicU8::new(AWAKE),
            event: EventFd::new()?,
        })
    }

    /// Ends the current wait, or the next one. May be called on any thread and
    /// in signal handlers.
    pub fn wake(&self) {
        // AcqRel: pairs with `fall_asleep` and `wake_up`, after which the owner
        // sees what was written before this call.
        if self.state.swap(NOTIFIED, AcqRel) == ASLEEP {
            self.event.notify();
        }
    }

    /// What becomes readable by a wake.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Before a wait: false if it must not sleep because a wake has come.
    #[must_use]
    pub(super) fn fall_asleep(&self) -> bool {
        // Acquire: pairs with `wake`.
        self.state
            .compare_exchange(AWAKE, ASLEEP, AcqRel, Acquire)
            .is_ok()
    }

    /// After a wait.
    pub(super) fn wake_up(&self) {
        self.state.swap(AWAKE, AcqRel);
    }
}
