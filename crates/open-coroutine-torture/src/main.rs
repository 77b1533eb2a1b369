//! Mixed loads that check their own results, for minutes or hours.
//!
//! Coroutines perform *rounds* of very different code next to each other: std,
//! crates, C, panics, files, sockets. Each round verifies what it did; nothing
//! but the scheduler ties them together. The program ends with status 0 if
//! nothing was wrong, and aborts if somebody makes no progress.
//!
//! * `options`: the command line.
//! * `supervise`: the outer process, which reads what the run prints; `lines`:
//!   how it knows whether a line is whole.
//! * `run`: starts the coroutines, ends them, adds up; `progress`: who has done
//!   how much, and the watchdog.
//! * `soak`: what must not grow, and what must be gone at the end.
//! * `bodies`: what the coroutines do.
//! * `allocator`: which one the features choose.

mod allocator;
mod bodies;
mod lines;
mod options;
mod progress;
mod run;
mod soak;
mod supervise;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use options::{Options, USAGE};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let options = match Options::parse(arguments.iter().cloned()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if supervise::is_inside() {
        return run::run(&options);
    }
    let limit = options.time + options.patience * 10 + Duration::from_secs(30);
    supervise::supervise(&arguments, options.migrate, limit)
}
