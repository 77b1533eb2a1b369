//! The machinery of `open-coroutine`: stacks, per-coroutine thread-local
//! storage, the scheduler, drivers, timers and what a coroutine calls.
//!
//! Most programs depend on the `open-coroutine` crate, which re-exports what
//! its users need. The modules here are layers; a module uses only those
//! below it:
//!
//! ```text
//! runtime                                 start, stop, configuration
//! io  sync  time  join  local  block_on   what a coroutine calls; each ends in a suspend
//! allocator                               except this one, in which nothing suspends
//! sched                                   who runs, where and when
//! driver  pool  timer  coroutine  task    mechanisms; know nothing of sched
//! stack  tls  sys  util                   leaves
//! ```

pub mod allocator;
pub mod block_on;
pub mod coroutine;
pub mod driver;
pub mod io;
pub mod join;
pub mod local;
pub mod pool;
pub mod runtime;
pub mod sched;
pub mod stack;
pub mod sync;
pub mod sys;
pub mod task;
pub mod time;
pub mod timer;
pub mod tls;
pub mod util;
