//! A process that is stopped and goes on: its clock has jumped, and nothing is lost.

mod child;
mod flows;
mod runtimes;

use std::env;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flows::{Random, receive, send};
use open_coroutine::{Config, spawn};
use runtimes::on_every_driver_as;

/// Tells the stopped process how many workers to have.
const VARIABLE: &str = "OPEN_COROUTINE_STOPPED";

/// The load goes on until then.
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// How often each part of it has come around.
static ROUNDS: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];

fn repeat(part: usize, mut round: impl FnMut()) {
    while !IS_OVER.load(SeqCst) {
        round();
        ROUNDS[part].fetch_add(1, SeqCst);
    }
}

fn transfers() {
    repeat(0, || {
        let (one, other) = UnixStream::pair().unwrap();
        let fd = one.as_raw_fd();
        let sender = spawn(move || send(fd, 100_000, Random::new(3)));
        assert_eq!(100_000, receive(other.as_raw_fd(), Random::new(4)));
        sender.join().unwrap();
        drop(one);
    });
}

fn sleeps() {
    repeat(1, || {
        let begin = Instant::now();
        thread::sleep(Duration::from_millis(1));
        assert!(begin.elapsed() >= Duration::from_millis(1));
    });
}

/// Ends by its time, never before it, however long the process was stopped.
fn timeouts() {
    let (mut one, _other) = UnixStream::pair().unwrap();
    let limit = Duration::from_millis(3);
    one.set_read_timeout(Some(limit)).unwrap();
    repeat(2, || {
        let begin = Instant::now();
        let error = one.read(&mut [0]).unwrap_err();
        assert_eq!(io::ErrorKind::WouldBlock, error.kind());
        assert!(begin.elapsed() >= limit);
    });
}

/// A coroutine and a thread in turn.
fn words() {
    let (to_thread, from_task) = mpsc::channel::<u32>();
    let (to_task, from_thread) = mpsc::channel();
    let thread = thread::spawn(move || {
        for word in from_task {
            to_task.send(word + 1).unwrap();
        }
    });
    repeat(3, || {
        to_thread.send(7).unwrap();
        assert_eq!(Ok(8), from_thread.recv());
    });
    drop(to_thread);
    thread.join().unwrap();
}

fn files() {
    let path = env::temp_dir().join(format!("open-coroutine-stopped-{}", std::process::id()));
    repeat(4, || {
        std::fs::write(&path, "bytes").unwrap();
        assert_eq!(b"bytes", &*std::fs::read(&path).unwrap());
    });
    std::fs::remove_file(&path).unwrap();
}

/// The process that is stopped.
#[test]
fn load() {
    let Ok(workers) = env::var(VARIABLE) else {
        return;
    };
    let workers = workers.parse().unwrap();
    // Each driver has the load until the next line.
    let config = Config::default().event_loop_size(workers);
    on_every_driver_as(&config, move || {
        IS_OVER.store(false, SeqCst);
        let parts: [fn(); 5] = [transfers, sleeps, timeouts, words, files];
        let tasks: Vec<_> = parts.into_iter().map(spawn).collect();
        println!("ready");
        // Of standard input a thread would wait for, so here one does.
        let wait = || io::stdin().read_line(&mut String::new()).unwrap();
        assert_ne!(0, thread::spawn(wait).join().unwrap());
        IS_OVER.store(true, SeqCst);
        for task in tasks {
            task.join().unwrap();
        }
        assert!(ROUNDS.iter().all(|rounds| rounds.swap(0, SeqCst) > 0));
    });
}

/// How often a load is stopped.
fn stops() -> usize {
    match env::var("OPEN_COROUTINE_FAULTS").as_deref() {
        Ok("all") => 1000,
        _ => 20,
    }
}

fn stop_under_load(command: &mut Command) {
    use std::io::{BufRead, BufReader, Write};
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let id = process.id() as libc::pid_t;
    // SAFETY: takes integers; the process is our child.
    let send = |signal| assert_eq!(0, unsafe { libc::kill(id, signal) });
    let mut input = process.stdin.take().unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let mut random = Random::new(u64::from(process.id()));
    for line in output.lines() {
        let line = line.unwrap();
        if !line.ends_with("ready") {
            continue;
        }
        for _ in 0..stops() {
            thread::sleep(Duration::from_micros(random.below(5000) as u64));
            send(libc::SIGSTOP);
            thread::sleep(Duration::from_micros(random.below(10_000) as u64));
            send(libc::SIGCONT);
        }
        // Longer than anything that is waited for.
        send(libc::SIGSTOP);
        thread::sleep(Duration::from_millis(100));
        send(libc::SIGCONT);
        thread::sleep(Duration::from_millis(20));
        input.write_all(b"next\n").unwrap();
    }
    let status = process.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_process_that_is_stopped_again_and_again_goes_on() {
    for workers in ["1", "2"] {
        stop_under_load(child::command("load").env(VARIABLE, workers));
    }
}
