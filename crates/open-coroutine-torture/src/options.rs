//! What the command line asks for.

use std::ffi::OsString;
use std::time::Duration;

use open_coroutine::{Config, Driver};

/// How to use the program.
pub(crate) const USAGE: &str = "\
usage: open-coroutine-torture [soak] [options]
  soak               also look for what grows or is left over
  --minutes N        as --seconds
  --seconds N        how long the bodies begin new rounds (default 10)
  --workers N        threads that run coroutines (default 2)
  --coroutines N     coroutines, each with a body, in turn (default 32)
  --hogs N           coroutines more that only compute (default 2)
  --driver NAME      io_uring or epoll (default: what the kernel allows)
  --slice TIME       how long a coroutine may run: 50us, 10ms (default 1ms)
  --cooperative      without preemption
  --migrate          change the worker at every switch
  --only A,B         only these bodies
  --patience N       seconds without progress that are a failure (default 10)";

/// How long idle coroutines are kept: not so long that a soak waits for them.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) soak: bool,
    pub(crate) time: Duration,
    pub(crate) workers: usize,
    pub(crate) coroutines: usize,
    pub(crate) hogs: usize,
    pub(crate) driver: Option<Driver>,
    pub(crate) slice: Duration,
    pub(crate) cooperative: bool,
    pub(crate) migrate: bool,
    pub(crate) only: Vec<String>,
    pub(crate) patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            soak: false,
            time: Duration::from_secs(10),
            workers: 2,
            coroutines: 32,
            hogs: 2,
            driver: None,
            slice: Duration::from_millis(1),
            cooperative: false,
            migrate: false,
            only: Vec::new(),
            patience: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Reads the arguments of a command.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let key = argument.to_string_lossy();
            let mut value = || {
                let value = arguments.next().ok_or(format!("{key} needs a value"))?;
                Ok::<_, String>(value.to_string_lossy().into_owned())
            };
            match &*key {
                "soak" => options.soak = true,
                "--minutes" => {
                    options.time = Duration::from_secs(60 * number::<u64>(&key, &value()?)?)
                }
                "--seconds" => options.time = Duration::from_secs(number(&key, &value()?)?),
                "--workers" => options.workers = number(&key, &value()?)?,
                "--coroutines" => options.coroutines = number(&key, &value()?)?,
                "--hogs" => options.hogs = number(&key, &value()?)?,
                "--driver" => options.driver = Some(driver(&value()?)?),
                "--slice" => options.slice = slice(&value()?)?,
                "--cooperative" => options.cooperative = true,
                "--migrate" => options.migrate = true,
                "--only" => options.only = value()?.split(',').map(String::from).collect(),
                "--patience" => options.patience = Duration::from_secs(number(&key, &value()?)?),
                _ => return Err(format!("unknown option {key}")),
            }
        }
        Ok(options)
    }

    /// The configuration of the runtime.
    pub(crate) fn config(&self) -> Config {
        let config = Config::default()
            .event_loop_size(self.workers)
            .keep_alive_time(KEEP_ALIVE)
            .preemptive(!self.cooperative)
            .time_slice(self.slice)
            .shutdown_timeout(self.patience);
        match self.driver {
            Some(driver) => config.driver(driver),
            None => config,
        }
    }
}

fn number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{key}: {text:?} is not a number"))
}

fn slice(text: &str) -> Result<Duration, String> {
    let wrong = || format!("--slice: {text:?} is no time such as 50us or 10ms");
    let unit = text
        .find(|letter: char| !letter.is_ascii_digit())
        .ok_or_else(wrong)?;
    let count = text[..unit].parse().map_err(|_| wrong())?;
    match &text[unit..] {
        "us" => Ok(Duration::from_micros(count)),
        "ms" => Ok(Duration::from_millis(count)),
        _ => Err(wrong()),
    }
}

fn driver(name: &str) -> Result<Driver, String> {
    match name {
        "io_uring" => Ok(Driver::IoUring),
        "epoll" => Ok(Driver::Epoll),
        _ => Err(format!("--driver: {name:?} is neither io_uring nor epoll")),
    }
}
