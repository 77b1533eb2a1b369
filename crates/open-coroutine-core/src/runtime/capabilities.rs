//! How the runtime runs here, and why not better.

use std::fmt;
use std::io;

use super::config::{Config, Driver};
use super::{RUNTIME, State, probe_driver};
use crate::driver::Kind;
use crate::sched::Hooks;
use crate::tls::{self, Refusal};

/// Whether coroutines have thread-local storage of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// They have. Any blocking call suspends, and started coroutines move
    /// between workers.
    Full,
    /// They share their thread's, for this reason. They suspend only in this
    /// library's own functions, and stay on their worker.
    Restricted(Refusal),
}

/// What works in this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether coroutines have thread-local storage of their own.
    pub mode: Mode,
    /// How the runtime talks to the kernel.
    pub driver: Driver,
    /// Why it is not io_uring, if it was not asked for another driver.
    pub no_uring: Option<String>,
    /// Which blocking functions of libc suspend the coroutine that calls them,
    /// if calls reach their replacements.
    pub diverts: Hooks,
    /// Whether the global allocator keeps state per thread, of which every
    /// coroutine has its own: it is not wrapped in `OnThread`.
    pub foreign_allocator: bool,
    /// Whether a coroutine that computes for long is suspended when others wait.
    pub preemptive: bool,
}

impl Capabilities {
    pub(super) fn new(
        mode: Mode,
        kind: Kind,
        no_uring: Option<io::Error>,
        diverts: Hooks,
        preemptive: bool,
    ) -> Self {
        Self {
            mode,
            driver: match kind {
                Kind::IoUring => Driver::IoUring,
                Kind::Epoll => Driver::Epoll,
            },
            no_uring: no_uring.map(|error| error.to_string()),
            diverts,
            foreign_allocator: tls::decided().is_some_and(|tls| tls.has_foreign_allocator()),
            preemptive,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What the running runtime can do, or what one that is started now with the
/// default configuration could.
pub fn capabilities() -> Capabilities {
    if let State::Running(runtime) = &*RUNTIME.lock() {
        return runtime.capabilities.clone();
    }
    let (kind, no_uring) = match Config::default().choose() {
        Ok(chosen) => return chosen.capabilities,
        // The environment asks for a driver that there is not: tell what else.
        Err(_) => probe_driver(),
    };
    let mode = match tls::isolation() {
        Ok(_) => Mode::Full,
        Err(refusal) => Mode::Restricted(refusal),
    };
    let is_full = mode == Mode::Full;
    Capabilities::new(mode, kind, no_uring, Hooks::from(is_full), is_full)
}
