//! The signal mask of a coroutine, and the signals that wait for it.
//!
//! To the kernel both belong to the OS thread. A coroutine that never touches
//! its mask runs with that of its worker. One that does (it *has a mask of its
//! own*) takes the mask along from worker to worker, and with it the signals
//! that were sent to it and are blocked.
//!
//! # Steps
//!
//! 1. `Scheduled::resume` finds that the coroutine has its own mask, and
//!    [`arrive`](Held::arrive)s: it sets the mask on the worker's thread, and
//!    then sends the kept signals to that thread, where they are pending again.
//! 2. While the coroutine runs the kernel knows all: `sigpending`, `sigwait` and
//!    the delivery after an unblocking work by themselves.
//! 3. After the switch back, before the coroutine is in any queue, `resume`
//!    [`depart`](Held::depart)s: it takes what is pending for the thread, keeps
//!    it with the coroutine, and sets the worker's mask. What is pending for the
//!    process is left alone: another thread or coroutine may take it.
//! 4. A job that a thread of a pool runs for the coroutine has its mask there,
//!    arrives with what was kept, and departs at its end ([`Carried`]).
//! 5. A change of the mask by the only task there is changes that of the workers
//!    too, see `process_signals`.
//!
//! # Invariants
//!
//! 1. Between `depart` and `arrive` no signal of the coroutine is pending on a
//!    thread; while it runs, none is kept, unless the kernel had no room for it.
//! 2. Handlers change neither the mask here nor what is kept: inside one the
//!    mask is the thread's, and the kernel restores it at the handler's end.
//! 3. The kernel's mask is the coroutine's without [`NEVER_BLOCKED`].

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use libc::siginfo_t;

use super::hooks::Hooks;
use super::scheduled::Scheduled;
use super::shared::Shared;
use super::suspend::current;
use crate::sys::{self, SignalSet};
use crate::util::{handler, preempt};

/// What a worker's thread blocks for nobody.
const NEVER_BLOCKED: SignalSet = 1 << (libc::SIGURG - 1) | sys::LIBC_SIGNALS;

/// What the kernel leaves out of every mask.
const UNBLOCKABLE: SignalSet = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

/// The part of a coroutine that this module is about.
pub(super) struct Signals {
    /// Whether it has a mask of its own.
    is_own: Cell<bool>,
    held: RefCell<Held>,
}

/// A mask, and signals that wait for its owner.
#[derive(Default)]
struct Held {
    mask: SignalSet,
    kept: Vec<siginfo_t>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            is_own: Cell::new(false),
            held: RefCell::default(),
        }
    }

    /// Whether [`arrive`](Self::arrive) must be called before it runs, and
    /// [`depart`](Self::depart) after it ran.
    #[inline(always)]
    pub(super) fn is_own(&self) -> bool {
        self.is_own.get()
    }

    /// A task begins, with the mask that its spawner had as its own.
    pub(super) fn begin(&self, inherited: Option<SignalSet>) {
        if self.is_own.get() {
            // Like a thread's, what waits for a task ends with it.
            self.held.take();
        }
        self.is_own.set(inherited.is_some());
        if let Some(mask) = inherited {
            self.held.borrow_mut().mask = mask;
        }
    }

    /// Step 1.
    #[cold]
    pub(super) fn arrive(&self) {
        self.held.borrow_mut().arrive();
    }

    /// Step 3, on a thread whose own mask is `usual`.
    #[cold]
    pub(super) fn depart(&self, usual: SignalSet) {
        let mut held = self.held.borrow_mut();
        held.depart(usual);
        if held.kept.is_empty() && held.mask == usual {
            self.is_own.set(false);
        }
    }

    /// From here on the mask and what is pending belong to the coroutine.
    fn own(&self) {
        if !self.is_own.get() {
            self.held.borrow_mut().mask = sys::signal_mask();
            self.is_own.set(true);
        }
    }

    /// What its thread blocks while it runs, if that usually blocks `usual`.
    pub(super) fn thread_mask(&self, usual: SignalSet) -> SignalSet {
        if self.is_own.get() {
            self.held.borrow().mask & !NEVER_BLOCKED
        } else {
            usual
        }
    }

    fn mask(&self) -> SignalSet {
        if self.is_own.get() {
            self.held.borrow().mask
        } else {
            sys::signal_mask()
        }
    }
}

