//! Panics that are caught, values that are dropped by them, and backtraces.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::thread;

use open_coroutine::yield_now;

use super::{Round, message, work};

thread_local! {
    /// How many panics the hook has seen on this coroutine.
    static HOOKED: Cell<u64> = const { Cell::new(0) };
}

/// The text of panics that are part of a round.
const EXPECTED: &str = "expected";

/// Says what went wrong, unless it was to be expected.
pub(crate) fn hook(info: &PanicHookInfo<'_>) {
    HOOKED.set(HOOKED.get() + 1);
    if !message(info.payload()).starts_with(EXPECTED) {
        eprintln!("FAILED: {info}\n{}", Backtrace::force_capture());
    }
}

/// Adds one when it is dropped, in a while.
struct Adds<'a>(&'a Cell<u64>);

impl Drop for Adds<'_> {
    fn drop(&mut self) {
        assert!(thread::panicking());
        work(1);
        // On the way out of a panic.
        yield_now();
        self.0.set(self.0.get() + 1);
    }
}

#[inline(never)]
fn fall(depth: u64, dropped: &Cell<u64>) -> u64 {
    if depth == 0 {
        panic!("{EXPECTED} at the bottom");
    }
    let _adds = Adds(dropped);
    fall(depth - 1, dropped) + 1
}

pub(super) fn round(round: &mut Round) {
    let depth = 1 + round.below(10);
    let dropped = Cell::new(0);
    let before = HOOKED.get();
    let result = catch_unwind(AssertUnwindSafe(|| fall(depth, &dropped)));
    let payload = result.expect_err("it panics");
    assert_eq!("expected at the bottom", message(&*payload));
    assert_eq!(depth, dropped.get());
    assert_eq!(before + 1, HOOKED.get());
    assert!(!thread::panicking());
    let again = catch_unwind(|| resume_unwind(Box::new(depth)));
    let number = again.expect_err("it panics").downcast::<u64>();
    assert_eq!(depth, *number.expect("it is the same payload"));
    assert_eq!(before + 1, HOOKED.get());
    nested(&dropped);
}

/// A panic that is caught inside of a destructor, while another one unwinds.
fn nested(dropped: &Cell<u64>) {
    struct Catches<'a>(&'a Cell<u64>);
    impl Drop for Catches<'_> {
        fn drop(&mut self) {
            let inner = catch_unwind(|| panic!("{EXPECTED} inside of a destructor"));
            assert!(inner.is_err() && thread::panicking());
            self.0.set(self.0.get() + 1);
        }
    }
    let before = dropped.get();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _catches = Catches(dropped);
        panic::panic_any(EXPECTED);
    }));
    assert!(result.is_err() && !thread::panicking());
    assert_eq!(before + 1, dropped.get());
}

#[inline(never)]
fn landmark(capture: &dyn Fn() -> Backtrace) -> Backtrace {
    std::hint::black_box(capture())
}

/// Captured every time, and resolved, which takes long, now and then.
pub(super) fn backtrace(round: &mut Round) {
    let backtrace = landmark(&Backtrace::force_capture);
    if round.number.is_multiple_of(64) {
        let text = backtrace.to_string();
        assert!(text.contains("landmark"), "{text}");
        assert!(text.contains("backtrace"), "{text}");
    }
}
