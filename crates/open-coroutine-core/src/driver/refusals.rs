//! What to do when the kernel refuses a wait for which it has no reason.
//!
//! Out of memory, a filter that somebody has installed, a module that has its own
//! ideas: a driver cannot know. What is in flight stays in flight, so nothing is
//! lost by asking again, a little later. Only if the kernel never relents is it
//! better to say so than to go on in silence.

use std::ffi::c_int;
use std::io;
use std::time::Duration;

use crate::sys;

/// How often in a row a wait may be refused.
const MOST: u32 = 1000;
/// How long to leave the kernel alone after that.
const PAUSE: Duration = Duration::from_millis(1);

/// How often in a row the waits of one driver were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(u32);

impl Refusals {
    /// To be called after a wait that was not refused.
    #[inline]
    pub(super) fn end(&mut self) {
        self.0 = 0;
    }

    /// To be called after a wait, by `call`, that was refused with `error`; the
    /// caller then waits again.
    ///
    /// # Panics
    ///
    /// If that was so for long. `hint` says what may be wrong.
    #[cold]
    pub(super) fn count(&mut self, call: &str, error: c_int, hint: &str) {
        self.0 += 1;
        assert!(
            self.0 < MOST,
            "{call} says: {}; {hint}",
            io::Error::from_raw_os_error(error)
        );
        sys::pause(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_now_and_then_does_no_harm() {
        let mut refusals = Refusals::default();
        for _ in 0..3 {
            for _ in 1..MOST / 100 {
                refusals.count("wait", libc::EIO, "");
            }
            refusals.end();
        }
    }

    #[test]
    #[should_panic(expected = "wait says: Input/output error (os error 5); the disk is full")]
    fn a_refusal_for_good_is_reported() {
        let mut refusals = Refusals(MOST - 2);
        for _ in 0..2 {
            refusals.count("wait", libc::EIO, "the disk is full");
        }
    }
}
