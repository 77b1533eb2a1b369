//! Programs that nobody here wrote, on coroutines.
//!
//! Each file in `tests/` runs one unmodified crate or C library against the
//! real thing: 200 coroutines at once on one worker, on each driver. What they
//! share is here; it is no part of what users depend on.
//!
//! * [`on_every_driver`] runs a test on each driver, with one worker.
//! * [`Crowd`] is the 200 coroutines, and one beside them that must go on.
//! * `server` starts the servers, in a folder of their own, on a free port of
//!   127.0.0.1, and ends them with the value.
//!
//! A test whose server is not installed is skipped with a word on standard
//! error, or fails if `OPEN_COROUTINE_REQUIRE_SERVERS=1`.

mod crowd;
mod installed;
#[path = "../../open-coroutine/tests/runtimes/mod.rs"]
mod runtimes;
mod server;
#[path = "../../open-coroutine/tests/ticker/mod.rs"]
mod ticker;

pub use crowd::{COROUTINES, Crowd, eventually};
pub use installed::installed;
pub use server::{MariaDb, Nginx, Postgres, Redis, TemporaryFolder};

/// Runs `body` as a coroutine on each driver, with one worker.
pub fn on_every_driver(body: impl FnOnce() + Clone + Send + 'static) {
    raise_descriptor_limit();
    runtimes::on_every_driver(1, body);
}

/// A crowd has more descriptors than many systems give a process at first.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it writes to `limit`.
    assert_eq!(0, unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)
    });
    limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(10_000));
    // SAFETY: it reads `limit`.
    assert_eq!(0, unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    });
}
