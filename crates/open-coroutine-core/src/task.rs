//! A task: a closure, the result it will have, and who waits for that.
//!
//! One allocation holds all of it. The runtime sees it as `dyn Run`, the join
//! handle as `dyn Join<R>`; both are the same `Arc`.
//! `state` has who may touch the result, and when.

mod state;

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::task::Waker;

use crate::sys::SignalSet;
use crate::util::lock::Lock;
use state::State;

pub use state::Waiters;

/// What is known of a task before it runs.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Unique in this process.
    pub id: u64,
    /// The name given by whoever spawned it.
    pub name: Option<Box<str>>,
    /// Smaller runs sooner; 0 is the default.
    pub priority: i64,
    /// Bytes of stack it asks for; `None` is the runtime's default.
    pub stack_size: Option<usize>,
    /// The signal mask it begins with; `None` is its worker's.
    pub signal_mask: Option<SignalSet>,
}

/// Why a task has no result.
#[derive(Debug)]
pub enum Failure {
    /// It panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// It could not be given a stack or thread-local storage.
    NotStarted(io::Error),
    /// It was asked to end before it started, or has unwound because of that;
    /// or the runtime stopped before it started.
    Cancelled,
}

/// What unwinds a task that was asked to end.
struct Unwinding;

/// Ends the calling task by unwinding its stack, if it was asked to end. The
/// panic hook is not called.
pub fn unwind() -> ! {
    resume_unwind(Box::new(Unwinding))
}

/// Whether `payload` is what [`unwind`] unwinds with.
pub fn is_unwinding(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Unwinding>()
}

/// The runtime's view of a task.
pub trait Run: Send + Sync {
    /// Name, id, priority.
    fn meta(&self) -> &Meta;

    /// The same in one word.
    fn into_thin(self: Arc<Self>) -> Thin;

    /// Runs the closure, on the coroutine that was made for it, and stores the
    /// result. False if it was [claimed](Self::is_claimed) before.
    #[must_use = "whoever has claimed the closure tells of the task's end"]
    fn run(&self) -> bool;

    /// Drops the closure, and stores `failure` in place of a result. False if it
    /// was [claimed](Self::is_claimed) before.
    #[must_use = "whoever has claimed the closure tells of the task's end"]
    fn fail(&self, failure: Failure) -> bool;

    /// Whether [`run`](Self::run) or [`fail`](Self::fail) was called.
    fn is_claimed(&self) -> bool;

    /// Notes that the task was asked to end. Returns whether it still can: nobody
    /// has asked before, and it has no result yet.
    #[must_use = "the request must be passed on"]
    fn cancel(&self) -> bool;

    /// Whether it was asked to end.
    fn is_cancelled(&self) -> bool;

    /// What runs the task; for the scheduler, which knows what that is.
    fn runner(&self) -> &AtomicPtr<()>;

    /// Marks the end of the task, after its thread-locals are gone. Returns
    /// who waits for it, if somebody does, and on which word.
    #[must_use = "whoever waits must be woken"]
    fn finish(&self) -> Option<(&AtomicU32, Waiters)>;

    /// Marks the task as one that its runtime left behind. Returns as
    /// [`finish`](Self::finish) does.
    #[must_use = "whoever waits must be woken"]
    fn abandon(&self) -> Option<(&AtomicU32, Waiters)>;

    /// The word that `unpark` and `park` of this task agree on.
    fn park_token(&self) -> &AtomicU32;
}

/// The join handle's view of a task.
pub trait Join<R>: Send + Sync {
    /// Name, id, priority.
    fn meta(&self) -> &Meta;

    /// Whether the task has ended, thread-locals included.
    fn is_done(&self) -> bool;

    /// Whether there is nothing to wait for: the task is done, or left behind.
    fn is_over(&self) -> bool;

    /// Whether it was asked to end.
    fn is_cancelled(&self) -> bool;

    /// The word and the value to wait for it to change from, or `None` if the
    /// task is over. Waking is asked for before this returns.
    fn prepare_wait(&self, waiter: Waiters) -> Option<(&AtomicU32, u32)>;

    /// Registers `waker` to be woken at the end. Returns false if the task is
    /// over already.
    fn register(&self, waker: &Waker) -> bool;

    /// Takes the result of a task that is done; `None` if it was taken before.
    fn take(&self) -> Option<Result<R, Failure>>;

    /// The handle is gone.
    fn detach(&self);

    /// The same task, as the runtime sees it.
    fn as_run(self: Arc<Self>) -> Arc<dyn Run>;
}

/// An owned task, as [`Run`] in one word instead of two.
pub struct Thin(NonNull<Header>);

/// What the allocation of each task begins with.
struct Header {
    /// Of the task's own type. To be called with the address of the header, which owns
    /// a reference.
    widen: unsafe fn(NonNull<Header>) -> Arc<dyn Run>,
}

impl Thin {
    /// The task.
    #[inline]
    pub fn widen(self) -> Arc<dyn Run> {
        let header = self.into_raw().cast::<Header>();
        // SAFETY: a reference of ours, whose type wrote the header.
        unsafe { (header.as_ref().widen)(header) }
    }

