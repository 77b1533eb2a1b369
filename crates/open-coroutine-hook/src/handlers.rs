//! `sigaction(2)`, `signal(2)` and its kin: the program's signal handlers run
//! behind one of ours (a *trampoline*), inside which no hooked function suspends.
//!
//! A handler may interrupt any code: another coroutine must not run meanwhile,
//! and on an alternate stack, which belongs to the thread, none could.
//!
//! # Protocol
//!
//! There are two trampolines, one for handlers with `SA_SIGINFO` and one for
//! those without, and for each a table of the program's handlers by signal. So
//! the kernel keeps the flags and the mask of an action, and knows which kind of
//! handler it has; the tables only have addresses.
//!
//! 1. To set an action: block all signals, take the lock.
//! 2. Note the two entries of the signal.
//! 3. Store the new handler in the table of its kind.
//! 4. Have libc set the action with the trampoline of that kind; if it refuses,
//!    restore the entry.
//! 5. If the action before was a trampoline, the handler before is the entry
//!    that step 2 noted.
//! 6. Unlock, restore the mask.
//!
//! A trampoline loads the entry of its own kind, without a lock. Entries are
//! never cleared: whether they count is the kernel's to say.
//!
//! The action of the signal by which coroutines are preempted stays ours. What the
//! program sets for it is kept in `URGENT`, and its trampoline is called from
//! our handler. While any handler of the program runs, that signal is blocked: so a
//! coroutine is not preempted before the trampoline has begun, nor after it has
//! ended, and nothing that the handler waits for is interrupted.
//!
//! # Invariants
//!
//! 1. An entry that is not 0 is a handler of its table's kind. A trampoline that
//!    runs finds one: step 3 comes before step 4.
//! 2. The lock's holder runs no handler, so a handler that sets an action never
//!    waits for the code it interrupted.
//! 3. The lock's value is the holder's process: a process that was forked
//!    meanwhile takes it over.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicUsize};

use libc::{SA_SIGINFO, SIG_DFL, SIG_ERR, SIG_IGN, sighandler_t, siginfo_t};
use open_coroutine_core::{sched, sys};

use crate::masks;
use crate::real;

const SIGNALS: usize = 65;

/// Handlers by signal; 0 is none. Static because signal dispositions belong to
/// the process.
type Table = [AtomicUsize; SIGNALS];
static PLAIN: Table = [const { AtomicUsize::new(0) }; SIGNALS];
static DETAILED: Table = [const { AtomicUsize::new(0) }; SIGNALS];

type PlainHandler = unsafe extern "C" fn(c_int);
type DetailedHandler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The trampoline for handlers without `SA_SIGINFO`.
unsafe extern "C" fn run_plain(signal: c_int) {
    // Acquire: pairs with the Release in `Change::begin`.
    let handler = PLAIN[signal as usize].load(Acquire);
    // SAFETY: invariant 1; called with the kernel's argument.
    enclosed(|| unsafe { mem::transmute::<usize, PlainHandler>(handler)(signal) });
}

/// The trampoline for handlers with `SA_SIGINFO`.
unsafe extern "C" fn run_detailed(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // Acquire: pairs with the Release in `Change::begin`.
    let handler = DETAILED[signal as usize].load(Acquire);
    // SAFETY: invariant 1; called with the kernel's arguments.
    enclosed(|| unsafe {
        mem::transmute::<usize, DetailedHandler>(handler)(signal, info, context);
    });
}

/// Runs a handler so that nothing in it suspends or waits for the interrupted
/// code, which finds `errno` as it was.
fn enclosed(handler: impl FnOnce()) {
    let errno = sys::errno();
    sched::in_handler(handler);
    sys::set_errno(errno);
}

/// The table for handlers with `flags`, and its trampoline.
fn of_kind(flags: c_int) -> (&'static Table, usize) {
    if flags & SA_SIGINFO == 0 {
        (&PLAIN, run_plain as PlainHandler as usize)
    } else {
        (&DETAILED, run_detailed as DetailedHandler as usize)
    }
}

/// 0, or the process one of whose threads changes an action (invariant 3).
/// Static because signal dispositions belong to the process.
static CHANGING: AtomicI32 = AtomicI32::new(0);

