//! The two queues shared with the kernel, and entering it.
//!
//! The kernel is entered by raw system call: the C library's `syscall` may be
//! replaced by a hook.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{Builder, CompletionQueue, IoUring, Probe, opcode};

use super::super::refusals::Refusals;
use crate::driver::OUT_OF_DESCRIPTORS;
use crate::sys;

/// Entries of the submission queue. A batch is rarely larger, and a full queue
/// is flushed.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue. Completions that find it full wait in the
/// kernel, which is slower, so there is room for many batches.
const COMPLETIONS: u32 = 16 * 1024;

const REGISTER_RING_FDS: usize = 20;
const UNREGISTER_RING_FDS: usize = 21;
const ENTER_GETEVENTS: usize = 1;
const ENTER_EXT_ARG: usize = 1 << 3;
const ENTER_REGISTERED_RING: usize = 1 << 4;

/// What we cannot do without.
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

/// How a ring is set up, best first. A kernel that does not know a flag
/// refuses it with `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setup {
    /// Linux 5.11.
    Plain,
    /// Linux 5.19: completions interrupt nobody.
    Cooperative,
    /// Linux 6.1: completions are processed when the owner asks for them.
    Deferred,
    /// Linux 6.6: as before, without the indirection of the submission array.
    DeferredWithoutArray,
}

impl Setup {
    const BEST_FIRST: [Self; 4] = [
        Self::DeferredWithoutArray,
        Self::Deferred,
        Self::Cooperative,
        Self::Plain,
    ];

    fn build(self) -> io::Result<IoUring> {
        let mut builder: Builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(COMPLETIONS);
        if self >= Self::Cooperative {
            builder
                .setup_submit_all()
                .setup_coop_taskrun()
                .setup_taskrun_flag();
        }
        if self >= Self::Deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if self >= Self::DeferredWithoutArray {
            builder.setup_no_sqarray();
        }
        builder.build(SUBMISSIONS)
    }
}

/// A ring of the calling thread.
pub(super) struct Ring {
    ring: IoUring,
    setup: Setup,
    /// What `io_uring_enter` takes: a registered index or the descriptor.
    enter_fd: usize,
    enter_flags: usize,
    refusals: Refusals,
    opcodes: Opcodes,
}

/// What the kernel knows: bit `n` stands for opcode `n`.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct Opcodes(u128);

impl Opcodes {
    pub(super) fn contain(self, entry: &Entry) -> bool {
        let code = entry.get_opcode();
        code < u128::BITS && self.0 & 1 << code != 0
    }
}

impl Ring {
    /// # Errors
    ///
    /// What the kernel lacks, or why it refuses.
    pub(super) fn new() -> io::Result<Self> {
        let (ring, setup) = build()?;
        check_features(&ring)?;
        let opcodes = probe_opcodes(&ring)?;
        let (enter_fd, enter_flags) = match register(ring.as_raw_fd()) {
            Some(index) => (index as usize, ENTER_REGISTERED_RING),
            None => (ring.as_raw_fd() as usize, 0),
        };
        Ok(Self {
            ring,
            setup,
            enter_fd,
            enter_flags,
            refusals: Refusals::default(),
            opcodes,
        })
    }

    pub(super) fn knows(&self, entry: &Entry) -> bool {
        self.opcodes.contain(entry)
    }

    pub(super) fn opcodes(&self) -> Opcodes {
        self.opcodes
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Whether entries may carry the flag `CQE_SKIP_SUCCESS` (5.17).
    pub(super) fn can_leave_out_completions(&self) -> bool {
        self.setup >= Setup::Cooperative
    }

    /// Whether the ring is entered by its registered index.
    pub(super) fn is_registered(&self) -> bool {
        self.enter_flags == ENTER_REGISTERED_RING
    }

    /// Queues an entry. Fails only if the kernel does not take what is queued
    /// already.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid until its completion is reaped.
    #[must_use]
    pub(super) unsafe fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: the caller's contract.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return true;
        }
        self.flush();
        // SAFETY: the caller's contract.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Submits what is queued.
    pub(super) fn flush(&mut self) {
        self.enter(0, 0, 0, 0);
    }

    /// Submits what is queued and has the kernel deliver what is complete, if
    /// there is anything to submit or to deliver.
    pub(super) fn turn(&mut self) {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if !idle {
            self.enter(0, ENTER_GETEVENTS, 0, 0);
        }
    }

    /// Submits what is queued and has the kernel deliver what is complete.
    pub(super) fn run_completions(&mut self) {
        self.enter(0, ENTER_GETEVENTS, 0, 0);
    }

    /// Submits what is queued and sleeps until a completion is there or
    /// `timeout` has passed.
    pub(super) fn sleep(&mut self, timeout: Option<Duration>) {
        let Some(timeout) = timeout else {
            self.enter(1, ENTER_GETEVENTS, 0, 0);
            return;
        };
        let timespec = sys::to_timespec(timeout);
        // `struct io_uring_getevents_arg`: mask, its size, and the time.
        let argument: [u64; 3] = [0, 0, &raw const timespec as u64];
        self.enter(
            1,
            ENTER_GETEVENTS | ENTER_EXT_ARG,
            &raw const argument as usize,
            size_of_val(&argument),
        );
    }

    /// Whether completions wait in the kernel because the queue was full.
    pub(super) fn has_overflow(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    pub(super) fn completions(&mut self) -> CompletionQueue<'_> {
        self.ring.completion()
    }

