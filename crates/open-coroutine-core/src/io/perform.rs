//! One operation, by the means that the driver offers.

use std::ffi::c_int;
use std::mem;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use super::descriptor::{
    incarnation, is_file, is_nonblocking, is_tcp, waits_for_disk, was_nonblocking,
};
use crate::driver::{Op, Reader};
use crate::pool::Pool;
use crate::sched::{self, Cancel, Carried, Source, Waiter};
use crate::util::child;

pub(super) const EAGAIN: isize = -(libc::EAGAIN as isize);
const EINTR: isize = -(libc::EINTR as isize);
/// How epoll refuses what has no readiness.
const NO_READINESS: isize = -(libc::EPERM as isize);
/// How a wait says that its deadline has come.
pub(super) const EXPIRED: isize = -(libc::ETIME as isize);

/// Performs `op` and waits for its result, at most until `deadline`; then the
/// result is minus `ETIME`, and nothing was transferred. If it waits for a peer and
/// the calling task is asked to end, it is minus `ECANCELED`.
///
/// # Safety
///
/// The contract of the operation's system call. Called on a coroutine.
pub unsafe fn perform(op: Op, deadline: Option<Instant>) -> isize {
    // SAFETY: the caller's promise, in each branch.
    unsafe {
        if !sched::driver_supports(&op) {
            return by_readiness(op, deadline);
        }
        let fd = op.fd().filter(|_| waits(&op));
        if fd.is_some_and(|fd| is_message(&op) && was_nonblocking(fd))
            && let Some(result) = op.attempt()
            && (result != EAGAIN || fd.is_some_and(is_nonblocking))
        {
            sched::spend();
            return result;
        }
        match fd.filter(|fd| is_nonblocking(*fd)) {
            Some(fd) => without_waiting(fd, op),
            None => by_driver(op, deadline, Cancel::Peers),
        }
    }
}

/// Whether `op` may wait for a peer, so that `O_NONBLOCK` matters.
fn waits(op: &Op) -> bool {
    op.readiness().is_some() && !matches!(op, Op::Poll { .. })
}

/// Whether `op` can be tried on a socket, whose mode then matters only if it would wait.
fn is_message(op: &Op) -> bool {
    matches!(
        op,
        Op::Recv { .. } | Op::Send { .. } | Op::RecvMsg { .. } | Op::SendMsg { .. }
    )
}

/// Performs `op` on `fd`, which is `O_NONBLOCK`. That means nothing to a file.
///
/// # Safety
///
/// As [`perform`].
unsafe fn without_waiting(fd: RawFd, op: Op) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if is_file(fd) {
            return blocking(Awaits::System, op);
        }
        let result = op.run();
        sched::spend();
        result
    }
}

/// # Safety
///
/// As [`perform`]; the driver supports `op`.
pub(super) unsafe fn by_driver(op: Op, deadline: Option<Instant>, cancel: Cancel) -> isize {
    loop {
        // SAFETY: the caller's promise.
        let result = unsafe { sched::perform(op, deadline, cancel) } as isize;
        // A signal to the worker interrupted the kernel, not the coroutine.
        if result != EINTR {
            return result;
        }
    }
}

/// What a call waits for that blocks a thread of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The kernel, a disk, a name server: it ends by itself, and a limited number
    /// of threads do.
    System,
    /// Somebody who holds a lock, or is to exit, open or write, and may need a
    /// thread himself for that: each such call has a thread of its own.
    Others,
}

/// Performs system call `number` on a thread of a pool.
///
/// # Safety
///
/// The contract of that system call. Called on a coroutine.
pub unsafe fn call(awaits: Awaits, number: libc::c_long, args: [usize; 6]) -> isize {
    let op = Op::Syscall {
        number,
        args: &raw const args,
    };
    // SAFETY: the caller's promise; `args` lives as long as this frame waits.
    unsafe { blocking(awaits, op) }
}

