//! Reading and writing any descriptor.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use super::perform::{EAGAIN, EXPIRED, perform};
use crate::driver::Op;
use crate::sys;

/// `read(2)`, or `pread(2)` with an offset
///
/// # Safety
///
/// The contract of `read(2)`. Called on a coroutine.
pub unsafe fn read(fd: RawFd, buf: *mut c_void, len: usize, offset: Option<u64>) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        plain(Op::Read {
            fd,
            buf,
            len,
            offset,
        })
    }
}

/// `readv(2)`, or `preadv2(2)` with an offset
///
/// # Safety
///
/// The contract of `readv(2)`. Called on a coroutine.
pub unsafe fn read_vectored(
    fd: RawFd,
    iov: *const libc::iovec,
    count: c_int,
    offset: Option<u64>,
    flags: c_int,
) -> isize {
    let op = Op::ReadV {
        fd,
        iov,
        count,
        offset,
        flags,
    };
    // SAFETY: the caller's promise.
    unsafe { plain(op) }
}

/// `write(2)`, or `pwrite(2)` with an offset
///
/// # Safety
///
/// The contract of `write(2)`. Called on a coroutine.
pub unsafe fn write(fd: RawFd, buf: *const c_void, len: usize, offset: Option<u64>) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        let mut total = plain(Op::Write {
            fd,
            buf,
            len,
            offset,
        });
        // A thread returns when all is written, or nothing more can be: the
        // next call then says why, and what was written counts.
        while total > 0 && (total as usize) < len {
            let done = total as usize;
            let (buf, len) = (buf.byte_add(done), len - done);
            let offset = offset.map(|at| at + done as u64);
            match plain(Op::Write {
                fd,
                buf,
                len,
                offset,
            }) {
                more @ 1.. => total += more,
                _ => break,
            }
        }
        send_signal_on_broken_pipe(total);
        total
    }
}

/// `writev(2)`, or `pwritev2(2)` with an offset
///
/// # Safety
///
/// The contract of `writev(2)`. Called on a coroutine.
pub unsafe fn write_vectored(
    fd: RawFd,
    iov: *const libc::iovec,
    count: c_int,
    offset: Option<u64>,
    flags: c_int,
) -> isize {
    let op = Op::WriteV {
        fd,
        iov,
        count,
        offset,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        let mut total = plain(op);
        if total > 0 {
            total += write_rest(fd, iov, count, offset, total as usize);
        }
        send_signal_on_broken_pipe(total);
        total
    }
}

/// After `done` bytes of a vectored write: writes what is left, piece by piece.
///
/// # Safety
///
/// As [`write_vectored`].
unsafe fn write_rest(
    fd: RawFd,
    iov: *const libc::iovec,
    count: c_int,
    offset: Option<u64>,
    done: usize,
) -> isize {
    let mut skip = done;
    let mut position = offset.map(|at| at + done as u64);
    let mut total = 0;
    for index in 0..count as usize {
        // SAFETY: the kernel has read the `count` entries already.
        let piece = unsafe { *iov.add(index) };
        if skip >= piece.iov_len {
            skip -= piece.iov_len;
            continue;
        }
        let (start, len) = (skip, piece.iov_len - skip);
        skip = 0;
        // SAFETY: within the piece, which the caller vouches for.
        let written = unsafe { write(fd, piece.iov_base.byte_add(start), len, position) };
        if written > 0 {
            total += written;
            position = position.map(|at| at + written as u64);
        }
        if written < len as isize {
            break;
        }
    }
    total
}

/// Performs `op` without a time limit.
///
/// # Safety
///
/// As `perform`.
unsafe fn plain(op: Op) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { perform(op, None) } {
        EXPIRED => EAGAIN,
        result => result,
    }
}

/// The signal that a thread gets with `EPIPE`. io_uring sends none for sockets.
pub(super) fn send_signal_on_broken_pipe(result: isize) {
    if result != -(libc::EPIPE as isize) {
        return;
    }
    // SAFETY: sends a signal to the calling thread.
    unsafe {
        let pid = sys::syscall(libc::SYS_getpid, [0; 6]) as usize;
        let args = [pid, sys::gettid() as usize, libc::SIGPIPE as usize, 0, 0, 0];
        sys::syscall(libc::SYS_tgkill, args);
    }
}
