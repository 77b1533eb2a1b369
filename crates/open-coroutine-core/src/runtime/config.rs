//! What users can set.

use std::env;
use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use super::capabilities::{Capabilities, Mode};
use super::{InitError, overflow, probe_driver, wake_joiners};
use crate::driver;
use crate::sched::{self, Hooks, Settings};
use crate::stack::{DEFAULT_STACK_SIZE, MAX_STACK_SIZE};
use crate::sys;
use crate::tls::{self, Refusal};

/// How the runtime talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// `io_uring(7)`.
    IoUring,
    /// `epoll(7)`, and a pool of threads for what it cannot do.
    Epoll,
}

/// More workers than any machine has processors.
const MAX_WORKERS: usize = 4096;

/// A shorter time slice would go for the switches.
const MIN_TIME_SLICE: Duration = Duration::from_micros(50);

/// The variable that goes before [`Config::driver`].
const DRIVER: &str = "OPEN_COROUTINE_DRIVER";

/// How the runtime is to run. Every setting has a default.
///
/// The environment goes before the configuration: `OPEN_COROUTINE_DRIVER`
/// (`io_uring` or `epoll`) chooses the driver, `OPEN_COROUTINE_MODE=restricted`
/// makes coroutines share their thread's thread-local storage.
///
/// # Examples
///
/// ```no_run
/// use open_coroutine_core::runtime::{Config, init};
///
/// init(Config::default().event_loop_size(2).stack_size(256 * 1024))?;
/// # Ok::<(), open_coroutine_core::runtime::InitError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until it is given to `init`"]
pub struct Config {
    event_loop_size: Option<usize>,
    stack_size: usize,
    min_size: usize,
    max_size: Option<usize>,
    keep_alive_time: Duration,
    hooks: Hooks,
    driver: Option<Driver>,
    shutdown_timeout: Duration,
    shared_tls_hook: bool,
    preemptive: Option<bool>,
    time_slice: Duration,
    take_over: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            event_loop_size: None,
            stack_size: DEFAULT_STACK_SIZE,
            min_size: 0,
            max_size: None,
            keep_alive_time: Duration::from_secs(10),
            hooks: Hooks::ALL,
            driver: None,
            shutdown_timeout: Duration::from_secs(5),
            shared_tls_hook: false,
            preemptive: None,
            time_slice: Duration::from_millis(10),
            take_over: true,
        }
    }
}

impl Config {
    /// The number of workers, threads that run coroutines. Default: as many as
    /// the process may use processors.
    pub fn event_loop_size(mut self, workers: usize) -> Self {
        self.event_loop_size = Some(workers);
        self
    }

    /// Bytes of stack of a coroutine, unless its builder says otherwise. It is
    /// rounded up to pages. Default: 128 KiB.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// How many idle coroutines each worker keeps however long they are idle.
    /// Default: 0.
    pub fn min_size(mut self, coroutines: usize) -> Self {
        self.min_size = coroutines;
        self
    }

    /// How many coroutines may be alive at once. Tasks beyond that wait until
    /// one ends, so tasks that wait for each other may wait forever. Default:
    /// no limit.
    pub fn max_size(mut self, coroutines: usize) -> Self {
        self.max_size = Some(coroutines);
        self
    }

    /// How long the memory of idle coroutines is kept for the next ones.
    /// Default: 10 s.
    pub fn keep_alive_time(mut self, time: Duration) -> Self {
        self.keep_alive_time = time;
        self
    }

    /// Which blocking functions of libc suspend the coroutine that calls them:
    /// `false` for none, or the families of a set. The others block its worker.
    /// Default: all.
    pub fn hook(mut self, hooks: impl Into<Hooks>) -> Self {
        self.hooks = hooks.into();
        self
    }

    /// The driver to use; if it is not available, the start fails. Default:
    /// io_uring where the kernel allows it, else epoll.
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    /// How long [`shutdown`](super::shutdown) waits for tasks before it cancels
    /// them. They then have one second more. Default: 5 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Whether a coroutine that computes for long is suspended when others wait,
    /// by a signal (`SIGURG`) to its thread. Default: yes in full mode, unless a
    /// global allocator with thread-local state of its own is used without the
    /// adapter for it.
    ///
    /// In restricted mode, where it could break whatever the interrupted code has in
    /// thread-local storage, it needs [`hook_with_shared_tls`](Self::hook_with_shared_tls)
    /// besides.
    pub fn preemptive(mut self, preemptive: bool) -> Self {
        self.preemptive = Some(preemptive);
        self
    }

    /// How long a coroutine may compute while another one could run on its worker.
    /// Who has been waiting for input or for a time, and is due, need not wait for
    /// the end of it. At least 50 µs; default: 10 ms.
    pub fn time_slice(mut self, slice: Duration) -> Self {
        self.time_slice = slice;
        self
    }

    /// Whether another thread takes a worker over when a coroutine has blocked its
    /// thread for 20 ms, in a call that no hook sees or in a section that is not
    /// preempted. Without it whoever is queued there waits. Only in full mode, and
    /// where the kernel has `membarrier(2)`. Default: yes.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Lets hooked functions suspend coroutines in restricted mode too, where
    /// they share their thread's thread-local storage.
    ///
    /// # Safety
    ///
    /// No code that runs on a coroutine may keep, across a call that blocks,
    /// anything in thread-local storage that another coroutine of the same
    /// thread would disturb: no scoped thread-locals, no reentrant locks, no
    /// `println!` to a pipe that may be full.
    pub unsafe fn hook_with_shared_tls(mut self) -> Self {
        self.shared_tls_hook = true;
        self
    }

