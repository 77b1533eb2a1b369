//! Runs a test on every kind of runtime: each driver, with one worker and with
//! two. One after the other, because a process has one runtime at a time.

#![allow(dead_code, reason = "not every test file uses every function")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use open_coroutine::{Builder, Config, Driver, InitError, capabilities, init, shutdown};

static TURN: Mutex<()> = Mutex::new(());

/// Runs `body` as a coroutine on each kind of runtime.
pub(crate) fn on_every_runtime(body: fn()) {
    for workers in [1, 2] {
        on_every_driver(workers, body);
    }
}

/// Runs `body` as a coroutine on each driver, with `workers` workers.
pub(crate) fn on_every_driver(workers: usize, body: impl FnOnce() + Clone + Send + 'static) {
    // Or nobody would notice who blocks a worker.
    let config = Config::default().event_loop_size(workers).take_over(false);
    on_every_driver_as(&config, body);
}

/// Runs `body` as a coroutine on each driver, otherwise with `config`.
pub(crate) fn on_every_driver_as(config: &Config, body: impl FnOnce() + Clone + Send + 'static) {
    for driver in [Driver::IoUring, Driver::Epoll] {
        // A test that failed has poisoned it; the next one runs all the same.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let config = config.clone().driver(driver);
        // SAFETY: tests that the shared storage would disturb are left out.
        let config = match cfg!(feature = "sanitizer") {
            // SAFETY: the tests keep nothing in thread-local storage across a wait.
            true => unsafe { config.hook_with_shared_tls() },
            false => config,
        };
        match init(config.clone().shutdown_timeout(Duration::from_secs(20))) {
            Err(InitError::Driver(error)) => {
                eprintln!("skipped: {driver} is not available: {error}");
                continue;
            }
            result => result.expect("a runtime starts"),
        }
        assert_eq!(
            driver,
            capabilities().driver,
            "OPEN_COROUTINE_DRIVER must not be set: these tests choose the driver"
        );
        eprintln!("{driver}, {config:?}");
        let task = Builder::new().name("test").stack_size(1 << 20);
        let result = task.spawn(body.clone()).expect("the test starts").join();
        let stopped = shutdown();
        if let Err(error) = result {
            match error.into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => panic!("{error}"),
            }
        }
        stopped.expect("every task has ended");
    }
}
