//! What a program with `#[open_coroutine::main]` prints and exits with.
//!
//! This test has no harness of cargo's: its `main` is what is tested, and it
//! runs itself with an argument for each case.

use std::env;
use std::error::Error;
use std::process::{Command, Output};
use std::time::Duration;

/// Says which case the program is to play.
const CASE: &str = "OPEN_COROUTINE_TEST_CASE";

#[open_coroutine::main(
    event_loop_size = 1,
    shutdown_timeout = Duration::from_millis(if env::var(CASE).is_ok() { 10 } else { 5000 }),
)]
fn main() -> Result<(), Box<dyn Error>> {
    match env::var(CASE).as_deref() {
        Err(_) => run_all(),
        Ok("error") => return Err("this went wrong".into()),
        Ok("panic") => panic!("on purpose"),
        Ok("unfinished") => {
            let stays = open_coroutine::Builder::new().name("stays");
            stays.spawn(|| {
                // Nothing ends this.
                let (_sender, receiver) = std::sync::mpsc::channel::<()>();
                receiver.recv().expect("it waits for itself");
            })?;
        }
        Ok("name") => print!(
            "{:?}",
            open_coroutine::current().expect("a coroutine").name()
        ),
        Ok(case) => panic!("unknown case {case}"),
    }
    Ok(())
}

fn run_all() {
    for (name, test) in TESTS {
        test();
        println!("test {name} ... ok");
    }
}

const TESTS: [(&str, fn()); 5] = [
    (
        "main_is_a_coroutine_called_main",
        main_is_a_coroutine_called_main,
    ),
    ("an_error_exits_with_1", an_error_exits_with_1),
    ("a_panic_exits_with_101", a_panic_exits_with_101),
    ("what_did_not_end_is_named", what_did_not_end_is_named),
    ("a_refused_start_says_why", a_refused_start_says_why),
];

/// Plays `case` in a process of its own.
fn play(case: &str, driver: Option<&str>) -> Output {
    let mut command = Command::new(env::current_exe().expect("a running program has a path"));
    command.env(CASE, case);
    if let Some(driver) = driver {
        command.env("OPEN_COROUTINE_DRIVER", driver);
    }
    if case == "unfinished" {
        // A task that did not end keeps what it has, which counts as leaked.
        let options = env::var("ASAN_OPTIONS").unwrap_or_default();
        command.env("ASAN_OPTIONS", options + ":detect_leaks=0");
    }
    command.output().expect("this program can be run")
}

fn errors(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("errors are text")
}

fn main_is_a_coroutine_called_main() {
    let output = play("name", None);
    assert!(output.status.success());
    assert_eq!(b"Some(\"main\")", &*output.stdout);
}

fn an_error_exits_with_1() {
    let output = play("error", None);
    assert_eq!(Some(1), output.status.code());
    assert_eq!("Error: \"this went wrong\"\n", errors(&output));
}

fn a_panic_exits_with_101() {
    let output = play("panic", None);
    assert_eq!(Some(101), output.status.code());
    // Once: the panic that goes on in the main thread is not reported again.
    assert_eq!(1, errors(&output).matches("on purpose").count());
}

fn what_did_not_end_is_named() {
    let output = play("unfinished", None);
    assert_eq!(Some(0), output.status.code());
    let errors = errors(&output);
    assert!(
        errors.starts_with("open-coroutine: 1 task did not end in time: "),
        "{errors}"
    );
    assert!(errors.contains("stays"), "{errors}");
}

fn a_refused_start_says_why() {
    let output = play("name", Some("kqueue"));
    assert_eq!(Some(1), output.status.code());
    assert_eq!(
        "open-coroutine: the configuration is invalid: OPEN_COROUTINE_DRIVER is \"kqueue\"; \
         it must be \"io_uring\" or \"epoll\"\n",
        errors(&output)
    );
}