    /// The address, which owns the task from here on. It is one for a pointer.
    #[inline]
    pub fn into_raw(self) -> NonNull<()> {
        ManuallyDrop::new(self).0.cast()
    }

    /// The reverse of [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    ///
    /// `raw` comes from there, and is given back once.
    #[inline]
    pub unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self(raw.cast())
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        drop(Self(self.0).widen());
    }
}

// SAFETY: it owns nothing but an `Arc<dyn Run>`.
unsafe impl Send for Thin {}

// In the order of C, so that the address of a task is that of its header.
#[repr(C)]
struct Task<F, R> {
    header: Header,
    meta: Meta,
    state: State,
    park_token: AtomicU32,
    claimed: AtomicU32,
    runner: AtomicPtr<()>,
    closure: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<Result<R, Failure>>>,
    waker: Lock<Option<Waker>>,
}

// SAFETY: `closure` is only touched by the thread that set `claimed`, `result`
// as `state` describes; both are handed from one thread to another by the
// release and acquire halves of those updates, so `Send` contents suffice.
unsafe impl<F: Send, R: Send> Sync for Task<F, R> {}

/// Both views of a new task.
pub fn new<F, R>(meta: Meta, closure: F) -> (Arc<dyn Run>, Arc<dyn Join<R>>)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let task = Arc::new(Task {
        header: Header {
            widen: Task::<F, R>::widen,
        },
        meta,
        state: State::new(),
        park_token: AtomicU32::new(0),
        claimed: AtomicU32::new(0),
        runner: AtomicPtr::default(),
        closure: UnsafeCell::new(Some(closure)),
        result: UnsafeCell::new(None),
        waker: Lock::new(None),
    });
    (task.clone(), task)
}

impl<F, R> Task<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    /// # Safety
    ///
    /// `header` comes from [`Run::into_thin`] of such a task.
    unsafe fn widen(header: NonNull<Header>) -> Arc<dyn Run> {
        // SAFETY: the caller's promise; the header comes first.
        unsafe { Arc::from_raw(header.cast::<Self>().as_ptr()) }
    }

    /// The closure, for the one caller that gets it.
    fn claim(&self) -> Option<F> {
        if self.claimed.swap(1, AcqRel) != 0 {
            return None;
        }
        // SAFETY: only the first to set `claimed` comes here.
        unsafe { (*self.closure.get()).take() }
    }

    fn store(&self, result: Result<R, Failure>) {
        // SAFETY: called once, by the one that has claimed the closure, and
        // nobody reads the result before it is marked as stored below.
        unsafe { *self.result.get() = Some(result) };
        if self.state.store() {
            self.discard();
        }
    }

    /// Why the closure unwound.
    fn failure(&self, payload: Box<dyn Any + Send>) -> Failure {
        if is_unwinding(&*payload) && self.state.is_cancelled() {
            Failure::Cancelled
        } else {
            Failure::Panicked(payload)
        }
    }

    /// After the end was marked: wakes who polls the handle, and says who else
    /// waits.
    fn announce(&self, waiters: Option<Waiters>) -> Option<(&AtomicU32, Waiters)> {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        waiters.map(|waiters| (self.state.word(), waiters))
    }

    /// Drops a result that nobody will take.
    fn discard(&self) {
        // SAFETY: the state gave the result to the caller.
        let result = unsafe { (*self.result.get()).take() };
        contain(|| drop(result));
    }
}

impl<F, R> Run for Task<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn into_thin(self: Arc<Self>) -> Thin {
        let task = Arc::into_raw(self).cast_mut();
        // SAFETY: what an `Arc` holds is not at 0.
        Thin(unsafe { NonNull::new_unchecked(task) }.cast())
    }

    fn run(&self) -> bool {
        let Some(closure) = self.claim() else {
            return false;
        };
        let result = catch_unwind(AssertUnwindSafe(closure));
        self.store(result.map_err(|payload| self.failure(payload)));
        true
    }

    fn fail(&self, failure: Failure) -> bool {
        let Some(closure) = self.claim() else {
            return false;
        };
        contain(|| drop(closure));
        self.store(Err(failure));
        true
    }

    fn is_claimed(&self) -> bool {
        self.claimed.load(Relaxed) != 0
    }

    fn cancel(&self) -> bool {
        self.state.cancel()
    }

    fn is_cancelled(&self) -> bool {
        self.state.is_cancelled()
    }

    fn runner(&self) -> &AtomicPtr<()> {
        &self.runner
    }

    fn finish(&self) -> Option<(&AtomicU32, Waiters)> {
        self.announce(self.state.finish())
    }

    fn abandon(&self) -> Option<(&AtomicU32, Waiters)> {
        self.announce(self.state.abandon())
    }

    fn park_token(&self) -> &AtomicU32 {
        &self.park_token
    }
}

