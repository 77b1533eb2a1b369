//! Blocking calls, as a coroutine makes them.
//!
//! Every function here has the contract of a system call or a libc function,
//! must be called on a coroutine, and suspends it where a thread would block.
//! Results are those of raw system calls: minus the error number on failure.
//!
//! * `descriptor`: whether a thread would block on it.
//! * `perform`: one operation, by the driver, by readiness, or by the pool.
//! * `open`: making descriptors of paths.
//! * `connect`: making connections.
//! * `socket`, `messages`, `stream`: what is done with sockets, and with any
//!   descriptor.
//! * `wait`: for several descriptors at once.
//! * `signals`: for signals.
//!
//! # How an operation is performed
//!
//! A driver that performs it itself (io_uring) gets it as it is. Else it is
//! tried without blocking; if it would block, the coroutine waits for readiness
//! and tries again. What has no readiness (files), or cannot be tried, blocks a
//! thread of the pool. Nothing ever changes the descriptor's `O_NONBLOCK`, which
//! others share; who set it gets `EAGAIN` at once, as a thread would.

mod connect;
mod descriptor;
mod messages;
mod open;
mod perform;
mod signals;
mod socket;
mod stream;
mod wait;

pub use connect::connect;
pub use descriptor::{forget, modes_changed, remembers};
pub use messages::{
    receive_from, receive_message, receive_messages, send_message, send_messages, send_to,
};
pub use open::open;
pub use perform::{Awaits, call, offload, perform};
pub use signals::wait_for_signal;
pub(crate) use socket::abandon;
pub use socket::{accept, lingers, note_linger, note_socket_timeout, receive, send};
pub use stream::{read, read_vectored, write, write_vectored};
pub use wait::{FdSets, epoll_wait, futex_wait, poll, select};
