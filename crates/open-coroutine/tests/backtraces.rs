//! Backtraces of coroutines that are suspended, and moved, while they print
//! them.

use std::env;
use std::process::{Command, Stdio};

use open_coroutine::{Config, init, spawn};

/// Makes the child process panic in many coroutines.
const VARIABLE: &str = "OPEN_COROUTINE_BACKTRACES";
const TASKS: usize = 60;

#[inline(never)]
fn a_function_that_panics(task: usize) {
    panic!("task {task} as planned");
}

#[test]
fn child() {
    if env::var(VARIABLE).is_err() {
        return;
    }
    init(Config::default().event_loop_size(2)).unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| spawn(move || a_function_that_panics(task)))
        .collect();
    for task in tasks {
        assert!(task.join().unwrap_err().is_panic());
    }
}

#[test]
fn panics_of_many_coroutines_print_whole_backtraces() {
    for driver in ["io_uring", "epoll"] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(VARIABLE, "1")
            .env("RUST_BACKTRACE", "full")
            .env("OPEN_COROUTINE_DRIVER", driver)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{driver}: {}\n{errors}",
            output.status
        );
        assert_eq!(TASKS, errors.matches("as planned").count());
        assert!(errors.matches("a_function_that_panics").count() >= TASKS);
        // Nothing of the worker below.
        assert!(!errors.contains("Worker::run"), "{errors}");
    }
}