/// The lock of the protocol.
struct Lock {
    mask: sys::SignalSet,
}

impl Lock {
    fn take() -> Self {
        let mask = sys::set_signal_mask(sys::SignalSet::MAX);
        let process = sys::getpid();
        loop {
            let holder = CHANGING.load(Relaxed);
            // Acquire: pairs with the Release in `drop`.
            if holder != process
                && CHANGING
                    .compare_exchange(holder, process, Acquire, Relaxed)
                    .is_ok()
            {
                return Self { mask };
            }
            sys::sched_yield();
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `take`.
        CHANGING.store(0, Release);
        sys::set_signal_mask(self.mask);
    }
}

/// A change of the action of one signal.
struct Change {
    signal: usize,
    /// The entries before: without and with `SA_SIGINFO`.
    before: [usize; 2],
    _lock: Lock,
}

impl Change {
    /// Steps 1 and 2. `None` if there is no such signal.
    fn begin(signal: c_int) -> Option<Self> {
        let signal = usize::try_from(signal).ok().filter(|&it| it < SIGNALS)?;
        let lock = Lock::take();
        Some(Self {
            signal,
            before: [PLAIN[signal].load(Relaxed), DETAILED[signal].load(Relaxed)],
            _lock: lock,
        })
    }

    /// Step 3: what the kernel is to have as the handler.
    fn set(&self, handler: usize, flags: c_int) -> usize {
        let (table, trampoline) = of_kind(flags);
        let is_function = ![SIG_DFL, SIG_IGN, SIG_ERR].contains(&handler);
        // Who has found a trampoline by a raw system call gets what it was for.
        if !is_function || handler == trampoline {
            return handler;
        }
        // Release: pairs with the Acquire in the trampolines.
        table[self.signal].store(handler, Release);
        trampoline
    }

    /// The rest of step 4.
    fn undo(&self) {
        PLAIN[self.signal].store(self.before[0], Release);
        DETAILED[self.signal].store(self.before[1], Release);
    }

    /// Step 5: the program's handler, where the kernel had `handler`.
    fn users(&self, handler: usize) -> usize {
        [0, SA_SIGINFO]
            .into_iter()
            .zip(self.before)
            .find(|&(flags, _)| of_kind(flags).1 == handler)
            .map_or(handler, |(_, users)| users)
    }
}

/// What the program has set for the signal that preempts. Static because signal
/// dispositions belong to the process.
static URGENT: Urgent = Urgent(UnsafeCell::new(None));

struct Urgent(UnsafeCell<Option<libc::sigaction>>);

// SAFETY: only the holder of the protocol's lock uses it, see `exchange`.
unsafe impl Sync for Urgent {}

impl Urgent {
    /// Keeps `new`, if there is one. Returns the action before.
    fn exchange(&self, new: Option<&libc::sigaction>, _change: &Change) -> libc::sigaction {
        // SAFETY: a change exists while its thread holds the lock.
        let kept = unsafe { &mut *self.0.get() };
        let before = kept
            .or_else(sched::action_before_preemption)
            // SAFETY: all-zero bytes are a valid `sigaction`.
            .unwrap_or_else(|| unsafe { mem::zeroed() });
        if let Some(new) = new {
            *kept = Some(*new);
            sched::chain(new.sa_sigaction);
        }
        before
    }
}

/// Blocks the signal that preempts, or no longer, while the handler of `action`
/// runs: it would interrupt what the handler waits for.
fn guard(action: &mut libc::sigaction, is_guarded: bool) {
    let change = if is_guarded {
        libc::sigaddset
    } else {
        libc::sigdelset
    };
    // SAFETY: a valid set and signal.
    unsafe { change(&raw mut action.sa_mask, libc::SIGURG) };
}

/// `sigaction(2)`
///
/// # Safety
///
/// The contract of `sigaction(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // Copied before all signals are blocked, a fault's among them.
    // SAFETY: the caller passes a valid action, or null.
    let mut new = unsafe { new.as_ref() }.copied();
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // Looked up without the lock, which others may want inside the loader's.
    let real = real::sigaction.get();
    let Some(change) = Change::begin(signal) else {
        // SAFETY: libc refuses the signal.
        return unsafe { real(signal, ptr::null(), old) };
    };
    if let Some(new) = &mut new {
        new.sa_sigaction = change.set(new.sa_sigaction, new.sa_flags);
        guard(new, true);
    }
    if sched::preempts_by(signal) {
        before = URGENT.exchange(new.as_ref(), &change);
    } else {
        let action = new.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the trampoline calls the caller's handler as its flags say.
        let result = unsafe { real(signal, action, &raw mut before) };
        if result != 0 {
            change.undo();
            return result;
        }
    }
    guard(&mut before, false);
    before.sa_sigaction = change.users(before.sa_sigaction);
    drop(change);
    if !old.is_null() {
        // SAFETY: the caller passes a place for an action.
        unsafe { *old = before };
    }
    0
}

