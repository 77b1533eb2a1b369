//! Waiting for each other: futexes, and what is built on them.
//!
//! * `futex`: the table of coroutines that wait on an address. std's locks,
//!   channels and `thread::park` end here, through the `syscall` shim.
//! * `park`: park and unpark of the own API.

mod count;
pub mod futex;
mod park;

pub use park::{park, park_timeout, unpark};
