//! Thread-local storage (TLS) of coroutines.
//!
//! Code can tell threads apart by their TLS: std's thread handles, panic
//! counts and channel wakers live there, and so does `errno`. A coroutine that
//! owns a TLS [`Block`] therefore passes for a thread. Where that is possible
//! [`isolation`] says so; where it is not, it gives the [`Refusal`], and
//! coroutines share the TLS of their thread (restricted mode).
//!
//! Nothing above this module knows what a block is made of: it captures the
//! thread's own TLS once per worker ([`ThreadTls`]), and calls [`enter`] and
//! [`leave`] around the stack switch, or [`cross`] between two of them, and [`begin`]
//! and [`end`] around a task.
//!
//! # Invariants
//!
//! 1. A function that calls `enter`, `leave` or `cross` accesses no thread-local
//!    variable. It is not inlined into code that does, and such code that it calls is
//!    not inlined into it: compilers keep TLS addresses.
//! 2. A block is the TLS of at most one flow of control at a time.
//! 3. Everything here but `enter`, `leave`, `cross`, `begin` and `end` takes short
//!    locks or calls the allocator: call it with preemption off.

use std::fmt;

cfg_select! {
    all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64"),
        not(target_feature = "crt-static"),
        not(miri),
    ) => {
        mod glibc;
        pub use glibc::*;
    }
    _ => {
        mod shared;
        pub use shared::*;
    }
}

/// Why coroutines share the TLS of their thread (restricted mode).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The environment says `OPEN_COROUTINE_MODE=restricted`.
    Forced,
    /// Nobody has taught this module the platform's TLS.
    Platform,
    /// The C library is not a glibc of a version that is known to work.
    UnknownGlibc(String),
    /// The C library lacks a function or a variable.
    MissingSymbol(&'static str),
    /// User code cannot write the thread pointer cheaply (`FSGSBASE`).
    SlowSwitch,
    /// Something watches this process and relies on its TLS or stacks.
    Instrumented(&'static str),
    /// The thread descriptor is not laid out as expected.
    Layout(&'static str),
    /// The words that the allocator keeps in TLS were not found.
    Probe(&'static str),
    /// The trial run of a block went wrong.
    SelfTest(&'static str),
    /// There was no memory, or no thread, to find out: it may be there later.
    Exhausted(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced => f.write_str("OPEN_COROUTINE_MODE asks for restricted mode"),
            Self::Platform => f.write_str("this platform's thread-local storage is not supported"),
            Self::UnknownGlibc(version) => write!(f, "glibc {version} is too old or unknown"),
            Self::MissingSymbol(name) => write!(f, "the C library has no symbol {name}"),
            Self::SlowSwitch => f.write_str("user code cannot write the thread pointer (FSGSBASE)"),
            Self::Instrumented(by) => write!(f, "the process runs under {by}"),
            Self::Layout(what) => write!(f, "unexpected thread descriptor: {what}"),
            Self::Probe(what) => write!(f, "cannot locate the allocator's state: {what}"),
            Self::SelfTest(what) => write!(f, "isolation self-test: {what}"),
            Self::Exhausted(what) => write!(f, "no {what} to try coroutines' own storage with"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whether the environment asks for restricted mode.
fn is_forced() -> bool {
    std::env::var_os("OPEN_COROUTINE_MODE").is_some_and(|mode| mode == "restricted")
}
