//! Cancellation, scopes and futures where coroutines share their thread's
//! thread-local storage. A process has one mode, so each test is one of its own.

mod child;
mod runtimes;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::{
    JoinHandle, Mode, block_on, capabilities, current, is_cancelled, park, scope, sleep, spawn,
    yield_now,
};
use runtimes::on_every_runtime;

/// Runs `body` on every runtime in restricted mode.
fn restricted(name: &str, body: fn()) {
    if child::is_child() {
        on_every_runtime(body);
        std::process::exit(0);
    }
    let mut command = child::command(name);
    let output = command.env("OPEN_COROUTINE_MODE", "restricted").output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
}

/// Counts that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn points_unwind() {
    restricted("points_unwind", || {
        assert!(matches!(capabilities().mode, Mode::Restricted(_)));
        let points: [fn(); 4] = [
            park,
            || sleep(Duration::from_secs(3600)),
            || {
                loop {
                    yield_now();
                }
            },
            || block_on(pending()),
        ];
        let drops = Arc::new(AtomicUsize::new(0));
        for (index, point) in points.into_iter().enumerate() {
            for pause in 0..3 {
                let held = Dropped(drops.clone());
                let task = spawn(move || {
                    let _held = held;
                    point();
                });
                for _ in 0..pause {
                    yield_now();
                }
                assert!(task.cancel());
                assert!(task.join().unwrap_err().is_cancelled());
                assert_eq!(3 * index + pause + 1, drops.load(SeqCst));
            }
        }
    });
}

#[test]
fn those_that_have_not_started_never_do() {
    restricted("those_that_have_not_started_never_do", || {
        let drops = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let held = Dropped(drops.clone());
                spawn(move || drop(held))
            })
            .collect();
        tasks.iter().for_each(|task| {
            task.cancel();
        });
        let ended = tasks.into_iter().map(JoinHandle::join);
        assert!(ended.count() == 100 && drops.load(SeqCst) == 100);
        let task = spawn(|| {
            assert!(!is_cancelled());
            current().unwrap().cancel();
            assert!(is_cancelled());
            yield_now();
        });
        assert!(task.join().unwrap_err().is_cancelled());
        assert!(!is_cancelled());
    });
}

#[test]
fn scopes_and_futures_wait() {
    restricted("scopes_and_futures_wait", || {
        let numbers = [1, 2, 3];
        let sum = AtomicUsize::new(0);
        scope(|s| {
            for number in &numbers {
                let sum = &sum;
                s.spawn(move || {
                    yield_now();
                    sum.fetch_add(*number, SeqCst);
                });
            }
            s.spawn(park).cancel();
        });
        assert_eq!(6, sum.load(SeqCst));
        // A channel would block the worker here.
        let thread = thread::spawn(|| scope(|s| s.spawn(|| 7).join().unwrap()));
        while !thread.is_finished() {
            yield_now();
        }
        assert_eq!(7, thread.join().unwrap());
        assert_eq!(9, block_on(spawn(|| block_on(async { 9 }))).unwrap());
    });
}
