//! Each coroutine has a signal mask, and the signals that it has blocked.

mod child;
mod posix_signals;
mod runtimes;
mod ticker;

use std::ffi::c_int;
use std::mem;
use std::process::Command;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::{JoinHandle, spawn, yield_now};
use posix_signals::*;
use runtimes::{on_every_driver, on_every_runtime};
use ticker::Ticker;

fn all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.join().unwrap();
    }
}

/// The calling coroutine, as a handler may ask.
fn me() -> usize {
    // SAFETY: has no requirements.
    unsafe { libc::pthread_self() as usize }
}

#[test]
fn every_coroutine_keeps_its_own() {
    on_every_runtime(|| {
        let signals = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGWINCH];
        let tasks = signals.map(|own| {
            spawn(move || {
                block(&[own]);
                for turn in 0..200 {
                    for signal in signals {
                        assert_eq!(signal == own, is_blocked(signal));
                    }
                    match turn % 3 {
                        0 => yield_now(),
                        1 => thread::sleep(Duration::from_micros(50)),
                        _ => drop(thread::spawn(|| ()).join()),
                    }
                }
                unblock(&[own]);
                yield_now();
                assert!(!is_blocked(own));
            })
        });
        for _ in 0..200 {
            assert!(!signals.into_iter().any(is_blocked));
            yield_now();
        }
        all(tasks.into());
        // Nor has what runs later on the same stacks.
        let later = || assert!(!is_blocked(libc::SIGUSR1));
        all((0..8).map(|_| spawn(later)).collect());
    });
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static HANDLED_BY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: c_int) {
    HANDLED.fetch_add(1, SeqCst);
    HANDLED_BY.store(me(), SeqCst);
}

#[test]
fn what_is_raised_while_blocked_comes_once_to_the_same_coroutine() {
    on_every_runtime(|| {
        handle(libc::SIGUSR1, note, libc::SA_RESTART);
        let _ticker = Ticker::start();
        for _ in 0..20 {
            HANDLED.store(0, SeqCst);
            let task = spawn(|| {
                block(&[libc::SIGUSR1]);
                assert!(!is_pending(libc::SIGUSR1));
                raise(libc::SIGUSR1);
                for _ in 0..10 {
                    assert!(is_pending(libc::SIGUSR1));
                    yield_now();
                    thread::sleep(Duration::from_micros(10));
                }
                assert_eq!(0, HANDLED.load(SeqCst));
                unblock(&[libc::SIGUSR1]);
                assert_eq!((1, me()), (HANDLED.load(SeqCst), HANDLED_BY.load(SeqCst)));
                yield_now();
                assert!(!is_pending(libc::SIGUSR1));
                assert_eq!(1, HANDLED.load(SeqCst));
            });
            let other = spawn(|| {
                for _ in 0..20 {
                    assert!(!is_pending(libc::SIGUSR1));
                    yield_now();
                }
            });
            all(vec![task, other]);
        }
    });
}

/// The values of the queued signals that came, by who handled them.
static VALUES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

extern "C" fn note_value(_: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes the details.
    let value = unsafe { (*info).si_value().sival_ptr as usize };
    // Nobody holds it: whoever unblocks the signal does not touch it then.
    VALUES.try_lock().unwrap().push((me(), value));
}

#[test]
fn queued_signals_move_with_their_coroutine_in_order() {
    on_every_runtime(|| {
        let signal = libc::SIGRTMIN() + 4;
        let handler = note_value as *const () as usize;
        set_action(signal, &action(handler, libc::SA_SIGINFO, &[]));
        let turn = std::sync::Arc::new(Mutex::new(()));
        let task = |number: usize| {
            let turn = turn.clone();
            spawn(move || {
                block(&[signal]);
                for round in 0..20 {
                    for index in 0..3 {
                        let value = libc::sigval {
                            sival_ptr: ptr::without_provenance_mut(
                                number * 1000 + round * 3 + index,
                            ),
                        };
                        // SAFETY: to the caller itself.
                        let result =
                            unsafe { libc::pthread_sigqueue(libc::pthread_self(), signal, value) };
                        assert_eq!(0, result);
                        yield_now();
                    }
                    thread::sleep(Duration::from_micros(20));
                    let _turn = turn.lock().unwrap();
                    VALUES.lock().unwrap().clear();
                    unblock(&[signal]);
                    block(&[signal]);
                    let got = mem::take(&mut *VALUES.lock().unwrap());
                    let expected = (0..3).map(|index| (me(), number * 1000 + round * 3 + index));
                    assert_eq!(expected.collect::<Vec<_>>(), got);
                }
            })
        };
        all((1..=8).map(task).collect());
    });
}

