//! The child of a fork: it leaves alone what is its parent's.
//!
//! Only the thread that forked exists there. If that was a coroutine, it goes on as
//! the process's only thread, on its stack and with its thread-local storage, but as
//! a plain thread: its calls block, and it may start a runtime of its own. When its
//! task returns, the process exits, as that of a thread does.
//!
//! The parent's runtime, with workers that do not run, drivers that are the
//! parent's, and coroutines that nobody will resume, is left in memory for good: to
//! free it would run destructors that belong to threads of the parent. The same
//! goes for whatever other threads were about to change: the locks that they held
//! are free again, with nothing behind them.
//!
//! # Invariants
//!
//! 1. Nothing here allocates, waits, or reads what another thread may have left
//!    half done, so that it may be called in any child.
//! 2. The child never touches a driver of its parent: its ring, its epoll set and
//!    its eventfd are shared with the parent.

use super::{RUNTIME, SCHEDULER, State};
use crate::driver;
use crate::io;
use crate::sched;
use crate::stack;
use crate::sync;
use crate::task;
use crate::tls;
use crate::util::child;

/// To be called first of all in the child of a fork, whose only thread goes on
/// as the caller. Async-signal-safe.
///
/// # Safety
///
/// No other thread exists in this process.
pub unsafe fn abandon() {
    child::begin();
    sched::leave();
    task::abandon();
    // SAFETY: the caller's promise; he is not inside of these modules.
    unsafe {
        sched::abandon();
        sync::abandon();
        driver::abandon();
        io::abandon();
        tls::abandon();
        stack::pool().abandon();
        RUNTIME.abandon(State::Stopped);
        SCHEDULER.abandon(None);
    }
}
