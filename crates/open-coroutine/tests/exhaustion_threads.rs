//! When no more threads can be started, calls that need one are made by the
//! worker if they end by themselves, and wait for one if they do not.

mod child;
mod limits;
mod runtimes;
mod workload;

use std::fs::File;
use std::net::ToSocketAddrs;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use limits::Limit;
use open_coroutine::{
    Config, Driver, InitError, init, shutdown, sleep, spawn, unblock, without_hooks,
};
use runtimes::on_every_runtime;
use workload::works;

/// Becomes a user whom the limit concerns, and lets him start no thread.
fn no_more_threads() -> Limit {
    // SAFETY: changes the user of this process, if it may.
    unsafe {
        if libc::geteuid() == 0 {
            // So that this can be done once more.
            assert_eq!(0, libc::setresuid(54_321, 54_321, 0));
        }
    }
    let limit = Limit::lower(libc::RLIMIT_NPROC, 0);
    assert!(thread::Builder::new().spawn(|| ()).is_err());
    limit
}

fn lock(file: &File) {
    // SAFETY: waits for a lock.
    assert_eq!(0, unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) });
}

#[test]
fn calls_that_end_by_themselves_are_made_all_the_same() {
    child::succeeds("calls_that_end_by_themselves_are_made_all_the_same", || {
        on_every_runtime(|| {
            let limit = no_more_threads();
            ("localhost", 1).to_socket_addrs().unwrap();
            assert!(std::fs::read("/proc/self/stat").is_ok());
            assert_eq!(4, unblock(|| 2 + 2));
            let panic = spawn(|| unblock(|| std::panic::resume_unwind(Box::new(7))));
            assert!(panic.join().unwrap_err().is_panic());
            drop(limit);
            works();
        });
    });
}

/// `N` descriptions of one file, each of which can have the lock.
fn descriptions<const N: usize>() -> [File; N] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "open-coroutine-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Relaxed)
    );
    let path = std::env::temp_dir().join(name);
    let files = [(); N].map(|()| File::create(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    files
}

#[test]
fn calls_that_wait_for_others_wait_for_a_thread_too() {
    child::succeeds("calls_that_wait_for_others_wait_for_a_thread_too", || {
        on_every_runtime(|| {
            let [first, second, third] = descriptions();
            without_hooks(|| lock(&first));
            let limit = no_more_threads();
            // These need a thread each, and the one who is to help them the worker.
            let waiters = [second, third].map(|file| spawn(move || lock(&file)));
            let device = spawn(|| File::open("/dev/null"));
            for _ in 0..20 {
                sleep(Duration::from_millis(1));
            }
            assert!(!waiters.iter().any(|waiter| waiter.is_finished()));
            drop(first);
            drop(limit);
            device.join().unwrap().unwrap();
            for waiter in waiters {
                waiter.join().unwrap();
            }
            works();
        });
    });
}

#[test]
fn nobody_waits_behind_one_who_waits_for_him() {
    child::succeeds("nobody_waits_behind_one_who_waits_for_him", || {
        on_every_runtime(|| {
            let ([held, wanted], [other, free]) = (descriptions(), descriptions());
            without_hooks(|| lock(&held));
            let waiter = spawn(move || lock(&wanted));
            // By then a thread of the pool waits for the lock.
            sleep(Duration::from_millis(10));
            let limit = no_more_threads();
            let opener = spawn(move || {
                lock(&free);
                drop(held);
            });
            sleep(Duration::from_millis(10));
            drop(other);
            drop(limit);
            opener.join().unwrap();
            waiter.join().unwrap();
            works();
        });
    });
}

#[test]
fn a_child_is_awaited_as_soon_as_there_is_a_thread() {
    child::succeeds("a_child_is_awaited_as_soon_as_there_is_a_thread", || {
        on_every_runtime(|| {
            let mut child = Command::new("sleep").arg("0.05").spawn().unwrap();
            let limit = no_more_threads();
            let waiter = spawn(move || child.wait());
            sleep(Duration::from_millis(100));
            drop(limit);
            assert_eq!(0, waiter.join().unwrap().unwrap().into_raw());
        });
    });
}

#[test]
fn a_runtime_without_threads_says_so_and_starts_later() {
    child::succeeds("a_runtime_without_threads_says_so_and_starts_later", || {
        for driver in [None, Some(Driver::IoUring), Some(Driver::Epoll)] {
            let limit = no_more_threads();
            let mut config = Config::default();
            if let Some(driver) = driver {
                config = config.driver(driver);
            }
            let error = init(config.clone()).unwrap_err();
            drop(limit);
            let (InitError::Worker(cause) | InitError::Driver(cause)) = &error else {
                panic!("{error:?}");
            };
            assert!(cause.to_string().contains("thread"), "{cause}");
            init(config).unwrap();
            assert_eq!(
                open_coroutine::Mode::Full,
                open_coroutine::capabilities().mode
            );
            works();
            shutdown().unwrap();
        }
    });
}