    /// Checks the settings and chooses what was left open.
    pub(super) fn choose(self) -> Result<Chosen, InitError> {
        self.check().map_err(InitError::InvalidConfig)?;
        let workers = self
            .event_loop_size
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));
        let (isolation, mode) = match tls::isolation() {
            Ok(isolation) => (Some(isolation), Mode::Full),
            // There would be none for the workers either.
            Err(exhausted @ Refusal::Exhausted(_)) => {
                return Err(InitError::Worker(io::Error::other(exhausted)));
            }
            Err(refusal) => (None, Mode::Restricted(refusal)),
        };
        let (driver, no_uring) = self.choose_driver()?;
        let may_divert = isolation.is_some() || self.shared_tls_hook;
        let hooks = if may_divert { self.hooks } else { Hooks::NONE };
        let preemptive = match self.preemptive {
            Some(wanted) => wanted && may_divert,
            // One that is interrupted may hold locks that the workers need.
            None => isolation.is_some_and(|isolation| !isolation.has_foreign_allocator()),
        };
        Ok(Chosen {
            capabilities: Capabilities::new(mode, driver, no_uring, hooks, preemptive),
            shutdown_timeout: self.shutdown_timeout,
            settings: Settings {
                workers,
                stack_size: self.stack_size,
                min_size: self.min_size,
                max_size: self.max_size,
                keep_alive_time: self.keep_alive_time,
                driver,
                isolation,
                hooks,
                migrates: sched::migration_is_forced(),
                preemptive,
                time_slice: self.time_slice,
                take_over: self.take_over && isolation.is_some() && sys::prepare_memory_barriers(),
                on_thread: overflow::with_alternate_stack,
                wake_joiners,
            },
        })
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        let limits = [
            ("event_loop_size", self.event_loop_size, MAX_WORKERS),
            ("stack_size", Some(self.stack_size), MAX_STACK_SIZE),
            ("max_size", self.max_size, usize::MAX),
        ];
        for (key, value, max) in limits {
            match value {
                Some(0) => return Err(InvalidConfig::Zero { key }),
                Some(value) if value > max => {
                    return Err(InvalidConfig::TooLarge { key, value, max });
                }
                _ => {}
            }
        }
        if self.time_slice < MIN_TIME_SLICE {
            let value = self.time_slice;
            return Err(InvalidConfig::TooShort {
                key: "time_slice",
                value,
                min: MIN_TIME_SLICE,
            });
        }
        Ok(())
    }

    /// Whether the program or its user wants a certain driver.
    pub(super) fn asks_for_a_driver(&self) -> bool {
        self.driver.is_some() || env::var_os(DRIVER).is_some()
    }

    fn choose_driver(&self) -> Result<(driver::Kind, Option<io::Error>), InitError> {
        let forced = match env::var(DRIVER) {
            Ok(name) => Some(parse_driver(name).map_err(InitError::InvalidConfig)?),
            Err(_) => self.driver,
        };
        match forced {
            Some(Driver::Epoll) => Ok((driver::Kind::Epoll, None)),
            Some(Driver::IoUring) => {
                driver::Kind::IoUring.probe().map_err(InitError::Driver)?;
                Ok((driver::Kind::IoUring, None))
            }
            None => Ok(probe_driver()),
        }
    }
}

fn parse_driver(name: String) -> Result<Driver, InvalidConfig> {
    match &*name {
        "io_uring" => Ok(Driver::IoUring),
        "epoll" => Ok(Driver::Epoll),
        _ => Err(InvalidConfig::UnknownDriver { name }),
    }
}

/// A configuration as it will be used.
pub(super) struct Chosen {
    pub(super) settings: Settings,
    pub(super) shutdown_timeout: Duration,
    pub(super) capabilities: Capabilities,
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// It must be at least 1.
    Zero {
        /// The setting.
        key: &'static str,
    },
    /// It is above its maximum.
    TooLarge {
        /// The setting.
        key: &'static str,
        /// What it was set to.
        value: usize,
        /// The largest value that is accepted.
        max: usize,
    },
    /// It is below its minimum.
    TooShort {
        /// The setting.
        key: &'static str,
        /// What it was set to.
        value: Duration,
        /// The shortest time that is accepted.
        min: Duration,
    },
    /// `OPEN_COROUTINE_DRIVER` names no driver.
    UnknownDriver {
        /// What it says.
        name: String,
    },
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { key } => write!(f, "{key} is 0; it must be at least 1"),
            Self::TooLarge { key, value, max } => {
                write!(f, "{key} is {value}; it must be at most {max}")
            }
            Self::TooShort { key, value, min } => {
                write!(f, "{key} is {value:?}; it must be at least {min:?}")
            }
            Self::UnknownDriver { name } => write!(
                f,
                "OPEN_COROUTINE_DRIVER is {name:?}; it must be \"io_uring\" or \"epoll\""
            ),
        }
    }
}

impl Error for InvalidConfig {}
