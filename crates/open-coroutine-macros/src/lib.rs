//! The attributes of `open-coroutine`; use them from there.
//!
//! * `settings`: the arguments of an attribute, and the one table of keys.
//! * `function`: the function it stands on, and what becomes of it.

mod function;
mod settings;

use proc_macro::TokenStream;

use function::Entry;

/// Runs `main` as a coroutine, on a runtime that lasts as long as it does.
///
/// The function takes no arguments and returns what any `main` may return. It
/// runs as a coroutine called `main` with a stack of 8 MiB. When it returns,
/// the runtime waits for the tasks that are left, `shutdown_timeout` at most.
/// A runtime that cannot start is reported on standard error, and the process
/// exits with status 1; a panic ends it with status 101, as ever.
///
/// What `main` blocks of signals before it spawns anything is blocked in the whole
/// process, as in a program with threads, and waits for `sigwait` or `signalfd`.
/// Signal handlers run on the threads of the runtime.
///
/// # Arguments
///
/// All of them can be left out. Each is an expression of the type that the
/// method of `Config` takes, unless it says otherwise.
///
/// | key | meaning |
/// |---|---|
/// | `event_loop_size` | the number of workers |
/// | `stack_size` | bytes of stack of a coroutine |
/// | `min_size` | idle coroutines that each worker keeps |
/// | `max_size` | how many coroutines may be alive at once, `main` included |
/// | `keep_alive_time` | how long the memory of idle coroutines is kept |
/// | `hook` | whether blocking functions of libc suspend coroutines |
/// | `driver` | `"io_uring"`, `"epoll"`, or an expression |
/// | `shutdown_timeout` | how long the tasks that are left get to end |
/// | `unsafe_shared_tls` | `true` calls `Config::hook_with_shared_tls`: **you** vouch for what its safety section asks |
/// | `crate` | the path of `open_coroutine`, where it was renamed |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// #[open_coroutine::main(event_loop_size = 2, keep_alive_time = Duration::from_secs(1))]
/// fn main() -> std::io::Result<()> {
///     open_coroutine::spawn(|| println!("a coroutine")).join().expect("it does not panic");
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Entry::Main, arguments.into(), item.into()).into()
}

/// Runs a test as a coroutine.
///
/// The arguments are those of [`main`](macro@main). The tests of one process
/// share one runtime, and nothing shuts it down: the test that comes first
/// starts it, with its arguments, and those of the others have no effect.
///
/// `#[should_panic]` and `#[ignore]` work as for any test. What a coroutine
/// prints is not captured by the test harness.
///
/// # Examples
///
/// ```
/// #[open_coroutine::test]
/// fn a_sleeping_coroutine_does_not_block_its_worker() {
///     std::thread::sleep(std::time::Duration::from_millis(5));
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Entry::Test, arguments.into(), item.into()).into()
}
