//! Faults: what users of the runtime see when the kernel below it fails.
//!
//! A child process performs a workload of all kinds of calls while one system call
//! of the runtime fails once. The product has no code for that: a seccomp filter
//! asks a thread of the child, which lets each call go on or gives it an error
//! number. Then the workload must have run through, on this runtime and on another
//! one after it, and its user must have seen that error or nothing at all.
//!
//! ```text
//! cargo test -p open-coroutine-faults
//! OPEN_COROUTINE_FAULTS=all cargo test -p open-coroutine-faults
//! OPEN_COROUTINE_FAULTS="epoll/epoll_ctl add/ENOMEM/3" cargo test -p open-coroutine-faults
//! ```
//!
//! The first form tries a choice of the faults, the second one all of them, and
//! prints what was seen of each; the third one repeats a single fault.
//!
//! * `calls`: the system calls, and the errors that each may fail with.
//! * `supervisor`: the filter, and the thread that decides.
//! * `workload`: what the child does.
//! * `child`: one fault in the process that is made for it.
//! * `suite`: which faults there are, children, reports.

mod calls;
mod child;
mod suite;
mod supervisor;
mod workload;

pub use child::{is_child, run_child};
pub use suite::{try_faults, try_rings};
