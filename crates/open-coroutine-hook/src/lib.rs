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
//! | `directories` | mkdir, rename, unlink, link, what takes a path |
//! | `listing` | readdir |
//! | `waiting` | poll, select, epoll_wait |
//! | `times` | sleep, nanosleep |
//! | `raw`, `futexes` | syscall, futex |
//! | `threads` | sched_yield, pthread_join, pthread_once, thread-local keys |
//! | `mutexes` | pthread_mutex_lock, pthread_spin_lock |
//! | `conditions` | pthread_cond_wait, pthread_cond_signal |
//! | `rwlocks` | pthread_rwlock_rdlock |
//! | `semaphores` | sem_wait, sem_post, pthread_barrier_wait |
//! | `joins` | pthread_timedjoin_np |
//! | `c11` | mtx_lock, cnd_wait, thrd_join, call_once, tss_create |
//! | `identity` | pthread_getattr_np, pthread_kill, affinity, scheduling, names |
//! | `processes` | fork, wait, posix_spawn, system, exit, set*id, dlopen, dlclose |
//! | `queues` | mq_receive, msgrcv, semop, tcdrain, aio_suspend |
//! | `names` | getaddrinfo, gethostbyname, res_query, getpwnam |
//! | `handlers` | sigaction, signal |
//! | `masks` | pthread_sigmask, sigprocmask |
//! | `signals` | sigwait, pause, sigsuspend, raise |
//! | `callbacks` | fopencookie |
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
        mod futexes;
        mod properties;
        mod real;
        mod symbols;

        pub mod callbacks;
        pub mod c11;
        pub mod conditions;
        pub mod descriptors;
        pub mod directories;
        pub mod files;
        pub mod handlers;
        pub mod identity;
        pub mod listing;
        pub mod joins;
        pub mod masks;
        pub mod mutexes;
        pub mod names;
        pub mod processes;
        pub mod queues;
        pub mod raw;
        pub mod rwlocks;
        pub mod semaphores;
        pub mod signals;
        pub mod sockets;
        pub mod streams;
        pub mod threads;
        pub mod times;
        pub mod waiting;

        pub use symbols::{poll_as_a_library, symbols};
    }
    _ => {
        /// No function is replaced on this platform.
        pub fn poll_as_a_library(_fd: std::os::fd::RawFd) {}

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
    /// Where calls of it go.
    pub status: Status,
}

/// Where calls of a replaced function go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// To the function here: the program's symbols come first.
    Live,
    /// For shared libraries, to the function of this object, because it was
    /// loaded earlier, or because the linker was told to hide the program's
    /// symbols. Code that is linked into the program itself reaches the function
    /// here.
    Shadowed(String),
    /// This libc has no such function. What calls it gets `ENOSYS`.
    Missing,
}

impl Symbol {
    /// Whether calls from everywhere reach the function here.
    pub fn is_live(&self) -> bool {
        self.status == Status::Live
    }
}

/// Keeps this crate in the link. A program that uses only the names of other
/// crates must call it once; it does nothing.
#[inline(never)]
pub fn link() {}
