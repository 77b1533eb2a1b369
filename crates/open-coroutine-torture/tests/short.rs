//! The short form of the torture: every driver, one worker and two, slices of
//! different lengths, and a change of the worker at every switch; and a short soak.

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_open-coroutine-torture");

/// Runs all bodies with each driver.
fn torture(arguments: &[&str]) {
    for driver in ["epoll", "io_uring"] {
        let mut command = Command::new(PROGRAM);
        command.args(["--coroutines", "40", "--patience", "60", "--driver", driver]);
        let output = command.args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if driver == "io_uring" && errors.contains("driver that was asked for is not available") {
            eprintln!("skipped: {driver} is not available");
            continue;
        }
        let summary = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{driver}: {errors}{summary}");
        assert!(
            summary.contains(", 0 failures"),
            "{driver}: {errors}{summary}"
        );
        eprintln!("{summary}");
    }
}

#[test]
fn nothing_breaks_on_one_worker() {
    torture(&["--seconds", "3", "--workers", "1", "--slice", "50us"]);
}

#[test]
fn nothing_breaks_on_two_workers() {
    torture(&["--seconds", "3", "--workers", "2", "--slice", "1ms"]);
}

#[test]
fn nothing_breaks_when_every_switch_changes_the_worker() {
    torture(&[
        "--seconds",
        "3",
        "--workers",
        "2",
        "--slice",
        "50us",
        "--migrate",
    ]);
}

#[test]
fn nothing_breaks_without_preemption() {
    torture(&["--seconds", "2", "--workers", "2", "--cooperative"]);
}

#[test]
fn nothing_grows_or_is_left_over() {
    torture(&["soak", "--seconds", "10"]);
}