/// Performs `op` on a thread of a pool.
///
/// # Safety
///
/// As [`perform`].
pub(super) unsafe fn blocking(awaits: Awaits, op: Op) -> isize {
    struct Carried(Op);
    // SAFETY: the calling frame waits while the pool's thread uses the
    // operation's pointers.
    unsafe impl Send for Carried {}
    impl Carried {
        fn get(&self) -> &Op {
            &self.0
        }
    }
    let op = Carried(op);
    // SAFETY: the caller's promise.
    offload(awaits, move || unsafe { op.get().run() })
}

/// Where `op` receives from, if it waits until a peer has sent something, or connects.
fn source(op: &Op) -> Option<Source> {
    const OTHERWISE: c_int = libc::MSG_ERRQUEUE | libc::MSG_OOB | libc::MSG_DONTWAIT;
    match *op {
        Op::Recv { fd, flags, .. } | Op::RecvMsg { fd, flags, .. } if flags & OTHERWISE == 0 => {
            Some(Source { fd, accepts: false })
        }
        Op::Accept { fd, .. } => Some(Source { fd, accepts: true }),
        _ => None,
    }
}

/// Remembers it if `op`, a receive for which was waited, has left nothing. Only of TCP
/// does a short count say so: other streams end one where descriptors were sent along.
fn note_emptied(op: &Op, result: isize) {
    const OTHERWISE: c_int = libc::MSG_PEEK | libc::MSG_TRUNC;
    if let Op::Recv { fd, len, flags, .. } = *op
        && (1..len as isize).contains(&result)
        && flags & OTHERWISE == 0
        && sched::waits_without_trying()
        && is_tcp(fd)
        && let Some(incarnation) = incarnation(fd)
    {
        sched::has_emptied(incarnation);
    }
}

/// # Safety
///
/// As [`perform`].
unsafe fn by_readiness(op: Op, deadline: Option<Instant>) -> isize {
    const SHUT_DOWN: u32 = libc::POLLRDHUP as u32;
    if waits_for_disk(&op) {
        // SAFETY: the caller's promise.
        return unsafe { blocking(Awaits::System, op) };
    }
    let mut is_shut_down = false;
    let source = source(&op);
    let mut guess = source;
    loop {
        let is_worth_trying = guess.is_none_or(sched::is_worth_trying);
        let attempt = if is_worth_trying {
            // SAFETY: the caller's promise.
            let attempt = unsafe { op.attempt() };
            if guess.is_some() {
                sched::learn(attempt != Some(EAGAIN));
            }
            attempt
        } else {
            Some(EAGAIN)
        };
        if let Some(result) = attempt
            && result != EAGAIN
        {
            note_emptied(&op, result);
            sched::spend();
            return result;
        }
        guess = None;
        let (Some(fd), Some(events)) = (op.fd(), op.readiness()) else {
            // SAFETY: the caller's promise.
            return unsafe { blocking(Awaits::System, op) };
        };
        if is_nonblocking(fd) {
            // Also if it was closed since the attempt: the call itself says what is.
            // SAFETY: the caller's promise.
            return unsafe { without_waiting(fd, op) };
        }
        if is_shut_down {
            // A datagram socket with nothing to read: who does not wait gets
            // EAGAIN still, and who waits gets 0, at once.
            // SAFETY: the caller's promise.
            return unsafe { op.run() };
        }
        let reads = events & libc::POLLIN as u32 != 0;
        let end = if reads { SHUT_DOWN } else { 0 };
        let incarnation = incarnation(fd).filter(|_| reads);
        let reader = incarnation.map(|incarnation| {
            let has_tried = is_worth_trying && attempt.is_some();
            let emptied = source.and_then(|_| sched::take_emptied());
            Reader {
                incarnation,
                has_emptied: has_tried || emptied == Some(incarnation),
            }
        });
        let wait = Op::Poll {
            fd,
            events: events | end,
            reader,
        };
        // SAFETY: a poll touches no memory of ours.
        match unsafe { by_driver(wait, deadline, Cancel::Peers) } {
            // Ready, or a file, which always is: but an operation that cannot
            // be tried may still block if another reader is faster.
            // SAFETY: the caller's promise.
            0.. if attempt.is_none() => return unsafe { blocking(Awaits::Others, op) },
            found @ 0.. => is_shut_down = found as u32 & end != 0,
            // SAFETY: the caller's promise.
            NO_READINESS => return unsafe { blocking(Awaits::System, op) },
            result => return result,
        }
    }
}