#[test]
fn what_is_pending_ends_with_its_coroutine() {
    on_every_driver(1, || {
        handle(libc::SIGUSR1, note, 0);
        HANDLED.store(0, SeqCst);
        for _ in 0..10 {
            let raise_and_end = || {
                block(&[libc::SIGUSR1]);
                raise(libc::SIGUSR1);
            };
            spawn(raise_and_end).join().unwrap();
            let next = || {
                assert!(!is_blocked(libc::SIGUSR1) && !is_pending(libc::SIGUSR1));
            };
            spawn(next).join().unwrap();
        }
        assert_eq!(0, HANDLED.load(SeqCst));
    });
}

/// The blocked signals of a new process.
fn blocked_in_child() -> u64 {
    let mut command = Command::new("grep");
    let output = command
        .args(["^SigBlk:", "/proc/self/status"])
        .output()
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let (_, hexadecimal) = line.trim().split_once(":\t").unwrap();
    u64::from_str_radix(hexadecimal, 16).unwrap()
}

#[test]
fn it_is_inherited_by_tasks_threads_and_processes() {
    on_every_runtime(|| {
        let bit = 1u64 << (libc::SIGUSR2 - 1);
        assert_eq!(0, blocked_in_child() & bit);
        let task = spawn(move || {
            block(&[libc::SIGUSR2]);
            assert_eq!(bit, blocked_in_child() & bit);
            let inner = || {
                assert!(is_blocked(libc::SIGUSR2));
                yield_now();
                assert!(is_blocked(libc::SIGUSR2));
                unblock(&[libc::SIGUSR2]);
            };
            all(vec![spawn(inner), spawn(inner)]);
            thread::spawn(|| assert!(is_blocked(libc::SIGUSR2)))
                .join()
                .unwrap();
            assert!(is_blocked(libc::SIGUSR2));
        });
        let other = spawn(move || assert_eq!(0, blocked_in_child() & bit));
        all(vec![task, other]);
    });
}

#[test]
fn the_old_functions_change_it_too() {
    unsafe extern "C" {
        fn sigblock(mask: c_int) -> c_int;
        fn sigsetmask(mask: c_int) -> c_int;
        fn siggetmask() -> c_int;
        fn sighold(signal: c_int) -> c_int;
        fn sigrelse(signal: c_int) -> c_int;
        fn sigset(signal: c_int, handler: usize) -> usize;
    }
    const SIG_HOLD: usize = 2;
    let check: fn() = || {
        let bit = 1 << (libc::SIGUSR2 - 1);
        // SAFETY: all take integers, and the handlers are none.
        unsafe {
            let usual = siggetmask();
            assert_eq!(usual, sigblock(bit));
            yield_now();
            assert_eq!(usual | bit, siggetmask());
            assert_eq!(usual | bit, sigsetmask(usual));
            assert_eq!(0, sighold(libc::SIGUSR2));
            yield_now();
            assert_eq!(usual | bit, siggetmask());
            assert_eq!(0, sigrelse(libc::SIGUSR2));
            assert_eq!(usual, siggetmask());
            assert_eq!(-1, sighold(65));
            assert_eq!(-1, sigrelse(32));
            let before = sigset(libc::SIGUSR2, SIG_HOLD);
            yield_now();
            assert_eq!(usual | bit, siggetmask());
            assert_eq!(SIG_HOLD, sigset(libc::SIGUSR2, libc::SIG_IGN));
            assert_eq!(usual, siggetmask());
            assert_eq!(libc::SIG_IGN, sigset(libc::SIGUSR2, before));
        }
    };
    on_every_runtime(check);
    check();
}

