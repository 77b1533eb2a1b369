//! Waiting costs nothing.

mod runtimes;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use runtimes::on_every_runtime;

const PAIRS: usize = 5000;

/// Allows as many descriptors as the system lets us.
fn raise_limit() {
    // SAFETY: the limit is filled in, changed and read within this frame.
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        assert_eq!(0, libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit));
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(0, libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit));
        assert!(
            limit.rlim_cur > 2 * PAIRS as u64 + 100,
            "ulimit -n is too low"
        );
    }
}

/// How often the process's threads, this one left out, have gone to sleep.
fn sleeps() -> u64 {
    // SAFETY: takes nothing.
    let own = unsafe { libc::syscall(libc::SYS_gettid) };
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    ids.filter(|id| *id != own.to_string())
        .filter_map(|id| fs::read_to_string(format!("/proc/self/task/{id}/status")).ok())
        .map(|status| {
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary"))
                .unwrap();
            line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

/// Counts on a thread of its own, which is no part of the runtime, so that
/// counting wakes nobody.
fn sleeps_in(period: Duration) -> u64 {
    let counter = thread::spawn(move || {
        // Whatever led here has to come to rest first.
        thread::sleep(Duration::from_millis(300));
        let before = sleeps();
        thread::sleep(period);
        sleeps() - before
    });
    counter.join().unwrap()
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn ten_thousand_idle_ends_cause_no_wake_ups() {
    raise_limit();
    on_every_runtime(|| {
        let mut writers = Vec::new();
        let readers: Vec<_> = (0..PAIRS)
            .map(|_| {
                let (mut reader, writer) = UnixStream::pair().unwrap();
                writers.push(writer);
                open_coroutine::spawn(move || {
                    let mut bytes = [0; 8];
                    let count = reader.read(&mut bytes).unwrap();
                    // Some wait in a second way.
                    reader
                        .set_read_timeout(Some(Duration::from_secs(3600)))
                        .unwrap();
                    let end = reader.read(&mut bytes[count..]);
                    (count, end.map_err(|error| error.kind()))
                })
            })
            .collect();
        let count = sleeps_in(Duration::from_secs(2));
        assert!(count <= 10, "{count} wake-ups of readers");
        for writer in &mut writers {
            writer.write_all(b"1234").unwrap();
        }
        let count = sleeps_in(Duration::from_secs(1));
        assert!(count <= 10, "{count} wake-ups of readers with a time limit");
        drop(writers);
        for reader in readers {
            assert_eq!((4, Ok::<_, ErrorKind>(0)), reader.join().unwrap());
        }
    });
}
