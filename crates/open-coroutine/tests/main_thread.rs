//! An overflow of the main thread is reported as it is without this library.
//!
//! This test has no harness of cargo's, which would run it on another thread: it
//! runs itself with a variable that says so.

use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use open_coroutine::{Config, init};

const VARIABLE: &str = "OPEN_COROUTINE_OVERFLOW";

#[expect(unconditional_recursion, reason = "it is to overflow")]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let page = black_box([depth; 64]);
    overflow(depth + 1) + page[1]
}

fn main() {
    if cfg!(feature = "sanitizer") {
        // AddressSanitizer reports overflows itself.
        return;
    }
    if env::var_os(VARIABLE).is_some() {
        init(Config::default().event_loop_size(1)).unwrap();
        open_coroutine::spawn(|| ()).join().unwrap();
        overflow(0);
        unreachable!("it is survived");
    }
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.env(VARIABLE, "1").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(Some(libc::SIGABRT), output.status.signal(), "{errors}");
    assert!(errors.contains("thread 'main'"), "{errors}");
    assert!(errors.contains("has overflowed its stack"), "{errors}");
}