/// `sigaction(2)`, by glibc's other name.
///
/// # Safety
///
/// The contract of `sigaction(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { sigaction(signal, new, old) }
}

/// `signal(2)`, which knows what `siginterrupt(3)` has asked for.
///
/// # Safety
///
/// The contract of `signal(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if sched::preempts_by(signal) {
        // SAFETY: the caller's contract.
        return unsafe { exchange(signal, handler, libc::SA_RESTART) };
    }
    // As in `sigaction`.
    let (real, real_sigaction) = (real::signal.get(), real::sigaction.get());
    let Some(change) = Change::begin(signal) else {
        // SAFETY: libc refuses the signal.
        return unsafe { real(signal, handler) };
    };
    // SAFETY: the trampoline calls the caller's handler.
    let before = unsafe { real(signal, change.set(handler, 0)) };
    if before == SIG_ERR {
        change.undo();
        return before;
    }
    // SAFETY: all-zero bytes are a valid `sigaction`, which the calls write and
    // read.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        real_sigaction(signal, ptr::null(), &raw mut action);
        guard(&mut action, true);
        real_sigaction(signal, &raw const action, ptr::null_mut());
    }
    change.users(before)
}

/// `bsd_signal(3)`
///
/// # Safety
///
/// The contract of `bsd_signal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { signal(number, handler) }
}

/// `ssignal(3)`
///
/// # Safety
///
/// The contract of `ssignal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssignal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { signal(number, handler) }
}

/// `sysv_signal(3)`: the handler is reset, and does not block its signal.
///
/// # Safety
///
/// The contract of `sysv_signal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's contract.
    unsafe { exchange(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER) }
}

/// `sysv_signal(3)`, by the name that headers use for `signal` in strict modes.
///
/// # Safety
///
/// The contract of `sysv_signal(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's contract.
    unsafe { sysv_signal(signal, handler) }
}

/// `sigset(3)`
///
/// # Safety
///
/// The contract of `sigset(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigset(signal: c_int, handler: sighandler_t) -> sighandler_t {
    const SIG_HOLD: sighandler_t = 2;
    let is_held = handler == SIG_HOLD;
    let before = if is_held {
        // SAFETY: only asks.
        unsafe { current(signal) }
    } else {
        // SAFETY: the caller's contract.
        unsafe { exchange(signal, handler, 0) }
    };
    if before == SIG_ERR {
        return SIG_ERR;
    }
    let set = sys::signal_set(signal);
    let mask = masks::change(|mask| if is_held { mask | set } else { mask & !set });
    if mask & set != 0 { SIG_HOLD } else { before }
}

/// Sets a handler as `sigaction` does. Returns the one before, or `SIG_ERR`.
///
/// # Safety
///
/// The contract of `sigaction(2)`.
unsafe fn exchange(signal: c_int, handler: sighandler_t, flags: c_int) -> sighandler_t {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let (mut new, mut old) = unsafe { mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: the caller's contract.
    match unsafe { sigaction(signal, &raw const new, &raw mut old) } {
        0 => old.sa_sigaction,
        _ => SIG_ERR,
    }
}

/// The handler of `signal`, or `SIG_ERR`.
///
/// # Safety
///
/// None beyond those of any C function.
unsafe fn current(signal: c_int) -> sighandler_t {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: without a new action it only asks.
    match unsafe { sigaction(signal, ptr::null(), &raw mut old) } {
        0 => old.sa_sigaction,
        _ => SIG_ERR,
    }
}
