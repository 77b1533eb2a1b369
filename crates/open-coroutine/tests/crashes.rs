//! Faults end the process as they do without this library, and an overflow of a
//! coroutine's stack says whose it was.

use std::env;
use std::hint::black_box;
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::ptr;
use std::thread;

use open_coroutine::{Builder, Config, init, maybe_grow, spawn};

/// Says what the child process is to do.
const VARIABLE: &str = "OPEN_COROUTINE_CRASH";

/// Runs this test program again, to do `job` in a process of its own.
fn play(job: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(VARIABLE, job)
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[expect(unconditional_recursion, reason = "it is to overflow")]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let page = black_box([depth; 64]);
    overflow(depth + 1) + page[1]
}

fn fault() {
    // SAFETY: none: it is to crash.
    unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

/// A user's handler of faults: ends the process with a status of its own.
extern "C" fn handler(_signal: i32) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(77) };
}

fn install_handler() {
    // SAFETY: the handler only exits.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(
            0,
            libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut())
        );
    }
}

#[test]
fn child() {
    let Ok(job) = env::var(VARIABLE) else { return };
    if job == "handler before" {
        install_handler();
    }
    init(Config::default().event_loop_size(1)).unwrap();
    match &*job {
        "coroutine" => {
            let deep = Builder::new().name("deep").stack_size(256 * 1024);
            let _ = deep.spawn(|| overflow(0)).unwrap().join();
        }
        "segment" => {
            let grown = || maybe_grow!(usize::MAX, 1 << 20, || overflow(0)).unwrap();
            let _ = Builder::new().name("grown").spawn(grown).unwrap().join();
        }
        "thread" => {
            let deep = thread::Builder::new().name("a thread".into());
            let _ = deep.spawn(|| overflow(0)).unwrap().join();
        }
        "fault" => drop(spawn(fault).join()),
        "fault in a thread" => drop(thread::spawn(fault).join()),
        "handler after" => {
            install_handler();
            let _ = spawn(fault).join();
        }
        "handler before" => drop(spawn(fault).join()),
        _ => unreachable!("{job}"),
    }
    unreachable!("{job} is survived");
}

#[test]
fn an_overflow_names_coroutine_and_stack_size() {
    let output = play("coroutine");
    assert_eq!(Some(libc::SIGABRT), output.status.signal());
    let errors = errors(&output);
    assert!(
        errors.contains("coroutine 'deep' has overflowed its stack ("),
        "{errors}"
    );
    let size = errors.split("its stack (").nth(1).unwrap();
    let size: usize = size.split(' ').next().unwrap().parse().unwrap();
    assert!((256 * 1024..300 * 1024).contains(&size), "{size}");
}

#[test]
fn an_overflow_of_an_added_segment_is_reported_too() {
    let output = play("segment");
    assert_eq!(Some(libc::SIGABRT), output.status.signal());
    let errors = errors(&output);
    assert!(
        errors.contains("coroutine 'grown' has overflowed its stack ("),
        "{errors}"
    );
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer reports it")]
fn an_overflow_of_a_thread_is_reported_by_std() {
    let output = play("thread");
    assert_eq!(Some(libc::SIGABRT), output.status.signal());
    let errors = errors(&output);
    assert!(errors.contains("thread 'a thread'"), "{errors}");
    assert!(errors.contains("has overflowed its stack"), "{errors}");
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer reports it")]
fn any_other_fault_kills_the_process_silently() {
    for job in ["fault", "fault in a thread"] {
        let output = play(job);
        assert_eq!(Some(libc::SIGSEGV), output.status.signal(), "{job}");
        let errors = errors(&output);
        assert!(!errors.contains("overflowed"), "{job}: {errors}");
    }
}

#[test]
fn a_handler_of_the_user_gets_the_faults() {
    for job in ["handler before", "handler after"] {
        assert_eq!(Some(77), play(job).status.code(), "{job}");
    }
}
