//! io_uring: the kernel performs the operations.
//!
//! One ring per worker, used by its thread alone. Submissions are batched: they
//! reach the kernel with the next wait, so a turn of the worker costs one
//! system call however many operations it began. Completions are delivered by
//! that call too (`DEFER_TASKRUN`).

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::request::Waiting;
use super::{Done, FdWaiters, Op, Request, Waker};

/// Submissions that fit between two calls; more are flushed in between.
const SUBMISSIONS: u32 = 256;
/// Completions that fit; the kernel keeps what overflows.
const COMPLETIONS: u32 = 4096;

/// `user_data` of submissions whose completion nobody waits for.
const IGNORED: u64 = 0;
/// `user_data` of the poll that watches the waker.
const WAKER: u64 = 1;

const ENTER_GETEVENTS: u32 = 1;

/// What must be there; the rest is done by the pool where it is missing.
const REQUIRED: [(u8, &str); 12] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::RecvMsg::CODE, "RECVMSG"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Readv::CODE, "READV"),
    (opcode::Writev::CODE, "WRITEV"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
];

/// A ring and what is in flight on it.
pub struct Uring {
    ring: IoUring,
    probe: Probe,
    waker: Arc<Waker>,
    waiting: Waiting,
    /// Completions taken out while there was nobody to deliver them to.
    ready: Vec<NonNull<Request>>,
    in_flight: usize,
}

impl Uring {
    pub(super) fn new() -> io::Result<Self> {
        let ring = build()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if let Some((_, name)) = REQUIRED
            .iter()
            .find(|&&(code, _)| !probe.is_supported(code))
        {
            let message = format!("the kernel's io_uring lacks {name}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
            let message = "the kernel's io_uring lacks NODROP or EXT_ARG";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let mut this = Self {
            ring,
            probe,
            waker: Arc::new(Waker::new()?),
            waiting: Waiting::new(),
            ready: Vec::new(),
            in_flight: 0,
        };
        this.watch_waker();
        Ok(this)
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    pub(super) fn waiters(&self) -> &Arc<FdWaiters> {
        self.waiting.counts()
    }

    pub(super) fn supports(&self, op: &Op) -> bool {
        op.code().is_some_and(|code| self.probe.is_supported(code))
    }

    /// # Safety
    ///
    /// As `Driver::submit`.
    pub(super) unsafe fn submit(&mut self, request: NonNull<Request>) {
        // SAFETY: the caller's promise.
        let op = *unsafe { request.as_ref() }.op();
        let entry = op
            .to_entry()
            .expect("only supported operations are submitted");
        // SAFETY: the caller's promise; removed when its completion is taken.
        unsafe { self.waiting.insert(request) };
        self.in_flight += 1;
        // SAFETY: the caller keeps what the entry points to valid.
        unsafe { self.push(&entry.user_data(request.as_ptr() as u64)) };
    }

    /// # Safety
    ///
    /// As `Driver::cancel`.
    pub(super) unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        // SAFETY: the caller's promise.
        if unsafe { request.as_ref() }.mark_cancelled(error) {
            let entry = opcode::AsyncCancel::new(request.as_ptr() as u64)
                .build()
                .user_data(IGNORED);
            // SAFETY: the entry points to nothing; the address is only a key.
            unsafe { self.push(&entry) };
        }
    }

    pub(super) fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        for request in self.waiting.older(fd, epoch) {
            // SAFETY: it waits here.
            unsafe { self.cancel(request, libc::EBADF) };
        }
    }

    /// Queues a submission; hands the queue to the kernel first if it is full.
    ///
    /// # Safety
    ///
    /// What the entry points to is valid until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter(0, None);
            // The kernel may refuse submissions until completions are taken.
            self.collect();
        }
    }

    fn watch_waker(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.waker.event().fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(WAKER);
        // SAFETY: the entry points to nothing; the waker outlives the ring.
        unsafe { self.push(&entry) };
    }

    pub(super) fn poll(&mut self, done: Done<'_>) {
        let submission = self.ring.submission();
        let must_enter = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if must_enter {
            self.enter(0, None);
        }
        self.collect();
        self.deliver(done);
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>, done: Done<'_>) {
        self.collect();
        let may_sleep = self.ready.is_empty() && timeout != Some(Duration::ZERO);
        if may_sleep && self.waker.fall_asleep() {
            self.enter(1, timeout);
            self.collect();
            self.waker.wake_up();
            self.deliver(done);
        } else {
            self.waker.wake_up();
            self.poll(done);
        }
    }

    /// One `io_uring_enter(2)`: submits everything, runs deferred work, and
    /// waits for `want` completions.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) {
        let submit = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let result = match timeout {
            // SAFETY: the queue holds only entries of `push`; no argument.
            None => unsafe {
                submitter.enter::<libc::sigset_t>(submit, want, ENTER_GETEVENTS, None)
            },
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                submitter.submit_with_args(want as usize, &args)
            }
        };
        if let Err(error) = result {
            // A time-out, a signal, or too many completions that wait to be
            // taken: in each case the loop of the worker goes on.
            let expected = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
            let code = error.raw_os_error();
            assert!(
                code.is_some_and(|code| expected.contains(&code)),
                "io_uring_enter failed: {error}"
            );
        }
    }

    /// Takes all completions out of the ring.
    fn collect(&mut self) {
        loop {
            let mut rearm = false;
            let mut completions = self.ring.completion();
            completions.sync();
            for completion in &mut completions {
                match completion.user_data() {
                    IGNORED => {}
                    WAKER => {
                        self.waker.event().clear();
                        rearm |= !io_uring::cqueue::more(completion.flags());
                    }
                    data => {
                        let request = NonNull::new(data as *mut Request)
                            .expect("user data is a request's address");
                        // SAFETY: it was submitted, and completes only here.
                        unsafe {
                            self.waiting.remove(request);
                            finish(request.as_ref(), completion.result());
                        }
                        self.in_flight -= 1;
                        self.ready.push(request);
                    }
                }
            }
            drop(completions);
            if rearm {
                self.watch_waker();
            }
            if !self.ring.submission().cq_overflow() {
                return;
            }
            self.enter(0, None);
        }
    }

    fn deliver(&mut self, done: Done<'_>) {
        if self.ready.is_empty() {
            return;
        }
        let mut ready = mem::take(&mut self.ready);
        for request in ready.drain(..) {
            done(request);
        }
        if self.ready.is_empty() {
            // Keep the memory for the next turn.
            self.ready = ready;
        }
    }
}

fn finish(request: &Request, result: c_int) {
    let error = request.cancelled();
    let is_cancelled = result == -libc::ECANCELED || result == -libc::EINTR;
    request.complete(if error != 0 && is_cancelled {
        -error
    } else {
        result
    });
}

/// The best ring that the kernel offers.
fn build() -> io::Result<IoUring> {
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_coop_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS);
    let ring = match best {
        // Kernels before 6.1 do not know some of the flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS),
        other => other,
    };
    ring.map_err(explain)
}

fn explain(error: io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "forbidden here (seccomp, or sysctl kernel.io_uring_disabled)",
        Some(libc::ENOSYS) => "the kernel has none, or seccomp hides it",
        Some(libc::ENOMEM) => "no memory for a ring (RLIMIT_MEMLOCK on old kernels)",
        _ => "cannot set up a ring",
    };
    io::Error::new(error.kind(), format!("io_uring: {hint}: {error}"))
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
