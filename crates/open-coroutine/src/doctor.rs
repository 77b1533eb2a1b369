//! A self-test: what works in this program, what does not, and what to do.

use std::fmt;
use std::io::{Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use open_coroutine_core::join::JoinError;
use open_coroutine_core::runtime::{self, Builder};
use open_coroutine_core::sched::Hooks;
use open_coroutine_hook::Status;

use crate::{Capabilities, Mode, capabilities};

/// How long a check waits for a coroutine that should run.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call may take to begin to wait.
const GRACE: Duration = Duration::from_millis(100);

/// What [`doctor`] has found. Its `Display` is a page for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Mode, driver and hooked functions.
    pub capabilities: Capabilities,
    /// What was tried, and how it went.
    pub checks: Vec<Check>,
    /// What to do about it, in whole sentences. Empty if all is well.
    pub advice: Vec<String>,
}

/// Something that was tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// What it was.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The call suspended its coroutine, and others ran meanwhile.
    Suspends,
    /// The call blocked the worker.
    Blocks,
    /// It could not be tried, for this reason.
    Failed(String),
}

impl Report {
    /// Whether everything works as it can at best.
    pub fn is_healthy(&self) -> bool {
        self.advice.is_empty()
    }
}

/// Looks at what works in this program, tries it, and gives advice.
///
/// It makes waiting calls on as many coroutines as there are workers, and sees
/// whether another one still runs. Where calls block, the workers stand still
/// meanwhile: until other threads take over, or for two seconds per check. Starts a runtime with the default
/// configuration if none is running.
///
/// # Examples
///
/// ```
/// let report = open_coroutine::doctor();
/// println!("{report}");
/// assert!(report.is_healthy());
/// ```
pub fn doctor() -> Report {
    let checks = vec![
        check("read of a pipe", pipe_read),
        check("recv of a socket", socket_receive),
        check("std's Mutex and Condvar", condition),
        check("poll, as a C library calls it", foreign_poll),
    ];
    let capabilities = capabilities();
    let advice = advice(&capabilities, &checks);
    Report {
        capabilities,
        checks,
        advice,
    }
}

/// A call that waits, and what ends the wait.
struct Wait {
    call: Box<dyn FnOnce() + Send>,
    end: Box<dyn FnOnce() + Send>,
}

impl Wait {
    fn new(call: impl FnOnce() + Send + 'static, end: impl FnOnce() + Send + 'static) -> Self {
        Self {
            call: Box::new(call),
            end: Box::new(end),
        }
    }
}

fn check(name: &'static str, make: fn() -> std::io::Result<Wait>) -> Check {
    let outcome = occupy_workers(make).unwrap_or_else(|error| Outcome::Failed(error.to_string()));
    Check { name, outcome }
}

/// Makes one wait per worker, and then sees whether another coroutine runs.
fn occupy_workers(make: fn() -> std::io::Result<Wait>) -> std::io::Result<Outcome> {
    // Starts the runtime if there is none.
    let first = Builder::new().name("doctor").spawn(|| {})?;
    drop(first);
    let takeovers = runtime::census().takeovers;
    let mut ends = Vec::new();
    let mut waits = Vec::new();
    let (begins, begun) = mpsc::channel();
    for _ in 0..runtime::workers() {
        let Wait { call, end } = make()?;
        let begins = begins.clone();
        waits.push(Builder::new().name("doctor").spawn(move || {
            // The receiver is there until all have begun.
            let _ = begins.send(());
            call();
        })?);
        ends.push(end);
    }
    for _ in &waits {
        // If other tasks hold the workers, the check goes on and says so.
        let _ = begun.recv_timeout(PATIENCE);
    }
    // They have begun, and may have been preempted before they called.
    thread::sleep(GRACE);
    let other = Builder::new().name("doctor").spawn(|| {})?;
    let outcome = match other.timeout_join(PATIENCE) {
        // It may have waited for another thread to take its worker over.
        Ok(()) if runtime::census().takeovers != takeovers => Outcome::Blocks,
        Ok(()) => Outcome::Suspends,
        Err(JoinError::TimedOut) => Outcome::Blocks,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    ends.into_iter().for_each(|end| end());
    for wait in waits {
        if let Err(error) = wait.join() {
            return Ok(Outcome::Failed(error.to_string()));
        }
    }
    Ok(outcome)
}

fn pipe_read() -> std::io::Result<Wait> {
    let (mut reader, mut writer) = pipe()?;
    Ok(Wait::new(
        move || {
            reader.read_exact(&mut [0]).expect("its writer writes");
        },
        move || {
            writer.write_all(&[1]).expect("its reader reads");
        },
    ))
}

fn socket_receive() -> std::io::Result<Wait> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    Ok(Wait::new(
        move || {
            receiver.read_exact(&mut [0]).expect("its peer writes");
        },
        move || {
            sender.write_all(&[1]).expect("its peer reads");
        },
    ))
}