    fn enter(&mut self, wait_for: usize, flags: usize, argument: usize, size: usize) {
        #[cfg(test)]
        if super::tests::is_kernel_busy() {
            return;
        }
        let queued = self.ring.submission().len();
        let flags = flags | self.enter_flags;
        // SAFETY: what the queued entries point to is valid by the contract of
        // `push`, and the argument is alive in the caller's frame.
        let result = unsafe {
            sys::syscall(
                libc::SYS_io_uring_enter,
                [self.enter_fd, queued, wait_for, flags, argument, size],
            )
        };
        match -result as i32 {
            ..=0 => self.refusals.end(),
            // The time is up, or a signal came.
            libc::ETIME | libc::EINTR => {}
            // The kernel takes nothing before completions have been reaped, or
            // has no memory: what is queued stays queued.
            libc::EBUSY | libc::EAGAIN | libc::ENOMEM => sys::sched_yield(),
            error => {
                let hint = "a ring serves only the thread that created it, until its descriptor \
                            is closed";
                self.refusals.count("io_uring_enter", error, hint);
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.is_registered() {
            unregister(self.ring.as_raw_fd(), self.enter_fd as u32);
        }
    }
}

/// Whether io_uring can be used here.
///
/// Asks on a thread of its own: the kernel interrupts the thread of a ring that
/// goes away, and the caller's next system call must not fail for that.
///
/// # Errors
///
/// Why not.
pub(in crate::driver) fn probe() -> io::Result<()> {
    let probe = thread::Builder::new().spawn(|| {
        let (ring, _) = build()?;
        check_features(&ring)?;
        probe_opcodes(&ring).map(drop)
    });
    let probe = probe.map_err(|error| sys::explain_no_thread(&error))?;
    probe.join().expect("a probe returns its errors")
}

fn build() -> io::Result<(IoUring, Setup)> {
    let mut refusal = None;
    for setup in Setup::BEST_FIRST {
        match setup.build() {
            Ok(ring) => return Ok((ring, setup)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
            Err(error) => return Err(explain(&error)),
        }
    }
    Err(explain(&refusal.expect("the loop runs at least once")))
}

/// Says what to do about an error of `io_uring_setup`.
fn explain(error: &io::Error) -> io::Error {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel lacks it, or a seccomp filter hides it",
        Some(libc::EPERM) if is_disabled() => "sysctl kernel.io_uring_disabled forbids it",
        Some(libc::EPERM | libc::EACCES) => "a seccomp filter or security module forbids it",
        Some(libc::ENOMEM) => "no memory, or the limit of locked memory (ulimit -l) is too low",
        Some(libc::EMFILE | libc::ENFILE) => OUT_OF_DESCRIPTORS,
        Some(libc::EINVAL) => "the kernel is too old",
        _ => "unexpected error",
    };
    io::Error::new(
        error.kind(),
        format!("cannot set up io_uring: {reason} ({error})"),
    )
}

/// Whether the administrator has switched io_uring off.
fn is_disabled() -> bool {
    let path = c"/proc/sys/kernel/io_uring_disabled";
    let mut value = 0u8;
    // SAFETY: the path ends with a zero, and one byte is read into `value`.
    unsafe {
        let open = [
            libc::AT_FDCWD as usize,
            path.as_ptr() as usize,
            libc::O_CLOEXEC as usize,
            0,
            0,
            0,
        ];
        let fd = sys::syscall(libc::SYS_openat, open);
        if fd >= 0 {
            sys::syscall(
                libc::SYS_read,
                [fd as usize, &raw mut value as usize, 1, 0, 0, 0],
            );
            sys::close(fd as RawFd);
        }
    }
    matches!(value, b'1' | b'2')
}

fn check_features(ring: &IoUring) -> io::Result<()> {
    let features = ring.params();
    let missing = [
        (features.is_feature_nodrop(), "NODROP"),
        (features.is_feature_submit_stable(), "SUBMIT_STABLE"),
        (features.is_feature_rw_cur_pos(), "RW_CUR_POS"),
        (features.is_feature_fast_poll(), "FAST_POLL"),
        (features.is_feature_ext_arg(), "EXT_ARG"),
    ];
    match missing.iter().find(|(present, _)| !present) {
        None => Ok(()),
        Some((_, name)) => Err(too_old(name)),
    }
}

fn probe_opcodes(ring: &IoUring) -> io::Result<Opcodes> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| explain(&error))?;
    match REQUIRED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(Opcodes(
            (0..u128::BITS as u8)
                .filter(|code| probe.is_supported(*code))
                .fold(0, |set, code| set | 1 << code),
        )),
        Some((_, name)) => Err(too_old(name)),
    }
}

fn too_old(missing: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("cannot use io_uring: the kernel lacks {missing}"),
    )
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Registers the ring's descriptor with the calling thread, which saves a
/// look-up per call. Returns its index.
fn register(fd: RawFd) -> Option<u32> {
    let mut update = Update {
        offset: u32::MAX,
        reserved: 0,
        data: fd as u64,
    };
    let args = [
        fd as usize,
        REGISTER_RING_FDS,
        &raw mut update as usize,
        1,
        0,
        0,
    ];
    // SAFETY: one update is alive for the whole call.
    let registered = unsafe { sys::syscall(libc::SYS_io_uring_register, args) };
    (registered == 1).then_some(update.offset)
}

/// Undoes [`register`], which would keep the ring alive.
fn unregister(fd: RawFd, index: u32) {
    let update = Update {
        offset: index,
        reserved: 0,
        data: 0,
    };
    let args = [
        fd as usize,
        UNREGISTER_RING_FDS,
        &raw const update as usize,
        1,
        0,
        0,
    ];
    // SAFETY: one update is alive for the whole call.
    unsafe { sys::syscall(libc::SYS_io_uring_register, args) };
}
