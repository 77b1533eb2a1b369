//! Whether the caller is inside a signal handler of the program.
//!
//! A handler may interrupt code of the runtime that holds a lock, on the same
//! thread; so inside one nothing may wait for such a lock. Handlers never
//! suspend, so the thread-local variable here is that of the interrupted flow
//! from the handler's begin to its end.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `handler`, during which [`is_inside`] says so.
pub fn inside<R>(handler: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.with(|depth| depth.set(depth.get() - 1));
        }
    }
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let _leave = Leave;
    handler()
}

/// Whether the caller runs inside [`inside`].
pub fn is_inside() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}
