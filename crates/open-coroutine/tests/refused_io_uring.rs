//! Where io_uring is refused, epoll takes over, and `capabilities` says why.

use std::env;
use std::io::{Read, Write};
use std::mem::offset_of;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::ptr;

use open_coroutine::{Config, Driver, InitError, capabilities, init, spawn};

/// Says what the child process is to do.
const VARIABLE: &str = "OPEN_COROUTINE_REFUSED";

/// Makes `io_uring_setup` fail with `EPERM` in this process, as the default
/// profiles of containers do.
fn forbid_io_uring() {
    let statement = |code: u32, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    };
    let is_setup = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number),
        is_setup,
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter are alive for the calls.
    unsafe {
        assert_eq!(0, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            0,
            libc::prctl(libc::PR_SET_SECCOMP, mode, ptr::from_ref(&program))
        );
    }
}

/// Runs this test program again, to do `job` in a process of its own.
fn in_a_child(job: &str) {
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(VARIABLE, job)
        .env_remove("OPEN_COROUTINE_DRIVER")
        .status()
        .unwrap();
    assert!(status.success(), "{job}: {status}");
}

#[test]
fn child() {
    let Ok(job) = env::var(VARIABLE) else { return };
    forbid_io_uring();
    match &*job {
        "fall back" => {
            assert_eq!(42, spawn(exchange).join().unwrap());
            let capabilities = capabilities();
            assert_eq!(Driver::Epoll, capabilities.driver);
            let reason = capabilities.no_uring.unwrap();
            assert!(reason.contains("seccomp"), "{reason}");
        }
        _ => {
            let result = init(Config::default().driver(Driver::IoUring));
            assert!(matches!(result, Err(InitError::Driver(_))), "{result:?}");
            // Nothing is left of the failed start.
            init(Config::default()).unwrap();
            assert_eq!(42, spawn(exchange).join().unwrap());
        }
    }
}

/// Has another coroutine send 42, and waits for it.
fn exchange() -> u8 {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let sender = spawn(move || other.write_all(&[42]).unwrap());
    let mut byte = [0];
    one.read_exact(&mut byte).unwrap();
    sender.join().unwrap();
    byte[0]
}

#[test]
fn epoll_takes_over_from_a_refused_io_uring() {
    in_a_child("fall back");
}

#[test]
fn a_driver_that_was_asked_for_and_is_refused_is_an_error() {
    in_a_child("ask for it");
}
