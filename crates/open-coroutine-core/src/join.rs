//! The end of a task, for those who wait for it.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::sched::{self, Shared, Turn};
use crate::sync::{self, futex};
use crate::task::{self, Failure, Join, Run, Waiters};

/// Waits for a task and takes its result. Dropping it detaches the task.
///
/// It is also a `Future`, so that it can be awaited from any executor.
pub struct JoinHandle<R> {
    task: Arc<dyn Join<R>>,
    /// The runtime that the task belongs to.
    shared: Arc<Shared>,
}

/// Why a join gave no result.
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked; [`JoinError::into_panic`] gives the payload.
    Panicked(Payload),
    /// The task was cancelled, or its runtime was shut down before it ended.
    Cancelled,
    /// The task had not ended when the time was over. It goes on.
    TimedOut,
    /// The result was taken by an earlier join.
    Taken,
    /// The task could not be started, for want of memory or mappings.
    NotStarted(io::Error),
}

/// What a task panicked with.
pub struct Payload(Box<dyn Any + Send>);

// SAFETY: nothing but its type can be reached through a shared reference.
unsafe impl Sync for Payload {}

impl<R> JoinHandle<R> {
    pub(crate) fn new(task: Arc<dyn Join<R>>, shared: Arc<Shared>) -> Self {
        Self { task, shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Waits until the task has ended and its thread-locals are destroyed, and
    /// returns its result. A coroutine is suspended while it waits, a thread
    /// sleeps.
    ///
    /// # Errors
    ///
    /// If the task panicked, was cancelled, could not start, or its result was
    /// taken by [`timeout_join`](Self::timeout_join).
    pub fn join(self) -> Result<R, JoinError> {
        self.wait(None);
        self.take()
    }

    /// Like [`join`](Self::join), for `timeout` at most.
    ///
    /// # Errors
    ///
    /// Those of `join`, and [`JoinError::TimedOut`]; the handle can then be
    /// joined again.
    pub fn timeout_join(&self, timeout: Duration) -> Result<R, JoinError> {
        self.wait(Instant::now().checked_add(timeout));
        if self.task.is_over() {
            self.take()
        } else {
            Err(JoinError::TimedOut)
        }
    }

    /// Asks the task to end, and does not wait for that. Returns whether it still
    /// can: nobody has asked before, and it has no result yet.
    ///
    /// A task that has not started never does: its closure is dropped here. One that
    /// has started goes on until it waits for a socket, a pipe or a timer: such a
    /// call then fails with `ECANCELED`, and a sleep returns early. Functions of this
    /// library that wait, as [`sleep`](crate::time::sleep),
    /// [`yield_now`](crate::time::yield_now) and [`park`](crate::sync::park), unwind
    /// the task, so that its destructors run. Nothing else shows: locks, channels,
    /// joins, files. Whoever computes for long asks
    /// [`is_cancelled`](crate::sched::is_cancelled).
    ///
    /// A task that returns nevertheless has the result that it returns; one that was
    /// unwound, or never started, has [`JoinError::Cancelled`].
    ///
    /// # Examples
    ///
    /// ```
    /// use open_coroutine_core::{runtime::spawn, sync::park};
    ///
    /// let parked = spawn(park);
    /// assert!(parked.cancel());
    /// assert!(parked.join().unwrap_err().is_cancelled());
    /// ```
    pub fn cancel(&self) -> bool {
        cancel(&self.shared, &self.task.clone().as_run())
    }

    /// Whether the task was asked to end, by [`cancel`](Self::cancel).
    pub fn is_cancelled(&self) -> bool {
        self.task.is_cancelled()
    }

    /// A handle that [cancels](Self::cancel) the task when it is dropped.
    pub fn cancel_on_drop(self) -> CancelOnDrop<R> {
        CancelOnDrop {
            canceller: Canceller(Some(self.as_task())),
            handle: self,
        }
    }

    /// Whether the task has ended, so that a join would not wait. One that its runtime
    /// has left behind never does, and a join does not wait for it either.
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// A number that no other task of this process has.
    pub fn id(&self) -> u64 {
        self.task.meta().id
    }

    /// The name that the task was spawned with.
    pub fn name(&self) -> Option<&str> {
        self.task.meta().name.as_deref()
    }

    /// The task itself, for `unpark`.
    pub fn task(&self) -> TaskHandle
    where
        R: 'static,
    {
        self.as_task()
    }

    fn as_task(&self) -> TaskHandle {
        TaskHandle {
            task: self.task.clone().as_run(),
            shared: self.shared.clone(),
        }
    }

    fn wait(&self, deadline: Option<Instant>) {
        let waiter = if sched::on_coroutine() {
            Waiters::Coroutines
        } else {
            Waiters::Threads
        };
        while let Some((word, value)) = self.task.prepare_wait(waiter) {
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return;
            }
            futex::wait_anywhere(word, value, deadline);
        }
    }

    fn take(&self) -> Result<R, JoinError> {
        match self.task.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(Failure::Panicked(payload))) => Err(JoinError::Panicked(Payload(payload))),
            Some(Err(Failure::NotStarted(error))) => Err(JoinError::NotStarted(error)),
            Some(Err(Failure::Cancelled)) => Err(JoinError::Cancelled),
            None if self.task.is_done() => Err(JoinError::Taken),
            None => Err(JoinError::Cancelled),
        }
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

impl<R> Future for JoinHandle<R> {
    type Output = Result<R, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.task.register(context.waker()) {
            Poll::Pending
        } else {
            Poll::Ready(self.take())
        }
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// A [`JoinHandle`] that cancels its task when it is dropped. That does not wait for
/// the end of the task, which is detached.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::{runtime::spawn, sync::park};
///
/// let helper = spawn(park).cancel_on_drop();
/// // Whatever ends this block also ends the helper.
/// drop(helper);
/// ```
#[derive(Debug)]
#[must_use = "the task is cancelled when this is dropped"]
pub struct CancelOnDrop<R> {
    handle: JoinHandle<R>,
    canceller: Canceller,
}

impl<R> CancelOnDrop<R> {
    /// The handle, to look at or to join for a limited time.
    pub fn handle(&self) -> &JoinHandle<R> {
        &self.handle
    }

