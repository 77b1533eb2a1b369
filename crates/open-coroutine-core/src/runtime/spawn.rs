//! From a closure to a queued task.

use std::io;
use std::sync::Arc;

use super::{InitError, shared};
use crate::join::{JoinHandle, TaskHandle};
use crate::sched;
use crate::stack::MAX_STACK_SIZE;
use crate::task::{self, Failure, Meta, Run};

/// What a task is to have besides its closure.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::runtime::Builder;
///
/// let task = Builder::new().name("sum").stack_size(1 << 20).priority(-1);
/// let handle = task.spawn(|| 20 + 22)?;
/// assert_eq!(Some("sum"), handle.name());
/// assert_eq!(42, handle.join().unwrap());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it spawns"]
pub struct Builder {
    meta: Meta,
}

impl Builder {
    /// No name, the default stack size, priority 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// A name for reports and logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.meta.name = Some(name.into().into());
        self
    }

    /// Bytes of stack, rounded up to pages. Default: what the runtime was
    /// configured with.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.meta.stack_size = Some(bytes);
        self
    }

    /// Tasks with a smaller number run sooner. Default: 0.
    pub fn priority(mut self, priority: i64) -> Self {
        self.meta.priority = priority;
        self
    }

    /// Runs `body` as a coroutine. Starts a runtime with the default
    /// configuration if none is running.
    ///
    /// Spawned by a coroutine, the task begins with that one's signal mask. Spawned
    /// by a thread, it begins with the mask of the thread that started the runtime.
    ///
    /// # Errors
    ///
    /// If the stack size is 0 or absurd, no runtime can be started, or the
    /// runtime is shutting down. A task that later finds no memory for its
    /// stack ends with [`JoinError::NotStarted`](crate::join::JoinError).
    pub fn spawn<F, R>(self, body: F) -> io::Result<JoinHandle<R>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.prepare(task::next_id(), body)?.start()
    }

    /// A task with this `id` that can be started.
    pub(super) fn prepare<F, R>(mut self, id: u64, body: F) -> io::Result<Unstarted<R>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        if let Some(size @ 0) | Some(size @ MAX_STACK_SIZE..) = self.meta.stack_size {
            let message =
                format!("a stack size of {size} bytes is not between 1 and {MAX_STACK_SIZE}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let shared = shared().map_err(|error: InitError| io::Error::other(error))?;
        self.meta.id = id;
        self.meta.signal_mask = sched::inherited_signal_mask(&shared);
        let (run, join) = task::new(self.meta, body);
        let handle = JoinHandle::new(join, shared);
        Ok(Unstarted { run, handle })
    }
}

/// A task that is in no queue yet.
pub(super) struct Unstarted<R> {
    run: Arc<dyn Run>,
    handle: JoinHandle<R>,
}

impl<R: Send + 'static> Unstarted<R> {
    pub(super) fn task(&self) -> TaskHandle {
        self.handle.task()
    }

    /// # Errors
    ///
    /// If the runtime is shutting down. The closure is then dropped.
    pub(super) fn start(self) -> io::Result<JoinHandle<R>> {
        let Self { run, handle } = self;
        if handle.shared().spawn(run.clone()) {
            return Ok(handle);
        }
        // Nobody else can have claimed it.
        let _ = run.fail(Failure::Cancelled);
        Err(io::Error::other("the runtime is shutting down"))
    }
}

/// Runs `body` as a coroutine, as `std::thread::spawn` runs it as a thread.
///
/// # Panics
///
/// If no runtime can be started, or the runtime is shutting down;
/// [`Builder::spawn`] returns an error instead.
///
/// # Examples
///
/// ```
/// let handle = open_coroutine_core::runtime::spawn(|| 20 + 22);
/// assert_eq!(42, handle.join().unwrap());
/// ```
pub fn spawn<F, R>(body: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    match Builder::new().spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot spawn a task: {error}"),
    }
}

/// The task that the caller belongs to; `None` on a plain thread.
pub fn current() -> Option<TaskHandle> {
    TaskHandle::current()
}
