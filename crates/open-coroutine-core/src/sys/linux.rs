//! Linux: the system call instruction and the few calls the runtime needs.

mod interrupts;
mod signals;
mod threads;

use std::ffi::c_int;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub use interrupts::*;
pub use signals::*;
pub use threads::*;

/// Makes system call `number`. Returns its result, or minus the error number.
///
/// # Safety
///
/// The contract of that system call.
#[inline(always)]
pub unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> isize {
    let result: isize;
    cfg_select! {
        target_arch = "x86_64" => {
            // SAFETY: the kernel preserves all registers but rax, rcx and r11,
            // and reads memory as the call's contract (the caller's) says.
            unsafe {
                std::arch::asm!(
                    "syscall",
                    inlateout("rax") number as isize => result,
                    in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                    in("r10") args[3], in("r8") args[4], in("r9") args[5],
                    lateout("rcx") _, lateout("r11") _,
                    options(nostack),
                );
            }
        }
        target_arch = "aarch64" => {
            // SAFETY: the kernel preserves all registers but x0, and reads
            // memory as the call's contract (the caller's) says.
            unsafe {
                std::arch::asm!(
                    "svc 0",
                    in("x8") number as usize,
                    inlateout("x0") args[0] as isize => result,
                    in("x1") args[1], in("x2") args[2],
                    in("x3") args[3], in("x4") args[4], in("x5") args[5],
                    options(nostack),
                );
            }
        }
        _ => { compile_error!("no system call instruction for this architecture"); }
    }
    result
}

/// Address space that memory for coroutines leaves to everything else. A program can
/// deal with a coroutine that it does not get; hardly any can with a failed `malloc`.
pub const SPARE: usize = 64 << 20;

/// Maps `len` bytes of zeroes that cost nothing until they are touched.
///
/// # Errors
///
/// Those of `mmap(2)`, also if less than `spare` bytes could be mapped after that.
pub fn map(len: usize, spare: usize) -> io::Result<usize> {
    let total = len.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?;
    // NORESERVE: mostly untouched, do not account for all of it.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let args = [
        0,
        total,
        protection as usize,
        flags as usize,
        usize::MAX, // no file: -1
        0,
    ];
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = check(unsafe { syscall(libc::SYS_mmap, args) })?;
    if spare > 0 {
        // SAFETY: the end of the new mapping, which nobody uses.
        let result = unsafe { unmap(start + len, spare) };
        if result.is_err() {
            // It is in the middle of what the kernel has joined; all of it is not.
            // SAFETY: as above.
            let _ = unsafe { unmap(start, total) };
        }
        result?;
    }
    // A huge page would make what uses 4 KiB cost 2 MiB. Kernels
    // without huge pages refuse, which is as good.
    // SAFETY: only how the new mapping is backed changes.
    let _ = unsafe { madvise(start, len, libc::MADV_NOHUGEPAGE as usize) };
    Ok(start)
}

/// `madvise(2)`
///
/// # Errors
///
/// Those of that call.
///
/// # Safety
///
/// The caller owns the `len` bytes at `start` and accepts what `advice` does.
pub unsafe fn madvise(start: usize, len: usize, advice: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    check(unsafe { syscall(libc::SYS_madvise, [start, len, advice, 0, 0, 0]) }).map(drop)
}

/// Undoes [`map`].
///
/// # Errors
///
/// `ENOMEM` when that would split a mapping (the kernel joins neighbours) and the
/// process may have no more of them.
///
/// # Safety
///
/// The caller owns the `len` bytes at `start`, and nobody uses them.
pub unsafe fn unmap(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    check(unsafe { syscall(libc::SYS_munmap, [start, len, 0, 0, 0, 0]) }).map(drop)
}

/// Turns a raw result into `io::Result`.
///
/// # Errors
///
/// The error whose number `result` is minus.
pub fn check(result: isize) -> io::Result<usize> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// Makes a call on which others rely, again for as long as the kernel refuses it
/// for a passing reason. Returns the last result.
#[inline]
pub fn insist(call: impl Fn() -> isize) -> isize {
    match call() {
        result @ 0.. => result,
        refusal => insist_after(refusal, call),
    }
}

#[cold]
fn insist_after(refusal: isize, call: impl Fn() -> isize) -> isize {
    const ATTEMPTS: u32 = 1000;
    let mut result = refusal;
    for _ in 0..ATTEMPTS {
        let error = -result as c_int;
        if !matches!(error, libc::EINTR | libc::ENOMEM | libc::ENOBUFS | libc::EIO) {
            break;
        }
        sched_yield();
        result = call();
    }
    result
}

/// Says what to do about a thread that did not start.
pub fn explain_no_thread(error: &io::Error) -> io::Error {
    let message = format!(
        "cannot start a thread, see RLIMIT_NPROC, kernel.threads-max, pids.max of the control \
         group, RLIMIT_AS and the memory left ({error})"
    );
    io::Error::new(error.kind(), message)
}

