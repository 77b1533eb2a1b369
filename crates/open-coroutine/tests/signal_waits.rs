//! Waiting for signals suspends the coroutine only.
//!
//! The signals are blocked in every thread, as a program that waits for them
//! does before it starts threads. So each test has a process of its own, which
//! inherits the mask.

mod child;
mod posix_signals;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::FromRawFd;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::{JoinHandle, spawn, yield_now};
use posix_signals::*;
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

/// Runs `body` on every runtime of a child process whose threads all block
/// `signals`.
fn with_blocked(name: &str, signals: &[c_int], body: fn()) {
    block(signals);
    child::succeeds(name, || on_every_runtime(body));
}

fn sigwait(signals: &[c_int]) -> c_int {
    let (set, mut taken) = (set_of(signals), 0);
    // SAFETY: reads a set, writes an integer.
    assert_eq!(0, unsafe { libc::sigwait(&raw const set, &raw mut taken) });
    taken
}

/// What `sigtimedwait` returns, and the details.
fn sigtimedwait(signals: &[c_int], limit: Duration) -> io::Result<libc::siginfo_t> {
    let set = set_of(signals);
    let time = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: all-zero bytes are valid.
    let mut info = unsafe { mem::zeroed::<libc::siginfo_t>() };
    // SAFETY: reads a set and a time, writes the details.
    match unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const time) } {
        -1 => Err(io::Error::last_os_error()),
        signal => {
            assert_eq!(signal, info.si_signo);
            Ok(info)
        }
    }
}

/// Starts a coroutine, and sees to it that it waits.
fn waiting<R: Send + 'static>(
    ticker: &Ticker,
    wait: impl FnOnce() -> R + Send + 'static,
) -> JoinHandle<R> {
    let task = spawn(wait);
    ticker.wait();
    ticker.wait();
    assert!(!task.is_finished(), "it did not wait");
    task
}

#[test]
fn sigwait_is_woken_by_coroutines_and_threads() {
    let name = "sigwait_is_woken_by_coroutines_and_threads";
    with_blocked(name, &[libc::SIGUSR1, libc::SIGUSR2], || {
        let ticker = Ticker::start();
        for _ in 0..5 {
            let task = waiting(&ticker, || sigwait(&[libc::SIGUSR1, libc::SIGUSR2]));
            send_to_process(libc::SIGUSR1);
            assert_eq!(libc::SIGUSR1, task.join().unwrap());
            let task = waiting(&ticker, || sigwait(&[libc::SIGUSR1, libc::SIGUSR2]));
            thread::spawn(|| send_to_process(libc::SIGUSR2))
                .join()
                .unwrap();
            assert_eq!(libc::SIGUSR2, task.join().unwrap());
            // Pending before.
            send_to_process(libc::SIGUSR1);
            raise(libc::SIGUSR2);
            let signals = [libc::SIGUSR1, libc::SIGUSR2];
            let mut taken = [sigwait(&signals), sigwait(&signals)];
            taken.sort_unstable();
            assert_eq!(signals, taken);
        }
    });
}

#[test]
fn sigwaitinfo_tells_where_a_signal_came_from() {
    let name = "sigwaitinfo_tells_where_a_signal_came_from";
    with_blocked(name, &[libc::SIGUSR1], || {
        let ticker = Ticker::start();
        let task = waiting(&ticker, || {
            let set = set_of(&[libc::SIGUSR1]);
            // SAFETY: all-zero bytes are valid; reads a set, writes the details.
            unsafe {
                let mut info = mem::zeroed::<libc::siginfo_t>();
                assert_eq!(
                    libc::SIGUSR1,
                    libc::sigwaitinfo(&raw const set, &raw mut info)
                );
                (
                    info.si_code,
                    info.si_pid(),
                    info.si_value().sival_ptr as usize,
                )
            }
        });
        // SAFETY: has no requirements.
        let process = unsafe { libc::getpid() };
        let value = libc::sigval {
            sival_ptr: ptr::without_provenance_mut(42),
        };
        // SAFETY: to this process.
        assert_eq!(0, unsafe { libc::sigqueue(process, libc::SIGUSR1, value) });
        assert_eq!((libc::SI_QUEUE, process, 42), task.join().unwrap());
        raise(libc::SIGUSR1);
        // As glibc has it.
        let info = sigtimedwait(&[libc::SIGUSR1], Duration::ZERO).unwrap();
        assert_eq!(libc::SI_USER, info.si_code);
    });
}

