//! Cancellation of a task in every state: before its start, while it runs, while it
//! unwinds, at its end.

mod child;
mod runtimes;
mod victims;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{
    Config, JoinHandle, current, is_cancelled, park, park_timeout, sleep, spawn,
    without_cancellation, yield_now,
};
use runtimes::on_every_runtime;
use victims::{begun, cancels_itself};

const LONG: Duration = Duration::from_secs(3600);

/// Counts that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_task_that_has_not_started_never_does() {
    // This coroutine does not suspend, so on its only worker no other starts.
    runtimes::on_every_driver(1, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let captured = Dropped(drops.clone());
                spawn(move || {
                    let _captured = captured;
                    panic!("it was cancelled");
                })
            })
            .collect();
        assert!(tasks.iter().all(JoinHandle::cancel));
        assert_eq!(100, drops.load(SeqCst));
        for task in tasks {
            assert!(task.is_finished());
            assert!(task.join().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn a_task_that_may_have_started_ends_once() {
    on_every_runtime(|| {
        let (drops, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let (captured, ran) = (Dropped(drops.clone()), runs.clone());
                spawn(move || {
                    let _captured = captured;
                    ran.fetch_add(1, SeqCst);
                })
            })
            .collect();
        for task in &tasks {
            task.cancel();
        }
        let results = tasks.into_iter().map(JoinHandle::join);
        let ended = results.filter(Result::is_ok).count();
        assert_eq!(runs.load(SeqCst), ended);
        assert_eq!(1000, drops.load(SeqCst));
    });
}

#[test]
fn a_cancelled_task_takes_no_place() {
    for workers in [1, 2] {
        // One place is that of this test.
        let config = Config::default().event_loop_size(workers).max_size(2);
        runtimes::on_every_driver_as(&config, || {
            let first = begun(park);
            let waiting: Vec<_> = (0..10).map(|n| spawn(move || n)).collect();
            yield_now();
            for task in &waiting[..9] {
                assert!(task.cancel());
            }
            first.cancel();
            assert!(first.join().unwrap_err().is_cancelled());
            for (n, task) in waiting.into_iter().enumerate() {
                match n {
                    9 => assert_eq!(9, task.join().unwrap()),
                    _ => assert!(task.join().unwrap_err().is_cancelled()),
                }
            }
            assert_eq!(7, begun(|| 7).join().unwrap());
        });
    }
}

#[test]
fn a_task_with_a_priority_is_taken_out_of_its_queue() {
    runtimes::on_every_driver(1, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [3, -2, 1, -1, 2]
            .into_iter()
            .map(|priority| {
                let order = order.clone();
                let push = move |priority| order.lock().unwrap().push(priority);
                open_coroutine::task!(push, priority, priority)
            })
            .collect();
        assert!(tasks[1].cancel() && tasks[2].cancel());
        let ended = tasks.into_iter().map(JoinHandle::join);
        assert_eq!(3, ended.filter(Result::is_ok).count());
        assert_eq!(vec![-1, 2, 3], *order.lock().unwrap());
    });
}

#[test]
fn a_second_request_and_one_after_the_end_are_refused() {
    on_every_runtime(|| {
        let parked = spawn(park);
        assert!(parked.cancel());
        assert!(!parked.cancel());
        assert!(!parked.task().cancel());
        assert!(parked.join().unwrap_err().is_cancelled());
        let ended = spawn(|| 7);
        while !ended.is_finished() {
            yield_now();
        }
        assert!(!ended.cancel());
        assert_eq!(7, ended.join().unwrap());
    });
}

#[test]
fn a_loop_that_computes_asks() {
    on_every_runtime(|| {
        let task = begun(|| {
            while !is_cancelled() {
                thread::yield_now();
            }
            assert!(current().unwrap().is_cancelled());
        });
        assert!(task.cancel());
        task.join().unwrap();
    });
    assert!(!is_cancelled(), "on a plain thread");
}

#[test]
fn a_loop_that_only_computes_is_preempted_and_asks() {
    on_every_runtime(|| {
        let task = begun(|| {
            let mut rounds = 0u64;
            while !is_cancelled() {
                rounds = std::hint::black_box(rounds + 1);
            }
            rounds
        });
        assert!(task.cancel());
        task.join().unwrap();
    });
}

#[test]
fn a_value_that_is_returned_all_the_same_is_given() {
    on_every_runtime(|| {
        let task = begun(|| {
            thread::sleep(LONG);
            42
        });
        assert!(task.cancel());
        assert_eq!(42, task.join().unwrap());
    });
}

