//! What the child does: a bit of everything that the runtime has a system call for.
//!
//! Each call that fails with the injected error is made once more, and must then do
//! what it should. Anything else is a failure: another error, wrong bytes.

mod files;
mod tasks;
mod transfers;

pub(crate) use tasks::awaited_signals;

use std::error::Error;
use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Mutex;
use std::time::Duration;

use open_coroutine::{
    Builder, Config, Driver, JoinError, JoinHandle, init, shutdown, without_hooks,
};

use crate::supervisor;

/// What any step of the workload fails with.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Which calls have failed with the injected error. Static because tasks of two
/// runtimes note it.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Which calls have failed with the injected error.
pub(crate) fn seen() -> Vec<String> {
    SEEN.lock().expect("nobody panics with it").clone()
}

/// Starts a runtime, uses it and stops it, twice.
///
/// # Errors
///
/// What went wrong.
pub(crate) fn run(driver: Option<Driver>, workers: usize) -> Outcome {
    for _ in 0..2 {
        let config = || {
            let config = Config::default()
                .event_loop_size(workers)
                .keep_alive_time(Duration::from_millis(1));
            match driver {
                Some(driver) => config.driver(driver),
                None => config,
            }
        };
        tried("init", || init(config()))?;
        let outcome = spawn("main task", steps)?.join();
        shutdown()?;
        outcome??;
    }
    Ok(())
}

type Step = (&'static str, fn() -> Outcome);

const STEPS: [Step; 17] = [
    ("tasks", tasks::tasks),
    ("timers", tasks::timers),
    ("stacks", tasks::stacks),
    ("locks", tasks::locks),
    ("threads", tasks::threads),
    ("hogs", tasks::hogs),
    ("blockers", tasks::blockers),
    ("processes", tasks::processes),
    ("signals", tasks::signals),
    ("streams", transfers::streams),
    ("datagrams", transfers::datagrams),
    ("pipes", transfers::pipes),
    ("readiness", transfers::readiness),
    ("timeouts", transfers::timeouts),
    ("files", files::files),
    ("copies", files::copies),
    ("file locks", files::locks),
];

fn steps() -> Outcome {
    for (name, step) in STEPS {
        say(&format!("step {name}"));
        step().map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Tells how far it has come, in calls that are not the runtime's.
fn say(text: &str) {
    without_hooks(|| println!("{text}"));
}

/// Makes a call; once more if it failed with the injected error.
///
/// # Errors
///
/// Those of the call that are not the injected one.
pub(crate) fn tried<T, E: Debug>(
    what: &str,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    match call() {
        Err(error) if is_forgiven(what, &error) => {
            let mut seen = SEEN.lock().expect("nobody panics with it");
            seen.push(what.to_owned());
            drop(seen);
            call()
        }
        result => result,
    }
}

/// Calls that threads of the pool make, which a signal may end as it does on others.
const INTERRUPTIBLE: [&str; 3] = ["lock", "unlock", "write"];

fn is_forgiven(what: &str, error: &impl Debug) -> bool {
    let is_interruption = supervisor::given() == Some(libc::EINTR);
    is_injected(error) && (!is_interruption || INTERRUPTIBLE.contains(&what))
}

/// Whether an error, or one behind it, has the number that was injected.
fn is_injected(error: &impl Debug) -> bool {
    let text = format!("{error:?}");
    // The start tells what was missing, and not how the kernel said so.
    let is_exhaustion = text.contains("Exhausted(");
    let has = |number: i32| {
        is_exhaustion
            || text.contains(&format!("code: {number},"))
            || text.contains(&format!("os error {number})"))
    };
    match supervisor::given() {
        None => false,
        // pthread_create(3) knows one error only; and see `driver::epoll`.
        Some(libc::ENOMEM) => has(libc::ENOMEM) || has(libc::EAGAIN),
        Some(libc::ENOSPC) => has(libc::ENOSPC) || has(libc::ENOMEM),
        Some(number) => has(number),
    }
}

/// A task, whose start is tried again if it found no memory.
pub(crate) struct Task<T>(JoinHandle<T>, &'static str, fn() -> T);

impl<T: Send + 'static> Task<T> {
    /// # Errors
    ///
    /// If it could not be started twice, or has panicked.
    pub(crate) fn join(self) -> Outcome<T> {
        let Self(handle, what, body) = self;
        match handle.join() {
            Err(JoinError::NotStarted(error)) => {
                tried(what, {
                    let mut first = Some(error);
                    move || first.take().map_or(Ok(()), Err)
                })?;
                Ok(start(what, body)?.join()?)
            }
            result => Ok(result?),
        }
    }
}

/// Spawns a task that needs nothing of its environment.
///
/// # Errors
///
/// Those of [`Builder::spawn`].
pub(crate) fn spawn<T: Send + 'static>(what: &'static str, body: fn() -> T) -> Outcome<Task<T>> {
    Ok(Task(start(what, body)?, what, body))
}

fn start<T: Send + 'static>(what: &'static str, body: fn() -> T) -> io::Result<JoinHandle<T>> {
    tried(what, || Builder::new().name(what).spawn(body))
}

/// Runs `body` on a coroutine while `beside` runs on the calling one.
///
/// # Errors
///
/// Those of either.
pub(crate) fn beside<T: Send + 'static>(
    body: impl FnOnce() -> Outcome<T> + Send + 'static,
    beside: impl FnOnce() -> Outcome,
) -> Outcome<T> {
    use std::sync::{Arc, Mutex, PoisonError};
    // Where the next attempt finds it if the first one does not start.
    let body = Arc::new(Mutex::new(Some(body)));
    let start = || {
        let body = body.clone();
        tried("spawn", move || {
            let body = body.clone();
            Builder::new().spawn(move || {
                let mut place = body.lock().unwrap_or_else(PoisonError::into_inner);
                let body = place.take().expect("it runs once");
                drop(place);
                body()
            })
        })
    };
    let mut task = start()?;
    // Until it runs or has failed to.
    while body.lock().is_ok_and(|place| place.is_some()) && !task.is_finished() {
        open_coroutine::yield_now();
    }
    if body.lock().is_ok_and(|place| place.is_some()) {
        match task.join() {
            Err(JoinError::NotStarted(error)) if is_injected(&error) => {
                SEEN.lock()
                    .expect("nobody panics with it")
                    .push("a task's stack".into());
                task = start()?;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("it ended without having run".into()),
        }
    }
    let outcome = beside();
    if let Err(error) = &outcome {
        // The other one may wait for what has not been done, and this be the last
        // that is heard.
        say(&format!("beside: {error}"));
    }
    let result = task.join()?;
    outcome?;
    result
}

/// A stream whose calls are made once more if they failed with the injected error.
pub(crate) struct Patient<S>(pub(crate) S);

impl<S: Read> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        tried("read", || self.0.read(buffer))
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tried("write", || self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        tried("flush", || self.0.flush())
    }
}

/// Bytes that are other ones if some are lost.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..1021u32).map(|index| (index * 7 / 5) as u8).collect();
    let mut bytes = block.repeat(len.div_ceil(block.len()));
    bytes.truncate(len);
    bytes
}

/// # Errors
///
/// If the claim does not hold.
pub(crate) fn check(claim: bool, text: &str) -> Outcome {
    if claim { Ok(()) } else { Err(text.into()) }
}

/// Whether `error` says that the time was over.
pub(crate) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
