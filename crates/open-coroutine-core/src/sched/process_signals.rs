//! Signals to the process: which threads of the runtime may take them.
//!
//! The kernel gives such a signal to any thread that does not block it. What all
//! threads of a program block stays pending until one of them takes it, by
//! `sigwait(3)` say. So the threads that the runtime adds must not take what the
//! program's code has blocked, and must take at once what it has not.
//!
//! # Steps
//!
//! 1. Threads that run no code of the program, and are not needed to take signals,
//!    block [`sys::DEFERRABLE_SIGNALS`]: those of the pools between two jobs, and
//!    the one that waits for a coroutine `main`.
//! 2. A worker blocks the *usual mask*, between two coroutines and while it runs
//!    one without a mask of its own. At first it is that of the thread that
//!    started the runtime.
//! 3. While one task is alive, a change of its mask changes the usual mask
//!    ([`adopt`](Shared::adopt_signal_mask)), as what a thread blocks before it
//!    starts others is blocked in them too. The task's own worker has the new mask
//!    at once; then the others are woken and waited for
//!    ([`spread`](Shared::spread_signal_mask)).
//! 4. A worker compares its mask with the usual one when it reads its mail, which
//!    it does after each wake-up and in each turn
//!    ([`follow`](Worker::follow_signal_mask)).
//! 5. When there are several tasks, a change is the coroutine's own. What it
//!    unblocks of the usual mask becomes *open*
//!    ([`open_signals`](Shared::open_signals)): workers let it in while they look
//!    at their driver ([`receptive`](Worker::receptive)), for they stand for the
//!    suspended coroutine. Open signals stay so until the next step 3.
//! 6. A task that a plain thread spawns begins with the mask of the thread that
//!    started the runtime, as its own if the usual mask is another one by now.
//!
//! # Invariants
//!
//! 1. Only its own thread changes a worker's entry of `blocked`, together with
//!    the thread's mask.
//! 2. Step 3 ends: it waits for [`LIMIT`] at most. No other coroutine keeps a
//!    worker busy then, unless a plain thread is just spawning one; that worker
//!    follows when it reads its mail.
//! 3. No wake-up is lost: the usual mask and the open signals are stored before
//!    the wake, and read after it (`driver::Waker`).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::worker::Worker;
use crate::sys::{self, SignalSet};

/// How long step 3 waits for workers that do not answer.
const LIMIT: Duration = Duration::from_secs(1);

/// What workers block.
pub(super) struct ProcessSignals {
    /// The mask of the thread that started the runtime.
    initial: SignalSet,
    usual: AtomicU64,
    open: AtomicU64,
    /// By worker: what its thread blocks.
    blocked: Box<[AtomicU64]>,
    /// Changes whenever a worker has followed.
    followed: AtomicU32,
}

impl ProcessSignals {
    /// The usual mask is that of the calling thread, from which the workers
    /// inherit it.
    pub(super) fn new(workers: usize) -> Self {
        let usual = sys::signal_mask();
        Self {
            initial: usual,
            usual: AtomicU64::new(usual),
            open: AtomicU64::new(0),
            blocked: (0..workers).map(|_| AtomicU64::new(usual)).collect(),
            followed: AtomicU32::new(0),
        }
    }
}

impl Shared {
    /// The first half of step 3, for a coroutine on worker `index`, whose thread
    /// is about to have `mask`: true if the usual mask is now the same. False if
    /// the caller is not alone, and the change is its own.
    #[must_use = "the other workers must follow"]
    pub(super) fn adopt_signal_mask(&self, index: usize, mask: SignalSet) -> bool {
        let is_adopted = self.is_last_task();
        if is_adopted {
            let signals = &self.process_signals;
            signals.open.store(0, Relaxed);
            // Release: pairs with the Acquire in `follow_signal_mask`.
            signals.usual.store(mask, Release);
            signals.blocked[index].store(mask, Relaxed);
        }
        is_adopted
    }

    /// The second half of step 3: returns when every worker blocks `mask`.
    pub(super) fn spread_signal_mask(&self, mask: SignalSet) {
        let signals = &self.process_signals;
        // Acquire: pairs with the Release in `follow_signal_mask`.
        let follows = |blocked: &AtomicU64| blocked.load(Acquire) == mask;
        self.wake_all();
        let deadline = Instant::now() + LIMIT;
        loop {
            // SeqCst: read before the masks, and changed after them.
            let followed = signals.followed.load(SeqCst);
            let left = deadline.saturating_duration_since(Instant::now());
            if signals.blocked.iter().all(follows) || left.is_zero() {
                return;
            }
            sys::futex_wait(&signals.followed, followed, Some(left));
        }
    }

    /// The mask that a task begins with which no coroutine spawns (step 6).
    pub(super) fn outside_signal_mask(&self) -> Option<SignalSet> {
        let signals = &self.process_signals;
        let has_changed = signals.usual.load(Relaxed) != signals.initial;
        has_changed.then(|| {
            self.open_signals(signals.initial);
            signals.initial
        })
    }

    /// What worker `index` blocks while it runs no coroutine with its own mask.
    pub(super) fn worker_mask(&self, index: usize) -> SignalSet {
        self.process_signals.blocked[index].load(Relaxed)
    }

    /// Step 5, for a coroutine that from now on blocks only `mask`.
    pub(super) fn open_signals(&self, mask: SignalSet) {
        let signals = &self.process_signals;
        let opened = signals.usual.load(Relaxed) & !mask;
        if opened & !signals.open.fetch_or(opened, Relaxed) != 0 {
            self.wake_all();
        }
    }
}

impl Worker {
    /// What the thread blocks while it runs no coroutine with its own mask.
    pub(super) fn signal_mask(&self) -> SignalSet {
        self.shared().worker_mask(self.index())
    }

    /// Step 4.
    #[inline]
    pub(super) fn follow_signal_mask(&self) {
        let signals = &self.shared().process_signals;
        // Acquire: pairs with the Release in `adopt_signal_mask`.
        let usual = signals.usual.load(Acquire);
        let blocked = &signals.blocked[self.index()];
        if blocked.load(Relaxed) != usual {
            sys::set_signal_mask(usual);
            // Release: pairs with the Acquire in `spread_signal_mask`, which must
            // see it only when the thread has the mask.
            blocked.store(usual, Release);
            signals.followed.fetch_add(1, SeqCst);
            sys::futex_wake(&signals.followed, 1);
        }
    }

    /// Step 5: calls `look` with the open signals let in.
    #[inline]
    pub(super) fn receptive<R>(&self, look: impl FnOnce() -> R) -> R {
        let open = self.shared().process_signals.open.load(Relaxed);
        if open == 0 {
            return look();
        }
        let usual = self.signal_mask();
        sys::set_signal_mask(usual & !open);
        let result = look();
        sys::set_signal_mask(usual);
        result
    }
}