/// The calling thread's `errno`.
#[inline]
pub fn errno() -> c_int {
    // SAFETY: the calling thread's.
    unsafe { *errno_location() }
}

/// Sets the calling thread's `errno`.
#[inline]
pub fn set_errno(value: c_int) {
    // SAFETY: the calling thread's.
    unsafe { *errno_location() = value }
}

/// Where the calling thread's `errno` is: valid as long as its storage is.
#[inline]
pub fn errno_location() -> *mut c_int {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::__errno_location() }
}

/// The kernel's id of the calling process.
pub fn getpid() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) as i32 }
}

/// The kernel's id of the calling thread.
pub fn gettid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) as i32 }
}

/// The processor time that a thread of this process has used; `None` if there is no
/// such thread.
pub fn thread_time(thread: i32) -> Option<Duration> {
    // How the kernel numbers clocks of threads: CPUCLOCK_PERTHREAD_MASK and
    // CPUCLOCK_SCHED.
    let clock = (!thread << 3) | 6;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let args = [clock as usize, &raw mut time as usize, 0, 0, 0, 0];
    // SAFETY: writes `time`.
    let result = unsafe { syscall(libc::SYS_clock_gettime, args) };
    (result == 0).then(|| to_duration(&time))?
}

/// Commands of `membarrier(2)`.
const PRIVATE_EXPEDITED: c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;

/// Asks the kernel for [`memory_barrier_everywhere`]. False if it refuses.
#[must_use = "without it there is no such barrier"]
pub fn prepare_memory_barriers() -> bool {
    membarrier(REGISTER_PRIVATE_EXPEDITED)
}

/// Every thread of this process passes a full memory barrier, at some point of its
/// own code. [`prepare_memory_barriers`] has returned true. False if the kernel
/// refuses all the same: it may be out of memory.
#[must_use = "a refusal is no barrier"]
pub fn memory_barrier_everywhere() -> bool {
    membarrier(PRIVATE_EXPEDITED)
}

fn membarrier(command: c_int) -> bool {
    let args = [command as usize, 0, 0, 0, 0, 0];
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_membarrier, args) == 0 }
}

/// Whether a thread of this process sleeps in the kernel: it neither runs nor could.
/// False if there is no `/proc`.
pub fn is_asleep(thread: i32) -> bool {
    let path = format!("/proc/self/task/{thread}/stat\0");
    let mut text = [0u8; 512];
    let length = read_file(path.as_bytes(), &mut text);
    // The state follows the name, which is in parentheses and may contain some.
    let after = text[..length].iter().rposition(|&byte| byte == b')');
    after.is_some_and(|end| matches!(text.get(end + 2), Some(b'S' | b'D')))
}

/// The system call that a thread of this process sleeps in, if it is known.
pub fn system_call_of(thread: i32) -> Option<libc::c_long> {
    let path = format!("/proc/self/task/{thread}/syscall\0");
    let mut text = [0u8; 256];
    let length = read_file(path.as_bytes(), &mut text);
    let number = text[..length].split(|&byte| byte == b' ').next()?;
    str::from_utf8(number).ok()?.parse().ok()
}

/// Reads the beginning of a file, whose path ends with a zero. Returns how much.
fn read_file(path: &[u8], text: &mut [u8]) -> usize {
    debug_assert_eq!(Some(&0), path.last());
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let args = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        flags,
        0,
        0,
        0,
    ];
    // SAFETY: the path is a C string.
    let Ok(fd) = check(unsafe { syscall(libc::SYS_openat, args) }) else {
        return 0;
    };
    let args = [fd, text.as_mut_ptr() as usize, text.len(), 0, 0, 0];
    // SAFETY: writes to `text` only.
    let length = check(unsafe { syscall(libc::SYS_read, args) });
    // SAFETY: opened above.
    unsafe { close(fd as c_int) };
    length.unwrap_or(0)
}

/// Has the calling thread's sleeps end as soon as the kernel can: by default they
/// may last 50 µs longer.
pub fn be_punctual() {
    let args = [libc::PR_SET_TIMERSLACK as usize, 1, 0, 0, 0, 0];
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_prctl, args) };
}

/// Whether `poll(2)` says that `fd` can be read.
pub fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let args = [&raw mut poll as usize, 1, &raw const now as usize, 0, 8, 0];
    // SAFETY: reads `now`, reads and writes `poll`.
    unsafe { syscall(libc::SYS_ppoll, args) == 1 && poll.revents & libc::POLLIN != 0 }
}

/// Gives the processor to another thread, if one waits for it.
pub fn sched_yield() {
    // SAFETY: sched_yield has no arguments and cannot fail.
    unsafe { syscall(libc::SYS_sched_yield, [0; 6]) };
}