fn condition() -> std::io::Result<Wait> {
    let waiter = Arc::new((Mutex::new(false), Condvar::new()));
    let notifier = waiter.clone();
    Ok(Wait::new(
        move || {
            let is_set = waiter.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(waiter.1.wait_while(is_set, |is_set| !*is_set));
        },
        move || {
            *notifier.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            notifier.1.notify_one();
        },
    ))
}

fn foreign_poll() -> std::io::Result<Wait> {
    let (reader, mut writer) = pipe()?;
    Ok(Wait::new(
        move || open_coroutine_hook::poll_as_a_library(reader.as_raw_fd()),
        move || {
            writer.write_all(&[1]).expect("its reader is open");
        },
    ))
}

fn advice(capabilities: &Capabilities, checks: &[Check]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Mode::Restricted(reason) = &capabilities.mode {
        advice.push(format!(
            "Coroutines share their thread's thread-local storage, because {reason}. Blocking \
             calls block a worker; use this crate's own `sleep`, `park` and `join`, or a \
             dynamically linked program on glibc."
        ));
    } else if capabilities.diverts != Hooks::ALL {
        advice.push(format!(
            "The configuration leaves hooks out; those that suspend: {}.",
            capabilities.diverts
        ));
    }
    if let Some(reason) = &capabilities.no_uring {
        advice.push(format!(
            "io_uring is not available ({reason}), so epoll and a pool of threads are used. \
             See kernel.io_uring_disabled of sysctl(8), and the seccomp profile of the container."
        ));
    }
    if capabilities.foreign_allocator {
        advice.push(String::from(
            "The global allocator keeps state per thread, of which every coroutine has its own, \
             up to a megabyte: wrap it in `open_coroutine::OnThread`.",
        ));
    }
    advice.extend(shadowed(capabilities));
    let is_expected = |check: &&Check| check.outcome == Outcome::Suspends;
    for check in checks.iter().filter(|check| !is_expected(check)) {
        let name = check.name;
        advice.push(match &check.outcome {
            Outcome::Failed(error) => format!("The check \"{name}\" was not possible: {error}."),
            _ => format!("\"{name}\" blocks its worker, and the coroutines that are queued there."),
        });
    }
    advice
}

/// What to do about functions that calls do not reach, by where they end.
fn shadowed(capabilities: &Capabilities) -> Vec<String> {
    let mut by_object: Vec<(&str, Vec<&str>)> = Vec::new();
    for hook in &capabilities.hooks {
        if let Status::Shadowed(object) = &hook.status {
            match by_object.iter_mut().find(|(known, _)| known == object) {
                Some((_, names)) => names.push(hook.name),
                None => by_object.push((object, vec![hook.name])),
            }
        }
    }
    let line = |(object, names): (&str, Vec<&str>)| {
        format!(
            "Shared libraries reach {} in {object} instead of the function here: do not preload \
             such an object, and do not hide the program's symbols (the linker's \
             --exclude-libs, version scripts, static linking).",
            names.join(", ")
        )
    };
    by_object.into_iter().map(line).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.capabilities)?;
        for check in &self.checks {
            let outcome = match &check.outcome {
                Outcome::Suspends => "suspends",
                Outcome::Blocks => "BLOCKS",
                Outcome::Failed(error) => error,
            };
            writeln!(f, "{}: {outcome}", check.name)?;
        }
        let missing = |status: &Status| *status == Status::Missing;
        for hook in self
            .capabilities
            .hooks
            .iter()
            .filter(|hook| missing(&hook.status))
        {
            writeln!(f, "{}: this libc has none", hook.name)?;
        }
        if self.is_healthy() {
            return f.write_str("all is well");
        }
        f.write_str("advice:")?;
        self.advice
            .iter()
            .try_for_each(|line| write!(f, "\n* {line}"))
    }
}
