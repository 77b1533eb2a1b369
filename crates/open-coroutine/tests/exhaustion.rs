//! Without memory a task ends with an error, and the rest lives on.

mod child;
mod limits;
mod runtimes;
mod workload;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use limits::{Limit, status};
use open_coroutine::{
    Builder, Config, JoinError, JoinHandle, init, maybe_grow, park, shutdown, sleep, spawn, unblock,
};
use runtimes::on_every_runtime;
use workload::works;

/// Lets the process map only `spare` more bytes, once by each limit of the two.
fn with_little_memory(spare: u64, body: impl Fn()) {
    for (resource, key) in [(libc::RLIMIT_AS, "VmSize"), (libc::RLIMIT_DATA, "VmData")] {
        let limit = Limit::lower(resource, (status(key) << 10) + spare);
        body();
        drop(limit);
    }
}

fn says_what_to_do(error: &JoinError) {
    let JoinError::NotStarted(cause) = error else {
        panic!("{error:?}");
    };
    let text = cause.to_string();
    assert!(text.contains("RLIMIT") || text.contains("memory"), "{text}");
}

/// Spawns tasks that wait until more than a few did not start.
fn spawn_too_many(stack_size: usize) {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    let mut refused = 0;
    while refused < 100 {
        tasks.extend((0..100).map(|_| {
            let is_over = is_over.clone();
            let task = move || {
                while !is_over.load(SeqCst) {
                    park();
                }
            };
            Builder::new().stack_size(stack_size).spawn(task).unwrap()
        }));
        sleep(Duration::from_millis(1));
        refused = tasks.iter().filter(|task| task.is_finished()).count();
    }
    // The others go on.
    assert_eq!(7, spawn(|| 7).join().unwrap_or(7));
    is_over.store(true, SeqCst);
    tasks.iter().for_each(|task| task.task().unpark());
    let results = tasks.into_iter().map(JoinHandle::join);
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    assert!(errors.len() >= 100);
    errors.iter().for_each(says_what_to_do);
    // What has become free serves the next ones.
    for _ in 0..100 {
        assert_eq!(5, spawn(|| 5).join().unwrap());
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn tasks_without_memory_end_with_an_error_and_the_rest_lives_on() {
    child::succeeds(
        "tasks_without_memory_end_with_an_error_and_the_rest_lives_on",
        || {
            on_every_runtime(|| {
                works();
                for stack_size in [16 << 10, 128 << 10, 16 << 20] {
                    with_little_memory(256 << 20, || spawn_too_many(stack_size));
                    works();
                }
            });
        },
    );
}

#[test]
fn in_restricted_mode_too() {
    if !child::is_child() {
        let mut command = child::command("in_restricted_mode_too");
        let output = command.env("OPEN_COROUTINE_MODE", "restricted").output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        return assert!(output.status.success(), "{}: {text}", output.status);
    }
    init(Config::default().event_loop_size(1)).unwrap();
    with_little_memory(256 << 20, || spawn_too_many(128 << 10));
    shutdown().unwrap();
}

/// Grows the stack until it cannot, and returns how often it could.
fn grow_until_it_fails() -> u32 {
    let page = black_box([0u8; 4096]);
    match maybe_grow!(usize::MAX, 4 << 20, grow_until_it_fails) {
        Ok(depth) => depth + 1 + u32::from(page[0]),
        Err(error) => {
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            assert!(error.source().is_some());
            0
        }
    }
}

#[test]
fn a_stack_that_cannot_grow_is_an_error() {
    child::succeeds("a_stack_that_cannot_grow_is_an_error", || {
        on_every_runtime(|| {
            works();
            with_little_memory(512 << 20, || {
                assert!(grow_until_it_fails() > 10);
                assert!(thread::spawn(grow_until_it_fails).join().unwrap() > 10);
                // All of it has been given back.
                assert!(grow_until_it_fails() > 10);
            });
            works();
        });
    });
}

#[test]
fn threads_of_the_pool_that_find_no_memory_are_done_without() {
    child::succeeds(
        "threads_of_the_pool_that_find_no_memory_are_done_without",
        || {
            on_every_runtime(|| {
                works();
                with_little_memory(256 << 20, || {
                    let tasks: Vec<_> = (0..300)
                        .map(|_| {
                            spawn(|| {
                                unblock(|| thread::sleep(Duration::from_millis(5)));
                            })
                        })
                        .collect();
                    // The threads may have taken what the last tasks needed.
                    let errors = tasks.into_iter().filter_map(|task| task.join().err());
                    errors.for_each(|error| says_what_to_do(&error));
                });
                works();
            });
        },
    );
}

#[test]
fn an_absurd_stack_size_is_refused_at_once() {
    for size in [0, usize::MAX, usize::MAX / 2] {
        let error = Builder::new().stack_size(size).spawn(|| ()).unwrap_err();
        assert_eq!(std::io::ErrorKind::InvalidInput, error.kind());
    }
    // Anything else is rounded up to what is usable.
    let tiny = Builder::new().stack_size(1).spawn(|| 7).unwrap();
    assert_eq!(7, tiny.join().unwrap());
}
