//! A coroutine has the identity of a thread: thread-locals, id, `errno`.

mod runtimes;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use open_coroutine::spawn;
use runtimes::on_every_runtime;

const MOMENT: Duration = Duration::from_millis(2);

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn every_task_has_thread_locals_of_its_own() {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    on_every_runtime(|| {
        let tasks: Vec<_> = (1..=50)
            .map(|n| {
                spawn(move || {
                    assert_eq!(0, NUMBER.get());
                    NUMBER.set(n);
                    thread::sleep(MOMENT);
                    assert_eq!(n, NUMBER.get());
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        // The coroutines that have become free run these.
        for _ in 0..50 {
            assert_eq!(0, spawn(|| NUMBER.replace(7)).join().unwrap());
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn thread_locals_are_destroyed_once_before_join_returns() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    static DESTROYED: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Counted {
        fn new() -> Self {
            ALIVE.fetch_add(1, SeqCst);
            Self
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            // A destructor may wait, too.
            thread::sleep(Duration::from_micros(100));
            ALIVE.fetch_sub(1, SeqCst);
            DESTROYED.fetch_add(1, SeqCst);
        }
    }
    thread_local! {
        static COUNTED: Counted = Counted::new();
    }
    on_every_runtime(|| {
        let before = DESTROYED.load(SeqCst);
        for round in 1..=100 {
            spawn(|| COUNTED.with(|_| thread::yield_now()))
                .join()
                .unwrap();
            assert_eq!(0, ALIVE.load(SeqCst));
            assert_eq!(before + round, DESTROYED.load(SeqCst));
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_borrow_across_a_suspension_disturbs_nobody() {
    thread_local! {
        static LOG: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                spawn(move || {
                    LOG.with_borrow_mut(|log| {
                        log.push(n);
                        thread::sleep(MOMENT);
                    });
                    LOG.with_borrow(|log| assert_eq!(&[n], &**log));
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn tasks_that_are_alive_have_different_thread_ids() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                spawn(|| {
                    let id = thread::current().id();
                    thread::sleep(MOMENT);
                    assert_eq!(id, thread::current().id());
                    id
                })
            })
            .collect();
        let ids: HashSet<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
        assert_eq!(50, ids.len());
    });
}

#[test]
fn errno_survives_a_suspension() {
    on_every_runtime(|| {
        let set = |code: i32| {
            // SAFETY: `__errno_location` points to the calling thread's errno.
            unsafe { *libc::__errno_location() = code };
        };
        let tasks: Vec<_> = (1..30)
            .map(|code| {
                spawn(move || {
                    for _ in 0..20 {
                        set(code);
                        open_coroutine::yield_now();
                        assert_eq!(Some(code), io::Error::last_os_error().raw_os_error());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn what_a_panic_does_stays_with_its_task() {
    on_every_runtime(|| {
        let poisoned = std::sync::Arc::new(Mutex::new(0));
        let (sender, receiver) = mpsc::channel();
        let held = poisoned.clone();
        let task = spawn(move || {
            let _guard = held.lock().unwrap();
            sender.send(()).unwrap();
            thread::sleep(MOMENT);
            std::panic::panic_any("on purpose");
        });
        receiver.recv().unwrap();
        assert!(!thread::panicking());
        let payload = task.join().unwrap_err().into_panic().unwrap();
        assert_eq!(Some(&"on purpose"), payload.downcast_ref());
        assert!(poisoned.is_poisoned());
        // Worker and others go on.
        assert_eq!(3, spawn(|| 3).join().unwrap());
    });
}

#[test]
fn a_panic_is_caught_where_the_code_says_so() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                spawn(move || {
                    let result = std::panic::catch_unwind(|| {
                        thread::sleep(MOMENT);
                        std::panic::resume_unwind(Box::new(n));
                    });
                    thread::sleep(MOMENT);
                    assert_eq!(Some(&n), result.unwrap_err().downcast_ref());
                    assert!(!thread::panicking());
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[inline(never)]
fn a_function_of_the_user() -> String {
    std::backtrace::Backtrace::force_capture().to_string()
}

#[test]
fn a_backtrace_names_the_functions_of_the_user() {
    on_every_runtime(|| {
        let trace = spawn(|| std::hint::black_box(a_function_of_the_user())).join();
        let trace = trace.unwrap();
        assert!(trace.contains("a_function_of_the_user"), "{trace}");
    });
}
