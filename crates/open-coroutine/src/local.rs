//! `coroutine_local!`: variables of which every coroutine has its own.

/// Declares statics of which every coroutine has a value of its own, and so has every
/// plain thread: a [`CoroutineLocal`](crate::CoroutineLocal) each.
///
/// In full mode `std::thread_local!` is as good, and faster. In restricted mode
/// coroutines share the thread-locals of their thread, but not these.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
///
/// open_coroutine::coroutine_local! {
///     /// How many requests this coroutine has served.
///     static SERVED: Cell<u32> = Cell::new(0);
/// }
///
/// let task = open_coroutine::spawn(|| {
///     SERVED.with(|served| served.set(served.get() + 1));
///     open_coroutine::yield_now();
///     SERVED.with(Cell::get)
/// });
/// assert_eq!(1, task.join().unwrap());
/// assert_eq!(0, SERVED.with(Cell::get));
/// ```
#[macro_export]
macro_rules! coroutine_local {
    ($($(#[$meta:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr);+ $(;)?) => {$(
        $(#[$meta])*
        $visibility static $name: $crate::CoroutineLocal<$type> =
            $crate::CoroutineLocal::new(|| $init);
    )+};
}
