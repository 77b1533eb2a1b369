//! Reading and writing any descriptor.

use std::ffi::c_int;
use std::os::fd::RawFd;

use super::descriptor::{is_stream, kind};
use super::perform::{Awaits, EAGAIN, blocking, perform};
use super::socket::{send, timed};
use super::vectors;
use crate::driver::Op;
use crate::sched;
use crate::sys;

/// `read(2)`, or `pread(2)` with an offset
///
/// # Safety
///
/// The contract of `read(2)`. Called on a coroutine.
pub unsafe fn read(fd: RawFd, buf: *mut u8, len: usize, offset: Option<u64>) -> isize {
    let op = Op::Read {
        fd,
        buf,
        len,
        offset,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if is_submitted_at_once(&op) {
            return limited(op);
        }
        let total = match op.attempt() {
            Some(EAGAIN) | None => return wait_for(op),
            Some(total) => total,
        };
        sched::spend();
        let Some(at) = offset.filter(|_| total > 0 && (total as usize) < len) else {
            // At the current position a second call would not follow the first
            // without a gap, if others read there too; so that one is short.
            return total;
        };
        // The file ends here, or the rest of it is not in memory.
        let done = total as usize;
        let rest = Op::Read {
            fd,
            buf: buf.byte_add(done),
            len: len - done,
            offset: Some(at + done as u64),
        };
        total + wait_for(rest).max(0)
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
    unsafe { if is_tried(flags) { op.run() } else { plain(op) } }
}

/// Whether these flags of a vectored call ask not to wait.
fn is_tried(flags: c_int) -> bool {
    flags & libc::RWF_NOWAIT != 0
}

/// `write(2)`, or `pwrite(2)` with an offset
///
/// # Safety
///
/// The contract of `write(2)`. Called on a coroutine.
pub unsafe fn write(fd: RawFd, buf: *const u8, len: usize, offset: Option<u64>) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if len == 0 && kind(fd) == libc::S_IFSOCK && offset.is_none() {
            // An empty datagram, which a vectored write would not send.
            return send(fd, buf, len, 0);
        }
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
        let mut total = if is_tried(flags) { op.run() } else { plain(op) };
        if total > 0 && !is_tried(flags) {
            let whole = vectors::buffers(iov, count as usize);
            let wanted = vectors::length(whole);
            while (total as usize) < wanted {
                let rest = vectors::after(whole, total as usize);
                match plain(Op::WriteV {
                    fd,
                    iov: rest.as_ptr(),
                    count: rest.len() as c_int,
                    offset: offset.map(|at| at + total as u64),
                    flags,
                }) {
                    more @ 1.. => total += more,
                    _ => break,
                }
            }
        }
        send_signal_on_broken_pipe(total);
        total
    }
}

/// Performs `op`, a read or write.
///
/// A read of what is in memory is done at once: waiting for a driver would take
/// longer. So is what can be done at the current position of a file: the kernel
/// then moves the position under its lock.
///
/// # Safety
///
/// As `perform`.
unsafe fn plain(op: Op) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if is_submitted_at_once(&op) {
            return limited(op);
        }
        match op.attempt() {
            Some(EAGAIN) | None => wait_for(op),
            Some(result) => {
                sched::spend();
                result
            }
        }
    }
}

/// Whether trying first is of no use: for writes at an offset, which few file
/// systems can try, and under a driver that performs them for pipes and sockets,
/// which have no position and mostly have to wait.
fn is_submitted_at_once(op: &Op) -> bool {
    if moves_position(op) {
        sched::driver_supports(op) && op.fd().is_some_and(is_stream)
    } else {
        matches!(op, Op::Write { .. } | Op::WriteV { .. })
    }
}

/// Whether `op`, a read or write, is at the current position.
fn moves_position(op: &Op) -> bool {
    matches!(
        op,
        Op::Read { offset: None, .. }
            | Op::Write { offset: None, .. }
            | Op::ReadV { offset: None, .. }
            | Op::WriteV { offset: None, .. }
    )
}

/// Performs `op`, a read or write that would have to wait.
///
/// io_uring does not lock the current position of a file, so there a thread
/// waits instead: coroutines that share a file neither lose nor repeat a byte.
///
/// # Safety
///
/// As `perform`.
unsafe fn wait_for(op: Op) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if moves_position(&op) && op.fd().is_some_and(is_regular) {
            blocking(Awaits::System, op)
        } else {
            limited(op)
        }
    }
}

/// Performs `op`, a read or write, within the time that a socket allows.
///
/// # Safety
///
/// As `perform`.
unsafe fn limited(op: Op) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        match op {
            Op::Read { offset: None, .. } | Op::ReadV { offset: None, .. } => {
                timed(op, libc::SO_RCVTIMEO)
            }
            Op::Write { offset: None, .. } | Op::WriteV { offset: None, .. } => {
                timed(op, libc::SO_SNDTIMEO)
            }
            _ => perform(op, None),
        }
    }
}

/// Whether `fd` is a file that has a position.
fn is_regular(fd: RawFd) -> bool {
    matches!(kind(fd), libc::S_IFREG | libc::S_IFBLK)
}

/// The signal that a thread gets with `EPIPE`. io_uring sends none for sockets.
pub(super) fn send_signal_on_broken_pipe(result: isize) {
    if result != -(libc::EPIPE as isize) {
        return;
    }
    // SAFETY: sends a signal to the calling thread.
    unsafe {
        let pid = sys::getpid() as usize;
        let args = [pid, sys::gettid() as usize, libc::SIGPIPE as usize, 0, 0, 0];
        sys::syscall(libc::SYS_tgkill, args);
    }
    sched::sent_signal_to_self(libc::SIGPIPE);
}