cfg_select! {
    target_env = "gnu" => {
        /// Has malloc give its free memory back to the system.
        pub fn release_free_memory() {
            // SAFETY: may be called at any time, on any thread.
            unsafe { libc::malloc_trim(0) };
        }
    }
    _ => {
        /// Has malloc give its free memory back to the system: nothing to do,
        /// other C libraries keep little.
        pub fn release_free_memory() {}
    }
}

/// The size of a page of memory in bytes.
pub fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Sleeps while `word` holds `expected`, at most for `timeout`. Spurious
/// returns are possible; the caller looks at the word again.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timespec = timeout.map(to_timespec);
    let pointer = timespec.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `word` and `timespec` are alive for the whole call.
    unsafe {
        syscall(
            libc::SYS_futex,
            [
                word.as_ptr() as usize,
                (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize,
                expected as usize,
                pointer as usize,
                0,
                0,
            ],
        )
    };
}

/// Sleeps for `time`, or less if a signal comes.
pub fn pause(time: Duration) {
    futex_wait(&AtomicU32::new(0), 0, Some(time));
}

/// Wakes up to `count` threads that sleep in [`futex_wait`] on `word`.
pub fn futex_wake(word: &AtomicU32, count: u32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let args = [
        word.as_ptr() as usize,
        operation as usize,
        count as usize,
        0,
        0,
        0,
    ];
    // SAFETY: FUTEX_WAKE uses the address only as a key.
    insist(|| unsafe { syscall(libc::SYS_futex, args) });
}

/// `duration` as the kernel takes it; absurdly long ones are capped.
pub fn to_timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A time that the program has given; `None` if it is not a valid one.
pub fn to_duration(time: &libc::timespec) -> Option<Duration> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
}

/// The calling thread's alternate stack for signal handlers; empty if it has none.
pub fn alternate_stack() -> Range<usize> {
    // SAFETY: all-zero bytes are a valid `stack_t`.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    let args = [0, &raw mut stack as usize, 0, 0, 0, 0];
    // SAFETY: without a new stack the call only writes to `stack`.
    unsafe { syscall(libc::SYS_sigaltstack, args) };
    let start = stack.ss_sp as usize;
    match stack.ss_flags & libc::SS_DISABLE {
        0 => start..start + stack.ss_size,
        _ => 0..0,
    }
}

/// Closes `fd` without any hook seeing it.
///
/// # Safety
///
/// The caller owns `fd` and does not use it again.
pub unsafe fn close(fd: RawFd) {
    // SAFETY: the caller owns `fd`.
    unsafe { syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// The kind of an open file, in the bits of `S_IFMT`; 0 if it is unknown.
pub fn file_kind(fd: RawFd) -> libc::mode_t {
    // SAFETY: all-zero bytes are a valid `stat` to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    let args = [fd as usize, &raw mut stat as usize, 0, 0, 0, 0];
    // SAFETY: `stat` lives across the call.
    match insist(|| unsafe { syscall(libc::SYS_fstat, args) }) {
        0 => stat.st_mode & libc::S_IFMT,
        _ => 0,
    }
}

/// A kernel event counter (`eventfd(2)`), non-blocking, closed on drop.
#[derive(Debug)]
pub struct EventFd(RawFd);

impl EventFd {
    /// A counter of 0.
    ///
    /// # Errors
    ///
    /// Those of `eventfd(2)`: out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        // SAFETY: eventfd2 takes two integers.
        let fd = unsafe { syscall(libc::SYS_eventfd2, [0, flags as usize, 0, 0, 0, 0]) };
        Ok(Self(check(fd)? as RawFd))
    }

    /// The file descriptor, to wait on.
    pub fn fd(&self) -> RawFd {
        self.0
    }

    /// Adds one, which makes the descriptor readable.
    pub fn notify(&self) {
        let one = 1u64;
        let args = [self.0 as usize, &raw const one as usize, 8, 0, 0, 0];
        // SAFETY: reads the 8 bytes of `one`.
        insist(|| unsafe { syscall(libc::SYS_write, args) });
    }

    /// Sets the counter back to 0.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: writes the 8 bytes of `count`.
        unsafe {
            syscall(
                libc::SYS_read,
                [self.0 as usize, &raw mut count as usize, 8, 0, 0, 0],
            )
        };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: `self` owns the descriptor.
        unsafe { close(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_call_is_repeated_for_passing_reasons_only() {
        let calls = Cell::new(0);
        let fails_twice_with = |error: c_int| {
            calls.set(0);
            insist(|| {
                calls.set(calls.get() + 1);
                if calls.get() < 3 { -(error as isize) } else { 7 }
            })
        };
        assert_eq!(7, fails_twice_with(libc::EINTR));
        assert_eq!(7, fails_twice_with(libc::ENOMEM));
        assert_eq!(3, calls.get());
        assert_eq!(-(libc::EBADF as isize), fails_twice_with(libc::EBADF));
        assert_eq!(1, calls.get());
    }
}
