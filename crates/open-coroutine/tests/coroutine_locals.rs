//! Coroutine-locals: one value per coroutine and thread, in every mode.

mod child;
mod runtimes;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use open_coroutine::{coroutine_local, park, sleep, spawn, yield_now};
use runtimes::on_every_runtime;

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Counted(u32);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(1, SeqCst);
    }
}

coroutine_local! {
    static NUMBER: Cell<u32> = Cell::new(7);
    static TEXT: RefCell<String> = RefCell::new(format!("number {}", NUMBER.with(Cell::get)));
    static COUNTED: Counted = Counted(NUMBER.with(Cell::get));
}

/// Runs `body` on every runtime, in full and in restricted mode, each in a process of its
/// own.
fn in_every_mode(name: &str, body: fn()) {
    if child::is_child() {
        on_every_runtime(body);
        std::process::exit(0);
    }
    for mode in [None, Some("restricted")] {
        let mut command = child::command(name);
        if let Some(mode) = mode {
            command.env("OPEN_COROUTINE_MODE", mode);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{mode:?}: {text}");
    }
}

#[test]
fn every_coroutine_has_its_own_and_drops_it() {
    in_every_mode("every_coroutine_has_its_own_and_drops_it", || {
        DROPS.store(0, SeqCst);
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                spawn(move || {
                    assert_eq!("number 7", TEXT.with(RefCell::take));
                    assert_eq!(7, NUMBER.with(|number| number.replace(n)));
                    yield_now();
                    TEXT.with(|text| text.borrow_mut().push('x'));
                    COUNTED.with(|counted| {
                        assert_eq!(n, counted.0);
                        sleep(std::time::Duration::from_micros(10));
                        assert_eq!(n, counted.0);
                    });
                    assert_eq!("x", TEXT.with(|text| text.borrow().clone()));
                    NUMBER.with(Cell::get)
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(n as u32, task.join().unwrap());
        }
        assert_eq!(100, DROPS.load(SeqCst));
        let thread = thread::spawn(|| COUNTED.with(|counted| counted.0));
        assert_eq!(7, thread.join().unwrap());
        assert_eq!(101, DROPS.load(SeqCst));
    });
}

#[test]
fn a_task_that_unwinds_drops_its_own() {
    in_every_mode("a_task_that_unwinds_drops_its_own", || {
        static BEGAN: AtomicBool = AtomicBool::new(false);
        DROPS.store(0, SeqCst);
        let task = spawn(|| {
            COUNTED.with(|_| BEGAN.store(true, SeqCst));
            park();
        });
        while !BEGAN.swap(false, SeqCst) {
            yield_now();
        }
        assert_eq!(0, DROPS.load(SeqCst));
        task.cancel();
        assert!(task.join().unwrap_err().is_cancelled());
        assert_eq!(1, DROPS.load(SeqCst));
    });
}