#[test]
fn sigtimedwait_ends_in_time() {
    let name = "sigtimedwait_ends_in_time";
    with_blocked(name, &[libc::SIGUSR1], || {
        let ticker = Ticker::start();
        let limit = Duration::from_millis(20);
        assert_takes(limit, || {
            let error = sigtimedwait(&[libc::SIGUSR1], limit).unwrap_err();
            assert_eq!(Some(libc::EAGAIN), error.raw_os_error());
        });
        let error = sigtimedwait(&[libc::SIGUSR1], Duration::ZERO).unwrap_err();
        assert_eq!(Some(libc::EAGAIN), error.raw_os_error());
        let task = waiting(&ticker, || {
            sigtimedwait(&[libc::SIGUSR1], Duration::from_secs(1000)).is_ok()
        });
        // Another one is none of its business.
        let before = libc::SIGUSR2;
        handle(before, ignore, 0);
        send_to_process(before);
        ticker.wait();
        assert!(!task.is_finished());
        send_to_process(libc::SIGUSR1);
        assert!(task.join().unwrap());
        let (set, time) = (
            set_of(&[libc::SIGUSR1]),
            libc::timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000_000,
            },
        );
        // SAFETY: reads a set and a time.
        let result =
            unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const time) };
        assert_eq!(-1, result);
        assert_eq!(
            Some(libc::EINVAL),
            io::Error::last_os_error().raw_os_error()
        );
    });
}

extern "C" fn ignore(_: c_int) {}

#[test]
fn each_signal_wakes_one_of_those_that_wait_for_it() {
    let name = "each_signal_wakes_one_of_those_that_wait_for_it";
    with_blocked(name, &[libc::SIGRTMIN() + 1], || {
        let signal = libc::SIGRTMIN() + 1;
        let ticker = Ticker::start();
        let waiters: Vec<_> = (0..10)
            .map(|_| waiting(&ticker, move || sigwait(&[signal])))
            .collect();
        for _ in 0..10 {
            send_to_process(signal);
            yield_now();
        }
        for waiter in waiters {
            assert_eq!(signal, waiter.join().unwrap());
        }
        assert!(!is_pending(signal));
    });
}

