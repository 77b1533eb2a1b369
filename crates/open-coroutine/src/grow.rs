//! `maybe_grow!`: go on on a fresh stack when this one is nearly full.

use open_coroutine_core::coroutine;
use open_coroutine_core::stack::StackError;

/// Bytes of a fresh stack, unless the caller says otherwise. Only the pages
/// that are touched take memory, so it can be large; the larger, the rarer a
/// recursion has to change stacks.
#[doc(hidden)]
pub const DEFAULT_SEGMENT: usize = 1024 * 1024;

/// What must be left of a stack for the body to run on it. Between two uses of
/// `maybe_grow!` the code must get by with that: 64 KiB hold several frames of
/// 10 KiB in a debug build, and are half of a coroutine's default stack.
const DEFAULT_RED_ZONE: usize = 64 * 1024;

/// Runs a closure, on a fresh stack if little is left of the current one.
/// Returns `Result<R, StackError>`: an error if a fresh stack is needed and
/// there is no memory for it.
///
/// * `maybe_grow!(closure)`
/// * `maybe_grow!(stack_size, closure)`: the fresh stack has `stack_size`
///   bytes; the default is 1 MiB.
/// * `maybe_grow!(red_zone, stack_size, closure)`: a fresh stack is used when
///   fewer than `red_zone` bytes are left. The default is 64 KiB, but at most
///   half of `stack_size`.
///
/// It works on coroutines and on plain threads. The closure may borrow, and may
/// suspend its coroutine. The memory of the fresh stack goes back to the system
/// as soon as the closure ends. The stack of frames between two uses must fit
/// into the red zone.
///
/// # Examples
///
/// ```
/// fn depth(n: u32, page: &mut [u8; 10 * 1024]) -> u32 {
///     std::hint::black_box(&page);
///     if n == 0 {
///         return 0;
///     }
///     open_coroutine::maybe_grow!(|| 1 + depth(n - 1, &mut [0; 10 * 1024]))
///         .expect("no memory for a stack")
/// }
/// let task = open_coroutine::task!(|n| depth(n, &mut [0; 10 * 1024]), 500);
/// assert_eq!(500, task.join().unwrap());
/// ```
#[macro_export]
macro_rules! maybe_grow {
    ($closure:expr $(,)?) => {
        $crate::maybe_grow!($crate::__private::DEFAULT_SEGMENT, $closure)
    };
    ($stack_size:expr, $closure:expr $(,)?) => {{
        let stack_size: usize = $stack_size;
        $crate::maybe_grow!(
            $crate::__private::red_zone(stack_size),
            stack_size,
            $closure
        )
    }};
    ($red_zone:expr, $stack_size:expr, $closure:expr $(,)?) => {
        $crate::__private::maybe_grow($red_zone, $stack_size, $closure)
    };
}

/// The red zone for segments of `stack_size` bytes: a fresh segment must not
/// count as nearly full.
#[doc(hidden)]
pub fn red_zone(stack_size: usize) -> usize {
    DEFAULT_RED_ZONE.min(stack_size / 2)
}

/// What `maybe_grow!` calls.
#[doc(hidden)]
pub fn maybe_grow<R>(
    red_zone: usize,
    stack_size: usize,
    closure: impl FnOnce() -> R,
) -> Result<R, StackError> {
    coroutine::maybe_grow(red_zone, stack_size, closure)
}
