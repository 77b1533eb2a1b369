//! Runs a test's body in a process of its own: for what ends a process, or
//! changes it for good.

use std::env;
use std::process::{Command, Output, Stdio};

const MARK: &str = "OPEN_COROUTINE_TEST_CHILD";

/// A command that runs the test `name` of this binary in a child process.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    command
}

/// Whether this process is the child.
pub(crate) fn is_child() -> bool {
    env::var_os(MARK).is_some()
}

/// In the child: runs `body` and ends the process well. Else the output of a
/// child that does so.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn output(name: &str, body: impl FnOnce()) -> Output {
    if is_child() {
        body();
        std::process::exit(0);
    }
    command(name).output().unwrap()
}

/// [`output`], which must tell that all went well.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn succeeds(name: &str, body: impl FnOnce()) {
    let output = output(name, body);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
}
