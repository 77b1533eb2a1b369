//! Children that borrow from whoever spawns them.
//!
//! # Invariants
//!
//! 1. Everything of a child that may borrow is in a [`Child`], whose last field or
//!    local to be dropped is its [`Guard`], or in the result that its handle takes. So
//!    once the guard is dropped nothing of the child borrows any more but what
//!    a handle owns, and no handle outlives the scope.
//! 2. A child is in the scope's list from before it can run until its guard is
//!    dropped. `scope` does not return before the list is empty.
//! 3. The task itself, which others may keep for longer, has `()` as its result, or a
//!    payload, which borrows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::spawn::Builder;
use crate::join::{JoinError, JoinHandle, TaskHandle};
use crate::sched;
use crate::sync::Signal;
use crate::task;
use crate::util::lock::Lock;

/// A scope whose children have all ended when [`scope`] returns.
pub struct Scope<'scope, 'env: 'scope> {
    family: Arc<Family>,
    /// Invariance over both, as in std: else a longer life could be claimed for what
    /// the children borrow.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// What scope and children share.
#[derive(Default)]
struct Family {
    state: Lock<State>,
    is_empty: Signal,
}

#[derive(Default)]
struct State {
    /// By the ids of the tasks.
    children: BTreeMap<u64, TaskHandle>,
    /// Children that have failed, and have not been joined.
    failed: BTreeSet<u64>,
    is_cancelled: bool,
    /// The scope waits until there are no children.
    is_awaited: bool,
}

impl Family {
    fn cancel(&self) {
        let children: Vec<_> = {
            let mut state = self.state.lock();
            state.is_cancelled = true;
            state.children.values().cloned().collect()
        };
        // Unlocked: a child that has not started is dropped here.
        for child in children {
            child.cancel();
        }
    }

    /// Waits until all children have ended. If the caller is asked to end meanwhile,
    /// or was before, so are they.
    fn wait(&self) {
        let is_done = {
            let mut state = self.state.lock();
            state.is_awaited = true;
            state.children.is_empty()
        };
        if is_done {
            return;
        }
        let mut has_passed_on = false;
        while !self.is_empty.take() {
            if has_passed_on {
                self.is_empty.wait(None);
                continue;
            }
            self.is_empty.wait_at_point();
            if sched::must_unwind() {
                self.cancel();
                has_passed_on = true;
            }
        }
    }
}

/// Calls `body` with a scope, in which coroutines can be spawned that borrow from its
/// caller. They have all ended when this returns, also if `body` panics. Works on
/// coroutines and on plain threads; a coroutine is suspended while it waits.
///
/// If the calling task is asked to end while it waits for its children, so are they;
/// it waits for them all the same. It also does if the runtime stops without them,
/// and then for ever, since they have borrowed what its caller owns.
///
/// # Panics
///
/// If `body` does; else if a child did, or could not be started, that was not joined.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::runtime::scope;
///
/// let numbers = vec![1, 2, 3];
/// let mut doubled = Vec::new();
/// let sum = scope(|s| {
///     s.spawn(|| doubled.extend(numbers.iter().map(|number| 2 * number)));
///     let sum = s.spawn(|| numbers.iter().sum::<i32>());
///     sum.join().unwrap()
/// });
/// assert_eq!((6, vec![2, 4, 6]), (sum, doubled));
/// ```
///
/// What ends with the closure cannot be borrowed:
///
/// ```compile_fail
/// open_coroutine_core::runtime::scope(|s| {
///     let local = 7;
///     s.spawn(|| local + 1);
/// });
/// ```
pub fn scope<'env, F, T>(body: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope {
        family: Arc::default(),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| body(&scope)));
    scope.family.wait();
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.family.has_failed() => panic!("a scoped task has failed"),
        Ok(value) => value,
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Runs `body` as a coroutine that may borrow whatever outlives the scope.
    ///
    /// # Panics
    ///
    /// If no runtime can be started, or the runtime is shutting down;
    /// [`Builder::spawn_scoped`] returns an error instead.
    pub fn spawn<F, T>(&'scope self, body: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        match Builder::new().spawn_scoped(self, body) {
            Ok(handle) => handle,
            Err(error) => panic!("cannot spawn a task: {error}"),
        }
    }

    /// Asks all children to end, as [`JoinHandle::cancel`] does, also those that are
    /// spawned later.
    ///
    /// # Examples
    ///
    /// ```
    /// use open_coroutine_core::{runtime::scope, sync::park};
    ///
    /// scope(|s| {
    ///     for _ in 0..10 {
    ///         s.spawn(park);
    ///     }
    ///     s.cancel();
    /// });
    /// ```
    pub fn cancel(&self) {
        self.family.cancel();
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.family.state.lock().is_cancelled
    }
}