    /// Waits for the task, as [`JoinHandle::join`] does.
    ///
    /// # Errors
    ///
    /// Those of `join`.
    pub fn join(self) -> Result<R, JoinError> {
        self.handle.join()
    }

    /// The handle. The task is not cancelled any more when that is dropped.
    pub fn keep(mut self) -> JoinHandle<R> {
        self.canceller.0 = None;
        self.handle
    }
}

/// Cancels a task when it is dropped.
#[derive(Debug)]
struct Canceller(Option<TaskHandle>);

impl Drop for Canceller {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.cancel();
        }
    }
}

impl<R> Future for CancelOnDrop<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context)
    }
}

impl JoinError {
    /// The payload of the task's panic, to look at or to resume.
    ///
    /// # Errors
    ///
    /// The error itself, if it is no panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self {
            Self::Panicked(payload) => Ok(payload.0),
            other => Err(other),
        }
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// Whether the task was cancelled, or its runtime was shut down before it ended.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Whether the time was over before the task ended.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

impl Payload {
    fn message(&self) -> Option<&str> {
        let text = self.0.downcast_ref::<&str>().copied();
        text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => f.debug_tuple("Panicked").field(&payload.message()).finish(),
            Self::Cancelled => f.write_str("Cancelled"),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Taken => f.write_str("Taken"),
            Self::NotStarted(error) => f.debug_tuple("NotStarted").field(error).finish(),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => match payload.message() {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::TimedOut => f.write_str("the task did not end in time"),
            Self::Taken => f.write_str("the task's result was taken by an earlier join"),
            Self::NotStarted(_) => f.write_str("the task could not be started"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotStarted(error) => Some(error),
            _ => None,
        }
    }
}

/// A task, seen from outside or by itself.
#[derive(Clone)]
pub struct TaskHandle {
    task: Arc<dyn Run>,
    shared: Arc<Shared>,
}

impl TaskHandle {
    /// The task that the caller belongs to.
    pub(crate) fn current() -> Option<Self> {
        Some(Self {
            task: sched::current_task()?,
            shared: sched::current_shared()?,
        })
    }

    /// Asks the task to end, as [`JoinHandle::cancel`] does.
    pub fn cancel(&self) -> bool {
        cancel(&self.shared, &self.task)
    }

    /// Whether the task was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.task.is_cancelled()
    }

    /// A number that no other task of this process has.
    pub fn id(&self) -> u64 {
        self.task.meta().id
    }

    /// The name that the task was spawned with.
    pub fn name(&self) -> Option<&str> {
        self.task.meta().name.as_deref()
    }

    /// The priority that the task was spawned with; smaller runs sooner.
    pub fn priority(&self) -> i64 {
        self.task.meta().priority
    }

    /// Lets the task's current or next [`park`](crate::sync::park) return.
    pub fn unpark(&self) {
        sync::unpark(&*self.task);
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Asks `task`, one of `shared`, to end. Returns whether it still can: nobody has
/// asked before, and it has no result yet. One that has not started is dropped.
pub(crate) fn cancel(shared: &Shared, task: &Arc<dyn Run>) -> bool {
    if task::is_of_parent(task.meta().id) {
        // It does not exist here, nor do those who hold its runtime's locks.
        return false;
    }
    let key = shared.cancel(task);
    if let Some(key @ 1..) = key {
        futex::wake_coroutines_at(key, Turn::Next);
    }
    key.is_some()
}
