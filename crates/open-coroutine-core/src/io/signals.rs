//! Waiting for signals.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::perform::{EAGAIN, EXPIRED, wait_ready};
use crate::sched::Cancel;
use crate::sys::{self, SignalSet};

/// `sigtimedwait(2)`, without a time-out for ever: the number of the signal that
/// was taken, or minus `EAGAIN`.
///
/// # Safety
///
/// `info` is null or can be written to. Called on a coroutine.
pub unsafe fn wait_for_signal(
    set: SignalSet,
    info: *mut libc::siginfo_t,
    timeout: Option<Duration>,
) -> isize {
    let take = || match sys::take_signal(set) {
        Some(taken) => {
            if !info.is_null() {
                // SAFETY: the caller's promise.
                unsafe { *info = taken };
            }
            taken.si_signo as isize
        }
        None => EAGAIN,
    };
    let taken = take();
    if taken != EAGAIN || timeout == Some(Duration::ZERO) {
        return taken;
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let pending = match PendingSignals::of(set) {
        Ok(pending) => pending,
        Err(error) => return error,
    };
    loop {
        // Others may wait for the same signal, and one of them has it.
        match wait_ready(pending.0, libc::POLLIN as u32, deadline, Cancel::Never) {
            0.. => match take() {
                EAGAIN => {}
                taken => return taken,
            },
            EXPIRED => return take(),
            error => return error,
        }
    }
}

/// A descriptor that tells whether signals are pending.
struct PendingSignals(RawFd);

impl PendingSignals {
    fn of(set: SignalSet) -> Result<Self, isize> {
        match sys::signal_descriptor(set) {
            fd @ 0.. => Ok(Self(fd as RawFd)),
            error => Err(error),
        }
    }
}

impl Drop for PendingSignals {
    fn drop(&mut self) {
        // SAFETY: `self` owns the descriptor, and nothing waits on it any more.
        unsafe { sys::close(self.0) };
    }
}
