//! Signal masks and pending signals, in the kernel's own terms.

use std::ffi::c_int;
use std::mem::{self, MaybeUninit};
use std::ptr;

use libc::siginfo_t;

use super::{getpid, gettid, read_file, syscall};

/// Signals as the kernel keeps them: signal `n` is bit `n - 1`.
pub type SignalSet = u64;

/// Size of a set, which the system calls ask for.
const SET_SIZE: usize = mem::size_of::<SignalSet>();

/// The signals that glibc keeps to itself: 32 and 33. Its functions never block
/// them.
pub const LIBC_SIGNALS: SignalSet = 1 << 31 | 1 << 32;

/// What a thread that runs no code of the program can leave to others: not what
/// the thread itself causes, nor what comes to one certain thread for libc
/// ([`LIBC_SIGNALS`]) or for a runtime (`SIGURG`).
pub const DEFERRABLE_SIGNALS: SignalSet = !(LIBC_SIGNALS
    | bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(libc::SIGABRT)
    | bit(libc::SIGURG));

const fn bit(signal: c_int) -> SignalSet {
    1 << (signal - 1)
}

/// The set of `signal` alone; empty if there is no such signal.
pub fn signal_set(signal: c_int) -> SignalSet {
    if (1..=64).contains(&signal) {
        bit(signal)
    } else {
        0
    }
}

/// The calling thread's signal mask.
pub fn signal_mask() -> SignalSet {
    let mut mask = 0;
    // SAFETY: without a new mask the call only writes the 8 bytes of `mask`.
    unsafe { change_mask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
    mask
}

/// Sets the calling thread's signal mask. Returns the one before.
pub fn set_signal_mask(mask: SignalSet) -> SignalSet {
    let mut before = 0;
    // SAFETY: reads the 8 bytes of `mask`, writes those of `before`.
    unsafe { change_mask(libc::SIG_SETMASK, &raw const mask, &raw mut before) };
    before
}

/// # Safety
///
/// Each pointer is null or valid.
unsafe fn change_mask(how: c_int, new: *const SignalSet, old: *mut SignalSet) {
    let args = [how as usize, new as usize, old as usize, SET_SIZE, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
}

/// Blocked signals that wait for the calling thread or for its process.
pub fn pending_signals() -> SignalSet {
    let mut set: SignalSet = 0;
    let args = [&raw mut set as usize, SET_SIZE, 0, 0, 0, 0];
    // SAFETY: writes the 8 bytes of `set`.
    unsafe { syscall(libc::SYS_rt_sigpending, args) };
    set
}

/// Signals that wait for the calling thread only, not for its process. `None` if
/// the kernel does not tell, because there is no `/proc`.
pub fn own_pending_signals() -> Option<SignalSet> {
    // The whole file is about 1.5 kB; only very many groups make it longer.
    let mut text = [0u8; 4096];
    let length = read_file(b"/proc/thread-self/status\0", &mut text);
    pending_in(&text[..length])
}

/// The set in the line `SigPnd` of a thread's status.
fn pending_in(status: &[u8]) -> Option<SignalSet> {
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"SigPnd:"))?;
    SignalSet::from_str_radix(str::from_utf8(line).ok()?.trim(), 16).ok()
}

/// Takes a pending signal of `set`, one of the calling thread before one of its
/// process; without waiting.
pub fn take_signal(set: SignalSet) -> Option<siginfo_t> {
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut info = MaybeUninit::uninit();
    let args = [
        &raw const set as usize,
        info.as_mut_ptr() as usize,
        &raw const timeout as usize,
        SET_SIZE,
        0,
        0,
    ];
    // SAFETY: reads `set` and `timeout`, writes a `siginfo_t`.
    let result = unsafe { syscall(libc::SYS_rt_sigtimedwait, args) };
    // SAFETY: a call that succeeds has written it.
    (result > 0).then(|| unsafe { info.assume_init() })
}

/// Sends a signal, whatever its origin, to the calling thread. False if the
/// kernel has no room for it.
#[must_use = "a signal that was not sent must be kept"]
pub fn send_to_this_thread(info: &siginfo_t) -> bool {
    let info_at = ptr::from_ref(info) as usize;
    let args = [
        getpid() as usize,
        gettid() as usize,
        info.si_signo as usize,
        info_at,
        0,
        0,
    ];
    // SAFETY: reads a `siginfo_t`.
    unsafe { syscall(libc::SYS_rt_tgsigqueueinfo, args) == 0 }
}

/// Sends a signal, whatever its origin, to the process. False if the kernel has
/// no room for it.
#[must_use = "a signal that was not sent must be kept"]
pub fn send_to_this_process(info: &siginfo_t) -> bool {
    let info_at = ptr::from_ref(info) as usize;
    // The kernel lets a thread send what looks like kill(2) to itself only. But
    // any thread's id stands for its process here.
    let args = [
        gettid() as usize,
        info.si_signo as usize,
        info_at,
        0,
        0,
        0,
    ];
    // SAFETY: reads a `siginfo_t`.
    unsafe { syscall(libc::SYS_rt_sigqueueinfo, args) == 0 }
}

/// A descriptor that is readable while a signal of `set` is pending, made by
/// `signalfd(2)`; negative on failure.
pub fn signal_descriptor(set: SignalSet) -> isize {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    let args = [
        usize::MAX,
        &raw const set as usize,
        SET_SIZE,
        flags as usize,
        0,
        0,
    ];
    // SAFETY: reads the 8 bytes of `set`.
    unsafe { syscall(libc::SYS_signalfd4, args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` on a thread of its own that blocks SIGUSR1 and a real-time
    /// signal; no other thread of the test binary is sent them.
    fn blocking(body: fn(c_int)) {
        std::thread::spawn(move || {
            let signal = libc::SIGRTMIN() + 3;
            set_signal_mask(signal_mask() | signal_set(signal));
            body(signal);
        })
        .join()
        .unwrap();
    }

    fn raise(signal: c_int) {
        let args = [
            getpid() as usize,
            gettid() as usize,
            signal as usize,
            0,
            0,
            0,
        ];
        // SAFETY: takes integers.
        assert_eq!(0, unsafe { syscall(libc::SYS_tgkill, args) });
    }

    #[test]
    fn what_waits_for_a_thread_is_told_apart_and_can_be_sent_again() {
        blocking(|signal| {
            let set = signal_set(signal);
            assert_eq!(Some(0), own_pending_signals().map(|own| own & set));
            raise(signal);
            raise(signal);
            assert_eq!(set, pending_signals() & set);
            assert_eq!(Some(set), own_pending_signals().map(|own| own & set));
            let first = take_signal(set).unwrap();
            let second = take_signal(set).unwrap();
            assert!(take_signal(set).is_none());
            assert_eq!((signal, libc::SI_TKILL), (first.si_signo, first.si_code));
            for info in [first, second] {
                assert!(send_to_this_thread(&info));
            }
            assert_eq!(Some(set), own_pending_signals().map(|own| own & set));
            let again = take_signal(set).unwrap();
            assert_eq!((signal, libc::SI_TKILL), (again.si_signo, again.si_code));
            assert!(take_signal(set).is_some());
            assert!(take_signal(set).is_none());
        });
    }

    #[test]
    fn the_line_of_a_status_is_read() {
        let status = b"Name:\tx\nSigPnd:\t0000000000000a00\nShdPnd:\t0000000000000001\n";
        assert_eq!(Some(0xa00), pending_in(status));
        assert_eq!(None, pending_in(b"Name:\tx\n"));
    }
}
