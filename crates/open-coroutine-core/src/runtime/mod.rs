//! Start, stop, configuration, and what tells how it is running.
//!
//! * `config`: what users can set, and which values make no sense.
//! * `capabilities`: mode and driver, and why.
//! * `credentials`: setuid on a plain thread, while coroutines run.
//! * `fork`: what becomes of all that in a child process.
//! * `overflow`: the report of a stack overflow.
//! * `scope`: children that borrow.
//! * `spawn`: from a closure to a queued task.
//!
//! There is one runtime per process at a time, because the hooked functions are
//! the process's too. It can be stopped and started again.

mod capabilities;
mod config;
mod credentials;
mod fork;
mod overflow;
mod scope;
mod spawn;

pub use capabilities::{Capabilities, Mode, capabilities};
pub use config::{Config, Driver, InvalidConfig};
pub use fork::abandon;
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use spawn::{Builder, current, spawn};

use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use self::config::Chosen;
use crate::driver::{self, Kind};
use crate::sched::{self, Census, Shared, Turn};
use crate::sync::futex;
use crate::sys;
use crate::task::Waiters;
use crate::util::handler;
use crate::util::lock::Lock;

/// The runtime. Static because spawning and `shutdown` must find it from any
/// thread. Locked for as long as a runtime starts.
static RUNTIME: Lock<State> = Lock::new(State::Stopped);

/// The scheduler of the runtime for whoever closes a descriptor, which threads
/// also do while a runtime starts; so this one is only locked to look.
static SCHEDULER: Lock<Option<Arc<Shared>>> = Lock::new(None);

enum State {
    Stopped,
    Running(Runtime),
    Stopping,
}

struct Runtime {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    monitor: Option<thread::JoinHandle<()>>,
    shutdown_timeout: Duration,
    capabilities: Capabilities,
}

/// Why the runtime did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum InitError {
    /// It is running already.
    AlreadyRunning,
    /// It is shutting down, and can be started again when it has stopped.
    ShuttingDown,
    /// A setting makes no sense.
    InvalidConfig(InvalidConfig),
    /// The driver that was asked for is not available.
    Driver(io::Error),
    /// A worker could not be started: there is no thread, no memory, or no file
    /// descriptor for it.
    Worker(io::Error),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyRunning => "the runtime is running already",
            Self::ShuttingDown => "the runtime is shutting down",
            Self::InvalidConfig(_) => "the configuration is invalid",
            Self::Driver(_) => "the driver that was asked for is not available",
            Self::Worker(_) => "cannot start a worker",
        })
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::AlreadyRunning | Self::ShuttingDown => None,
            Self::InvalidConfig(error) => Some(error),
            Self::Driver(error) | Self::Worker(error) => Some(error),
        }
    }
}

/// What a shutdown could not end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ShutdownError {
    /// No runtime is running.
    NotRunning,
    /// Called on a coroutine, which would wait for itself.
    OnCoroutine,
    /// These tasks did not end, although they were asked to. They keep their stacks
    /// and will not run again.
    Unfinished {
        /// Names and ids of the tasks that had begun, and what they do.
        running: Vec<String>,
        /// How many had not ended, those that never started included.
        count: usize,
    },
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("no runtime is running"),
            Self::OnCoroutine => f.write_str("a coroutine cannot shut its own runtime down"),
            Self::Unfinished { running, count } => {
                const SHOWN: usize = 10;
                let names = running[..running.len().min(SHOWN)].join(", ");
                let dots = if running.len() > SHOWN { ", .." } else { "" };
                let tasks = if *count == 1 { "task" } else { "tasks" };
                write!(f, "{count} {tasks} did not end in time: {names}{dots}")
            }
        }
    }
}

impl Error for ShutdownError {}

/// Starts the runtime.
///
/// Its threads inherit the caller's signal mask. A coroutine that changes its mask
/// while it is the only task changes theirs, but not the caller's: a thread that
/// goes on beside the runtime can be given any signal that it does not block.
///
/// # Errors
///
/// If it is running, if `config` makes no sense, or if the system refuses what
/// it needs.
pub fn init(config: Config) -> Result<(), InitError> {
    if sched::on_coroutine() {
        // Its runtime may have stopped without it; starting another one here
        // would suspend with the lock held.
        return Err(InitError::AlreadyRunning);
    }
    let mut state = RUNTIME.lock();
    match *state {
        State::Running(_) => return Err(InitError::AlreadyRunning),
        State::Stopping => return Err(InitError::ShuttingDown),
        State::Stopped => *state = State::Running(start(config)?),
    }
    Ok(())
}

