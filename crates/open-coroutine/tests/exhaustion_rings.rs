//! More operations in flight than the kernel's queues hold, more that end at once,
//! and more that are cancelled at once.

mod child;
mod runtimes;
mod workload;

use std::io::{PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use open_coroutine::{JoinHandle, sleep, spawn, yield_now};
use runtimes::on_every_runtime;
use workload::works;

/// More than the completion queue of a ring holds.
const MANY: usize = 20_000;

fn poll(fd: RawFd, timeout: i32) -> i32 {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is alive for the call.
    unsafe { libc::poll(&raw mut entry, 1, timeout) }
}

/// Coroutines that all wait for one descriptor, or are just about to.
fn many_polls(fd: RawFd, timeout: i32) -> Vec<JoinHandle<i32>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let polls = (0..MANY)
        .map(|_| {
            let begun = begun.clone();
            spawn(move || {
                begun.fetch_add(1, SeqCst);
                poll(fd, timeout)
            })
        })
        .collect();
    while begun.load(SeqCst) < MANY {
        sleep(Duration::from_millis(1));
    }
    polls
}

fn all_return(polls: Vec<JoinHandle<i32>>, expected: i32) {
    for poll in polls {
        assert_eq!(expected, poll.join().unwrap());
    }
}

fn write(mut writer: PipeWriter) {
    writer.write_all(b"x").unwrap();
}

#[test]
fn more_operations_end_at_once_than_the_completion_queue_holds() {
    child::succeeds(
        "more_operations_end_at_once_than_the_completion_queue_holds",
        || {
            on_every_runtime(|| {
                let (reader, writer) = pipe().unwrap();
                let polls = many_polls(reader.as_raw_fd(), -1);
                write(writer);
                // Nobody looks at the queue meanwhile, if there is one worker.
                let end = Instant::now() + Duration::from_millis(100);
                while Instant::now() < end {}
                all_return(polls, 1);
                works();
            });
        },
    );
}

#[test]
fn more_time_outs_come_at_once_than_the_submission_queue_holds() {
    child::succeeds(
        "more_time_outs_come_at_once_than_the_submission_queue_holds",
        || {
            on_every_runtime(|| {
                let (reader, _writer) = pipe().unwrap();
                all_return(many_polls(reader.as_raw_fd(), 300), 0);
                works();
            });
        },
    );
}

#[test]
fn a_close_ends_more_waits_than_the_submission_queue_holds() {
    child::succeeds(
        "a_close_ends_more_waits_than_the_submission_queue_holds",
        || {
            on_every_runtime(|| {
                let (reader, _writer) = pipe().unwrap();
                let polls = many_polls(reader.as_raw_fd(), 10_000);
                drop(reader);
                // `poll` tells of a closed descriptor in its answer. One that begins
                // while the descriptor is closed may hear nothing of that, as on a
                // thread.
                let answers = polls.into_iter().map(|poll| poll.join().unwrap());
                let outlasting = answers
                    .inspect(|answer| assert!([0, 1].contains(answer), "{answer}"))
                    .filter(|answer| *answer == 0)
                    .count();
                assert!(outlasting < MANY / 100, "{outlasting} do not end");
                works();
            });
        },
    );
}

#[test]
fn results_that_come_while_a_coroutine_computes_are_not_lost() {
    child::succeeds(
        "results_that_come_while_a_coroutine_computes_are_not_lost",
        || {
            on_every_runtime(|| {
                for round in 0..5 {
                    let pipes: Vec<_> = (0..200).map(|_| pipe().unwrap()).collect();
                    let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
                    let reads: Vec<_> = readers
                        .into_iter()
                        .map(|mut reader| {
                            spawn(move || {
                                let mut sum = 0;
                                let mut byte = [0];
                                while reader.read(&mut byte).unwrap() == 1 {
                                    sum += u32::from(byte[0]);
                                }
                                sum
                            })
                        })
                        .collect();
                    yield_now();
                    let writes = writers.into_iter().map(|mut writer| {
                        spawn(move || {
                            for _ in 0..50 {
                                writer.write_all(&[3]).unwrap();
                            }
                        })
                    });
                    let writes: Vec<_> = writes.collect();
                    let end = Instant::now() + Duration::from_millis(20 * round);
                    while Instant::now() < end {}
                    for write in writes {
                        write.join().unwrap();
                    }
                    for read in reads {
                        assert_eq!(150, read.join().unwrap());
                    }
                }
                works();
            });
        },
    );
}
