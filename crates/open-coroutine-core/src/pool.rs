//! OS threads for what would block a worker.
//!
//! Some calls no driver can do (`getaddrinfo`, `flock`, file calls without
//! io_uring), and some closures the user wants off the workers. Each runs on a
//! thread of this pool. Threads start when a job finds none idle, serve the
//! most recently used first, and end after `keep_alive` without a job.
//!
//! # Invariants
//!
//! 1. A job waits in the queue only while all threads that may exist, or that the
//!    system allows, do and are busy, so it never starves behind an idle one. In a
//!    pool without a maximum none waits: it could be the one that the others need.
//! 2. A thread looks at the queue, under the lock, before it becomes idle or
//!    ends. An idle thread is given its job, under the lock, by whoever takes
//!    its seat off the idle list.
//!
//! # Signals
//!
//! A thread of the pool blocks all signals that it can leave to others: while it
//! has no job it runs no code of the program. A job that does sets the mask that
//! this code expects, for itself and for the threads and processes that it starts,
//! see `io::offload`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use crate::stack;
use crate::sys;
use crate::util::child;
use crate::util::lock::Lock;

/// What a thread of the pool runs.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs that block. Dropping it lets queued jobs run, then ends its
/// threads; nobody waits for them.
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// How many threads a pool has at most, unless told otherwise.
    pub const MAX_THREADS: usize = 512;
    /// No maximum: each job has a thread at once, or is refused.
    pub const UNLIMITED: usize = usize::MAX;
    /// How long an idle thread stays, unless told otherwise.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

    /// A pool without threads yet. At least one is allowed.
    pub fn new(max_threads: usize, keep_alive: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Lock::new(State::default()),
                max_threads: max_threads.max(1),
                keep_alive,
            }),
        }
    }

    /// Has `job` run on a thread of the pool. A panic in it ends the job, not
    /// the thread.
    ///
    /// # Errors
    ///
    /// No thread can be started, and the job cannot wait for one: none runs, or
    /// the pool has no maximum. The job is dropped.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.submit_boxed(Box::new(job))
    }

    fn submit_boxed(&self, job: Job) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        if let Some(seat) = state.idle.pop() {
            seat.give(job);
            return Ok(());
        }
        if state.threads == self.shared.max_threads {
            state.queue.push_back(job);
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        self.start_thread(job)
    }

    /// Starts a thread, which is counted already, with its first job.
    fn start_thread(&self, job: Job) -> io::Result<()> {
        let seat = Arc::new(Seat::new(job));
        let (shared, own) = (self.shared.clone(), seat.clone());
        // We can do without the thread, but not without memory for anything else.
        let started = stack::check_spare().and_then(|()| {
            sys::start_thread(c"open-coroutine-blocking", move || shared.serve(&own))
        });
        let Err(error) = started else { return Ok(()) };

        let mut state = self.shared.state.lock();
        state.threads -= 1;
        let job = seat
            .take()
            .expect("the thread that would take it did not start");
        if let Some(idle) = state.idle.pop() {
            idle.give(job);
        } else if state.threads > 0 && self.shared.max_threads != Self::UNLIMITED {
            state.queue.push_back(job);
        } else {
            drop(state);
            drop(job);
            return Err(error);
        }
        Ok(())
    }

    /// How many threads exist.
    pub fn threads(&self) -> usize {
        self.shared.state.lock().threads
    }

    /// How many threads wait for a job.
    pub fn idle_threads(&self) -> usize {
        self.shared.state.lock().idle.len()
    }

    /// How many jobs wait for a thread.
    pub fn queued_jobs(&self) -> usize {
        self.shared.state.lock().queue.len()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(Self::MAX_THREADS, Self::KEEP_ALIVE)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        for seat in state.idle.drain(..) {
            seat.wake();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .field("idle_threads", &self.idle_threads())
            .field("queued_jobs", &self.queued_jobs())
            .finish()
    }
}

