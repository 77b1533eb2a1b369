//! What a program with `#[open_coroutine::main]` makes of signals to its process.
//!
//! This test has no harness of cargo's, whose threads would take the signals: it
//! runs itself with an argument for each case.

mod posix_signals;

use std::env;
use std::ffi::c_int;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{JoinHandle, spawn, yield_now};
use posix_signals::*;

/// Says which case the program is to play.
const CASE: &str = "OPEN_COROUTINE_TEST_CASE";
const WORKERS: &str = "OPEN_COROUTINE_TEST_WORKERS";

#[open_coroutine::main(
    event_loop_size = env::var(WORKERS).map_or(1, |workers| workers.parse().unwrap()),
)]
fn main() {
    match env::var(CASE) {
        Err(_) => run_all(),
        Ok(name) => {
            let is_played = CASES.iter().find(|(case, ..)| *case == name);
            let (_, _, play) = is_played.expect("a known case");
            play();
        }
    }
}

/// Name, the signal that the parent sends when the case says that it is ready, and
/// what is played.
type Case = (&'static str, Option<c_int>, fn());

const CASES: [Case; 9] = [
    ("all_wait", Some(libc::SIGTERM), all_wait),
    ("one_computes", Some(libc::SIGTERM), one_computes),
    ("at_once", None, at_once),
    ("after_a_join", None, after_a_join),
    ("pending_at_the_end", None, pending_at_the_end),
    ("a_handler_writes", Some(libc::SIGINT), a_handler_writes),
    ("only_main_unblocks", Some(libc::SIGINT), only_main_unblocks),
    ("processes_inherit", None, processes_inherit),
    ("credentials_change", None, credentials_change),
];

fn run_all() {
    for driver in ["io_uring", "epoll"] {
        for workers in ["1", "2"] {
            for (case, signal, _) in CASES {
                let mut command = Command::new(env::current_exe().unwrap());
                command
                    .env(CASE, case)
                    .env(WORKERS, workers)
                    .env("OPEN_COROUTINE_DRIVER", driver)
                    .stdout(Stdio::piped());
                succeeds(command.spawn().unwrap(), signal);
                println!("test {case} ({driver}, {workers} workers) ... ok");
            }
        }
    }
}

fn succeeds(mut child: Child, signal: Option<c_int>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if let Some(signal) = signal {
        assert_eq!("ready", lines.next().unwrap().unwrap());
        // SAFETY: takes integers; nobody has waited for the child yet.
        assert_eq!(0, unsafe { libc::kill(child.id() as i32, signal) });
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// Tasks that wait, each in its own way, until the sender is gone.
fn waiting() -> (Vec<JoinHandle<()>>, Vec<Sender<()>>) {
    let start = |_| {
        let (sender, receiver) = channel::<()>();
        let wait = move || {
            assert!(is_blocked(libc::SIGTERM));
            receiver.recv().unwrap_err();
            assert!(is_blocked(libc::SIGTERM));
        };
        (spawn(wait), sender)
    };
    (0..4).map(start).unzip()
}

fn end((tasks, senders): (Vec<JoinHandle<()>>, Vec<Sender<()>>)) {
    drop(senders);
    for task in tasks {
        task.join().unwrap();
    }
}

fn wait_for_sigterm() {
    let (set, mut taken) = (set_of(&[libc::SIGHUP, libc::SIGTERM]), 0);
    // SAFETY: reads a set, writes an integer.
    assert_eq!(0, unsafe { libc::sigwait(&raw const set, &raw mut taken) });
    assert_eq!(libc::SIGTERM, taken);
}

/// Has a thread of the pool run, if the driver cannot do this.
fn use_the_pool() {
    assert!(!fs::read("/proc/self/stat").unwrap().is_empty());
    assert!(fs::metadata("/").unwrap().is_dir());
}

fn all_wait() {
    block(&[libc::SIGTERM, libc::SIGHUP]);
    let tasks = waiting();
    use_the_pool();
    let late = spawn(|| thread::sleep(Duration::from_millis(20)));
    println!("ready");
    late.join().unwrap();
    wait_for_sigterm();
    end(tasks);
}

fn one_computes() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    block(&[libc::SIGTERM]);
    let tasks = waiting();
    let computing = spawn(|| {
        while !IS_OVER.load(SeqCst) {
            let until = Instant::now() + Duration::from_millis(1);
            while Instant::now() < until {}
            yield_now();
        }
        assert!(is_blocked(libc::SIGTERM));
    });
    println!("ready");
    wait_for_sigterm();
    IS_OVER.store(true, SeqCst);
    computing.join().unwrap();
    end(tasks);
}

fn at_once() {
    use_the_pool();
    block(&[libc::SIGTERM]);
    send_to_process(libc::SIGTERM);
    assert!(is_pending(libc::SIGTERM));
    let tasks = waiting();
    wait_for_sigterm();
    unblock(&[libc::SIGTERM]);
    assert!(!is_blocked(libc::SIGTERM));
    end(tasks);
}

fn after_a_join() {
    for _ in 0..10 {
        let tasks: Vec<_> = (0..8).map(|_| spawn(yield_now)).collect();
        for task in tasks {
            task.join().unwrap();
        }
        block(&[libc::SIGTERM]);
        send_to_process(libc::SIGTERM);
        spawn(|| assert!(is_blocked(libc::SIGTERM))).join().unwrap();
        wait_for_sigterm();
        unblock(&[libc::SIGTERM]);
        spawn(|| assert!(!is_blocked(libc::SIGTERM)))
            .join()
            .unwrap();
    }
}

fn pending_at_the_end() {
    block(&[libc::SIGTERM]);
    send_to_process(libc::SIGTERM);
    end(waiting());
}

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn write_number(signal: c_int) {
    let byte = signal as u8;
    // SAFETY: writes one byte, as handlers may.
    unsafe { libc::write(PIPE.load(SeqCst), (&raw const byte).cast(), 1) };
}

/// As the crate `ctrlc` does it: a coroutine reads what a handler writes.
fn handled_by_writing() -> (JoinHandle<u8>, PipeWriter) {
    let (mut reader, writer): (PipeReader, PipeWriter) = pipe().unwrap();
    PIPE.store(writer.as_raw_fd(), SeqCst);
    handle(libc::SIGINT, write_number, libc::SA_RESTART);
    let read = move || {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        byte[0]
    };
    (spawn(read), writer)
}

fn a_handler_writes() {
    block(&[libc::SIGTERM]);
    let tasks = waiting();
    let (reading, _writer) = handled_by_writing();
    println!("ready");
    assert_eq!(libc::SIGINT as u8, reading.join().unwrap());
    end(tasks);
}

/// Programs block everything while they start threads that are not to be
/// interrupted.
fn only_main_unblocks() {
    block(&[libc::SIGTERM, libc::SIGINT]);
    let tasks = waiting();
    let (reading, _writer) = handled_by_writing();
    unblock(&[libc::SIGINT]);
    println!("ready");
    assert_eq!(libc::SIGINT as u8, reading.join().unwrap());
    spawn(|| assert!(!is_blocked(libc::SIGINT))).join().unwrap();
    end(tasks);
}

fn blocks_sigterm_in_child() -> bool {
    let mut command = Command::new("grep");
    let output = command.args(["^SigBlk:", "/proc/self/status"]).output();
    let line = String::from_utf8(output.unwrap().stdout).unwrap();
    let (_, set) = line.trim().split_once(":\t").unwrap();
    u64::from_str_radix(set, 16).unwrap() >> (libc::SIGTERM - 1) & 1 == 1
}

fn processes_inherit() {
    assert!(!blocks_sigterm_in_child());
    block(&[libc::SIGTERM]);
    assert!(blocks_sigterm_in_child());
    let task = spawn(|| {
        assert!(blocks_sigterm_in_child());
        unblock(&[libc::SIGTERM]);
        assert!(!blocks_sigterm_in_child());
    });
    task.join().unwrap();
    assert!(blocks_sigterm_in_child());
    // SAFETY: the child exits at once.
    unsafe {
        match libc::fork() {
            0 => {
                unblock(&[libc::SIGTERM]);
                libc::_exit(c_int::from(is_blocked(libc::SIGTERM)));
            }
            pid => {
                let mut status = 0;
                assert_eq!(pid, libc::waitpid(pid, &raw mut status, 0));
                assert_eq!(0, status);
            }
        }
    }
    assert!(is_blocked(libc::SIGTERM));
}

fn credentials_change() {
    use_the_pool();
    block(&[libc::SIGTERM]);
    let tasks = waiting();
    let change = || {
        for _ in 0..200 {
            // SAFETY: sets what is set already.
            assert_eq!(0, unsafe { libc::setegid(libc::getegid()) });
        }
    };
    thread::spawn(change).join().unwrap();
    end(tasks);
}
