//! The stack that the running code is on.
//!
//! A thread or coroutine starts on one stack and may continue on others: a
//! generator's, or a segment that [`maybe_grow`] added. The innermost of them
//! is kept in a thread-local, so that `maybe_grow` knows how much is left and
//! the overflow report knows whose guard page was touched.

use std::cell::Cell;
use std::ops::Range;
use std::ptr;

use crate::stack::{self, Stack, StackError};

/// One stack and where it ends.
#[derive(Debug)]
pub struct Segment {
    limit: usize,
    guard: Range<usize>,
    size: usize,
}

thread_local! {
    static INNERMOST: Cell<*const Segment> = const { Cell::new(ptr::null()) };
    /// The lowest usable address of the thread's own stack; 0 is not known yet.
    static THREAD_LIMIT: Cell<usize> = const { Cell::new(0) };
}

/// An access to the guard page below a stack.
#[derive(Clone, Copy, Debug)]
pub struct Overflow {
    /// Usable bytes of the stack that overflowed.
    pub stack_size: usize,
}

impl Segment {
    /// Describes `stack`.
    pub fn of(stack: &Stack) -> Self {
        Self {
            limit: stack.usable().start,
            guard: stack.guard(),
            size: stack.usable_size(),
        }
    }

    /// Makes `segment` the innermost one, and returns the one before. A null
    /// pointer stands for the thread's own stack.
    pub(crate) fn replace_innermost(segment: *const Segment) -> *const Segment {
        INNERMOST.with(|innermost| innermost.replace(segment))
    }

    /// Runs `body` with this segment as the innermost one.
    pub(crate) fn enter<R>(&self, body: impl FnOnce() -> R) -> R {
        struct Restore(*const Segment);
        impl Drop for Restore {
            fn drop(&mut self) {
                Segment::replace_innermost(self.0);
            }
        }
        let _restore = Restore(Self::replace_innermost(self));
        body()
    }

    /// Whether an access to `address` overflowed the stack that the caller was
    /// on. Async-signal-safe.
    pub fn overflow_at(address: usize) -> Option<Overflow> {
        let innermost = INNERMOST.with(Cell::get);
        // SAFETY: the segment lies on the stack that it describes, or in the
        // frame that switched to it; both outlive what runs on it.
        let segment = unsafe { innermost.as_ref() }?;
        segment.guard.contains(&address).then_some(Overflow {
            stack_size: segment.size,
        })
    }
}

/// An address within the caller's frame.
#[inline(always)]
fn stack_pointer() -> usize {
    let here = 0u8;
    &raw const here as usize
}

/// How many bytes of stack the caller can still use, on whatever stack it is.
pub fn remaining_stack() -> usize {
    let innermost = INNERMOST.with(Cell::get);
    // SAFETY: as in `overflow_at`.
    let limit = match unsafe { innermost.as_ref() } {
        Some(segment) => segment.limit,
        None => thread_limit(),
    };
    stack_pointer().saturating_sub(limit)
}

fn thread_limit() -> usize {
    let known = THREAD_LIMIT.with(Cell::get);
    if known != 0 {
        return known;
    }
    let limit = stack::thread_stack_limit();
    THREAD_LIMIT.with(|cell| cell.set(limit));
    limit
}

/// Runs `body`, on a fresh stack of `stack_size` bytes if fewer than `red_zone`
/// bytes of the current one are left. Works on coroutines and on plain
/// threads; the fresh stack is given back when `body` ends. A panic of `body`
/// goes on in the caller.
///
/// # Errors
///
/// When a fresh stack is needed and there is no memory for it; `body` is then
/// dropped without having run.
///
/// # Examples
///
/// ```
/// fn depth(n: u32) -> u32 {
///     let page = std::hint::black_box([0u8; 10 * 1024]);
///     if n == 0 {
///         return page[0].into();
///     }
///     let deeper = || 1 + depth(n - 1);
///     open_coroutine_core::coroutine::maybe_grow(64 * 1024, 1024 * 1024, deeper).unwrap()
/// }
/// assert_eq!(5000, depth(5000));
/// ```
pub fn maybe_grow<R>(
    red_zone: usize,
    stack_size: usize,
    body: impl FnOnce() -> R,
) -> Result<R, StackError> {
    if remaining_stack() >= red_zone {
        return Ok(body());
    }
    let stack = stack::pool().allocate(stack_size)?;
    let segment = Segment::of(&stack);
    Ok(corosensei::on_stack(Temporary(Some(stack)), || {
        segment.enter(body)
    }))
}

/// A stack whose memory goes back to the system as soon as it is left: deep
/// recursion is rare, and its stack would stay warm for nothing.
struct Temporary(Option<Stack>);

impl Temporary {
    fn stack(&self) -> &Stack {
        self.0.as_ref().expect("present until it is dropped")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(stack) = self.0.take() {
            stack.release();
        }
    }
}

// SAFETY: the same addresses as those of the stack that it owns.
unsafe impl corosensei::stack::Stack for Temporary {
    fn base(&self) -> corosensei::stack::StackPointer {
        corosensei::stack::Stack::base(self.stack())
    }

    fn limit(&self) -> corosensei::stack::StackPointer {
        corosensei::stack::Stack::limit(self.stack())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_left_when_its_body_panics() {
        let before = INNERMOST.with(Cell::get);
        let panicked = std::panic::catch_unwind(|| {
            let _ = maybe_grow(usize::MAX, 64 * 1024, || panic!("out"));
        });
        assert!(panicked.is_err());
        assert_eq!(before, INNERMOST.with(Cell::get));
    }

    #[test]
    fn a_fresh_stack_has_the_size_that_was_asked_for() {
        let left = maybe_grow(usize::MAX, 256 * 1024, remaining_stack).unwrap();
        assert!((250 * 1024..=280 * 1024).contains(&left), "{left}");
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        assert!(maybe_grow(usize::MAX, usize::MAX, || ()).is_err());
    }
}