struct Shared {
    state: Lock<State>,
    max_threads: usize,
    keep_alive: Duration,
}

#[derive(Default)]
struct State {
    /// Jobs beyond what the threads can do; in order.
    queue: VecDeque<Job>,
    /// Threads without a job, the most recently used last.
    idle: Vec<Arc<Seat>>,
    /// Threads that exist, idle or not.
    threads: usize,
    /// The pool is gone: threads end when the queue is empty.
    is_closed: bool,
}

impl Shared {
    /// The life of a thread.
    fn serve(&self, seat: &Arc<Seat>) {
        sys::set_signal_mask(sys::DEFERRABLE_SIGNALS);
        let generation = child::generation();
        let mut next = seat.take();
        while let Some(job) = next {
            run(job);
            if generation != child::generation() {
                // The job has forked: the pool is the parent's.
                return;
            }
            next = self.next_job(seat);
        }
    }

    /// Waits for a job. `None` if the thread, which is then no longer counted,
    /// has to end.
    fn next_job(&self, seat: &Arc<Seat>) -> Option<Job> {
        let mut state = self.state.lock();
        if let Some(job) = state.queue.pop_front() {
            return Some(job);
        }
        if state.is_closed {
            state.threads -= 1;
            return None;
        }
        seat.word.store(IDLE, Release);
        state.idle.push(seat.clone());
        drop(state);

        seat.wait(self.keep_alive);
        let mut state = self.state.lock();
        state.idle.retain(|idle| !Arc::ptr_eq(idle, seat));
        // Whoever took the seat off the list gave the job under the lock.
        let job = seat.take();
        if job.is_none() {
            state.threads -= 1;
        }
        job
    }
}

/// The thread waits for a job.
const IDLE: u32 = 0;
/// The thread has been given a job, or has to look why it was woken.
const CALLED: u32 = 1;

/// Where a thread gets its next job.
struct Seat {
    word: AtomicU32,
    job: Lock<Option<Job>>,
}

impl Seat {
    fn new(job: Job) -> Self {
        Self {
            word: AtomicU32::new(CALLED),
            job: Lock::new(Some(job)),
        }
    }

    fn give(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.wake();
    }

    fn wake(&self) {
        // Release: pairs with the Acquire in `wait`.
        self.word.store(CALLED, Release);
        sys::futex_wake(&self.word, 1);
    }

    fn take(&self) -> Option<Job> {
        self.job.lock().take()
    }

    /// Sleeps until woken, at most for `limit`.
    fn wait(&self, limit: Duration) {
        // A limit beyond what the clock can tell is none.
        let deadline = Instant::now().checked_add(limit);
        // Acquire: pairs with the Release in `wake`.
        while self.word.load(Acquire) == IDLE {
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return;
            }
            sys::futex_wait(&self.word, IDLE, rest);
        }
    }
}

