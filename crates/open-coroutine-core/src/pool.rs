//! Threads for calls that block and that no driver can do.
//!
//! Threads start on demand, are reused last in first out, and end when they
//! have been idle for a while. Their number is bounded; beyond it jobs queue.
//!
//! # Invariants
//!
//! 1. `idle` is the number of threads that wait in `Shared::work`; each job that
//!    is queued while `idle > 0` is matched by one wake.
//! 2. A job that is queued while no thread is idle and fewer than the maximum
//!    exist starts one; so a queued job always has a thread that will look.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;
use crate::util::lock::Lock;

/// Threads at once. Each may be blocked for as long as a user's call takes.
const MAX_THREADS: usize = 512;
/// How long an idle thread stays.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of blocking threads.
#[derive(Clone, Default)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Lock<State>,
    /// Changes with every wake; idle threads sleep on it.
    wakes: AtomicU32,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    /// Runs `job` on a thread of the pool, soon.
    ///
    /// # Errors
    ///
    /// If there is no thread and none can be started; the job is dropped.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle {
            drop(state);
            self.shared.wakes.fetch_add(1, SeqCst);
            sys::futex_wake(&self.shared.wakes, 1);
            return Ok(());
        }
        if state.threads >= MAX_THREADS {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name("open-coroutine-blocking".into())
            .spawn(move || shared.work());
        thread.map(drop).or_else(|error| self.without_thread(error))
    }

    /// No thread could be started: other threads will run the job if there are
    /// any.
    fn without_thread(&self, error: io::Error) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(());
        }
        let job = state.jobs.pop_back();
        drop(state);
        drop(job);
        Err(error)
    }
}

impl Shared {
    /// One thread's life.
    fn work(&self) {
        loop {
            let wakes = self.wakes.load(SeqCst);
            let job = self.state.lock().jobs.pop_front();
            match job {
                // A job that panics has been reported by the panic hook.
                Some(job) => drop(catch_unwind(AssertUnwindSafe(job))),
                None if self.rest(wakes) => {}
                None => return,
            }
        }
    }

    /// Waits for work. False if it is time to end.
    fn rest(&self, wakes: u32) -> bool {
        self.state.lock().idle += 1;
        let deadline = Instant::now() + KEEP_ALIVE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = left.is_zero();
            if !is_over && self.wakes.load(SeqCst) == wakes && self.state.lock().jobs.is_empty() {
                sys::futex_wait(&self.wakes, wakes, Some(left));
                continue;
            }
            let mut state = self.state.lock();
            state.idle -= 1;
            if is_over && state.jobs.is_empty() {
                state.threads -= 1;
                return false;
            }
            return true;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Pool")
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("jobs", &state.jobs.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_that_block_each_other_all_run() {
        let pool = Pool::default();
        let barrier = Arc::new(std::sync::Barrier::new(20));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..20 {
            let (barrier, sender) = (barrier.clone(), sender.clone());
            let job = move || {
                barrier.wait();
                sender.send(()).unwrap();
            };
            pool.submit(job).unwrap();
        }
        drop(sender);
        assert_eq!(20, receiver.iter().count());
    }

    #[test]
    fn a_thread_survives_a_panicking_job() {
        let pool = Pool::default();
        let (sender, receiver) = mpsc::channel();
        pool.submit(|| panic!("expected by the test")).unwrap();
        pool.submit(move || sender.send(7).unwrap()).unwrap();
        assert_eq!(Ok(7), receiver.recv());
    }
}
