//! Replacements of blocking libc functions.
//!
//! Linking this crate puts functions with libc's names into the program. The
//! dynamic linker then resolves every call of them to the ones here: std's,
//! other crates', and those of C libraries. On a coroutine they suspend it
//! instead of blocking its thread (they *divert*); everywhere else they *pass
//! through* to libc at the cost of a load and a branch.
//!
//! A file holds one family of man pages. A function here only chooses the path
//! and converts the result; what happens on a coroutine is in
//! `open_coroutine_core::io`, `sync` and `sched`.
//!
//! | file | man pages |
//! |---|---|
//! | `sockets` | recv, send, accept, connect, setsockopt |
//! | `streams` | read, write, pread, pwrite and the vectored ones |
//! | `descriptors` | close, dup, pipe, socketpair, eventfd, fclose |
//! | `files` | open, stat, fsync, flock, sendfile |
//! | `directories` | mkdir, rename, unlink, link |
//! | `waiting` | poll, epoll_wait |
//! | `times` | sleep, nanosleep |
//! | `threads` | futex, sched_yield, pthread_join, pthread_once, thread-local keys |
//! | `identity` | pthread_getattr_np, pthread_kill, affinity, scheduling, names |
//! | `processes` | fork, wait, exit, set*id, dlopen, dlclose |
//! | `handlers` | sigaction, signal |
//! | `masks` | pthread_sigmask, sigprocmask |
//! | `signals` | sigwait, pause, sigsuspend, raise |
//! | `callbacks` | fopencookie |
//! | `names` | getaddrinfo, getnameinfo |
//!
//! # Invariants
//!
//! 1. Before a function has decided to divert it takes no lock, allocates
//!    nothing and logs nothing: it may be called before `main`, in signal
//!    handlers, in the child of a fork and on any thread.
//! 2. Nothing unwinds out of a function here.
//! 3. `errno` is only set on failure.

cfg_select! {
    all(target_os = "linux", target_env = "gnu", not(target_feature = "crt-static")) => {
        #[macro_use]
        mod convert;
        mod real;

        pub mod callbacks;
        pub mod descriptors;
        pub mod directories;
        pub mod files;
        pub mod handlers;
        pub mod identity;
        pub mod masks;
        pub mod names;
        pub mod processes;
        pub mod signals;
        pub mod sockets;
        pub mod streams;
        pub mod threads;
        pub mod times;
        pub mod waiting;

        pub use real::symbols;
    }
    _ => {
        /// No function is replaced on this platform.
        pub fn symbols() -> Vec<Symbol> {
            Vec::new()
        }
    }
}

/// A replaced function and whether calls reach the replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// The name of the function.
    pub name: &'static str,
    /// Whether the dynamic linker resolves the name to the function here.
    pub is_live: bool,
}

/// Keeps this crate in the link. A program that uses only the names of other
/// crates must call it once; it does nothing.
#[inline(never)]
pub fn link() {}