impl Held {
    /// Sets the mask on the calling thread and has the kept signals wait there.
    /// Returns the mask before.
    fn arrive(&mut self) -> SignalSet {
        let before = sys::set_signal_mask(self.mask & !NEVER_BLOCKED);
        self.kept.retain(|info| !sys::send_to_this_thread(info));
        before
    }

    /// Takes what waits for the calling thread, and sets its mask to `usual`.
    fn depart(&mut self, usual: SignalSet) {
        self.keep_pending();
        sys::set_signal_mask(usual);
    }

    fn keep_pending(&mut self) {
        if sys::pending_signals() & self.mask == 0 {
            return;
        }
        // A real-time signal may wait several times, hence the loop; and the
        // kernel hands out the thread's before those of the process.
        while let Some(own) = sys::own_pending_signals() {
            match sys::take_signal(own & self.mask) {
                Some(info) => self.kept.push(info),
                None => return,
            }
        }
        self.sort_pending();
    }

    /// [`keep_pending`](Self::keep_pending) without `/proc`: takes all, and gives
    /// back what does not look like `pthread_kill(3)`.
    fn sort_pending(&mut self) {
        let taken = std::iter::from_fn(|| sys::take_signal(self.mask));
        for info in taken.collect::<Vec<_>>() {
            if info.si_code == libc::SI_TKILL || !sys::send_to_this_process(&info) {
                self.kept.push(info);
            }
        }
    }
}

/// The calling coroutine, unless its hooks leave signals out or a handler of the
/// program runs.
fn with_own_signals() -> Option<&'static Scheduled> {
    let coroutine = current()?;
    (coroutine.hooks().contains(Hooks::SIGNALS) && !handler::is_inside()).then_some(coroutine)
}

/// Changes the signal mask of the calling coroutine, and returns the one before.
/// `None` if the mask is the thread's: on a plain thread, in a signal handler,
/// and where signals are not hooked.
pub fn change_signal_mask(change: impl FnOnce(SignalSet) -> SignalSet) -> Option<SignalSet> {
    let coroutine = with_own_signals()?;
    let section = preempt::section();
    let before = coroutine.signals().mask();
    let after = change(before) & !UNBLOCKABLE;
    let is_adopted = after != before && coroutine.set_signal_mask(after);
    drop(section);
    if is_adopted {
        coroutine
            .shared()
            .spread_signal_mask(after & !NEVER_BLOCKED);
    }
    Some(before)
}

impl Scheduled {
    /// Changes the mask of this coroutine, which calls it in a section, and has that
    /// of the workers change if it is the only one (steps 3 and 5 of
    /// `process_signals`): then they must still follow.
    #[must_use = "the other workers must follow"]
    fn set_signal_mask(&self, mask: SignalSet) -> bool {
        let signals = self.signals();
        let was_own = signals.is_own();
        signals.own();
        signals.held.borrow_mut().mask = mask;
        let blocked = mask & !NEVER_BLOCKED;
        // In the child of a fork there are no other workers.
        let is_adopted =
            !self.has_stopped() && self.shared().adopt_signal_mask(self.home(), blocked);
        if is_adopted && !was_own && mask == blocked {
            signals.is_own.set(false);
        }
        // A handler that runs here may leave by a jump.
        sys::set_signal_mask(blocked);
        if !is_adopted && !self.has_stopped() {
            self.shared().open_signals(blocked);
        }
        is_adopted
    }
}

