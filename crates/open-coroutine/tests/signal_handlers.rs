//! Signal handlers of the program: what they call blocks, and nothing but them
//! knows that there is something between the kernel and them.

mod child;
mod posix_signals;
mod runtimes;
mod ticker;

use std::ffi::{c_int, c_void};
use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::{spawn, yield_now};
use posix_signals::*;
use runtimes::{on_every_driver, on_every_runtime};
use ticker::Ticker;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
/// How far others came while a handler ran.
static DISTURBED: AtomicU64 = AtomicU64::new(0);
static READ_FROM: AtomicI32 = AtomicI32::new(-1);
static WRITE_TO: AtomicI32 = AtomicI32::new(-1);

/// Calls that would suspend a coroutine, all of which may wait.
extern "C" fn blocking_handler(_: c_int) {
    let before = TICKS.load(SeqCst);
    let mut byte = 7u8;
    // SAFETY: reads and writes one byte; sleeps; yields.
    unsafe {
        assert_eq!(
            1,
            libc::write(WRITE_TO.load(SeqCst), (&raw const byte).cast(), 1)
        );
        libc::usleep(300);
        assert_eq!(
            1,
            libc::read(READ_FROM.load(SeqCst), (&raw mut byte).cast(), 1)
        );
        libc::sched_yield();
        let mut entry = libc::pollfd {
            fd: READ_FROM.load(SeqCst),
            events: libc::POLLIN,
            revents: 0,
        };
        assert_eq!(0, libc::poll(&raw mut entry, 1, 1));
        *libc::__errno_location() = libc::EXDEV;
    }
    DISTURBED.fetch_add(TICKS.load(SeqCst) - before, SeqCst);
    COUNT.fetch_add(1, SeqCst);
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn what_they_call_blocks_and_others_go_on_afterwards() {
    for flags in [libc::SA_RESTART, libc::SA_RESTART | libc::SA_ONSTACK] {
        handle(libc::SIGUSR1, blocking_handler, flags);
        on_every_driver(1, || {
            let (reader, writer) = pipe().unwrap();
            READ_FROM.store(reader.as_raw_fd(), SeqCst);
            WRITE_TO.store(writer.as_raw_fd(), SeqCst);
            COUNT.store(0, SeqCst);
            let is_over = Arc::new(AtomicBool::new(false));
            let until = is_over.clone();
            let ticker = spawn(move || {
                while !until.load(SeqCst) {
                    TICKS.fetch_add(1, SeqCst);
                    yield_now();
                }
            });
            for round in 1..=20 {
                let ticks = TICKS.load(SeqCst);
                // SAFETY: errno of the calling coroutine.
                unsafe { *libc::__errno_location() = libc::EDOM };
                raise(libc::SIGUSR1);
                // SAFETY: as above.
                assert_eq!(libc::EDOM, unsafe { *libc::__errno_location() });
                assert_eq!(round, COUNT.load(SeqCst));
                // After the handler hooked functions suspend again.
                while TICKS.load(SeqCst) < ticks + 3 {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            assert_eq!(0, DISTURBED.load(SeqCst));
            is_over.store(true, SeqCst);
            ticker.join().unwrap();
        });
    }
}

extern "C" fn plain(signal: c_int) {
    assert_eq!(libc::SIGUSR2, signal);
    COUNT.fetch_add(1, SeqCst);
}

unsafe extern "C" {
    // What `sigsetjmp` of the headers is. It may return twice, so its caller here
    // keeps nothing in registers that it needs afterwards.
    fn __sigsetjmp(buffer: *mut c_void, saves_mask: c_int) -> c_int;
    fn siglongjmp(buffer: *mut c_void, value: c_int) -> !;
}

/// Larger than any `sigjmp_buf`.
static mut JUMP: [usize; 128] = [0; 128];

extern "C" fn jumps_out(_: c_int) {
    COUNT.fetch_add(1, SeqCst);
    // SAFETY: the frame of `jump_out_of_a_handler` is there.
    unsafe { siglongjmp((&raw mut JUMP).cast(), 1) }
}

#[inline(never)]
fn jump_out_of_a_handler() {
    // SAFETY: see above; the frames between the two have no destructors.
    unsafe {
        if __sigsetjmp((&raw mut JUMP).cast(), 1) == 0 {
            raise(libc::SIGHUP);
        }
    }
}

#[test]
fn after_one_that_ends_by_a_jump_coroutines_suspend_again() {
    for flags in [0, libc::SA_ONSTACK] {
        // A signal of this test's own: others run beside this line.
        handle(libc::SIGHUP, jumps_out, flags);
        on_every_driver(1, || {
            let ticker = Ticker::start();
            COUNT.store(0, SeqCst);
            for round in 1..=10 {
                jump_out_of_a_handler();
                assert_eq!(round, COUNT.load(SeqCst));
                assert!(!is_blocked(libc::SIGHUP));
                // Would wait for ever if it blocked the worker.
                ticker.wait();
            }
        });
    }
}

static SENDER: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn detailed(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    assert!(!context.is_null());
    // SAFETY: the kernel passes the details.
    unsafe {
        assert_eq!(signal, (*info).si_signo);
        SENDER.store((*info).si_pid(), SeqCst);
        VALUE.store((*info).si_value().sival_ptr as usize, SeqCst);
    }
    COUNT.fetch_add(1, SeqCst);
}

#[test]
fn actions_are_returned_as_they_were_set() {
    let check: fn() = || {
        let signal = libc::SIGWINCH;
        let one = action(
            plain as *const () as usize,
            libc::SA_RESTART,
            &[libc::SIGHUP],
        );
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let two = action(detailed as *const () as usize, flags, &[]);
        let ignored = action(libc::SIG_IGN, 0, &[]);
        let same = |a: &libc::sigaction, b: &libc::sigaction| {
            // The kernel's own flag, which glibc adds.
            const SA_RESTORER: c_int = 0x0400_0000;
            assert_eq!(a.sa_sigaction, b.sa_sigaction);
            assert_eq!(a.sa_flags & !SA_RESTORER, b.sa_flags & !SA_RESTORER);
            for member in [libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH] {
                // SAFETY: reads sets.
                let [in_a, in_b] =
                    [a, b].map(|it| unsafe { libc::sigismember(&it.sa_mask, member) });
                assert_eq!(in_a, in_b);
            }
        };
        let original = set_action(signal, &one);
        same(&one, &get_action(signal));
        same(&one, &set_action(signal, &two));
        same(&two, &get_action(signal));
        same(&two, &set_action(signal, &ignored));
        same(&ignored, &set_action(signal, &one));
        // SAFETY: the handler does what handlers may.
        unsafe {
            let handler = plain as *const () as usize;
            assert_eq!(handler, libc::signal(signal, libc::SIG_DFL));
            assert_eq!(libc::SIG_DFL, libc::signal(signal, handler));
            let set = get_action(signal);
            assert_eq!(
                (handler, libc::SA_RESTART),
                (set.sa_sigaction, set.sa_flags & libc::SA_RESTART)
            );
            for refused in [libc::SIGKILL, libc::SIGSTOP, 32, 33, 0, -1, 65, 1000] {
                assert_eq!(
                    -1,
                    libc::sigaction(refused, &raw const one, ptr::null_mut())
                );
                assert_eq!(
                    Some(libc::EINVAL),
                    std::io::Error::last_os_error().raw_os_error()
                );
                assert_eq!(libc::SIG_ERR, libc::signal(refused, handler));
            }
        }
        // SAFETY: takes integers.
        unsafe {
            unsafe extern "C" {
                fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int;
            }
            assert_eq!(0, siginterrupt(signal, 1));
            let set = get_action(signal);
            let expected = (plain as *const () as usize, 0);
            assert_eq!(
                expected,
                (set.sa_sigaction, set.sa_flags & libc::SA_RESTART)
            );
            assert_eq!(expected.0, libc::signal(signal, expected.0));
            assert_eq!(0, get_action(signal).sa_flags & libc::SA_RESTART);
            assert_eq!(0, siginterrupt(signal, 0));
            assert_ne!(0, get_action(signal).sa_flags & libc::SA_RESTART);
        }
        set_action(signal, &original);
    };
    check();
    on_every_driver(1, check);
}

#[test]
fn they_get_the_details_and_are_reset_if_asked() {
    on_every_runtime(|| {
        let signal = libc::SIGUSR2;
        let flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        let before = set_action(signal, &action(detailed as *const () as usize, flags, &[]));
        COUNT.store(0, SeqCst);
        let value = libc::sigval {
            sival_ptr: ptr::without_provenance_mut(4711),
        };
        // SAFETY: to the caller itself.
        unsafe {
            assert_eq!(
                0,
                libc::pthread_sigqueue(libc::pthread_self(), signal, value)
            )
        };
        assert_eq!((1, 4711), (COUNT.load(SeqCst), VALUE.load(SeqCst)));
        // SAFETY: has no requirements.
        assert_eq!(unsafe { libc::getpid() }, SENDER.load(SeqCst));
        assert_eq!(libc::SIG_DFL, get_action(signal).sa_sigaction);
        set_action(signal, &before);
    });
}

static NESTED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn raises_again(signal: c_int) {
    let depth = NESTED.fetch_add(1, SeqCst);
    if depth < 3 {
        raise(signal);
    }
    // Ended inside, unless the signal is blocked meanwhile.
    VALUE.fetch_max(NESTED.load(SeqCst) - depth, SeqCst);
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn their_own_signal_is_blocked_meanwhile_unless_it_is_not_deferred() {
    on_every_runtime(|| {
        for (flags, inside) in [(0, 1), (libc::SA_NODEFER, 4)] {
            NESTED.store(0, SeqCst);
            VALUE.store(0, SeqCst);
            handle(libc::SIGUSR2, raises_again, flags);
            raise(libc::SIGUSR2);
            assert_eq!((4, inside), (NESTED.load(SeqCst), VALUE.load(SeqCst)));
        }
        assert!(!is_blocked(libc::SIGUSR2));
    });
}

#[test]
fn one_that_is_replaced_all_the_time_is_called_as_it_wants() {
    on_every_runtime(|| {
        let actions = [
            action(plain as *const () as usize, libc::SA_RESTART, &[]),
            action(
                detailed as *const () as usize,
                libc::SA_SIGINFO | libc::SA_RESTART,
                &[],
            ),
        ];
        let original = set_action(libc::SIGUSR2, &actions[0]);
        COUNT.store(0, SeqCst);
        let is_over = Arc::new(AtomicBool::new(false));
        let replacers = [0, 1].map(|first| {
            let until = is_over.clone();
            thread::spawn(move || {
                let mut turn = first;
                while !until.load(SeqCst) {
                    let old = set_action(libc::SIGUSR2, &actions[turn % 2]);
                    let is_detailed = old.sa_flags & libc::SA_SIGINFO != 0;
                    let handler = actions[usize::from(is_detailed)].sa_sigaction;
                    assert_eq!(handler, old.sa_sigaction);
                    turn += 1;
                }
            })
        });
        for _ in 0..5_000 {
            raise(libc::SIGUSR2);
        }
        // A child gets by without the thread that may just hold a lock.
        for _ in 0..10 {
            // SAFETY: the child only sets an action and ends.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    set_action(libc::SIGUSR2, &actions[1]);
                    libc::_exit(3);
                }
                let mut status = 0;
                assert_eq!(child, libc::waitpid(child, &raw mut status, 0));
                assert_eq!(Some(3), std::process::ExitStatus::from_raw(status).code());
            }
        }
        is_over.store(true, SeqCst);
        for replacer in replacers {
            replacer.join().unwrap();
        }
        assert_eq!(5_000, COUNT.load(SeqCst));
        set_action(libc::SIGUSR2, &original);
    });
}

#[test]
fn alarms_and_signals_to_the_process_reach_them() {
    extern "C" fn count(_: c_int) {
        COUNT.fetch_add(1, SeqCst);
    }
    on_every_runtime(|| {
        let _ticker = Ticker::start();
        handle(libc::SIGALRM, count, libc::SA_RESTART);
        COUNT.store(0, SeqCst);
        send_to_process(libc::SIGALRM);
        while COUNT.load(SeqCst) < 1 {
            thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: reads a time.
        unsafe {
            let mut time: libc::itimerval = std::mem::zeroed();
            time.it_value.tv_usec = 1000;
            let result = libc::setitimer(libc::ITIMER_REAL, &raw const time, ptr::null_mut());
            assert_eq!(0, result);
        }
        while COUNT.load(SeqCst) < 2 {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn an_abort_on_a_coroutine_ends_the_process_after_them() {
    extern "C" fn last_words(_: c_int) {
        // SAFETY: writes a few bytes.
        unsafe { libc::write(2, c"last words".as_ptr().cast(), 10) };
    }
    let name = "an_abort_on_a_coroutine_ends_the_process_after_them";
    let output = child::output(name, || {
        handle(libc::SIGABRT, last_words, 0);
        on_every_driver(1, || std::process::abort());
    });
    assert_eq!(Some(libc::SIGABRT), output.status.signal());
    assert!(String::from_utf8_lossy(&output.stderr).contains("last words"));
}

/// Where the handler of the storm writes.
static STORM: AtomicI32 = AtomicI32::new(-1);

static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn write_one(_: c_int) {
    BEGUN.fetch_add(1, SeqCst);
    // SAFETY: writes a byte.
    let result = unsafe { libc::write(STORM.load(SeqCst), c"x".as_ptr().cast(), 1) };
    // One may come late, when nobody reads any more.
    WRITTEN.fetch_add(usize::from(result == 1), SeqCst);
    ENDED.fetch_add(1, SeqCst);
}

fn timer(microseconds: i64) {
    // SAFETY: reads a time.
    unsafe {
        let mut time: libc::itimerval = std::mem::zeroed();
        time.it_value.tv_usec = microseconds;
        time.it_interval.tv_usec = microseconds;
        let result = libc::setitimer(libc::ITIMER_REAL, &raw const time, ptr::null_mut());
        assert_eq!(0, result);
    }
}

#[test]
fn a_storm_of_them_loses_no_bytes_of_coroutines() {
    on_every_runtime(|| {
        let before = WRITTEN.load(SeqCst);
        let (mut reader, writer) = pipe().unwrap();
        STORM.store(writer.as_raw_fd(), SeqCst);
        handle(libc::SIGALRM, write_one, libc::SA_RESTART);
        let counted = spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        timer(200);
        let streams = (0..8).map(|_| {
            let (mut one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
            let echo = spawn(move || {
                let mut buffer = [0; 100];
                while let Ok(()) = other.read_exact(&mut buffer) {
                    other.write_all(&buffer).unwrap();
                }
            });
            let client = spawn(move || {
                for round in 0..500u32 {
                    let sent = [round as u8; 100];
                    one.write_all(&sent).unwrap();
                    let mut got = [0; 100];
                    one.read_exact(&mut got).unwrap();
                    assert_eq!(sent, got);
                    if round % 100 == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            (client, echo)
        });
        for (client, echo) in streams.collect::<Vec<_>>() {
            client.join().unwrap();
            echo.join().unwrap();
        }
        while WRITTEN.load(SeqCst) < before + 20 {
            thread::sleep(Duration::from_millis(1));
        }
        timer(0);
        // The last one may run on another thread.
        thread::sleep(Duration::from_millis(1));
        while BEGUN.load(SeqCst) != ENDED.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        drop(writer);
        let bytes = counted.join().unwrap();
        assert_eq!(WRITTEN.load(SeqCst), before + bytes);
    });
}
