//! Run ordinary blocking code on coroutines.
//!
//! A coroutine is spawned like a thread, and its code cannot tell that it is
//! none, except that it is cheaper: `std::net`, `std::fs`, `thread::sleep`,
//! locks and channels suspend it instead of blocking the thread below it. So
//! thousands of them share a handful of threads, and nothing is rewritten to
//! `async`.
//!
//! ```
//! use std::time::Duration;
//!
//! #[open_coroutine::main(event_loop_size = 2)]
//! fn main() {
//!     // As `std::thread::spawn`; the sleep suspends, it blocks no thread.
//!     let sleepers: Vec<_> = (0..1000)
//!         .map(|n| {
//!             open_coroutine::spawn(move || {
//!                 std::thread::sleep(Duration::from_millis(5));
//!                 n
//!             })
//!         })
//!         .collect();
//!     let sum: u32 = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).sum();
//!     assert_eq!(499_500, sum);
//!
//!     // A task of a closure, its argument and a priority: smaller runs sooner.
//!     let sum = open_coroutine::task!(|(a, b)| a + b, (20, 22), -1);
//!     assert_eq!(42, sum.timeout_join(Duration::from_secs(1)).expect("in time"));
//! }
//! ```
//!
//! # Where to start
//!
//! * A program: [`#[main]`](macro@main), or [`init`] and [`shutdown`].
//! * Spawning: [`spawn`], [`Builder`], [`task!`]; waiting: [`JoinHandle`],
//!   [`any_join!`]; both with borrows: [`scope`].
//! * Futures: [`block_on`].
//! * On a coroutine: any blocking call; and [`sleep`], [`yield_now`], [`park`],
//!   [`current`], which work in every mode.
//! * Ending a task early: [`JoinHandle::cancel`], [`CancelOnDrop`]; in the task:
//!   [`is_cancelled`], [`without_cancellation`].
//! * Variables per coroutine, in every mode: [`coroutine_local!`].
//! * Deep recursion: [`maybe_grow!`].
//! * What works here, and why not better: [`capabilities`], [`doctor`].
//! * Calls that are to block after all: [`without_hooks`], [`unblock`], [`Hooks`].
//! * Allocators like jemalloc and mimalloc: [`OnThread`].
//! * Tests: [`#[test]`](macro@test).
//! * A coroutine without a runtime, resumed by hand: [`Coroutine`].

mod any;
mod capabilities;
mod doctor;
mod entry;
mod grow;
mod local;
mod opt_out;
mod task;

// Linked for its symbols, which replace libc's; nothing refers to it by name.
extern crate open_coroutine_hook as _;

pub use capabilities::{Capabilities, Mode, capabilities};
pub use doctor::{Check, Outcome, Report, doctor};
pub use open_coroutine_core::allocator::OnThread;
pub use open_coroutine_core::block_on::block_on;
pub use open_coroutine_core::coroutine::{Coroutine, Listener, State, StateKind, Suspender};
pub use open_coroutine_core::join::{CancelOnDrop, JoinError, JoinHandle, Payload, TaskHandle};
pub use open_coroutine_core::local::CoroutineLocal;
pub use open_coroutine_core::runtime::{
    Builder, Config, Driver, InitError, InvalidConfig, Scope, ScopedJoinHandle, ShutdownError,
    current, init, scope, shutdown, spawn,
};
pub use open_coroutine_core::sched::{Hooks, is_cancelled, without_cancellation};
pub use open_coroutine_core::stack::StackError;
pub use open_coroutine_core::sync::{park, park_timeout};
pub use open_coroutine_core::time::{sleep, yield_now};
pub use open_coroutine_core::tls::Refusal;
pub use open_coroutine_core::util::preempt::no_preempt;
pub use open_coroutine_hook::{Status, Symbol};
pub use open_coroutine_macros::{main, test};
pub use opt_out::{unblock, without_hooks};

/// What the macros expand to; no part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::any::any_join;
    pub use crate::entry::{main, test};
    pub use crate::grow::{DEFAULT_SEGMENT, maybe_grow, red_zone};
    pub use crate::task::task;
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
