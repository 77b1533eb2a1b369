//! `openat(2)`.
//!
//! io_uring first tries to open without waiting, with `O_NONBLOCK`, and takes
//! the result for good. That is wrong for a FIFO, whose opening waits for the
//! other side (a reader would go on without, a writer get `ENXIO`), and for
//! devices that wait for a line. So it only gets what is known not to wait. It
//! also creates and truncates on a kernel thread, which costs twice as much as
//! our own pool does. What may wait for another side gets a thread of its own.

use std::ffi::{c_char, c_int};
use std::os::fd::RawFd;

use super::perform::{Awaits, blocking, perform};
use crate::driver::Op;
use crate::sched;
use crate::sys;

/// `RESOLVE_CACHED` of `openat2(2)`: fail rather than wait for the disk.
const RESOLVE_CACHED: u64 = 0x20;

/// `openat(2)`
///
/// # Safety
///
/// The contract of `openat(2)`. Called on a coroutine.
pub unsafe fn open(dir: RawFd, path: *const c_char, flags: c_int, mode: libc::mode_t) -> isize {
    let op = Op::OpenAt {
        dir,
        path,
        flags,
        mode,
    };
    let changes = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    // SAFETY: the caller's promise, in each call.
    unsafe {
        match target(dir, path, flags) {
            Target::Disk if flags & changes == 0 && sched::driver_supports(&op) => {
                perform(op, None)
            }
            Target::Disk | Target::Unknown => blocking(Awaits::System, op),
            Target::Other => blocking(Awaits::Others, op),
        }
    }
}

/// What is behind a path, and so what opening it waits for.
enum Target {
    /// Nothing but the disk.
    Disk,
    /// A FIFO or a device, whose other side may have to come.
    Other,
    /// It cannot be told without waiting, or there is nothing yet.
    Unknown,
}

/// # Safety
///
/// As [`open`].
unsafe fn target(dir: RawFd, path: *const c_char, flags: c_int) -> Target {
    if flags & (libc::O_NONBLOCK | libc::O_PATH | libc::O_DIRECTORY) != 0 {
        return Target::Disk;
    }
    let how = [
        (libc::O_PATH | libc::O_CLOEXEC | flags & libc::O_NOFOLLOW) as u64,
        0,
        RESOLVE_CACHED,
    ];
    let args = [
        dir as usize,
        path as usize,
        &raw const how as usize,
        size_of_val(&how),
        0,
        0,
    ];
    // SAFETY: the caller's promise; `how` lives across the call.
    let fd = unsafe { sys::syscall(libc::SYS_openat2, args) };
    if fd < 0 {
        return Target::Unknown;
    }
    let kind = sys::file_kind(fd as RawFd);
    // SAFETY: opened just now.
    unsafe { sys::close(fd as RawFd) };
    match kind {
        libc::S_IFREG | libc::S_IFDIR => Target::Disk,
        _ => Target::Other,
    }
}