/// What the kernel knows that the worker's thread blocks.
fn blocked_by_the_thread() -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/status");
    let status = open_coroutine::without_hooks(read).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

#[test]
fn what_is_never_blocked_is_shown_as_set() {
    on_every_driver(1, || {
        block(&[libc::SIGURG]);
        yield_now();
        assert!(is_blocked(libc::SIGURG));
        assert_eq!(0, blocked_by_the_thread() & 1 << (libc::SIGURG - 1));
        // SAFETY: reads and writes no set.
        let result = unsafe { libc::sigprocmask(77, &set_of(&[]), ptr::null_mut()) };
        assert_eq!(-1, result);
        unblock(&[libc::SIGURG]);
        assert!(!is_blocked(libc::SIGURG));
        let before = blocked();
        // SAFETY: changes a set on this frame.
        unsafe {
            let mut set = set_of(&[]);
            libc::sigfillset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        }
        let on_coroutine = blocked();
        assert_eq!(
            on_coroutine,
            thread::spawn(blocked).join().unwrap() | 1 << (libc::SIGURG - 1)
        );
        let all: Vec<c_int> = (1..=64)
            .filter(|signal| before >> (signal - 1) & 1 == 0)
            .collect();
        unblock(&all);
        assert_eq!(before, blocked());
    });
}

#[test]
fn what_is_pending_for_the_process_is_left_to_others() {
    let name = "what_is_pending_for_the_process_is_left_to_others";
    // In every thread of the child, so that it stays pending.
    block(&[libc::SIGUSR1]);
    child::succeeds(name, || {
        on_every_runtime(|| {
            let signal = libc::SIGUSR1;
            block(&[libc::SIGUSR2]);
            for _ in 0..20 {
                send_to_process(signal);
                raise(libc::SIGUSR2);
                yield_now();
                assert!(is_pending(signal) && is_pending(libc::SIGUSR2));
                let take = move || {
                    let (set, limit) = (
                        set_of(&[signal]),
                        libc::timespec {
                            tv_sec: 5,
                            tv_nsec: 0,
                        },
                    );
                    // SAFETY: reads a set and a time.
                    unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const limit) }
                };
                assert_eq!(signal, thread::spawn(take).join().unwrap());
                assert!(!is_pending(signal) && is_pending(libc::SIGUSR2));
                let set = set_of(&[libc::SIGUSR2]);
                let mut taken = 0;
                // SAFETY: reads a set, writes an integer.
                assert_eq!(0, unsafe { libc::sigwait(&raw const set, &raw mut taken) });
                assert_eq!(libc::SIGUSR2, taken);
            }
        });
    });
}

#[test]
fn what_a_worker_blocks_too_goes_with_who_raised_it() {
    let name = "what_a_worker_blocks_too_goes_with_who_raised_it";
    block(&[libc::SIGUSR1]);
    child::succeeds(name, || {
        on_every_runtime(|| {
            let raiser = |number: u32| {
                spawn(move || {
                    for round in 0..50 {
                        if (number + round).is_multiple_of(2) {
                            raise(libc::SIGUSR1);
                        }
                        for _ in 0..3 {
                            yield_now();
                            assert_eq!(
                                (number + round).is_multiple_of(2),
                                is_pending(libc::SIGUSR1)
                            );
                        }
                        if (number + round).is_multiple_of(2) {
                            let (set, mut taken) = (set_of(&[libc::SIGUSR1]), 0);
                            // SAFETY: reads a set, writes an integer.
                            unsafe { libc::sigwait(&raw const set, &raw mut taken) };
                            assert_eq!(libc::SIGUSR1, taken);
                        }
                    }
                })
            };
            all((0..6).map(raiser).collect());
        });
    });
}
