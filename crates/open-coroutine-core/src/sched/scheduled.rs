//! A started task: its stack, its thread-local storage and its state.
//!
//! The same object runs one task after the other; between two of them it lies
//! in a worker's cache with its storage reset.
//!
//! # Ownership
//!
//! The object is made by `Scheduled::new` and freed by `destroy`. In between it
//! is only known by pointer, never as a `Box`: the code on its own stack holds
//! a reference to it all the while.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::io;
use std::mem;
use std::ops::Range;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use corosensei::{CoroutineResult, Yielder};

use super::activity::Activity;
use super::cancel::Cancellation;
use super::carrier::{Carrier, Lost};
use super::forecast::Forecast;
use super::hooks::Hooks;
use super::local;
use super::locals::Locals;
use super::shared::Shared;
use super::signals::Signals;
use super::suspend::{IoWait, STOPPED};
use super::wait::WaitState;
use super::worker::Worker;
use crate::coroutine::{Segment, outermost};
use crate::stack::Stack;
use crate::sys;
use crate::task::Run;
use crate::timer::TimerKey;
use crate::tls::{self, Isolation, ThreadTls};
use crate::util::lock::{Guard, Lock};
use crate::util::preempt;

/// Why a coroutine gave up the processor. Acted on by its worker.
///
/// It stays in the frame that suspends, and only its address goes through the switch.
/// A value that is written in small pieces and then copied in large ones costs more
/// than the whole switch: the processor cannot forward such stores.
#[derive(Clone, Copy)]
pub(super) enum Suspend {
    /// Others may run; it is still runnable.
    Yield,
    /// The same, against its will: somebody else is due.
    Preempted,
    /// It waits for a [`Waiter`] to be woken, at most until `deadline`.
    Park { deadline: Option<Instant> },
    /// It waits for nothing but this deadline.
    Sleep(NonNull<Option<Instant>>),
    /// It waits for the driver to complete an operation.
    Io(NonNull<IoWait>),
    /// Its task has ended; or was claimed by somebody else before it `ran`.
    Done { ran: bool },
}

/// What a resumed coroutine is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Go on; or, between two tasks, run the next one.
    Run,
    /// Between two tasks only: return, so that the stack can be freed.
    Exit,
}

/// How many operations in a row a coroutine may do at once. Who always finds
/// data ready would otherwise never let others run.
const BUDGET: u32 = 64;

/// A coroutine as the scheduler sees it.
pub(crate) struct Scheduled {
    shared: Arc<Shared>,
    isolation: Option<&'static Isolation>,
    /// The thread that it runs on. Valid while it runs.
    carrier: Cell<*const Carrier>,
    cancellation: Cancellation,
    activity: Activity,
    /// Sections in which nobody asks its task to end, nested.
    shields: Cell<u32>,
    yielder: Cell<*const Yielder<Command, NonNull<Suspend>>>,
    /// Its error number, once it has begun to run its task.
    errno: Cell<*const Cell<c_int>>,
    wait: WaitState,
    /// The deadline of the current wait, and the worker that keeps it.
    timer: Cell<Option<(usize, TimerKey)>>,
    /// The next one in the list of those that signal handlers have woken.
    woken_before: Cell<*mut Scheduled>,
    priority: Cell<i64>,
    /// The hooked functions that suspend it.
    hooks: Hooks,
    /// Sections in which all of them pass through, nested.
    pass_through: Cell<u32>,
    /// What that was before the outermost signal handler that runs.
    before_handler: Cell<Option<u32>>,
    signals: Signals,
    forecast: Forecast,
    /// Whether it computes: it was preempted the last time that it ran.
    computes: Cell<bool>,
    /// Operations that it may still do at once before others have a turn.
    budget: Cell<u32>,
    /// The task it runs. Locked because shutdown names tasks from outside.
    task: Lock<Option<Arc<dyn Run>>>,
    /// The same task, for the coroutine itself and its worker.
    current: Cell<Option<NonNull<dyn Run>>>,
    /// Its place in the runtime's list of all coroutines, whose lock guards it.
    listed_at: Cell<usize>,
    /// The usable bytes of its stack.
    stack: Range<usize>,
    /// Restricted mode: the thread's innermost stack segment while suspended.
    segment: Cell<*const Segment>,
    /// Restricted mode: the sections that it is in while suspended.
    sections: Cell<u32>,
    /// Restricted mode: what coroutine-locals hold.
    locals: Locals,
    block: UnsafeCell<Option<tls::Block>>,
    context: UnsafeCell<Context>,
}