#[test]
fn a_signalfd_is_read() {
    with_blocked("a_signalfd_is_read", &[libc::SIGUSR1], || {
        let set = set_of(&[libc::SIGUSR1]);
        // SAFETY: reads a set; the descriptor is the file's alone.
        let mut file = unsafe {
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
            assert!(fd >= 0);
            File::from_raw_fd(fd)
        };
        let ticker = Ticker::start();
        let task = waiting(&ticker, move || {
            let mut signals = Vec::new();
            for _ in 0..3 {
                let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
                file.read_exact(&mut info).unwrap();
                signals.push(u32::from_ne_bytes(*info.first_chunk().unwrap()));
            }
            signals
        });
        for _ in 0..3 {
            assert!(!task.is_finished());
            send_to_process(libc::SIGUSR1);
            while is_pending(libc::SIGUSR1) {
                ticker.wait();
            }
            ticker.wait();
        }
        assert_eq!(vec![libc::SIGUSR1 as u32; 3], task.join().unwrap());
    });
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

fn sigsuspend(blocked: &[c_int]) {
    let set = set_of(blocked);
    // SAFETY: reads a set.
    assert_eq!(-1, unsafe { libc::sigsuspend(&raw const set) });
    assert_eq!(Some(libc::EINTR), io::Error::last_os_error().raw_os_error());
}

#[test]
fn sigsuspend_ends_after_a_handler() {
    let name = "sigsuspend_ends_after_a_handler";
    with_blocked(name, &[libc::SIGUSR1], || {
        handle(libc::SIGUSR1, count, 0);
        HANDLED.store(0, SeqCst);
        let ticker = Ticker::start();
        let task = waiting(&ticker, || sigsuspend(&[]));
        assert_eq!(0, HANDLED.load(SeqCst));
        send_to_process(libc::SIGUSR1);
        task.join().unwrap();
        assert_eq!(1, HANDLED.load(SeqCst));
        assert!(is_blocked(libc::SIGUSR1));
    });
}

#[test]
fn sigsuspend_delivers_what_the_coroutine_has_pending() {
    let name = "sigsuspend_delivers_what_the_coroutine_has_pending";
    child::succeeds(name, || {
        on_every_runtime(|| {
            handle(libc::SIGUSR1, count, 0);
            handle(libc::SIGUSR2, count, 0);
            HANDLED.store(0, SeqCst);
            block(&[libc::SIGUSR1, libc::SIGUSR2]);
            for round in 1..=20 {
                raise(libc::SIGUSR1);
                yield_now();
                raise(libc::SIGUSR2);
                sigsuspend(&[libc::SIGUSR1]);
                assert_eq!(2 * round - 1, HANDLED.load(SeqCst));
                assert!(is_pending(libc::SIGUSR1) && !is_pending(libc::SIGUSR2));
                sigsuspend(&[]);
                assert_eq!(2 * round, HANDLED.load(SeqCst));
                assert!(!is_pending(libc::SIGUSR1));
            }
        });
    });
}

#[test]
fn pause_waits_under_the_mask_of_the_coroutine() {
    let name = "pause_waits_under_the_mask_of_the_coroutine";
    with_blocked(name, &[libc::SIGUSR1, libc::SIGUSR2], || {
        handle(libc::SIGUSR1, count, libc::SA_RESTART);
        HANDLED.store(0, SeqCst);
        let ticker = Ticker::start();
        let task = waiting(&ticker, || {
            unblock(&[libc::SIGUSR1]);
            // SAFETY: has no requirements.
            assert_eq!(-1, unsafe { libc::pause() });
            assert_eq!(Some(libc::EINTR), io::Error::last_os_error().raw_os_error());
            assert!(!is_blocked(libc::SIGUSR1) && is_blocked(libc::SIGUSR2));
        });
        // One that comes just before the pause does not end it.
        while !task.is_finished() {
            send_to_process(libc::SIGUSR1);
            ticker.wait();
        }
        task.join().unwrap();
        assert_ne!(0, HANDLED.load(SeqCst));
        while is_pending(libc::SIGUSR1) {
            sigwait(&[libc::SIGUSR1]);
        }
    });
}

#[test]
fn a_timer_starts_its_thread() {
    extern "C" fn expired(value: libc::sigval) {
        HANDLED.store(value.sival_ptr as usize, SeqCst);
    }
    unsafe extern "C" {
        fn timer_create(
            clock: libc::clockid_t,
            event: *mut libc::sigevent,
            timer: *mut *mut c_void,
        ) -> c_int;
        fn timer_settime(
            timer: *mut c_void,
            flags: c_int,
            new: *const libc::itimerspec,
            old: *mut libc::itimerspec,
        ) -> c_int;
        fn timer_delete(timer: *mut c_void) -> c_int;
    }
    /// `struct sigevent`, with the part that the libc crate leaves out.
    #[repr(C)]
    struct ThreadEvent {
        value: libc::sigval,
        signal: c_int,
        notify: c_int,
        function: extern "C" fn(libc::sigval),
        attributes: *mut c_void,
        rest: [usize; 4],
    }
    on_every_runtime(|| {
        HANDLED.store(0, SeqCst);
        let mut event = ThreadEvent {
            value: libc::sigval {
                sival_ptr: ptr::without_provenance_mut(5),
            },
            signal: 0,
            notify: libc::SIGEV_THREAD,
            function: expired,
            attributes: ptr::null_mut(),
            rest: [0; 4],
        };
        let mut timer = ptr::null_mut();
        // SAFETY: all-zero bytes are valid; the event has the layout of C.
        unsafe {
            let mut time: libc::itimerspec = mem::zeroed();
            time.it_value.tv_nsec = 1_000_000;
            let event = (&raw mut event).cast::<libc::sigevent>();
            let result = timer_create(libc::CLOCK_MONOTONIC, event, &raw mut timer);
            assert_eq!(0, result);
            let result = timer_settime(timer, 0, &raw const time, ptr::null_mut());
            assert_eq!(0, result);
            while HANDLED.load(SeqCst) != 5 {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(0, timer_delete(timer));
        }
    });
}
