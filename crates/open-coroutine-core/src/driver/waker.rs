//! Waking the thread that sleeps in a driver.
//!
//! # Protocol
//!
//! 1. The owner calls `prepare`: `AWAKE -> ASLEEP`. If it finds `NOTIFIED`
//!    instead, it takes the wake-up (`-> AWAKE`) and does not sleep.
//! 2. It sleeps until the kernel has an event, that of the eventfd included.
//! 3. It calls `finish`, which swaps in `AWAKE` and takes a wake-up that came.
//! 4. Others call `wake`: swap in `NOTIFIED`, and write to the eventfd only if
//!    the old state was `ASLEEP`. Between 1 and 2 that write is not lost, for
//!    the kernel sees the eventfd readable when the owner goes to sleep.
//!
//! Whatever a waker did before `wake` is seen by the owner after step 1 or 3.

use std::io;
use std::os::fd::RawFd;

use crate::sys::EventFd;
use crate::util::sync::atomic::AtomicU8;
use crate::util::sync::atomic::Ordering::{AcqRel, Acquire};

/// The owner runs, and nobody has called `wake` since it last looked.
const AWAKE: u8 = 0;
/// The owner sleeps, or is about to: a wake-up must write to the eventfd.
const ASLEEP: u8 = 1;
/// A wake-up came: the owner does not sleep before it has taken it.
const NOTIFIED: u8 = 2;

/// Ends the [wait](super::Driver::wait) of one driver, from any thread.
#[derive(Debug)]
pub struct Waker {
    state: SleepState,
    event: EventFd,
}

impl Waker {
    /// # Errors
    ///
    /// Those of `eventfd(2)`.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: SleepState::new(),
            event: EventFd::new()?,
        })
    }

    /// Makes the owner's wait return: the one it is in, or else its next.
    ///
    /// May be called in a signal handler. Makes a system call only if the
    /// owner sleeps.
    pub fn wake(&self) {
        if self.state.notify() {
            self.event.notify();
        }
    }

    /// What becomes readable to end the owner's sleep.
    pub(super) fn fd(&self) -> RawFd {
        self.event.fd()
    }

    /// Takes back all that `wake` wrote.
    pub(super) fn clear(&self) {
        self.event.clear();
    }

    /// Step 1. Whether the owner may sleep.
    #[must_use]
    pub(super) fn prepare(&self) -> bool {
        self.state.prepare()
    }

    /// Step 3.
    pub(super) fn finish(&self) {
        self.state.finish();
    }
}

/// The state machine without the system calls.
#[derive(Debug)]
struct SleepState(AtomicU8);

impl SleepState {
    fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// Whether the owner may sleep; if not, a wake-up has been taken.
    #[must_use]
    fn prepare(&self) -> bool {
        // Acquire: pairs with the release in `notify`, whose caller's writes
        // the owner looks at if it must not sleep.
        if self
            .0
            .compare_exchange(AWAKE, ASLEEP, AcqRel, Acquire)
            .is_ok()
        {
            return true;
        }
        self.finish();
        false
    }

    fn finish(&self) {
        // Acquire: as in `prepare`. A read-modify-write also reads the newest
        // value, so no wake-up is overwritten unseen.
        self.0.swap(AWAKE, AcqRel);
    }

    /// Whether the owner sleeps and needs an event to wake.
    #[must_use]
    fn notify(&self) -> bool {
        // Release: pairs with the acquire in `prepare` and `finish`.
        self.0.swap(NOTIFIED, AcqRel) == ASLEEP
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::atomic::AtomicBool;
    use loom::sync::atomic::Ordering::Relaxed;
    use loom::sync::{Arc, Condvar, Mutex};

    use super::SleepState;

    /// A driver whose kernel is a condition variable.
    struct Model {
        state: SleepState,
        work: [AtomicBool; 2],
        event: Mutex<bool>,
        readable: Condvar,
    }

    impl Model {
        fn send(&self, work: usize) {
            self.work[work].store(true, Relaxed);
            if self.state.notify() {
                *self.event.lock().unwrap() = true;
                self.readable.notify_one();
            }
        }

        fn sleep(&self) {
            if !self.state.prepare() {
                return;
            }
            let mut event = self.event.lock().unwrap();
            while !*event {
                event = self.readable.wait(event).unwrap();
            }
            *event = false;
            drop(event);
            self.state.finish();
        }
    }

    #[test]
    fn every_wake_up_is_seen_or_ends_the_sleep() {
        let mut checker = loom::model::Builder::new();
        // More than this finds nothing new and takes a minute.
        checker.preemption_bound = Some(3);
        checker.check(|| {
            let model = Arc::new(Model {
                state: SleepState::new(),
                work: [AtomicBool::new(false), AtomicBool::new(false)],
                event: Mutex::new(false),
                readable: Condvar::new(),
            });
            let wakers = [0, 1].map(|work| {
                let model = model.clone();
                loom::thread::spawn(move || model.send(work))
            });
            // A lost wake-up shows as a deadlock.
            while !model.work.iter().all(|work| work.load(Relaxed)) {
                model.sleep();
            }
            for waker in wakers {
                waker.join().unwrap();
            }
        });
    }
}