fn start(config: Config) -> Result<Runtime, InitError> {
    match start_as(config.clone().choose()?) {
        // A ring could be made to try, but not one for each worker.
        Err(Missing::Driver(error)) if !config.asks_for_a_driver() => {
            let mut runtime = start_as(config.driver(Driver::Epoll).choose()?)?;
            runtime.capabilities.no_uring = Some(error.to_string());
            Ok(runtime)
        }
        result => Ok(result?),
    }
}

/// What the system did not give to a runtime that starts.
enum Missing {
    Thread(io::Error),
    /// The driver of a worker.
    Driver(io::Error),
}

impl From<Missing> for InitError {
    fn from(missing: Missing) -> Self {
        let (Missing::Thread(error) | Missing::Driver(error)) = missing;
        Self::Worker(error)
    }
}

fn start_as(chosen: Chosen) -> Result<Runtime, Missing> {
    overflow::install();
    let count = chosen.settings.workers;
    let queues: Vec<_> = (0..count).map(|_| sched::Queue::new()).collect();
    let shared = Arc::new(Shared::new(chosen.settings, &queues));
    let (ready, started) = mpsc::channel();
    let mut workers = Vec::with_capacity(count);
    let mut outcome = Ok(());
    for (index, queue) in queues.into_iter().enumerate() {
        let (shared, ready) = (shared.clone(), ready.clone());
        let worker = thread::Builder::new()
            .name(format!("open-coroutine-{index}"))
            .spawn(move || {
                let on_thread = shared.settings().on_thread;
                let mut parts = Some((shared, queue));
                on_thread(&mut || {
                    let (shared, queue) = parts.take().expect("called once");
                    sched::start(index, shared, queue, |result| {
                        let _ = ready.send(result);
                    });
                });
            });
        match worker {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                outcome = Err(Missing::Thread(sys::explain_no_thread(&error)));
                break;
            }
        }
    }
    drop(ready);
    let drivers = started.iter().take(workers.len());
    outcome = outcome.and(drivers.collect::<io::Result<()>>().map_err(Missing::Driver));
    if let Err(error) = outcome {
        shared.stop();
        join_all(workers);
        return Err(error);
    }
    if shared.settings().isolation.is_some() {
        credentials::install();
    }
    let monitor = match start_monitor(&shared) {
        Ok(monitor) => monitor,
        Err(error) => {
            shared.stop();
            join_all(workers);
            return Err(Missing::Thread(sys::explain_no_thread(&error)));
        }
    };
    *SCHEDULER.lock() = Some(shared.clone());
    Ok(Runtime {
        shared,
        workers,
        monitor,
        shutdown_timeout: chosen.shutdown_timeout,
        capabilities: chosen.capabilities,
    })
}

/// Starts the monitor, if it has anything to do.
fn start_monitor(shared: &Arc<Shared>) -> io::Result<Option<thread::JoinHandle<()>>> {
    let settings = shared.settings();
    if settings.preemptive || settings.take_over {
        sched::install_preemption();
    } else if settings.workers == 1 {
        return Ok(None);
    }
    let shared = shared.clone();
    let (begins, has_begun) = mpsc::channel::<()>();
    // It begins with this mask: a signal to the process must not find it before it
    // could set its own.
    let mask = sys::set_signal_mask(sys::DEFERRABLE_SIGNALS);
    let monitor = thread::Builder::new()
        .name("open-coroutine-monitor".into())
        .spawn(move || {
            drop(begins);
            sched::monitor(&shared);
        });
    sys::set_signal_mask(mask);
    // While a thread of std begins it can end the process (`sys::start_thread`): not
    // when the program has already used up what it needs.
    let _ = has_begun.recv();
    monitor.map(Some)
}

fn join_all(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        // None runs foreign code outside of coroutines; if one panicked all the
        // same, the panic hook has reported it.
        let _ = thread.join();
    }
}

/// The running scheduler, started with the defaults if none is.
fn shared() -> Result<Arc<Shared>, InitError> {
    if let Some(shared) = sched::current_shared() {
        return Ok(shared);
    }
    let mut state = RUNTIME.lock();
    match &*state {
        State::Running(runtime) => Ok(runtime.shared.clone()),
        State::Stopping => Err(InitError::ShuttingDown),
        State::Stopped => {
            let runtime = start(Config::default())?;
            let shared = runtime.shared.clone();
            *state = State::Running(runtime);
            Ok(shared)
        }
    }
}

/// How long tasks have to end that were asked to, before they are left behind.
const CANCELLATION_LIMIT: Duration = Duration::from_secs(1);
/// How long workers have to stop when tasks are left behind: one of them may run a
/// task that never suspends.
const STOP_LIMIT: Duration = Duration::from_millis(100);