type Context = Option<corosensei::Coroutine<Command, NonNull<Suspend>, (), Stack>>;

// SAFETY: the cells belong to whoever runs the coroutine: the coroutine itself,
// or the worker that has taken it out of a queue (invariant 1 of `sched`), and
// queues hand them over with release and acquire. `wait`, `task` and `shared`
// are made for sharing.
unsafe impl Send for Scheduled {}
// SAFETY: as above.
unsafe impl Sync for Scheduled {}

impl Scheduled {
    /// A coroutine on `stack`, ready for its first task.
    ///
    /// # Errors
    ///
    /// When there is no memory for its thread-local storage.
    pub(super) fn new(
        shared: &Arc<Shared>,
        isolation: Option<&'static Isolation>,
        stack: Stack,
    ) -> io::Result<NonNull<Self>> {
        let block = isolation.map(tls::Block::new).transpose()?;
        let this = NonNull::from(Box::leak(Box::new(Self {
            shared: shared.clone(),
            isolation,
            carrier: Cell::new(ptr::null()),
            cancellation: Cancellation::new(),
            activity: Activity::new(),
            shields: Cell::new(0),
            yielder: Cell::new(ptr::null()),
            errno: Cell::new(ptr::null()),
            wait: WaitState::new(),
            timer: Cell::new(None),
            woken_before: Cell::new(ptr::null_mut()),
            priority: Cell::new(0),
            hooks: shared.settings().hooks,
            pass_through: Cell::new(0),
            before_handler: Cell::new(None),
            signals: Signals::new(),
            forecast: Forecast::new(),
            computes: Cell::new(false),
            budget: Cell::new(BUDGET),
            task: Lock::new(None),
            current: Cell::new(None),
            listed_at: Cell::new(0),
            stack: stack.usable(),
            segment: Cell::new(ptr::null()),
            sections: Cell::new(preempt::initial()),
            locals: Locals::new(),
            block: UnsafeCell::new(block),
            context: UnsafeCell::new(None),
        })));
        let segment = Segment::of(&stack);
        let context = corosensei::Coroutine::with_stack(stack, move |yielder, command| {
            // SAFETY: `destroy` ends the context before it frees the object.
            let this = unsafe { this.as_ref() };
            outermost(|| this.main(yielder, command, &segment));
        });
        // SAFETY: nobody else knows the new object yet.
        unsafe { *this.as_ref().context.get() = Some(context) };
        Ok(this)
    }

    /// Gives it the next task, which is told so.
    pub(super) fn assign(&self, task: Arc<dyn Run>) {
        self.priority.set(task.meta().priority);
        self.errno.set(ptr::null());
        self.pass_through.set(0);
        self.shields.set(0);
        self.cancellation.reset();
        task.runner()
            .store(ptr::from_ref(self).cast_mut().cast(), Relaxed);
        self.before_handler.set(None);
        self.signals.begin(task.meta().signal_mask);
        self.current.set(Some(NonNull::from(&*task)));
        *self.task.lock() = Some(task);
    }

    /// The task it runs, without a lock.
    ///
    /// # Safety
    ///
    /// Called on this coroutine, or by the worker that owns it, and not used
    /// after the task has been taken out.
    pub(super) unsafe fn current_task(&self) -> &dyn Run {
        let task = self
            .current
            .get()
            .expect("a task is assigned before each start");
        // SAFETY: `task` owns it until it is taken out, see above.
        unsafe { task.as_ref() }
    }

    /// Takes the ended task out.
    pub(super) fn take_task(&self) -> Option<Arc<dyn Run>> {
        let task = self.task.lock().take()?;
        task.runner().store(ptr::null_mut(), Relaxed);
        Some(task)
    }

