//! The OS thread that runs a worker: the half of it that never moves.
//!
//! A worker's queue, timers and driver (its *processor*) can be taken from a
//! thread that is stuck in a coroutine's code, see `takeover`. So whoever wants to
//! use the worker says so (`holding`): code of the runtime on a coroutine does it
//! with [`with_worker`], and the thread's own scheduler holds it always, except while
//! it runs a coroutine.
//!
//! # Invariants
//!
//! 1. A worker is in `worker` of one carrier at most, which owns a reference to
//!    it there.
//! 2. Only a thread that holds a worker uses its cells.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU32};

use super::holding::Holding;
use super::local;
use super::takeover::Left;
use super::worker::Worker;
use crate::sys;
use crate::tls::ThreadTls;
use crate::util::preempt;

/// See the module's header.
pub(super) struct Carrier {
    worker: AtomicPtr<Worker>,
    holding: Holding,
    /// The kernel's id of the thread.
    thread: i32,
    /// The thread's own storage, in full mode.
    tls: Option<ThreadTls>,
    /// What it keeps of a worker that was taken away.
    left: Left,
    /// See [`note_call`](Self::note_call). Only the thread itself writes it.
    calls: AtomicU32,
}

/// The worker was taken away while the thread ran a coroutine. Whatever belongs to
/// the worker must not be used any more.
#[derive(Debug)]
pub(super) struct Lost;

// SAFETY: `tls` is only used on the thread itself; the rest is made for sharing.
unsafe impl Send for Carrier {}
// SAFETY: as above.
unsafe impl Sync for Carrier {}

impl Carrier {
    /// The calling thread, which runs on its own storage, `tls`, and is to run
    /// `worker`.
    pub(super) fn new(tls: Option<ThreadTls>, worker: Arc<Worker>) -> Self {
        Self {
            worker: AtomicPtr::new(Arc::into_raw(worker).cast_mut()),
            holding: Holding::new(),
            thread: sys::gettid(),
            tls,
            left: Left::default(),
            calls: AtomicU32::new(0),
        }
    }

    /// Its coroutine makes a call that may block the thread, and that a signal might
    /// end.
    pub(super) fn note_call(&self) {
        self.calls
            .store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// How many such calls there were.
    pub(super) fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    pub(super) fn left(&self) -> &Left {
        &self.left
    }

    pub(super) fn thread(&self) -> i32 {
        self.thread
    }

    pub(super) fn tls(&self) -> Option<&ThreadTls> {
        self.tls.as_ref()
    }

    /// Takes the worker away, for another thread, unless this one uses it just now.
    pub(super) fn take(&self) -> Option<Arc<Worker>> {
        self.holding.take().then(|| self.take_out())?
    }

    fn take_out(&self) -> Option<Arc<Worker>> {
        let worker = self.worker.swap(ptr::null_mut(), AcqRel);
        // SAFETY: `new` stored an owned reference.
        (!worker.is_null()).then(|| unsafe { Arc::from_raw(worker) })
    }

    /// The thread stops to run its worker, which it holds.
    pub(super) fn give_up(&self) {
        drop(self.take_out());
    }

    /// The scheduler runs a coroutine: it does not hold the worker meanwhile.
    #[inline]
    pub(super) fn release(&self) {
        self.holding.end(false);
    }

    /// The scheduler runs again, with its worker unless that was taken away.
    #[inline]
    pub(super) fn hold(&self) -> Result<(), Lost> {
        self.holding.hold().then_some(()).ok_or(Lost)
    }

    /// Calls `body` with the worker that the thread runs, if it still has one.
    #[inline]
    fn with<R>(&self, body: impl FnOnce(Option<&Worker>) -> R) -> R {
        let (before, is_here) = self.holding.begin();
        let worker = if is_here {
            // SAFETY: held, so it stays here, with its owned reference.
            unsafe { self.worker.load(Acquire).as_ref() }
        } else {
            None
        };
        let result = body(worker);
        self.holding.end(before);
        result
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Calls `body` with the worker that the caller runs on, as a coroutine or as its
/// scheduler, if there is one. `body` must not suspend.
#[inline]
pub(super) fn with_worker<R>(body: impl FnOnce(Option<&Worker>) -> R) -> R {
    let _section = preempt::section();
    // SAFETY: in a section a coroutine stays on its thread, whose carrier lives as
    // long as the thread runs coroutines.
    match unsafe { local::carrier().as_ref() } {
        Some(carrier) => carrier.with(body),
        None => body(None),
    }
}