/// Stops the runtime, in this order:
///
/// 1. New tasks are refused. Those that are there go on, until the configured
///    `shutdown_timeout` (5 s) is over.
/// 2. Then all are [cancelled](crate::join::JoinHandle::cancel): those that have not
///    started never do, and the others have a second to end.
/// 3. What has not ended then, because it waits for something that cancellation does
///    not end, or computes, is left behind: its stack and whatever it owns stay in
///    memory, and it never runs again. One that is running goes on until it suspends.
/// 4. The workers stop. The runtime can be started again.
///
/// It may be called on any thread, also when that has handled a signal with
/// `sigwait`, but not in a signal handler. Of several that call it at the same time
/// one does the work.
///
/// # Errors
///
/// [`ShutdownError::Unfinished`] names what was left behind, and what it does.
pub fn shutdown() -> Result<(), ShutdownError> {
    if sched::on_coroutine() {
        return Err(ShutdownError::OnCoroutine);
    }
    let mut state = RUNTIME.lock();
    let runtime = match mem::replace(&mut *state, State::Stopping) {
        State::Running(runtime) => runtime,
        other => {
            *state = other;
            return Err(ShutdownError::NotRunning);
        }
    };
    drop(state);
    let result = stop(runtime);
    SCHEDULER.lock().take();
    *RUNTIME.lock() = State::Stopped;
    result
}

fn stop(runtime: Runtime) -> Result<(), ShutdownError> {
    let shared = &runtime.shared;
    shared.close();
    let deadline = Instant::now().checked_add(runtime.shutdown_timeout);
    let is_drained = shared.wait_drained(deadline) || cancel_all(shared);
    let (running, count) = shared.unfinished();
    shared.stop();
    join_all(runtime.monitor);
    if is_drained {
        join_all(runtime.workers);
        shared.wait_stopped(None);
        return Ok(());
    }
    // Not joined: a thread may be inside a task that never suspends, also if another
    // one has taken its worker over. The others end at once.
    shared.wait_stopped(Instant::now().checked_add(STOP_LIMIT));
    Err(ShutdownError::Unfinished { running, count })
}

/// Asks all tasks to end. Returns whether they have.
fn cancel_all(shared: &Shared) -> bool {
    /// After that long, those are asked that had just begun.
    const ROUND: Duration = Duration::from_millis(50);
    let end = Instant::now() + CANCELLATION_LIMIT;
    loop {
        for address in shared.cancel_all() {
            futex::wake_coroutines_at(address, Turn::Next);
        }
        let now = Instant::now();
        if shared.wait_drained(Some(end.min(now + ROUND))) {
            return true;
        }
        if now >= end {
            return false;
        }
    }
}

/// How many workers the running runtime has; 0 if none is running.
pub fn workers() -> usize {
    match &*RUNTIME.lock() {
        State::Running(runtime) => runtime.workers.len(),
        State::Stopped | State::Stopping => 0,
    }
}

/// What the running runtime holds; nothing if none is running.
#[doc(hidden)]
pub fn census() -> Census {
    match &*RUNTIME.lock() {
        State::Running(runtime) => runtime.shared.census(),
        State::Stopped | State::Stopping => Census::default(),
    }
}

/// Tells the running runtime that `fd` is about to be closed or replaced, so
/// that coroutines that wait on it get `EBADF`.
#[inline]
pub fn notify_close(fd: RawFd) {
    if driver::anyone_waits_on(fd) && may_lock() {
        with_scheduler(|shared| shared.notify_close(fd));
    }
}

/// [`notify_close`] of all descriptors from `first` to `last`.
pub fn notify_close_range(first: RawFd, last: RawFd) {
    if driver::anyone_waits() && may_lock() {
        with_scheduler(|shared| shared.notify_close_range(first, last));
    }
}

/// False in a signal handler, where the interrupted code may hold the locks that
/// notices need: whoever waits goes on to wait, as threads do.
fn may_lock() -> bool {
    !handler::is_inside()
}

/// Calls `body` with the caller's scheduler, or the one that runs.
#[cold]
fn with_scheduler(body: impl FnOnce(&Shared)) {
    let shared = sched::current_shared().or_else(|| SCHEDULER.lock().clone());
    if let Some(shared) = shared {
        body(&shared);
    }
}

fn wake_joiners(word: &AtomicU32, waiters: Waiters) {
    match waiters {
        Waiters::Coroutines => futex::wake_all_coroutines(word, Turn::Last),
        Waiters::Threads => futex::wake_all(word),
    }
}

/// Which driver is used when none is asked for: io_uring if the kernel allows
/// it, else epoll, and why not io_uring.
fn probe_driver() -> (Kind, Option<io::Error>) {
    match Kind::IoUring.probe() {
        Ok(()) => (Kind::IoUring, None),
        Err(error) => (Kind::Epoll, Some(error)),
    }
}