/// Runs a job and keeps its panic, and that of its payload's destructor, away
/// from the thread.
fn run(job: Job) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job))
        && let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Waits until `claim` holds; the test runner limits how long.
    fn until(claim: impl Fn() -> bool) {
        while !claim() {
            thread::yield_now();
        }
    }

    #[test]
    fn every_job_runs_once() {
        let pool = Pool::new(4, Pool::KEEP_ALIVE);
        let (sender, results) = channel();
        for number in 0..10_000 {
            let sender = sender.clone();
            pool.submit(move || sender.send(number).unwrap()).unwrap();
        }
        drop(sender);
        let mut numbers: Vec<i32> = results.iter().collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..10_000));
        assert!(pool.threads() <= 4);
    }

    #[test]
    fn jobs_that_wait_for_each_other_all_get_a_thread() {
        let pool = Pool::default();
        let barrier = Arc::new(Barrier::new(33));
        for _ in 0..32 {
            let barrier = barrier.clone();
            pool.submit(move || {
                barrier.wait();
            })
            .unwrap();
        }
        barrier.wait();
        assert_eq!(32, pool.threads());
    }

    #[test]
    fn the_thread_that_became_idle_last_gets_the_next_job() {
        let pool = Pool::default();
        let (sender, ids) = channel();
        let gate = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let gate = gate.clone();
            pool.submit(move || {
                gate.wait();
            })
            .unwrap();
        }
        gate.wait();
        until(|| pool.idle_threads() == 2);
        for _ in 0..10 {
            let sender = sender.clone();
            pool.submit(move || sender.send(thread::current().id()).unwrap())
                .unwrap();
            until(|| pool.idle_threads() == 2);
        }
        drop(sender);
        let ids: Vec<_> = ids.iter().collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_job_beyond_the_maximum_waits_and_then_runs() {
        let pool = Pool::new(1, Pool::KEEP_ALIVE);
        let (open, gate) = channel::<()>();
        let (sender, done) = channel();
        pool.submit(move || gate.recv().unwrap()).unwrap();
        pool.submit(move || sender.send(()).unwrap()).unwrap();
        assert_eq!((1, 1), (pool.threads(), pool.queued_jobs()));
        open.send(()).unwrap();
        done.recv().unwrap();
        assert_eq!(1, pool.threads());
    }

    #[test]
    #[cfg_attr(
        feature = "sanitizer",
        ignore = "a panic of a payload is leaked on purpose"
    )]
    fn a_panic_ends_the_job_but_not_the_thread() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::resume_unwind(Box::new("payload"));
            }
        }
        let pool = Pool::new(1, Pool::KEEP_ALIVE);
        let (sender, done) = channel();
        pool.submit(|| std::panic::resume_unwind(Box::new("job")))
            .unwrap();
        pool.submit(|| std::panic::resume_unwind(Box::new(Bomb)))
            .unwrap();
        pool.submit(move || sender.send(()).unwrap()).unwrap();
        done.recv().unwrap();
        assert_eq!(1, pool.threads());
    }

    #[test]
    fn idle_threads_end_after_keep_alive() {
        let pool = Pool::new(8, Duration::from_millis(1));
        let (sender, done) = channel();
        let next = sender.clone();
        pool.submit(move || sender.send(()).unwrap()).unwrap();
        done.recv().unwrap();
        until(|| pool.threads() == 0);
        pool.submit(move || next.send(()).unwrap()).unwrap();
        done.recv().unwrap();
    }

    #[test]
    fn jobs_run_although_threads_end_all_the_time() {
        let pool = Pool::new(2, Duration::ZERO);
        let (sender, done) = channel();
        for _ in 0..2_000 {
            let sender = sender.clone();
            pool.submit(move || sender.send(()).unwrap()).unwrap();
            done.recv().unwrap();
        }
    }

    #[test]
    fn a_dropped_pool_runs_what_is_queued_and_ends_its_threads() {
        let pool = Pool::new(1, Duration::MAX);
        let shared = Arc::downgrade(&pool.shared);
        let (open, gate) = channel::<()>();
        let (sender, done) = channel();
        pool.submit(move || gate.recv().unwrap()).unwrap();
        pool.submit(move || sender.send(()).unwrap()).unwrap();
        drop(pool);
        open.send(()).unwrap();
        done.recv().unwrap();
        until(|| shared.strong_count() == 0);
    }

    #[test]
    fn threads_leave_signals_to_others() {
        let pool = Pool::default();
        let (sender, mask) = channel();
        pool.submit(move || sender.send(sys::signal_mask()).unwrap())
            .unwrap();
        let kernel_leaves_out = sys::signal_set(libc::SIGKILL) | sys::signal_set(libc::SIGSTOP);
        let expected = sys::DEFERRABLE_SIGNALS & !kernel_leaves_out;
        assert_eq!(expected, mask.recv().unwrap());
    }
}
