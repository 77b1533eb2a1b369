//! Whether the caller is inside a signal handler of the program.
//!
//! A handler may interrupt code of the runtime that holds a lock, on the same
//! thread; so inside one nothing may wait for such a lock. Handlers never
//! suspend, so the thread-local variables here are those of the interrupted flow
//! from the handler's begin to its end.
//!
//! A handler may end by `siglongjmp(3)`, which nobody tells us. So what is noted
//! is the frame that called it, and the stack pointer tells whether that is still
//! there. While the code that was jumped to is deeper in its stack than the
//! handler was, it passes for the handler.

use std::cell::Cell;

use crate::sys;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// An address in the frame of the outermost handler's caller.
    static FRAME: Cell<usize> = const { Cell::new(0) };
}

/// Runs `handler`, during which [`is_inside`] says so.
pub fn inside<R>(handler: impl FnOnce() -> R) -> R {
    struct Leave(u32);
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(self.0);
        }
    }
    let outer = if is_inside() { DEPTH.get() } else { 0 };
    let leave = Leave(outer);
    if outer == 0 {
        FRAME.set((&raw const leave).addr());
    }
    DEPTH.set(outer + 1);
    handler()
}

/// Whether the caller runs inside [`inside`].
#[inline]
pub fn is_inside() -> bool {
    DEPTH.get() > 0 && !has_left(FRAME.get())
}

/// Whether the code that runs is not called from `frame`.
#[cold]
#[inline(never)]
fn has_left(frame: usize) -> bool {
    let here = (&raw const frame).addr();
    let alternate = sys::alternate_stack();
    match (alternate.contains(&frame), alternate.contains(&here)) {
        (true, false) => true,
        // Another handler has interrupted the first one.
        (false, true) => false,
        _ => here > frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_how_deep_one_is() {
        assert!(!is_inside());
        inside(|| {
            assert!(is_inside());
            inside(|| assert!(is_inside()));
            assert!(is_inside());
        });
        assert!(!is_inside());
    }

    #[test]
    fn one_that_was_left_by_a_jump_is_noticed() {
        #[inline(never)]
        fn deeper() {
            let mut frame = [0u8; 256];
            // As `inside` leaves it, if a jump skips its end.
            FRAME.set(std::hint::black_box(frame.as_mut_ptr()).addr());
            DEPTH.set(1);
        }
        deeper();
        assert!(!is_inside());
        inside(|| assert!(is_inside()));
        assert!(!is_inside());
        DEPTH.set(0);
    }
}