/// Waits until `fd` has one of `events`. Returns what it has, or minus the
/// error number. What has no readiness, as the file may that another thread has
/// put there meanwhile, has them always.
pub(super) fn wait_ready(
    fd: RawFd,
    events: u32,
    deadline: Option<Instant>,
    cancel: Cancel,
) -> isize {
    // SAFETY: a poll touches no memory of ours.
    match unsafe { by_driver(Op::poll(fd, events), deadline, cancel) } {
        NO_READINESS => events as isize,
        result => result,
    }
}

/// Runs `job` on a thread of a pool and waits for it; a panic goes on in the
/// caller. For calls that no driver can do. The thread has the caller's signal
/// mask meanwhile, and what is pending under one of its own.
///
/// If no thread can be started, a job that ends by itself runs right here, as on
/// a plain thread. One that ends when others act waits until there is a thread:
/// here it would keep the worker from those others.
///
/// # Panics
///
/// If `job` does.
pub fn offload<R: Send>(awaits: Awaits, job: impl FnOnce() -> R + Send) -> R {
    let Some(shared) = sched::current_shared() else {
        return job();
    };
    let mut state = Offloaded {
        job: Some(job),
        signals: None,
        result: None,
    };
    let mut pause = FIRST_PAUSE;
    let pool = match awaits {
        Awaits::System => shared.pool(),
        Awaits::Others => shared.waits(),
    };
    while !state.run_in(pool) {
        if awaits == Awaits::System {
            return state.job.take().expect("not run")();
        }
        if sched::prepare_wait().is_some() {
            sched::wait(Instant::now().checked_add(pause));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    match state.result.expect("stored before the wake") {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

/// How long a job that found no thread waits before it tries again, at first and
/// at most: nobody tells when one can be started.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

struct Offloaded<J, R> {
    job: Option<J>,
    signals: Option<Carried>,
    result: Option<thread::Result<R>>,
}

impl<R: Send, J: FnOnce() -> R + Send> Offloaded<J, R> {
    /// Runs the job on a thread of `pool` and waits for it. False if there is no
    /// thread: the job has not run.
    fn run_in(&mut self, pool: &Pool) -> bool {
        let waiter = sched::prepare_wait().expect("called on a coroutine");
        self.signals = sched::carry_signals();
        let pointer = SendMut(ptr::from_mut(self));
        let run: Box<dyn FnOnce() + Send + '_> = Box::new(move || run_offloaded(pointer, waiter));
        // SAFETY: the closure ends its use of `self`, and of what `job` borrows,
        // with the wake that this frame waits for below; or it is dropped unused.
        let run = unsafe {
            mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send>>(run)
        };
        let is_submitted = pool.submit(run).is_ok();
        if is_submitted {
            sched::wait_for_thread();
        }
        // SAFETY: the pool is done with it; through the pointer it wrote to.
        if let Some(signals) = unsafe { (*pointer.0).signals.take() } {
            signals.give_back();
        }
        is_submitted
    }
}

struct SendMut<T>(*mut T);

// SAFETY: the pointee's parts are `Send`, and one thread at a time uses it.
unsafe impl<T> Send for SendMut<T> {}

impl<T> Clone for SendMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SendMut<T> {}

fn run_offloaded<R, J: FnOnce() -> R>(state: SendMut<Offloaded<J, R>>, waiter: Waiter) {
    let generation = child::generation();
    // SAFETY: `offload` waits, and touches the state only after the wake.
    unsafe {
        let job = (*state.0).job.take().expect("run once");
        let run = || catch_unwind(AssertUnwindSafe(job));
        let result = match &mut (*state.0).signals {
            None => run(),
            Some(signals) => signals.run(run),
        };
        if generation != child::generation() {
            // The job has forked: who waits does so in the parent.
            return;
        }
        (*state.0).result = Some(result);
        waiter.wake();
    }
}