/// The signal mask that a task of `shared` spawned here begins with; `None` for
/// that of its worker.
pub(crate) fn inherited_signal_mask(shared: &Shared) -> Option<SignalSet> {
    let Some(coroutine) = current() else {
        return shared.outside_signal_mask();
    };
    let _section = preempt::section();
    let signals = coroutine.signals();
    signals.is_own().then(|| signals.mask())
}

/// To be called after the caller has sent `signal` to itself: if it is blocked,
/// it goes where the calling coroutine goes.
pub fn sent_signal_to_self(signal: c_int) {
    let _section = preempt::section();
    let signals = with_own_signals().map(Scheduled::signals);
    if let Some(signals) = signals
        && !signals.is_own()
        && sys::signal_mask() & sys::signal_set(signal) != 0
    {
        signals.own();
    }
}

/// The calling coroutine's mask and what waits for it, for a job that another
/// thread runs on its behalf.
pub(crate) struct Carried {
    held: Held,
    /// Whether the coroutine has a mask of its own.
    is_own: bool,
}

/// Takes the caller's signals along; `None` on a plain thread.
pub(crate) fn carry_signals() -> Option<Carried> {
    let coroutine = current()?;
    let _section = preempt::section();
    let signals = coroutine.signals();
    let is_own = signals.is_own();
    let held = if is_own {
        let mut held = signals.held.borrow_mut();
        held.keep_pending();
        Held {
            mask: held.mask,
            kept: std::mem::take(&mut held.kept),
        }
    } else {
        Held {
            mask: coroutine.shared().worker_mask(coroutine.home()),
            kept: Vec::new(),
        }
    };
    Some(Carried { held, is_own })
}

impl Carried {
    /// Runs `job` on the calling thread, with the mask, and with what was kept
    /// pending.
    pub(crate) fn run<R>(&mut self, job: impl FnOnce() -> R) -> R {
        let usual = self.held.arrive();
        let result = job();
        if self.is_own {
            self.held.depart(usual);
        } else {
            sys::set_signal_mask(usual);
        }
        result
    }

    /// What still waits does so for the calling coroutine again.
    pub(crate) fn give_back(mut self) {
        let _section = preempt::section();
        let kept = &mut self.held.kept;
        if let Some(coroutine) = current()
            && !kept.is_empty()
        {
            let signals = coroutine.signals();
            // It left with nothing of its own, if only these made a difference.
            signals.own();
            kept.retain(|info| !sys::send_to_this_thread(info));
            signals.held.borrow_mut().kept.append(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::{mem, ptr, thread};

    use super::*;

    static HANDLED: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: c_int) {
        HANDLED.fetch_add(1, SeqCst);
    }

    #[test]
    fn without_proc_only_what_was_sent_to_the_thread_is_kept() {
        let signal = libc::SIGRTMIN() + 5;
        let job = move || {
            let set = sys::signal_set(signal);
            sys::set_signal_mask(sys::signal_mask() | set);
            // SAFETY: all-zero bytes are valid; the handler counts; both signals
            // are sent to the calling thread.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = count as *const () as usize;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
                libc::raise(signal);
                let value = libc::sigval {
                    sival_ptr: ptr::null_mut(),
                };
                libc::pthread_sigqueue(libc::pthread_self(), signal, value);
            }
            let mut held = Held {
                mask: set,
                kept: Vec::new(),
            };
            held.sort_pending();
            let [kept] = &*held.kept else {
                panic!("{} signals are kept", held.kept.len())
            };
            assert_eq!((signal, libc::SI_TKILL), (kept.si_signo, kept.si_code));
            // Another thread of the tests, which does not block it, has it.
            while HANDLED.load(SeqCst) == 0 {
                thread::yield_now();
            }
        };
        thread::spawn(job).join().unwrap();
        assert_eq!(1, HANDLED.load(SeqCst));
    }
}