impl Builder {
    /// Like [`Scope::spawn`], with what this builder says.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn).
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        body: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let family = scope.family.clone();
        let result = Arc::new(Lock::new(None));
        let (guard, id) = Guard::new(&family);
        let child = Child {
            body,
            result: result.clone(),
            guard,
        };
        let closure: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || child.run());
        // SAFETY: the task drops the closure when it has run, or before if it never
        // does; what it borrows outlives that, because `scope` waits (invariants 1
        // and 2), and the closure's result borrows nothing (invariant 3).
        let closure = unsafe {
            mem::transmute::<Box<dyn FnOnce() + Send + 'scope>, Box<dyn FnOnce() + Send>>(closure)
        };
        let unstarted = self.prepare(id, closure)?;
        let is_cancelled = family.adopt(id, unstarted.task());
        let handle = unstarted.start().inspect_err(|_| family.forgive(id))?;
        if is_cancelled {
            handle.cancel();
        }
        Ok(ScopedJoinHandle {
            handle,
            result,
            family,
            scope: PhantomData,
        })
    }
}

impl Family {
    /// Adds a child. Returns whether it is to be cancelled.
    #[must_use = "who comes to a cancelled scope is cancelled"]
    fn adopt(&self, id: u64, task: TaskHandle) -> bool {
        let mut state = self.state.lock();
        state.children.insert(id, task);
        state.is_cancelled
    }

    /// Somebody knows that the child has failed.
    fn forgive(&self, id: u64) {
        self.state.lock().failed.remove(&id);
    }

    fn has_failed(&self) -> bool {
        !self.state.lock().failed.is_empty()
    }
}

/// What runs in a child. See invariant 1: the order of the fields is that in which
/// they are dropped if the task never starts.
struct Child<F, T> {
    body: F,
    result: Arc<Lock<Option<T>>>,
    guard: Guard,
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(self) {
        let Self {
            body,
            result,
            mut guard,
        } = self;
        // Whatever of the child may borrow is gone when this is over.
        let run = move || {
            let value = body();
            *result.lock() = Some(value);
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(()) => guard.outcome = Outcome::Fine,
            Err(payload) => {
                if !task::is_unwinding(&*payload) {
                    guard.outcome = Outcome::Panicked;
                }
                drop(guard);
                resume_unwind(payload);
            }
        }
    }
}

/// Tells the scope that a child borrows nothing any more.
struct Guard {
    family: Arc<Family>,
    id: u64,
    outcome: Outcome,
}

/// What has become of a child.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// It has returned.
    Fine,
    /// It has panicked.
    Panicked,
    /// It has not run, or was unwound, because it was cancelled; or it could not be
    /// started.
    Unfinished,
}

impl Guard {
    fn new(family: &Arc<Family>) -> (Self, u64) {
        let id = task::next_id();
        let family = family.clone();
        let guard = Self {
            family,
            id,
            outcome: Outcome::Unfinished,
        };
        (guard, id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.family.state.lock();
        let child = state.children.remove(&self.id);
        let has_failed = match (&self.outcome, &child) {
            (Outcome::Fine, _) | (_, None) => false,
            (Outcome::Panicked, Some(_)) => true,
            (Outcome::Unfinished, Some(child)) => !child.is_cancelled(),
        };
        if has_failed {
            state.failed.insert(self.id);
        }
        let is_last = state.is_awaited && state.children.is_empty();
        drop(state);
        if is_last {
            self.family.is_empty.set();
        }
    }
}

/// Waits for a scoped task and takes its result. Dropping it leaves that to the
/// scope.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<()>,
    result: Arc<Lock<Option<T>>>,
    family: Arc<Family>,
    scope: PhantomData<&'scope mut &'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits until the task has ended, and returns its result, as
    /// [`JoinHandle::join`] does.
    ///
    /// # Errors
    ///
    /// If the task panicked, was cancelled or could not start. The scope does not
    /// panic for it then.
    pub fn join(self) -> Result<T, JoinError> {
        let id = self.handle.id();
        match self.handle.join() {
            Ok(()) => self.result.lock().take().ok_or(JoinError::Taken),
            Err(error) => {
                self.family.forgive(id);
                Err(error)
            }
        }
    }

    /// Asks the task to end, as [`JoinHandle::cancel`] does.
    pub fn cancel(&self) -> bool {
        self.handle.cancel()
    }

    /// Whether the task was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.handle.is_cancelled()
    }

    /// Whether the task has ended, so that a join would not wait.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The task itself, for `unpark`.
    pub fn task(&self) -> TaskHandle {
        self.handle.task()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let children = self.family.state.lock().children.len();
        f.debug_struct("Scope")
            .field("children", &children)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedJoinHandle")
            .field(&self.handle)
            .finish()
    }
}
