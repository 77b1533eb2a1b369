//! A wall clock that is set, as by an administrator or a time server.
//!
//! Setting it for the whole machine is no test's business. Here the program's own
//! `clock_gettime` takes the place of libc's, for std and the runtime too, and adds
//! what the test says.

mod child;
mod runtimes;

use std::env;
use std::ffi::c_int;
use std::io::{self, Read};
use std::mem;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use open_coroutine::{park_timeout, sleep, spawn};
use runtimes::{on_every_driver, on_every_runtime};

/// What is added to the wall clock, in seconds.
static STEP: AtomicI64 = AtomicI64::new(0);
const DAY: i64 = 24 * 60 * 60;

/// # Safety
///
/// The contract of `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let result = libc::syscall(libc::SYS_clock_gettime, clock, time);
        if result == 0 && clock == libc::CLOCK_REALTIME {
            (*time).tv_sec += STEP.load(SeqCst);
        }
        result as c_int
    }
}

/// The wall clock in `limit`.
fn at(limit: Duration) -> libc::timespec {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let at = since + limit;
    libc::timespec {
        tv_sec: at.as_secs() as libc::time_t,
        tv_nsec: at.subsec_nanos().into(),
    }
}

const LIMIT: Duration = Duration::from_millis(5);

fn wait_for_semaphore() {
    // SAFETY: the semaphore stays where it is, and the time lives across the call.
    unsafe {
        let mut semaphore: libc::sem_t = mem::zeroed();
        assert_eq!(0, libc::sem_init(&raw mut semaphore, 0, 0));
        assert_eq!(-1, libc::sem_timedwait(&raw mut semaphore, &at(LIMIT)));
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!(Some(libc::ETIMEDOUT), error);
    }
}

fn wait_for_condition() {
    // SAFETY: the objects stay where they are, and the time lives across the call.
    unsafe {
        let mut mutex: libc::pthread_mutex_t = libc::PTHREAD_MUTEX_INITIALIZER;
        let mut condition: libc::pthread_cond_t = libc::PTHREAD_COND_INITIALIZER;
        assert_eq!(0, libc::pthread_mutex_lock(&raw mut mutex));
        loop {
            let end = at(LIMIT);
            match libc::pthread_cond_timedwait(&raw mut condition, &raw mut mutex, &end) {
                0 => {}
                result => break assert_eq!(libc::ETIMEDOUT, result),
            }
        }
        assert_eq!(0, libc::pthread_mutex_unlock(&raw mut mutex));
    }
}

fn wait_for_stream() {
    let (mut one, _other) = UnixStream::pair().unwrap();
    one.set_read_timeout(Some(LIMIT)).unwrap();
    let error = one.read(&mut [0]).unwrap_err();
    assert_eq!(io::ErrorKind::WouldBlock, error.kind());
}

/// Waits for a point in the time of the wall clock. The first one follows it when it
/// is set meanwhile, as a thread's would; the other one does not.
const POINTS: [fn(); 2] = [wait_for_semaphore, wait_for_condition];

/// Waits for a length of time.
const LENGTHS: [fn(); 5] = [
    || thread::sleep(LIMIT),
    || park_timeout(LIMIT),
    || {
        let (_sender, receiver) = mpsc::channel::<()>();
        let error = receiver.recv_timeout(LIMIT).unwrap_err();
        assert_eq!(mpsc::RecvTimeoutError::Timeout, error);
    },
    || {
        let mutex = Mutex::new(());
        let never = |_: &mut ()| true;
        let guard = mutex.lock().unwrap();
        let waited = Condvar::new().wait_timeout_while(guard, LIMIT, never);
        assert!(waited.unwrap().1.timed_out());
    },
    wait_for_stream,
];

#[test]
fn a_step_of_the_wall_clock_neither_prolongs_nor_cuts_a_wait() {
    on_every_runtime(|| {
        // At the beginning of some waits, in the middle of others; there and back.
        for step in [DAY, -DAY, 400 * DAY, 0] {
            let begin = Instant::now();
            let others = POINTS.into_iter().skip(1);
            let before: Vec<_> = LENGTHS.into_iter().chain(others).map(spawn).collect();
            sleep(LIMIT / 2);
            STEP.store(step, SeqCst);
            let after: Vec<_> = POINTS.into_iter().chain(LENGTHS).map(spawn).collect();
            for task in before.into_iter().chain(after) {
                task.join().unwrap();
            }
            let elapsed = begin.elapsed();
            assert!(elapsed >= LIMIT, "{elapsed:?}");
            assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
        }
    });
}

/// Runs where the machine's clocks count from somewhere else.
const VARIABLE: &str = "OPEN_COROUTINE_CLOCKS";

#[test]
fn elsewhere() {
    if env::var_os(VARIABLE).is_some() {
        on_every_driver(1, || {
            let waits: Vec<_> = POINTS.into_iter().chain(LENGTHS).map(spawn).collect();
            for wait in waits {
                wait.join().unwrap();
            }
        });
    }
}

#[test]
fn monotonic_clocks_may_count_from_anywhere() {
    let seconds = (400 * DAY).to_string();
    let mut unshare = Command::new("unshare");
    unshare.args(["--time", "--monotonic", &seconds, "--boottime", &seconds]);
    match Command::new("unshare").args(["--time", "true"]).output() {
        Ok(output) if output.status.success() => {}
        result => return eprintln!("skipped: no time namespaces here: {result:?}"),
    }
    let program = env::current_exe().unwrap();
    let child = unshare.arg(program).args(["--exact", "elsewhere"]);
    let status = child.env(VARIABLE, "1").status().unwrap();
    assert!(status.success(), "{status}");
}
