//! The outer process: it starts the run as a child, reads what that prints
//! through pipes, and checks every line.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::lines::Checker;

/// Tells the program that it is the child.
const INSIDE: &str = "OPEN_COROUTINE_TORTURE_INSIDE";

/// Whether this process is the child.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs this program with `arguments` as a child.
///
/// `limit` is when the child has hung: its own watchdog is much faster.
pub(crate) fn supervise(arguments: &[OsString], migrate: bool, limit: Duration) -> ExitCode {
    let program = env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if migrate {
        command.env("OPEN_COROUTINE_MIGRATE", "1");
    }
    let mut child = command.spawn().expect("this program can be started");
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let is_done = AtomicBool::new(false);
    let is_well = thread::scope(|scope| {
        let stdout = scope.spawn(|| check("stdout", stdout, io::stdout()));
        let stderr = scope.spawn(|| check("stderr", stderr, io::stderr()));
        let killer = scope.spawn(|| wait(&mut child, limit, &is_done));
        let stdout = stdout.join().expect("it only reads");
        let stderr = stderr.join().expect("it only reads");
        is_done.store(true, Relaxed);
        stdout & stderr & killer.join().expect("it only waits")
    });
    ExitCode::from(u8::from(!is_well))
}

/// Waits for the child; ends it if it does not end by itself.
fn wait(child: &mut Child, limit: Duration, is_closed: &AtomicBool) -> bool {
    let start = Instant::now();
    loop {
        match child.try_wait().expect("it is a child") {
            Some(status) if status.success() => return true,
            Some(status) => {
                eprintln!("FAILED: {status}");
                return false;
            }
            None if start.elapsed() > limit => {
                eprintln!(
                    "FAILED: it hangs, streams closed: {}",
                    is_closed.load(Relaxed)
                );
                // SAFETY: the child has not been waited for.
                unsafe { libc::kill(child.id() as i32, libc::SIGABRT) };
                return child.wait().is_ok_and(|status| status.success());
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Reads a stream to its end and passes unmarked lines on.
fn check(name: &str, stream: impl Read, mut onward: impl Write) -> bool {
    let mut checker = Checker::default();
    let mut is_well = true;
    for line in BufReader::new(stream).split(b'\n') {
        let line = line.expect("a pipe can be read");
        let line = String::from_utf8_lossy(&line);
        let wrong = match checker.take(&line) {
            Ok(true) => continue,
            Ok(false) => line.into_owned(),
            Err(wrong) => {
                is_well = false;
                format!("FAILED: {name}: {wrong}")
            }
        };
        // Nobody may be there to read it.
        let _ = writeln!(onward, "{wrong}");
    }
    if !checker.is_ended() {
        eprintln!("FAILED: {name} ends after {} lines", checker.count());
    }
    is_well && checker.is_ended()
}
