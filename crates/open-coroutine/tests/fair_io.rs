//! Who always finds data ready lets the others of its worker run all the same.

mod runtimes;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use open_coroutine::spawn;
use runtimes::on_every_runtime;

/// Calls `read` until another coroutine has run.
fn until_another_runs(mut read: impl FnMut()) {
    let has_run = Arc::new(AtomicBool::new(false));
    let mark = has_run.clone();
    let other = spawn(move || mark.store(true, SeqCst));
    let mut reads = 0;
    while !has_run.load(SeqCst) {
        read();
        reads += 1;
        assert!(reads < 10_000_000, "the other one never runs");
    }
    other.join().unwrap();
}

#[test]
fn a_reader_of_what_is_in_memory_is_not_alone() {
    on_every_runtime(|| {
        let mut zeroes = File::open("/dev/zero").unwrap();
        until_another_runs(|| zeroes.read_exact(&mut [0; 16]).unwrap());
        let mut program = File::open("/proc/self/exe").unwrap();
        until_another_runs(|| {
            program.read_exact_at(&mut [0; 16], 0).unwrap();
        });
        until_another_runs(|| program.read_exact(&mut [0]).unwrap());
    });
}

#[test]
fn who_asks_a_nonblocking_socket_again_and_again_is_not_alone() {
    on_every_runtime(|| {
        let (mut one, _other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        until_another_runs(|| {
            let error = one.read(&mut [0]).unwrap_err();
            assert_eq!(ErrorKind::WouldBlock, error.kind());
        });
    });
}
