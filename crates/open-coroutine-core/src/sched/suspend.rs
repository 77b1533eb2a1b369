//! What the layers above call on a coroutine: yield, wait, perform I/O.
//!
//! Each function says what it does for a caller that is no coroutine.

use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::cancel::Cancel;
use super::hooks::Hooks;
use super::local;
use super::scheduled::{Scheduled, Suspend};
use super::shared::Shared;
use super::wait::Waiter;
use crate::driver::{Op, Request};
use crate::task::Run;
use crate::timer::TimerKey;
use crate::tls;
use crate::util::handler;
use crate::util::preempt;

/// A request and the coroutine whose frame holds it.
pub(super) struct IoWait {
    pub(super) request: Request,
    pub(super) coroutine: NonNull<Scheduled>,
    pub(super) deadline: Option<Instant>,
    pub(super) timer: Cell<Option<TimerKey>>,
    /// Whether it ends when the task is asked to.
    pub(super) cancel: Cancel,
}

impl IoWait {
    /// The descriptor that it is about.
    pub(super) fn descriptor(&self) -> Option<c_int> {
        self.request.op.fd()
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Its waiter was woken.
    Notified,
    /// The deadline came; a wake-up may have come too.
    TimedOut,
}

/// More sections than can be nested: nothing diverts any more.
pub(super) const STOPPED: u32 = u32::MAX / 2;

#[inline]
pub(super) fn current() -> Option<&'static Scheduled> {
    // SAFETY: code that runs on a coroutine keeps it alive, and the reference
    // does not leave the functions of this module, `signals` and `cancel`, and the
    // frames of the coroutine that call them.
    unsafe { local::coroutine().as_ref() }
}

/// Whether the caller runs on a coroutine.
#[inline]
pub fn on_coroutine() -> bool {
    !local::coroutine().is_null()
}

/// Whether a hooked function of `family` must suspend the calling coroutine
/// instead of blocking its thread. A plain thread pays one load and one branch.
#[inline(always)]
pub fn may_divert(family: Hooks) -> bool {
    let coroutine = local::coroutine();
    // SAFETY: code that runs on a coroutine keeps it alive.
    !coroutine.is_null()
        && unsafe { (*coroutine).diverts(family) || diverts_again(&*coroutine, family) }
}

/// Whether `coroutine` passes through only because of a signal handler that it
/// has left by a jump. If not, its call may block, which the monitor should know.
#[cold]
#[inline(never)]
fn diverts_again(coroutine: &Scheduled, family: Hooks) -> bool {
    notice_left_handler(coroutine);
    coroutine.diverts(family) || {
        let _section = preempt::section();
        // SAFETY: in a section it stays on its thread, whose carrier lives as long as
        // that runs coroutines.
        unsafe { &*coroutine.carrier() }.note_call();
        false
    }
}

fn notice_left_handler(coroutine: &Scheduled) {
    if let Some(depth) = coroutine.before_handler().get()
        && coroutine.pass_through().get() < STOPPED
        && !handler::is_inside()
    {
        coroutine.pass_through().set(depth);
        coroutine.before_handler().set(None);
    }
}

/// Runs a signal handler of the program: nothing in it suspends, and
/// [`is_inside`](handler::is_inside) says so. Async-signal-safe if `body` is.
pub fn in_handler(body: impl FnOnce()) {
    let Some(coroutine) = current() else {
        return handler::inside(body);
    };
    notice_left_handler(coroutine);
    let outer = coroutine.before_handler().get();
    let depth = coroutine.pass_through().get();
    coroutine.before_handler().set(outer.or(Some(depth)));
    coroutine.pass_through().set(depth + 1);
    handler::inside(body);
    // This may be the child of a fork by now.
    if coroutine.pass_through().get() < STOPPED {
        coroutine.pass_through().set(depth);
    }
    coroutine.before_handler().set(outer);
}

/// The task that the caller belongs to.
pub fn current_task() -> Option<Arc<dyn Run>> {
    current()?.task()
}

/// Calls `body` with the task that the caller belongs to, if it belongs to one.
pub fn with_current_task<R>(body: impl FnOnce(&dyn Run) -> R) -> Option<R> {
    // SAFETY: on the coroutine, whose task does not end before `body` does.
    current().map(|coroutine| body(unsafe { coroutine.current_task() }))
}

