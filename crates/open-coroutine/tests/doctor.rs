//! The self-test tells what works, and what does not.

mod child;

use std::path::PathBuf;
use std::process::Command;

use open_coroutine::{Hooks, Outcome, Status, capabilities, doctor};

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_healthy_program_is_told_so() {
    child::succeeds("a_healthy_program_is_told_so", || {
        let report = doctor();
        for check in &report.checks {
            assert_eq!(Outcome::Suspends, check.outcome, "{report}");
        }
        let hooks = &report.capabilities.hooks;
        let is_missing = |status: &Status| *status == Status::Missing;
        assert!(hooks.len() > 200);
        assert!(
            hooks
                .iter()
                .all(|hook| hook.is_live() || is_missing(&hook.status)),
            "{report}"
        );
        // Some machines have no io_uring, and are told.
        assert_eq!(report.is_healthy(), report.capabilities.no_uring.is_none());
    });
}

#[test]
fn in_restricted_mode_it_says_that_calls_block() {
    if child::is_child() {
        println!("{}", doctor());
        std::process::exit(0);
    }
    let mut command = child::command("in_restricted_mode_it_says_that_calls_block");
    let output = command
        .env("OPEN_COROUTINE_MODE", "restricted")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("read of a pipe: BLOCKS"), "{text}");
    assert!(text.contains("OPEN_COROUTINE_MODE"), "{text}");
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn on_a_coroutine_it_works_too() {
    child::succeeds("on_a_coroutine_it_works_too", || {
        let report = open_coroutine::spawn(doctor).join().unwrap();
        let suspends = |check: &open_coroutine::Check| check.outcome == Outcome::Suspends;
        assert!(report.checks.iter().all(suspends), "{report}");
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn hooks_that_are_left_out_are_named() {
    child::succeeds("hooks_that_are_left_out_are_named", || {
        let config = open_coroutine::Config::default();
        open_coroutine::init(config.hook(Hooks::SOCKETS)).unwrap();
        assert_eq!(Hooks::SOCKETS, capabilities().diverts);
        assert!(doctor().advice.iter().any(|line| line.contains("sockets")));
    });
}

/// With this option of the linker shared libraries do not see the functions of
/// the program, and reach libc's.
#[test]
fn a_program_with_hidden_symbols_is_told() {
    if child::is_child() {
        return;
    }
    let target = tempdir();
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", "doctor"])
        .current_dir(manifest)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-Clink-arg=-Wl,--exclude-libs,ALL")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("poll, as a C library calls it: BLOCKS"),
        "{text}{error}"
    );
    assert!(text.contains("--exclude-libs"), "{text}");
    assert_eq!(Some(1), output.status.code());
}

/// Where the program with other link options is built; kept, so that only the
/// first run has to build everything.
fn tempdir() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).expect("target/profile/deps/test");
    target.join("hidden-symbols")
}
