//! What `#[main]` and `#[test]` expand to.
//!
//! Both take the user's function as a plain `fn` pointer, which any thread may
//! call, and turn what it returns into an `ExitCode` on the coroutine. So
//! nothing crosses threads that is not `Send`, though the function may use and
//! return what is not.

use std::error::Error;
use std::panic::resume_unwind;
use std::process::{self, ExitCode, Termination};
use std::thread;

use open_coroutine_core::join::JoinError;
use open_coroutine_core::runtime::{Builder, Config, InitError, init, shutdown};
use open_coroutine_core::sys;

/// What the first coroutine gets, like a program's main thread: stacks are
/// lazily mapped, and this is where command lines and set-up code run.
const STACK_SIZE: usize = 8 * 1024 * 1024;

/// Runs `body` as a coroutine on a runtime of its own.
#[doc(hidden)]
pub fn main<R: Termination + 'static>(config: Config, body: fn() -> R) -> ExitCode {
    if let Err(error) = init(config) {
        eprintln!("open-coroutine: {}", chain(&error));
        process::exit(1);
    }
    // From here on this thread runs no code of the program.
    let before = sys::set_signal_mask(sys::DEFERRABLE_SIGNALS);
    let outcome = run("main", move || (body().report(), sys::signal_mask()));
    if let Err(error) = shutdown() {
        eprintln!("open-coroutine: {error}");
    }
    // What the program blocked to the end is not to end it now.
    let mask = outcome.as_ref().map_or(before, |(_, mask)| *mask);
    sys::set_signal_mask(mask);
    unwrap(outcome.map(|(code, _)| code))
}

/// Runs `body` as a coroutine, on the runtime that is there or a new one that
/// stays.
#[doc(hidden)]
pub fn test<R: Termination + 'static>(config: Config, body: fn() -> R) -> ExitCode {
    match init(config) {
        Ok(()) | Err(InitError::AlreadyRunning) => {}
        Err(error) => panic!("cannot start the runtime: {}", chain(&error)),
    }
    let thread = thread::current();
    unwrap(run(thread.name().unwrap_or("test"), move || {
        body().report()
    }))
}

/// Waits for `body` to end as a coroutine called `name`.
fn run<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let builder = Builder::new().name(name).stack_size(STACK_SIZE);
    match builder.spawn(body) {
        Ok(handle) => handle.join(),
        Err(error) => Err(JoinError::NotStarted(error)),
    }
}

/// The exit code; a panic goes on in the caller.
fn unwrap(outcome: Result<ExitCode, JoinError>) -> ExitCode {
    match outcome.map_err(JoinError::into_panic) {
        Ok(code) => code,
        Err(Ok(payload)) => resume_unwind(payload),
        Err(Err(error)) => panic!("{}", chain(&error)),
    }
}

/// The messages of an error and of what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