/// Calls `body` with the name of the task that the caller belongs to, if it
/// belongs to one, or did so before a fork. Async-signal-safe if `body` is.
pub fn with_current_name(body: impl FnOnce(&str)) {
    if let Some(coroutine) = current_or_left() {
        coroutine.with_task_name(body);
    }
}

/// The usable bytes of the stack that the calling coroutine began on; `None` on
/// a plain thread. In the child of a fork it is still that stack.
pub fn current_stack() -> Option<Range<usize>> {
    current_or_left().map(|coroutine| coroutine.stack().clone())
}

/// The means by which the calling coroutine has storage of its own; on a plain
/// thread, if coroutines have.
pub fn isolation() -> Option<&'static tls::Isolation> {
    match current() {
        Some(coroutine) => coroutine.shared().settings().isolation,
        None => tls::decided(),
    }
}

/// The runtime that the caller's coroutine belongs to. Owned, because the
/// coroutine may end before what its caller keeps.
pub fn current_shared() -> Option<Arc<Shared>> {
    Some(current()?.shared().clone())
}

/// Runs `body` with hooked functions passing through to libc.
pub fn without_diversion<R>(body: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a Cell<u32>);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    let Some(coroutine) = current() else {
        return body();
    };
    let depth = coroutine.pass_through();
    depth.set(depth.get() + 1);
    let _leave = Leave(depth);
    body()
}

/// From here on every hooked function passes through: for a process that is taken
/// down.
pub fn stop_diverting() {
    if let Some(coroutine) = current() {
        coroutine.pass_through().set(STOPPED);
    }
}

/// For the child of a fork, whose only thread is the caller's: from here on he is
/// a plain thread, though on a coroutine's stack and storage, which
/// [`was_coroutine`] tells. Async-signal-safe.
pub fn leave() {
    if let Some(coroutine) = current() {
        coroutine.pass_through().set(STOPPED);
        // For good: a plain thread is always in a section.
        preempt::enter();
        local::leave();
    }
}

/// Whether the caller has the stack and the storage of a coroutine: because it is
/// one, or was one before a fork.
#[inline]
pub fn was_coroutine() -> bool {
    current_or_left().is_some()
}

#[inline]
fn current_or_left() -> Option<&'static Scheduled> {
    // SAFETY: as in `current`; what a child has left is never freed there.
    current().or_else(|| unsafe { local::left().as_ref() })
}

impl Scheduled {
    /// Whether it has called [`stop_diverting`] or [`leave`].
    pub(super) fn has_stopped(&self) -> bool {
        self.pass_through().get() >= STOPPED
    }
}

/// Lets others run. False if the caller is no coroutine.
#[inline]
pub fn try_yield() -> bool {
    let Some(coroutine) = current() else {
        return false;
    };
    // SAFETY: called on `coroutine`, with nothing borrowed.
    unsafe { coroutine.suspend(Suspend::Yield) };
    true
}

/// To be called after an operation that the calling coroutine did without
/// waiting: after some of them in a row others get a turn.
#[inline]
pub fn spend() {
    if let Some(coroutine) = current()
        && coroutine.spend()
    {
        // SAFETY: called on `coroutine`, with nothing borrowed.
        unsafe { coroutine.suspend(Suspend::Yield) };
    }
}

/// Begins a wait: publish the waiter, then call [`wait`]. `None` if the caller
/// is no coroutine.
pub fn prepare_wait() -> Option<Waiter> {
    let coroutine = current()?;
    let coroutine = NonNull::from(coroutine);
    // SAFETY: code that runs on a coroutine keeps it alive.
    unsafe { &*Scheduled::wait_state(coroutine) }.prepare();
    Some(Waiter::new(coroutine))
}

/// Waits until the waiter of the last [`prepare_wait`] is woken or `deadline`
/// has come.
///
/// # Panics
///
/// If the caller is no coroutine.
pub fn wait(deadline: Option<Instant>) -> Wake {
    let coroutine = current().expect("wait is called on a coroutine");
    // SAFETY: called on `coroutine`, with nothing borrowed.
    unsafe { coroutine.suspend(Suspend::Park { deadline }) };
    end_of_wait(coroutine)
}

