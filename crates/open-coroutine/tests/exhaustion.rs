//! Without memory a task ends with an error, and the rest lives on.

use std::env;
use std::process::Command;
use std::thread;
use std::time::Duration;

use open_coroutine::{Builder, Config, JoinError, init, spawn};

/// Says what the child process is to do.
const VARIABLE: &str = "OPEN_COROUTINE_EXHAUSTION";

#[test]
fn child() {
    if env::var(VARIABLE).is_err() {
        return;
    }
    init(Config::default().event_loop_size(1)).unwrap();
    let before = spawn(|| thread::sleep(Duration::from_millis(500)));
    let limit = libc::rlimit {
        rlim_cur: 1 << 30,
        rlim_max: 1 << 30,
    };
    // SAFETY: sets a limit of this process.
    assert_eq!(0, unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &raw const limit)
    });
    let tasks: Vec<_> = (0..20_000)
        .map(|_| spawn(|| thread::sleep(Duration::from_secs(1))))
        .collect();
    let (mut ended, mut refused) = (0, 0);
    for task in tasks {
        match task.join() {
            Ok(()) => ended += 1,
            Err(JoinError::NotStarted(error)) => {
                refused += 1;
                let cause = error.get_ref().and_then(|cause| cause.source());
                assert!(cause.is_some(), "{error:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(
        ended > 1000 && refused > 1000,
        "{ended} ended, {refused} did not start"
    );
    before.join().unwrap();
    // What has become free serves the next ones.
    for _ in 0..1000 {
        assert_eq!(5, spawn(|| 5).join().unwrap());
    }
}

#[test]
fn tasks_without_memory_end_with_an_error_and_the_rest_lives_on() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
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