impl<F, R> Join<R> for Task<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    fn is_over(&self) -> bool {
        self.state.is_over() || is_of_parent(self.meta.id)
    }

    fn is_cancelled(&self) -> bool {
        self.state.is_cancelled()
    }

    fn prepare_wait(&self, waiter: Waiters) -> Option<(&AtomicU32, u32)> {
        if self.is_over() {
            return None;
        }
        let value = self.state.begin_wait(waiter)?;
        Some((self.state.word(), value))
    }

    fn register(&self, waker: &Waker) -> bool {
        // Wakers are foreign code: cloned before the lock, dropped after it.
        let waker = waker.clone();
        let mut slot = self.waker.lock();
        // Under the lock: the end is marked before a waker is looked for.
        let is_over = self.is_over();
        let old = if is_over { None } else { slot.replace(waker) };
        drop(slot);
        drop(old);
        !is_over
    }

    fn take(&self) -> Option<Result<R, Failure>> {
        if !self.state.take() {
            return None;
        }
        // SAFETY: the state gave the result to the caller.
        unsafe { (*self.result.get()).take() }
    }

    fn detach(&self) {
        if self.state.detach() {
            self.discard();
        }
    }

    fn as_run(self: Arc<Self>) -> Arc<dyn Run> {
        self
    }
}

/// Runs foreign code whose panic nobody is there to receive. The panic hook has
/// reported it; its payload is leaked, since dropping it could panic again.
fn contain(body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        mem::forget(payload);
    }
}

impl fmt::Debug for dyn Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("meta", self.meta())
            .finish_non_exhaustive()
    }
}

/// Ids are unique across runtimes, so no runtime can own their counter.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// The first one of this process: smaller ones are those of its parent's tasks,
/// which never end here.
static FIRST_ID: AtomicU64 = AtomicU64::new(0);

/// A number that no other task of this process has.
pub fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// Whether the task with this id is one of the parent of this process.
pub fn is_of_parent(id: u64) -> bool {
    id < FIRST_ID.load(Relaxed)
}

/// In the child of a fork: no task that there is will end, and who joins one is
/// not to wait.
pub fn abandon() {
    FIRST_ID.store(NEXT_ID.load(Relaxed), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct CountDrops(Arc<AtomicUsize>);

    impl Drop for CountDrops {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_result_moves_out_once() {
        let (run, join) = new(Meta::default(), || 42);
        assert!(join.take().is_none());
        assert!(run.run());
        assert!(!join.is_done());
        assert!(run.finish().is_none());
        assert_eq!(42, join.take().unwrap().unwrap());
        assert!(join.take().is_none());
    }

    #[test]
    fn a_waiter_that_came_first_is_to_be_woken() {
        let (run, join) = new(Meta::default(), || ());
        let (word, value) = join.prepare_wait(Waiters::Coroutines).unwrap();
        assert_eq!(value, word.load(Relaxed));
        assert!(run.run());
        let (_, waiters) = run.finish().unwrap();
        assert_eq!(Waiters::Coroutines, waiters);
        assert!(join.prepare_wait(Waiters::Coroutines).is_none());
    }

    #[test]
    fn a_detached_result_is_dropped_once_whoever_comes_last() {
        for detach_first in [true, false] {
            let drops = Arc::new(AtomicUsize::new(0));
            let value = CountDrops(drops.clone());
            let (run, join) = new(Meta::default(), move || value);
            if detach_first {
                join.detach();
                assert!(run.run());
            } else {
                assert!(run.run());
                join.detach();
            }
            assert_eq!(1, drops.load(Relaxed));
            assert!(run.finish().is_none());
            drop((run, join));
            assert_eq!(1, drops.load(Relaxed));
        }
    }

    #[test]
    fn a_panic_is_carried_with_its_payload() {
        let (run, join) = new(Meta::default(), || -> u32 { std::panic::panic_any(7u8) });
        assert!(run.run());
        assert!(run.finish().is_none());
        let Some(Err(Failure::Panicked(payload))) = join.take() else {
            panic!("expected a panic");
        };
        assert_eq!(7u8, *payload.downcast::<u8>().unwrap());
    }

    #[test]
    fn a_task_that_fails_to_start_drops_its_closure() {
        let drops = Arc::new(AtomicUsize::new(0));
        let value = CountDrops(drops.clone());
        let (run, join) = new(Meta::default(), move || drop(value));
        assert!(run.fail(Failure::NotStarted(io::Error::other("no stack"))));
        assert!(!run.run());
        assert_eq!(1, drops.load(Relaxed));
        assert!(run.finish().is_none());
        assert!(matches!(join.take(), Some(Err(Failure::NotStarted(_)))));
    }

    #[test]
    fn a_task_that_unwinds_because_it_was_asked_to_end_is_cancelled() {
        let (run, join) = new(Meta::default(), || -> u32 { unwind() });
        assert!(run.cancel());
        assert!(!run.cancel(), "the second request is none");
        assert!(run.run());
        assert!(run.finish().is_none());
        assert!(matches!(join.take(), Some(Err(Failure::Cancelled))));
    }

    #[test]
    fn a_task_with_a_result_cannot_be_asked_to_end() {
        let (run, join) = new(Meta::default(), || 42);
        assert!(run.run());
        assert!(!run.cancel());
        assert!(run.finish().is_none());
        assert_eq!(42, join.take().unwrap().unwrap());
    }
}
