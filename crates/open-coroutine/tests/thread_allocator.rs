//! An allocator with state per thread keeps its state when it is wrapped: it runs
//! on the thread below a coroutine, and nothing suspends in it.

mod child;
mod runtimes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use open_coroutine::{
    Config, OnThread, capabilities, doctor, init, shutdown, sleep, spawn, yield_now,
};

/// Counts, per thread, and passes on; waits in between if it is told to.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

static SLEEPS: AtomicBool = AtomicBool::new(false);
static SLEPT: AtomicU64 = AtomicU64::new(0);

/// The states that allocations on coroutines saw.
static STATES: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
/// Whether allocations note them.
static NOTES: AtomicBool = AtomicBool::new(false);

fn note_state() {
    let state = ALLOCATIONS.with(|state| {
        state.set(state.get() + 1);
        ptr::from_ref(state) as usize
    });
    if NOTES.load(Relaxed) {
        let is_free = |slot: &&AtomicUsize| {
            let taken = slot.compare_exchange(0, state, Relaxed, Relaxed);
            taken.is_ok() || taken == Err(state)
        };
        assert!(STATES.iter().any(|slot| is_free(&slot)));
    }
    if SLEEPS.swap(false, Relaxed) {
        // SAFETY: it only waits. Hooked, it would suspend a coroutine.
        unsafe { libc::usleep(20_000) };
        SLEPT.fetch_add(1, Relaxed);
    }
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_state();
        // SAFETY: the caller's contract, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note_state();
        // SAFETY: the caller's contract, passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: OnThread<Counting> = OnThread(Counting);

/// Keeps tests apart: they look at the process's allocator.
static TURN: Mutex<()> = Mutex::new(());

fn allocate() {
    for size in [1, 100, 10_000] {
        let mut block = black_box(vec![1_u8; size]);
        block.resize(2 * size, 2);
        assert_eq!(3 * size, block.iter().map(|byte| usize::from(*byte)).sum());
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_wrapped_allocator_is_not_foreign() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!capabilities().foreign_allocator);
    assert!(
        !doctor()
            .advice
            .iter()
            .any(|line| line.contains("allocator"))
    );
    shutdown().unwrap();
}

#[test]
fn coroutines_share_the_state_of_their_thread() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for workers in [1, 2] {
        let config = Config::default().event_loop_size(workers);
        init(config.take_over(false)).unwrap();
        STATES.iter().for_each(|slot| slot.store(0, Relaxed));
        let body = || {
            for _ in 0..50 {
                allocate();
                yield_now();
            }
        };
        let coroutines: Vec<_> = (0..100).map(|_| spawn(body)).collect();
        NOTES.store(true, Relaxed);
        coroutines
            .into_iter()
            .for_each(|coroutine| coroutine.join().unwrap());
        NOTES.store(false, Relaxed);
        let states: HashSet<_> = STATES.iter().map(|slot| slot.load(Relaxed)).collect();
        // The workers, their monitor, this thread, and the zero of unused slots.
        assert!(states.len() <= workers + 3, "{states:?}");
        shutdown().unwrap();
    }
}

#[test]
fn nothing_suspends_in_the_allocator() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    init(Config::default().event_loop_size(1)).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let turns = Arc::new(AtomicU64::new(0));
    let other = spawn({
        let (is_over, turns) = (is_over.clone(), turns.clone());
        move || {
            while !is_over.load(Relaxed) {
                turns.fetch_add(1, Relaxed);
                yield_now();
            }
        }
    });
    let own = spawn(move || {
        yield_now();
        let (before, slept) = (turns.load(Relaxed), SLEPT.load(Relaxed));
        SLEEPS.store(true, Relaxed);
        drop(black_box(Box::new(1)));
        assert_eq!(slept + 1, SLEPT.load(Relaxed));
        assert_eq!(
            before,
            turns.load(Relaxed),
            "another coroutine ran meanwhile"
        );
        yield_now();
        assert_ne!(before, turns.load(Relaxed));
    });
    let result = own.join();
    is_over.store(true, Relaxed);
    other.join().unwrap();
    result.unwrap();
    shutdown().unwrap();
}

#[test]
fn errno_is_kept() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    runtimes::on_every_runtime(|| {
        // SAFETY: `errno` is a variable of the caller's own.
        unsafe { *libc::__errno_location() = libc::EXDEV };
        allocate();
        // SAFETY: as above.
        assert_eq!(libc::EXDEV, unsafe { *libc::__errno_location() });
    });
}

/// Allocates when its thread or task ends.
struct Late(RefCell<Vec<String>>);

impl Drop for Late {
    fn drop(&mut self) {
        let texts = self.0.take();
        let joined = texts.join("-") + &"end".repeat(texts.len());
        assert!(joined.ends_with("end"));
        allocate();
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
}

fn allocate_late() {
    LATE.with(|late| late.0.borrow_mut().push("late".to_owned()));
}

#[test]
fn destructors_of_threads_and_tasks_allocate() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    thread::spawn(allocate_late).join().unwrap();
    runtimes::on_every_runtime(|| {
        for _ in 0..20 {
            spawn(allocate_late).join().unwrap();
            thread::spawn(allocate_late).join().unwrap();
        }
    });
}

#[test]
fn the_child_of_a_fork_allocates() {
    child::succeeds("the_child_of_a_fork_allocates", || {
        let child = spawn(|| {
            sleep(std::time::Duration::from_millis(1));
            // SAFETY: the child only allocates and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                allocate();
                // SAFETY: it has no requirements.
                unsafe { libc::_exit(0) };
            }
            allocate();
            child
        });
        let child = child.join().unwrap();
        let mut status = 0;
        // SAFETY: writes the status.
        assert_eq!(child, unsafe { libc::waitpid(child, &raw mut status, 0) });
        assert_eq!(0, status);
    });
}
