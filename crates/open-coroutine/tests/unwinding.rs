//! A coroutine that unwinds is like a thread that does, also while it is
//! suspended in a destructor.

mod child;
mod runtimes;

use std::os::unix::process::ExitStatusExt;
use std::panic::panic_any;
use std::process::Output;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use open_coroutine::spawn;
use runtimes::on_every_runtime;

/// Waits for a message when it is dropped.
struct WaitOnDrop(mpsc::Sender<bool>, Receiver<()>);

impl Drop for WaitOnDrop {
    fn drop(&mut self) {
        self.0.send(thread::panicking()).unwrap();
        self.1.recv().unwrap();
        self.0.send(thread::panicking()).unwrap();
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_task_suspended_in_a_destructor_is_panicking_and_others_are_not() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..10usize)
            .map(|number| {
                let ((sender, is_panicking), (go, gone)) = (mpsc::channel(), mpsc::channel());
                let task = spawn(move || {
                    let _guard = WaitOnDrop(sender, gone);
                    panic_any(number);
                });
                (task, is_panicking, go)
            })
            .collect();
        for (_, is_panicking, _) in &tasks {
            assert!(is_panicking.recv().unwrap());
            assert!(!thread::panicking());
        }
        assert!(!spawn(thread::panicking).join().unwrap());
        assert!(
            spawn(|| std::panic::catch_unwind(|| panic_any(1)).is_err())
                .join()
                .unwrap()
        );
        // The first to unwind goes first, so the panics do not nest.
        for (number, (task, is_panicking, go)) in tasks.into_iter().enumerate() {
            go.send(()).unwrap();
            assert!(is_panicking.recv().unwrap());
            let payload = task.join().unwrap_err().into_panic().unwrap();
            assert_eq!(Some(&number), payload.downcast_ref());
        }
    });
}

fn assert_aborted(output: &Output, message: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(Some(libc::SIGABRT), output.status.signal(), "{text}");
    assert!(text.contains(message), "{text}");
}

struct PanicOnDrop;

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic!("in the destructor");
    }
}

#[test]
fn a_panic_in_a_destructor_while_unwinding_aborts() {
    let name = "a_panic_in_a_destructor_while_unwinding_aborts";
    let output = child::output(name, || {
        let task = spawn(|| {
            let _guard = PanicOnDrop;
            panic!("in the body");
        });
        let _: Result<(), _> = task.join();
    });
    assert_aborted(&output, "in the destructor");
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_panic_in_the_destructor_of_a_thread_local_aborts() {
    thread_local! {
        static GUARD: PanicOnDrop = const { PanicOnDrop };
    }
    let name = "a_panic_in_the_destructor_of_a_thread_local_aborts";
    let output = child::output(name, || {
        let _ = spawn(|| GUARD.with(|_| ())).join();
    });
    assert_aborted(&output, "thread local panicked on drop");
}
