//! What is left out of the hook blocks the worker, as it would a thread.

use std::io::{Read, Write, pipe};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use open_coroutine::{Config, Hooks, JoinHandle, init, shutdown, spawn, unblock, without_hooks};

static TURN: Mutex<()> = Mutex::new(());

/// Runs `body` as a coroutine on one worker with these hooks.
fn with_hooks(hooks: impl Into<Hooks>, body: fn()) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    init(Config::default().event_loop_size(1).hook(hooks)).unwrap();
    let result = spawn(body).join();
    shutdown().unwrap();
    result.unwrap();
}

/// Whether another coroutine of the worker runs while `wait` does.
fn suspends(wait: impl FnOnce()) -> bool {
    let has_run = Arc::new(AtomicBool::new(false));
    let other: JoinHandle<()> = {
        let has_run = has_run.clone();
        spawn(move || has_run.store(true, SeqCst))
    };
    wait();
    let suspended = has_run.load(SeqCst);
    other.join().unwrap();
    suspended
}

fn read_after_a_while() {
    let (mut reader, mut writer) = pipe().unwrap();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        writer.write_all(b"x").unwrap();
    });
    assert_eq!(1, reader.read(&mut [0; 8]).unwrap());
    without_hooks(|| thread.join().unwrap());
}

fn sleep() {
    thread::sleep(Duration::from_millis(5));
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn with_all_hooks_everything_suspends() {
    with_hooks(true, || {
        assert!(suspends(read_after_a_while));
        assert!(suspends(sleep));
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn without_hooks_nothing_does_but_the_own_functions() {
    with_hooks(false, || {
        assert!(!suspends(read_after_a_while));
        assert!(!suspends(sleep));
        assert!(suspends(|| open_coroutine::sleep(Duration::from_millis(5))));
        assert!(suspends(open_coroutine::yield_now));
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_family_can_be_left_out() {
    with_hooks(Hooks::ALL.without(Hooks::STREAMS), || {
        assert!(!suspends(read_after_a_while));
        assert!(suspends(sleep));
    });
    with_hooks(Hooks::STREAMS, || {
        assert!(suspends(read_after_a_while));
        assert!(!suspends(sleep));
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn yielding_belongs_to_the_sleeps() {
    with_hooks(Hooks::SLEEPS, || assert!(suspends(thread::yield_now)));
    let others = Hooks::ALL.without(Hooks::SLEEPS);
    with_hooks(others, || assert!(!suspends(thread::yield_now)));
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_section_can_be_left_out() {
    with_hooks(true, || {
        assert!(!suspends(|| without_hooks(sleep)));
        assert!(!suspends(|| without_hooks(|| {
            without_hooks(|| {});
            sleep();
        })));
        let panic = std::panic::catch_unwind(|| without_hooks(|| panic!("inside")));
        assert!(panic.is_err());
        assert!(suspends(sleep), "it ends with the section, also by a panic");
    });
}

#[test]
fn a_closure_can_block_a_thread_of_the_pool() {
    with_hooks(true, || {
        let text = String::from("borrowed");
        let worker = thread::current().id();
        assert!(suspends(|| {
            let (length, other) = unblock(|| {
                sleep();
                (text.len(), thread::current().id())
            });
            assert_eq!(8, length);
            assert_ne!(worker, other);
        }));
        let panic = std::panic::catch_unwind(|| unblock(|| panic!("carried over")));
        let payload = panic.unwrap_err();
        assert_eq!(Some(&"carried over"), payload.downcast_ref::<&str>());
    });
    assert_eq!(3, unblock(|| 1 + 2), "on a thread it runs right there");
}