/// [`wait`], until a thread of a pool has done what it was given.
///
/// # Panics
///
/// If the caller is no coroutine.
pub fn wait_for_thread() {
    if let Some(coroutine) = current() {
        coroutine.activity().offload();
    }
    wait(None);
}

fn end_of_wait(coroutine: &Scheduled) -> Wake {
    let Some((worker, key)) = coroutine.take_timer() else {
        return Wake::Notified;
    };
    // Invariant 3: expiry happens under this lock, so it is over after this.
    match coroutine.shared().seats()[worker].timers.lock().remove(key) {
        Some(_) => Wake::Notified,
        None => Wake::TimedOut,
    }
}

/// Sleeps until `deadline`, or for ever. `Notified` means that the calling task
/// was asked to end. `None` if the caller is no coroutine.
pub fn sleep_until(deadline: Option<Instant>) -> Option<Wake> {
    prepare_wait()?;
    if thread::panicking() {
        // Nothing shows that it was asked while it unwinds.
        return Some(wait(deadline));
    }
    let coroutine = current()?;
    // SAFETY: called on `coroutine`, with nothing borrowed.
    unsafe { coroutine.suspend(Suspend::Sleep(NonNull::from(&deadline))) };
    Some(end_of_wait(coroutine))
}

/// Whether the driver of the calling coroutine's worker performs `op` itself.
pub fn driver_supports(op: &Op) -> bool {
    current().is_some_and(|coroutine| coroutine.shared().driver_supports(op))
}

/// Has the driver perform `op` and waits for its result: what the system call
/// returns, or minus the error number. `ETIME`, which no such call returns, means
/// that the deadline came first and nothing was transferred; so does `ECANCELED`
/// if the task was asked to end and `cancel` says that this ends the wait.
///
/// # Safety
///
/// The contract of `op`'s system call. Called on a coroutine.
///
/// # Panics
///
/// If the caller is no coroutine.
pub unsafe fn perform(op: Op, deadline: Option<Instant>, cancel: Cancel) -> c_int {
    let coroutine = current().expect("perform is called on a coroutine");
    let mut wait = IoWait {
        request: Request::new(op, ptr::null()),
        coroutine: NonNull::from(coroutine),
        deadline,
        timer: Cell::new(None),
        cancel: cancel.now(),
    };
    // SAFETY: `wait` stays where it is until the completion has been seen: the
    // coroutine is resumed by nothing else.
    unsafe { coroutine.suspend(Suspend::Io(NonNull::from(&mut wait))) };
    wait.request.result()
}

/// Runs `body` on the thread-local storage of the OS thread below the calling
/// coroutine; as it is for any other caller.
///
/// # Safety
///
/// `body` must neither suspend nor unwind.
pub unsafe fn on_thread_storage<R>(body: impl FnOnce() -> R) -> R {
    let Some(coroutine) = current_or_left() else {
        return body();
    };
    let _section = preempt::section();
    // SAFETY: called on the coroutine, which stays on its thread in a
    // section; the one that a child has left is in memory that nobody frees.
    let (block, thread) = unsafe { (coroutine.block(), (*coroutine.carrier()).tls()) };
    let (Some(block), Some(thread)) = (block, thread) else {
        return body();
    };
    // SAFETY: the caller's promise; the coroutine runs on this worker.
    unsafe { tls::on_thread(thread, block, body) }
}

/// Runs `body` as the OS thread below the caller would: on its thread-local
/// storage, with hooked functions passing through, and without preemption. It may
/// be called at any time, also before `main`, in a thread's last destructors and
/// in the child of a fork. A plain thread pays one load and one branch.
///
/// # Safety
///
/// As for [`on_thread_storage`].
#[inline(always)]
pub unsafe fn as_thread<R>(body: impl FnOnce() -> R) -> R {
    if was_coroutine() {
        // SAFETY: the caller's promise.
        unsafe { as_thread_below(body) }
    } else {
        body()
    }
}

/// # Safety
///
/// As for [`as_thread`].
#[inline(never)]
unsafe fn as_thread_below<R>(body: impl FnOnce() -> R) -> R {
    // First, because who passes through is not preempted: so it stays on the
    // thread whose storage is looked up.
    // SAFETY: the caller's promise.
    without_diversion(|| unsafe { on_thread_storage(body) })
}