    /// The task it runs, which does not end while it is locked.
    pub(super) fn lock_task(&self) -> Guard<'_, Option<Arc<dyn Run>>> {
        self.task.lock()
    }

    /// Calls `body` with the task's name; without it if another thread is just
    /// looking at the task. For signal handlers.
    pub(super) fn with_task_name(&self, body: impl FnOnce(&str)) {
        let task = self.task.try_lock();
        let meta = task.as_ref().and_then(|task| Some(task.as_ref()?.meta()));
        body(
            meta.and_then(|meta| meta.name.as_deref())
                .unwrap_or("<unnamed>"),
        );
    }

    /// The task it runs.
    pub(super) fn task(&self) -> Option<Arc<dyn Run>> {
        self.task.lock().clone()
    }

    /// Makes the storage as new. False if this object must not run another task.
    pub(super) fn reset(&self) -> bool {
        // SAFETY: called by the worker that saw `Done`, so the coroutine does
        // not run, and its thread-locals have been destroyed.
        unsafe { (*self.block.get()).as_mut() }.is_none_or(|block| unsafe { block.reset() })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn priority(&self) -> i64 {
        self.priority.get()
    }

    #[inline]
    pub(super) fn carrier(&self) -> *const Carrier {
        self.carrier.get()
    }

    /// The worker that it ran on last, to which it is pinned in restricted mode.
    pub(super) fn home(&self) -> usize {
        self.cancellation.home()
    }

    pub(super) fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    pub(super) fn shields(&self) -> &Cell<u32> {
        &self.shields
    }

    /// Whether it is in a section in which nobody asks its task to end.
    pub(super) fn is_shielded(&self) -> bool {
        self.shields.get() != 0
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(super) fn set_timer(&self, timer: Option<(usize, TimerKey)>) {
        self.timer.set(timer);
    }

    pub(super) fn take_timer(&self) -> Option<(usize, TimerKey)> {
        self.timer.take()
    }

    pub(super) fn woken_before(&self) -> &Cell<*mut Scheduled> {
        &self.woken_before
    }

    pub(super) fn locals(&self) -> &Locals {
        &self.locals
    }

    pub(super) fn listed_at(&self) -> &Cell<usize> {
        &self.listed_at
    }

    pub(super) fn pass_through(&self) -> &Cell<u32> {
        &self.pass_through
    }

    /// The hooked functions that suspend it, except in sections.
    pub(super) fn hooks(&self) -> Hooks {
        self.hooks
    }

    pub(super) fn computes(&self) -> &Cell<bool> {
        &self.computes
    }

    pub(super) fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(super) fn before_handler(&self) -> &Cell<Option<u32>> {
        &self.before_handler
    }

    /// Whether hooked functions of `family` suspend it now.
    #[inline]
    pub(super) fn diverts(&self, family: Hooks) -> bool {
        self.pass_through.get() == 0 && self.hooks.contains(family)
    }

    pub(super) fn stack(&self) -> &Range<usize> {
        &self.stack
    }

    pub(super) fn is_isolated(&self) -> bool {
        self.isolation.is_some()
    }

    /// The storage block. Null-like `None` in restricted mode.
    ///
    /// # Safety
    ///
    /// Called on the coroutine itself, or by the worker that owns it.
    pub(super) unsafe fn block(&self) -> Option<&tls::Block> {
        // SAFETY: the block is only changed by the owner between two tasks.
        unsafe { (*self.block.get()).as_ref() }
    }

    /// The storage block of a coroutine that has one.
    ///
    /// # Safety
    ///
    /// As for [`block`](Self::block).
    #[inline(always)]
    unsafe fn own_block(&self) -> &tls::Block {
        // SAFETY: the caller's promise.
        match unsafe { self.block() } {
            Some(block) => block,
            None => unreachable!("set by `new`"),
        }
    }

    /// Whether it has begun its task, so that its storage is that of a running one.
    pub(super) fn has_begun(&self) -> bool {
        !self.errno.get().is_null()
    }

    /// `worker`, which the thread `carrier` runs, resumes it next.
    #[inline]
    pub(super) fn arrive(&self, worker: &Worker, carrier: &Carrier) {
        self.carrier.set(carrier);
        self.cancellation.arrive(worker.index());
        if self.signals.is_own() {
            self.signals.arrive();
        }
    }

    /// It has suspended.
    #[inline]
    pub(super) fn depart(&self, worker: &Worker) {
        if self.signals.is_own() {
            self.signals.depart(worker.signal_mask());
        }
    }

    /// Runs it until it suspends, in restricted mode. The reason is there until it is
    /// resumed or freed.
    ///
    /// # Safety
    ///
    /// The caller has taken it out of a queue (invariant 1), on the own stack of a
    /// thread, and it has [arrived](Self::arrive) there.
    pub(super) unsafe fn resume_shared(&self) -> NonNull<Suspend> {
        // SAFETY: the caller's promise.
        reason(unsafe { self.switch(Command::Run, None) })
    }

    /// # Safety
    ///
    /// As for [`resume_shared`](Self::resume_shared); `thread` is the thread, if the
    /// coroutine is isolated, and the caller runs on its own storage.
    unsafe fn switch(
        &self,
        command: Command,
        thread: Option<&ThreadTls>,
    ) -> CoroutineResult<NonNull<Suspend>, ()> {
        // SAFETY: the caller owns the coroutine while it is suspended.
        let (context, block) = unsafe { (&mut *self.context.get(), &*self.block.get()) };
        let context = context.as_mut().expect("set by `new`");
        if let (Some(block), Some(thread)) = (block, thread) {
            // SAFETY: the caller runs on `thread`, and the block belongs to
            // this coroutine.
            return unsafe { switch_isolated(context, command, thread, block) };
        }
        local::set_coroutine(self);
        let outer = Segment::replace_innermost(self.segment.get());
        let sections = preempt::replace(self.sections.get());
        let result = context.resume(command);
        self.sections.set(preempt::replace(sections));
        self.segment.set(Segment::replace_innermost(outer));
        local::set_coroutine(ptr::null());
        result
    }

    /// The coroutine's own main function: one task after the other.
    fn main(
        &self,
        yielder: &Yielder<Command, NonNull<Suspend>>,
        first: Command,
        segment: &Segment,
    ) {
        self.yielder.set(yielder);
        let mut command = first;
        while command == Command::Run {
            if let Some(isolation) = self.isolation {
                // SAFETY: on a fresh or reset block, once per task.
                unsafe { tls::begin(isolation) };
                local::set_coroutine(self);
            }
            // The segment lives in the closure that the stack holds.
            Segment::replace_innermost(segment);
            self.errno.set(sys::errno_location().cast());
            self.activity.run();
            preempt::begin_task();
            // SAFETY: called on this coroutine, which runs its task.
            let ran = unsafe { self.current_task() }.run();
            // What the destructors of its thread-locals wait for is not ended.
            self.shields.set(1);
            if let Some(isolation) = self.isolation {
                // SAFETY: on the coroutine's own block, at the end of a task.
                unsafe { tls::end(isolation) };
            } else {
                self.locals.clear();
            }
            if !local::left().is_null() {
                // The child of a fork ends with its only thread.
                process::exit(0);
            }
            preempt::end_task();
            if self.isolation.is_some() {
                // As in a fresh block, so that its reset finds nothing to do.
                Segment::replace_innermost(ptr::null());
                local::set_coroutine(ptr::null());
            }
            command = yielder.suspend(NonNull::from(&Suspend::Done { ran }));
        }
    }

    /// Counts an operation that was done without waiting. Returns whether others
    /// must now have a turn.
    #[must_use = "others must have a turn"]
    #[inline]
    pub(super) fn spend(&self) -> bool {
        let left = self.budget.get();
        self.budget.set(left.wrapping_sub(1));
        left == 0
    }

    /// Gives up the processor for `reason`; returns when resumed. `errno` is as
    /// before.
    ///
    /// # Safety
    ///
    /// Called on this coroutine, with nothing borrowed of its worker.
    // The processor predicts where a function returns to by who called it, which is wrong
    // on another stack: so the fewer functions return after the switch the better.
    #[inline(always)]
    pub(super) unsafe fn suspend(&self, reason: Suspend) {
        preempt::enter();
        self.budget.set(BUDGET);
        self.activity.suspend(&reason);
        // The worker may run on this storage next to the switch (`run`), and leaves
        // nothing behind: neither a diverted call of an allocator, nor an error number.
        // SAFETY: `main` set it; the storage is the same afterwards, the coroutine's own
        // or that of a thread which it does not leave.
        let errno = unsafe { &*self.errno.get() };
        let error = errno.get();
        let pass_through = self.pass_through.replace(STOPPED);
        // SAFETY: `main` set it, and its frame lies below the caller's.
        let command = unsafe { &*self.yielder.get() }.suspend(NonNull::from(&reason));
        debug_assert!(
            command == Command::Run,
            "only idle coroutines are told to exit"
        );
        self.pass_through.set(pass_through);
        self.activity.run();
        errno.set(error);
        preempt::leave_quietly();
    }

    /// The state of its wait. A pointer, because after a transition that lets
    /// another thread run it, it may end before the transition's call does.
    pub(super) fn wait_state(this: NonNull<Self>) -> *const WaitState {
        // SAFETY: only computes an address within the object.
        unsafe { &raw const (*this.as_ptr()).wait }
    }
}

/// Why it came back.
#[inline(always)]
fn reason(result: CoroutineResult<NonNull<Suspend>, ()>) -> NonNull<Suspend> {
    match result {
        CoroutineResult::Yield(reason) => reason,
        CoroutineResult::Return(()) => unreachable!("it returns only when told to exit"),
    }
}

/// On the storage of a coroutine, and not on its stack: a panic would go on on the
/// thread's stack and count in the wrong place.
struct Crossing;

impl Drop for Crossing {
    #[cold]
    fn drop(&mut self) {
        process::abort();
    }
}

/// Runs `first` until it suspends, then what `worker` says, and so on.
///
/// As in [`switch_isolated`], nothing here may touch thread-local storage. What the
/// worker does stays out of line.
///
/// # Safety
///
/// The caller runs on the own stack and storage of the thread `carrier`, which runs
/// `worker`; `thread` is that storage. The worker has taken `first` out of a queue
/// (invariant 1), and it has [arrived](Scheduled::arrive). It has a block, as all
/// coroutines of its runtime.
#[inline(never)]
pub(super) unsafe fn resume_isolated(
    (carrier, thread): (&Carrier, &ThreadTls),
    worker: &Worker,
    first: NonNull<Scheduled>,
) -> Result<(), Lost> {
    let mut current = first;
    // SAFETY: the caller's promise.
    unsafe { tls::enter(thread, current.as_ref().own_block()) };
    loop {
        // SAFETY: it is alive, and the worker's while it is suspended.
        let (context, block) = unsafe {
            let target = current.as_ref();
            (&mut *target.context.get(), target.own_block())
        };
        let Some(context) = context else {
            unreachable!("set by `new`");
        };
        let reason = reason(context.resume(Command::Run));
        let crossing = Crossing;
        // SAFETY: prepared by the caller or below, and it runs on its block. The next
        // one is the worker's, and has begun, so it has a block that nobody runs on.
        unsafe {
            if let Some(next) = worker.follower(carrier, current, reason) {
                if next != current {
                    tls::cross(thread, block, next.as_ref().own_block());
                    worker.follow(carrier, (current, reason), next);
                    current = next;
                }
                mem::forget(crossing);
                continue;
            }
            tls::leave(thread, block);
            mem::forget(crossing);
            let Some(next) = worker.came_back(carrier, current, reason)? else {
                return Ok(());
            };
            tls::enter(thread, next.as_ref().own_block());
            current = next;
        }
    }
}

/// Switches storage and stack to a coroutine, and back when it suspends.
///
/// Between the two writes of the thread pointer nothing here may touch
/// thread-local storage: its address would be the wrong one. `Coroutine::resume`
/// has none, and this function stays out of line so that none moves in.
///
/// # Safety
///
/// The caller runs on `thread`, and `block` belongs to `context`.
#[inline(never)]
unsafe fn switch_isolated(
    context: &mut corosensei::Coroutine<Command, NonNull<Suspend>, (), Stack>,
    command: Command,
    thread: &ThreadTls,
    block: &tls::Block,
) -> CoroutineResult<NonNull<Suspend>, ()> {
    // SAFETY: the caller's promise.
    unsafe { tls::enter(thread, block) };
    let result = context.resume(command);
    // SAFETY: `enter` was called above with the same arguments.
    unsafe { tls::leave(thread, block) };
    result
}

/// Ends an idle coroutine and frees it. Returns its stack.
///
/// # Safety
///
/// `coroutine` has run a task, has none now, is not used again, and the caller runs on the own storage of a thread,
/// which `thread` is.
pub(super) unsafe fn destroy(coroutine: NonNull<Scheduled>, thread: Option<&ThreadTls>) -> Stack {
    // SAFETY: the caller's promise; it suspended with `Done`.
    let result = unsafe { coroutine.as_ref().switch(Command::Exit, thread) };
    debug_assert!(matches!(result, CoroutineResult::Return(())));
    // SAFETY: `new` leaked it, and nothing runs on its stack any more.
    let object = unsafe { Box::from_raw(coroutine.as_ptr()) };
    let context = object.context.into_inner().expect("set by `new`");
    context.into_stack()
}