#[test]
fn destructors_run_and_see_nothing_of_it() {
    struct Waits(Arc<AtomicUsize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let begin = Instant::now();
            sleep(Duration::from_millis(1));
            thread::sleep(Duration::from_millis(1));
            park_timeout(Duration::from_millis(1));
            yield_now();
            assert!(begin.elapsed() >= Duration::from_millis(2));
            let (mut one, mut other) = UnixStream::pair().unwrap();
            let echo = spawn(move || {
                let mut byte = [0];
                other.read_exact(&mut byte).unwrap();
                sleep(Duration::from_millis(1));
                other.write_all(&byte).unwrap();
            });
            one.write_all(b"x").unwrap();
            one.read_exact(&mut [0]).unwrap();
            echo.join().unwrap();
            assert!(is_cancelled());
            self.0.fetch_add(1, SeqCst);
        }
    }
    on_every_runtime(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let waits = Waits(drops.clone());
        let (begins, began) = mpsc::channel();
        let task = spawn(move || {
            let _waits = waits;
            begins.send(()).unwrap();
            park();
        });
        began.recv().unwrap();
        task.cancel();
        assert!(task.join().unwrap_err().is_cancelled());
        assert_eq!(1, drops.load(SeqCst));
    });
}

#[test]
fn it_unwinds_through_grown_stacks() {
    on_every_runtime(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let [outer, inner] = [(); 2].map(|()| Dropped(drops.clone()));
        let task = begun(move || {
            let _outer = outer;
            let grown = open_coroutine::maybe_grow!(usize::MAX, 64 * 1024, move || {
                let _inner = inner;
                park();
            });
            grown.unwrap();
        });
        task.cancel();
        assert!(task.join().unwrap_err().is_cancelled());
        assert_eq!(2, drops.load(SeqCst));
    });
}

#[test]
fn who_catches_the_unwinding_unwinds_again() {
    on_every_runtime(|| {
        let task = cancels_itself(|| {
            for _ in 0..3 {
                assert!(catch_unwind(AssertUnwindSafe(park)).is_err());
            }
            yield_now();
        });
        assert!(task.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn the_panic_hook_is_not_called() {
    child::succeeds("the_panic_hook_is_not_called", || {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
        on_every_runtime(|| {
            let task = cancels_itself(yield_now);
            assert!(task.join().unwrap_err().is_cancelled());
        });
    });
}

#[test]
fn a_panic_while_it_unwinds_aborts_as_on_a_thread() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let name = "a_panic_while_it_unwinds_aborts_as_on_a_thread";
    let output = child::output(name, || {
        let task = cancels_itself(|| {
            let _panics = Panics;
            yield_now();
        });
        let _ = task.join();
    });
    assert_eq!(Some(libc::SIGABRT), output.status.signal());
}

#[test]
fn sections_are_left_alone() {
    on_every_runtime(|| {
        let task = cancels_itself(|| {
            without_cancellation(|| {
                assert!(is_cancelled());
                yield_now();
                let begin = Instant::now();
                sleep(Duration::from_millis(1));
                thread::sleep(Duration::from_millis(1));
                assert!(begin.elapsed() >= Duration::from_millis(2));
                let (one, _other) = UnixStream::pair().unwrap();
                one.set_read_timeout(Some(Duration::from_millis(1)))
                    .unwrap();
                let error = (&one).read(&mut [0]).unwrap_err();
                assert_eq!(ErrorKind::WouldBlock, error.kind());
            });
            open_coroutine::without_hooks(yield_now);
            yield_now();
        });
        assert!(task.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_wait_in_a_section_lasts() {
    on_every_runtime(|| {
        let (one, mut other) = UnixStream::pair().unwrap();
        let task = begun(move || {
            let mut byte = [0];
            without_cancellation(|| (&one).read_exact(&mut byte).unwrap());
            without_cancellation(|| sleep(Duration::from_millis(1)));
            byte[0]
        });
        sleep(Duration::from_millis(1));
        assert!(task.cancel());
        sleep(Duration::from_millis(1));
        other.write_all(&[9]).unwrap();
        assert_eq!(9, task.join().unwrap());
    });
}

#[test]
fn a_coroutine_that_is_used_again_knows_nothing_of_the_last_task() {
    on_every_runtime(|| {
        for _ in 0..100 {
            let task = cancels_itself(yield_now);
            let other = task.task();
            assert!(task.join().unwrap_err().is_cancelled());
            let next = spawn(move || {
                assert!(!other.cancel());
                assert!(!is_cancelled());
                sleep(Duration::from_micros(10));
                yield_now();
            });
            next.join().unwrap();
        }
    });
}

#[test]
fn a_guard_cancels_unless_it_is_kept() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::channel::<()>();
        let held = sender.clone();
        drop(
            spawn(move || {
                let _held = held;
                park();
            })
            .cancel_on_drop(),
        );
        let kept = spawn(park).cancel_on_drop().keep();
        assert!(!kept.is_cancelled());
        kept.task().unpark();
        kept.join().unwrap();
        assert_eq!(3, spawn(|| 3).cancel_on_drop().join().unwrap());
        drop(sender);
        // The first task has dropped its end.
        receiver.recv().unwrap_err();
    });
}
