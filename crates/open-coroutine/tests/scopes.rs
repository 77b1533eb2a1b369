//! Scopes: children that borrow, and have ended when the scope returns.

mod runtimes;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use open_coroutine::{
    Builder, is_cancelled, park, scope, sleep, spawn, without_cancellation, yield_now,
};
use runtimes::on_every_runtime;

/// Counts that it was dropped, after some time.
struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        yield_now();
        thread::sleep(Duration::from_micros(100));
        self.0.fetch_add(1, SeqCst);
    }
}

/// Runs `body` as a coroutine on each kind of runtime, and on a plain thread beside it.
fn everywhere(body: fn()) {
    on_every_runtime_and_thread(body);
}

fn on_every_runtime_and_thread(body: fn()) {
    for workers in [1, 2] {
        runtimes::on_every_driver(workers, move || {
            body();
            thread::spawn(body).join().unwrap();
        });
    }
}

#[test]
fn children_borrow_and_have_ended_when_the_scope_returns() {
    everywhere(|| {
        let numbers: Vec<u64> = (0..100).collect();
        let mut last = 0;
        let sum = AtomicUsize::new(0);
        let joined = scope(|s| {
            for number in &numbers {
                let sum = &sum;
                s.spawn(move || {
                    yield_now();
                    thread::sleep(Duration::from_micros(10));
                    sum.fetch_add(*number as usize, SeqCst);
                });
            }
            s.spawn(|| last = numbers[99]);
            s.spawn(|| numbers.iter().sum::<u64>()).join().unwrap()
        });
        assert_eq!((4950, 99, 4950), (sum.load(SeqCst), last, joined));
    });
}

#[test]
fn children_spawn_siblings_and_scopes_of_their_own() {
    everywhere(|| {
        let count = AtomicUsize::new(0);
        let add = || {
            yield_now();
            count.fetch_add(1, SeqCst);
        };
        scope(|s| {
            for _ in 0..10 {
                s.spawn(|| {
                    s.spawn(add);
                    scope(|inner| {
                        inner.spawn(add);
                        inner.spawn(add);
                    });
                    add();
                });
            }
        });
        assert_eq!(40, count.load(SeqCst));
    });
}

#[test]
fn what_a_child_leaves_is_dropped_before_the_scope_returns() {
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        scope(|s| {
            // One that is captured, and results that are taken, not taken and
            // forgotten.
            let captured = Dropped(&drops);
            s.spawn(move || {
                let _captured = captured;
                yield_now();
            });
            drop(s.spawn(|| Dropped(&drops)).join().unwrap());
            drop(s.spawn(|| Dropped(&drops)));
            let late = s.spawn(|| Dropped(&drops));
            while !late.is_finished() {
                yield_now();
            }
            drop(late);
        });
        assert_eq!(4, drops.load(SeqCst));
        // A handle that is leaked leaks the result, and holds up nobody.
        scope(|s| mem::forget(s.spawn(|| Dropped(&drops))));
        assert_eq!(4, drops.load(SeqCst));
    });
}

#[test]
fn a_body_that_panics_waits_for_its_children() {
    everywhere(|| {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    thread::sleep(Duration::from_millis(2));
                    ended.fetch_add(1, SeqCst);
                });
                std::panic::panic_any(7u8);
            })
        }));
        assert_eq!(7, *result.unwrap_err().downcast::<u8>().unwrap());
        assert_eq!(1, ended.load(SeqCst));
    });
}

#[test]
fn a_panic_that_nobody_has_joined_is_raised() {
    everywhere(|| {
        let fails = || std::panic::panic_any(7u8);
        let result = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(fails);
            })
        }));
        let message = *result.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!("a scoped task has failed", message);
        scope(|s| {
            let payload = s.spawn(fails).join().unwrap_err().into_panic().unwrap();
            assert_eq!(7, *payload.downcast::<u8>().unwrap());
        });
    });
}

#[test]
fn a_cancelled_child_is_no_failure() {
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        scope(|s| {
            let child = s.spawn(|| {
                let _dropped = Dropped(&drops);
                drops.fetch_add(1, SeqCst);
                park();
            });
            while drops.load(SeqCst) == 0 {
                yield_now();
            }
            assert!(child.cancel());
            assert!(child.join().unwrap_err().is_cancelled());
            s.spawn(park).cancel();
        });
        assert_eq!(2, drops.load(SeqCst));
    });
}

#[test]
fn a_cancelled_scope_ends_all_children_and_those_that_come_later() {
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        scope(|s| {
            for _ in 0..20 {
                let captured = Dropped(&drops);
                s.spawn(move || {
                    let _captured = captured;
                    park();
                });
            }
            s.spawn(|| {
                while !is_cancelled() {
                    thread::yield_now();
                }
                let late = s.spawn(park);
                assert!(without_cancellation(|| late
                    .join()
                    .unwrap_err()
                    .is_cancelled()));
                drops.fetch_add(1, SeqCst);
            });
            sleep(Duration::from_millis(1));
            assert!(!s.is_cancelled());
            s.cancel();
            assert!(s.is_cancelled());
        });
        assert!((20..=21).contains(&drops.load(SeqCst)));
    });
}

#[test]
fn a_cancelled_parent_passes_it_on_and_waits() {
    on_every_runtime(|| {
        let (began, begins) = mpsc::channel();
        let parent = spawn(move || {
            let drops = AtomicUsize::new(0);
            scope(|s| {
                for _ in 0..10 {
                    let (captured, began) = (Dropped(&drops), began.clone());
                    s.spawn(move || {
                        let _captured = captured;
                        began.send(()).unwrap();
                        park();
                    });
                }
            });
            drops.load(SeqCst)
        });
        for _ in 0..10 {
            begins.recv().unwrap();
        }
        assert!(parent.cancel());
        assert_eq!(10, parent.join().unwrap());
    });
}

#[test]
fn a_parent_that_unwinds_because_it_was_cancelled_waits() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::channel();
        let (began, begins) = mpsc::channel();
        let parent = spawn(move || {
            let local = String::from("borrowed");
            scope(|s| {
                let (local, sender) = (&local, &sender);
                s.spawn(move || {
                    without_cancellation(|| sleep(Duration::from_millis(2)));
                    sender.send(local.clone()).unwrap();
                });
                began.send(()).unwrap();
                park();
            });
        });
        begins.recv().unwrap();
        assert!(parent.cancel());
        assert!(parent.join().unwrap_err().is_cancelled());
        // It may have been cancelled before it started, and then never did.
        assert!(receiver.recv().map_or(true, |text| text == "borrowed"));
    });
}

#[test]
fn a_child_has_what_its_builder_says() {
    everywhere(|| {
        let text = String::from("child");
        scope(|s| {
            let builder = Builder::new().name(&*text).stack_size(1 << 20);
            let child = builder.spawn_scoped(s, || text.len()).unwrap();
            assert_eq!(Some("child"), child.task().name());
            assert_eq!(5, child.join().unwrap());
            let refused = Builder::new().stack_size(0).spawn_scoped(s, || text.len());
            assert!(refused.is_err());
        });
    });
}
