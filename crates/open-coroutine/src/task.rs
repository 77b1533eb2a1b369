//! `task!`: spawn with an argument and a priority.

use open_coroutine_core::join::JoinHandle;
use open_coroutine_core::runtime::Builder;

/// Spawns a coroutine that calls a closure with an argument, and returns its
/// [`JoinHandle`](crate::JoinHandle).
///
/// * `task!(closure, argument)`
/// * `task!(closure, argument, priority)`: tasks with a smaller number run
///   sooner; the default is 0.
///
/// Closure, argument and result are `Send + 'static`, as for
/// [`spawn`](crate::spawn).
///
/// # Panics
///
/// As [`spawn`](crate::spawn): if no runtime can be started, or it is shutting
/// down.
///
/// # Examples
///
/// ```
/// let sum = open_coroutine::task!(|(a, b)| a + b, (20, 22), -1);
/// assert_eq!(42, sum.join().unwrap());
///
/// let lengths = open_coroutine::task!(
///     |names: Vec<&str>| names.into_iter().map(str::len).sum::<usize>(),
///     vec!["one", "three"],
/// );
/// assert_eq!(8, lengths.join().unwrap());
/// ```
#[macro_export]
macro_rules! task {
    ($closure:expr, $argument:expr $(,)?) => {
        $crate::task!($closure, $argument, 0)
    };
    ($closure:expr, $argument:expr, $priority:expr $(,)?) => {
        $crate::__private::task($closure, $argument, $priority)
    };
}

/// What `task!` calls.
#[doc(hidden)]
pub fn task<P, R, F>(closure: F, argument: P, priority: i64) -> JoinHandle<R>
where
    F: FnOnce(P) -> R + Send + 'static,
    P: Send + 'static,
    R: Send + 'static,
{
    let builder = Builder::new().priority(priority);
    match builder.spawn(move || closure(argument)) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot spawn a task: {error}"),
    }
}
