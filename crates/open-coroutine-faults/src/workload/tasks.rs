//! Tasks, stacks, timers, locks, threads and processes.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{
    StackError, capabilities, maybe_grow, park_timeout, sleep, without_hooks, yield_now,
};

use super::{Outcome, Patient, beside, check, spawn, tried};

/// Many tasks at once, on both workers.
pub(super) fn tasks() -> Outcome {
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            spawn("task", || {
                yield_now();
                sleep(Duration::from_micros(200));
                7
            })
        })
        .collect::<Result<_, _>>()?;
    let mut sum = 0;
    for task in tasks {
        sum += task.join()?;
    }
    check(sum == 280, "a task has returned something else")
}

/// Waits that end by their deadline.
pub(super) fn timers() -> Outcome {
    let begin = Instant::now();
    thread::sleep(Duration::from_millis(2));
    park_timeout(Duration::from_millis(1));
    check(
        begin.elapsed() >= Duration::from_millis(2),
        "a sleep was too short",
    )?;
    let (_sender, receiver) = mpsc::channel::<()>();
    let result = receiver.recv_timeout(Duration::from_millis(1));
    check(
        result == Err(mpsc::RecvTimeoutError::Timeout),
        "a receive has not timed out",
    )
}

/// Segments and stacks that no pool has yet, and that are given back.
pub(super) fn stacks() -> Outcome {
    for size in [256 << 10, 4 << 20] {
        let sum = tried("maybe_grow", || -> Result<u8, StackError> {
            maybe_grow!(size, size, || {
                let page = std::hint::black_box([1u8; 4096]);
                page[17] + page[4000]
            })
        })?;
        check(sum == 2, "a segment has other bytes")?;
    }
    // Until what is idle has been trimmed.
    sleep(Duration::from_millis(5));
    Ok(())
}

/// Coroutines and a thread that wait for each other.
pub(super) fn locks() -> Outcome {
    let shared = Arc::new((Mutex::new(0), Condvar::new()));
    let other = shared.clone();
    let rounds = 20;
    let turns = move |shared: &(Mutex<u32>, Condvar), parity: u32| {
        for _ in 0..rounds {
            let mut turn = shared.0.lock().expect("nobody panics with it");
            while *turn % 2 != parity {
                turn = shared.1.wait(turn).expect("nobody panics with it");
            }
            *turn += 1;
            shared.1.notify_all();
        }
    };
    beside(
        move || {
            turns(&other, 0);
            Ok(())
        },
        || {
            turns(&shared, 1);
            Ok(())
        },
    )?;
    let turn = *shared.0.lock().expect("nobody panics with it");
    check(turn == 2 * rounds, "a turn was lost")
}

/// Words back and forth between a coroutine and a thread.
pub(super) fn threads() -> Outcome {
    let (to_thread, from_task) = mpsc::channel::<u32>();
    let (to_task, from_thread) = mpsc::channel();
    let counted = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Barrier::new(2));
    let (count, opened) = (counted.clone(), gate.clone());
    let body = move || {
        opened.wait();
        for word in from_task {
            count.fetch_add(1, SeqCst);
            if to_task.send(word + 1).is_err() {
                break;
            }
        }
    };
    // A thread that does not start takes its closure along; so it is left outside.
    let body = Arc::new(Mutex::new(Some(body)));
    let thread = tried("thread", || {
        let body = body.clone();
        thread::Builder::new().spawn(move || {
            let body = body.lock().ok().and_then(|mut body| body.take());
            body.expect("one thread starts")();
        })
    })?;
    gate.wait();
    for word in 0..20 {
        to_thread.send(word)?;
        check(from_thread.recv()? == word + 1, "another word came back")?;
    }
    drop(to_thread);
    let joined = thread.join();
    check(
        joined.is_ok() && counted.load(SeqCst) == 20,
        "the thread has counted others",
    )
}

/// A coroutine that computes, beside one that is due again and again.
pub(super) fn hogs() -> Outcome {
    if !capabilities().preemptive {
        return Ok(());
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let until = is_over.clone();
    let computes = move || {
        while !until.load(SeqCst) {
            std::hint::spin_loop();
        }
        Ok(())
    };
    beside(computes, || {
        for _ in 0..3 {
            sleep(Duration::from_millis(1));
        }
        is_over.store(true, SeqCst);
        Ok(())
    })
}

/// A coroutine that blocks its thread, from which another one takes over. Once in a
/// process, since it takes a while.
pub(super) fn blockers() -> Outcome {
    static HAS_BLOCKED: AtomicBool = AtomicBool::new(false);
    if HAS_BLOCKED.swap(true, SeqCst) {
        return Ok(());
    }
    let blocks = || {
        without_hooks(|| thread::sleep(Duration::from_millis(40)));
        Ok(())
    };
    beside(blocks, || {
        for _ in 0..3 {
            sleep(Duration::from_millis(1));
        }
        Ok(())
    })
}

/// A child process, and what it has written.
pub(super) fn processes() -> Outcome {
    let mut child = tried("process", || {
        Command::new("/bin/sh")
            .args(["-c", "echo child"])
            .stdout(Stdio::piped())
            .spawn()
    })?;
    let mut output = Vec::new();
    // `Command::output` panics where this would be an error.
    Patient(child.stdout.take().expect("piped")).read_to_end(&mut output)?;
    let status = tried("wait", || child.wait())?;
    check(
        status.success() && output == b"child\n",
        "a child has written something else",
    )
}

/// The set of the signal that the child waits for, and that all its threads block.
pub(crate) fn awaited_signals() -> libc::sigset_t {
    // SAFETY: `sigemptyset` makes a set of any bytes.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        set
    }
}

/// A signal that a coroutine waits for.
pub(super) fn signals() -> Outcome {
    let body = || {
        let set = awaited_signals();
        let limit = libc::timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        tried("sigtimedwait", || {
            // SAFETY: the set and the limit are alive for the call.
            match unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), &limit) } {
                -1 => Err(io::Error::last_os_error()),
                signal => Ok(signal),
            }
        })
        .map_err(Into::into)
    };
    let signal = beside(body, || {
        yield_now();
        // SAFETY: every thread blocks it.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR2) };
        Ok(())
    })?;
    check(signal == libc::SIGUSR2, "another signal came")
}
