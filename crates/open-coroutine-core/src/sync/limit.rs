//! Deadlines by the clocks of POSIX.

use std::time::{Duration, Instant};

use crate::sys;
use crate::time::now;

/// How long a wait of pthread's may take: until a clock shows a time.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    clock: libc::clockid_t,
    at: Duration,
}

impl Limit {
    /// Until `clock` shows `at`. `None` if libc would refuse one of the two:
    /// with these its functions do not wait.
    pub fn new(clock: libc::clockid_t, at: &libc::timespec) -> Option<Self> {
        if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) {
            return None;
        }
        let at = if at.tv_sec < 0 && (0..1_000_000_000).contains(&at.tv_nsec) {
            // Before the clock began.
            Duration::ZERO
        } else {
            sys::to_duration(at)?
        };
        Some(Self { clock, at })
    }

    /// Whether the time has come.
    pub fn is_over(&self) -> bool {
        now(self.clock) >= self.at
    }

    /// When that will be, unless somebody sets the clock: look at
    /// [`is_over`](Self::is_over) then. `None` if it is too far away to come.
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.at.saturating_sub(now(self.clock)))
    }
}
