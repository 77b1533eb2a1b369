//! Who always finds data ready lets the others of its worker run all the same.

mod runtimes;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

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

#[test]
fn who_sleeps_for_moments_leaves_others_their_data() {
    on_every_runtime(|| {
        let (mut reader, mut writer) = UnixStream::pair().unwrap();
        let has_read = Arc::new(AtomicBool::new(false));
        let mark = has_read.clone();
        let other = spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            mark.store(true, SeqCst);
        });
        let (sender, begin) = mpsc::channel();
        let thread = thread::spawn(move || {
            begin.recv().unwrap();
            writer.write_all(b"x").unwrap();
        });
        let mut sleeps = 0;
        while !has_read.load(SeqCst) {
            thread::sleep(Duration::from_nanos(1));
            sleeps += 1;
            if sleeps == 100 {
                // By now the other one waits, and its data comes from outside.
                sender.send(()).unwrap();
            }
            assert!(sleeps < 1_000_000, "the other one never reads");
        }
        other.join().unwrap();
        thread.join().unwrap();
    });
}
