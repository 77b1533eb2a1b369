//! Where a coroutine blocks its thread: found out, and told once per place.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

use super::takeover::Left;
use crate::sys;
use crate::util::lock::Lock;

/// Frames that are kept of a place.
const FRAMES: usize = 48;

/// Places that were told. Static because logs are the process's.
static TOLD: Lock<BTreeSet<Vec<usize>>> = Lock::new(BTreeSet::new());

/// Forgets what was told if somebody was about to change that, in the child of a fork.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub(crate) unsafe fn abandon() {
    // SAFETY: the caller's promise.
    unsafe { TOLD.abandon_held(BTreeSet::new()) };
}
/// More than that are told again and again.
const MAX_TOLD: usize = 1000;

/// Return addresses, innermost first.
pub(super) struct Place {
    frames: [AtomicUsize; FRAMES],
    count: AtomicUsize,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            frames: [const { AtomicUsize::new(0) }; FRAMES],
            count: AtomicUsize::new(0),
        }
    }
}

impl Place {
    /// Notes the caller's place, once. For a signal handler.
    pub(super) fn note(&self) {
        if self.count.load(Relaxed) != 0 {
            return;
        }
        let mut count = 0;
        // SAFETY: it is said to be unsafe when several threads call it at once on
        // Windows. What it does here is to unwind: without allocating, and since
        // glibc 2.35 without a lock.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                self.frames[count].store(frame.ip().addr(), Relaxed);
                count += 1;
                count < FRAMES
            });
        }
        // Release: pairs with the Acquire in `addresses`.
        self.count.store(count, Release);
    }

    fn addresses(&self) -> Vec<usize> {
        let count = self.count.load(Acquire);
        let frames = self.frames[..count].iter();
        frames.map(|frame| frame.load(Relaxed)).collect()
    }
}

/// Warns that the thread whose `left` this is was blocked, and is no longer.
pub(super) fn report(left: &Left) {
    let Some(since) = left.since.lock().take() else {
        return;
    };
    let blocked = Instant::now().saturating_duration_since(since).as_millis();
    let addresses = left.place.addresses();
    if !is_news(&addresses) {
        return;
    }
    tracing::warn!(
        "a coroutine blocked the worker for {blocked} ms, in a call that no hook sees or in a \
         section that cannot be preempted{}",
        describe(&addresses)
    );
}

fn is_news(addresses: &[usize]) -> bool {
    let mut told = TOLD.lock();
    told.len() >= MAX_TOLD || told.insert(addresses.to_vec())
}

/// A line per function.
fn describe(addresses: &[usize]) -> String {
    let mut text = String::new();
    for &address in addresses {
        backtrace::resolve(address as *mut c_void, |symbol| {
            if let Some(name) = symbol.name() {
                let _ = write!(text, "\n  {name:#}");
                if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
                    let _ = write!(text, " ({}:{line})", file.display());
                }
            }
        });
    }
    text
}

/// Whether a signal with `SA_RESTART` interrupts what `thread` sleeps in without its
/// noticing, see signal(7).
pub(super) fn may_interrupt(thread: i32) -> bool {
    const NOTICES: &[libc::c_long] = &[
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_semtimedop,
        libc::SYS_semop,
        libc::SYS_msgrcv,
        libc::SYS_msgsnd,
        libc::SYS_io_getevents,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_rt_sigsuspend,
        // With a time limit of the socket's.
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_connect,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pause,
    ];
    // Not asleep, if there is none: it computes.
    sys::system_call_of(thread).is_none_or(|number| !NOTICES.contains(&number))
}
