//! Reading and writing any descriptor.

use std::ffi::c_int;
use std::mem;
use std::os::fd::RawFd;
use std::slice;

use super::descriptor::{is_file, is_socket, is_stream, waits_for_disk};
use super::messages::send_vectored;
use super::perform::{Awaits, EAGAIN, blocking, perform};
use super::socket::{send, timed};
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
        if len == 0 {
            // Nothing to wait for. A vectored call, with which the others are
            // tried, does not ask the file; event counters and timers refuse.
            return op.run();
        }
        if is_submitted_at_once(&op) {
            return limited(op);
        }
        let total = match attempt(&op) {
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
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if asks_not_to_wait(flags) {
            return op.run();
        }
        plain(op)
    }
}

/// Flags of a vectored write that mean nothing to a socket.
const FILE_FLAGS: c_int = libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC | libc::RWF_APPEND;

/// Whether these flags of a vectored call say that it must not wait.
fn asks_not_to_wait(flags: c_int) -> bool {
    flags & libc::RWF_NOWAIT != 0
}

/// `write(2)`, or `pwrite(2)` with an offset
///
/// # Safety
///
/// The contract of `write(2)`. Called on a coroutine.
pub unsafe fn write(fd: RawFd, buf: *const u8, len: usize, offset: Option<u64>) -> isize {
    let op = Op::Write {
        fd,
        buf,
        len,
        offset,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if offset.is_none() && is_socket(fd) {
            return send(fd, buf, len, 0);
        }
        if len == 0 {
            // As for a read of nothing.
            return op.run();
        }
        let mut total = plain(op);
        if total > 0 && (total as usize) < len {
            let done = total as usize;
            let rest = (buf.byte_add(done), len - done);
            total += write_more(fd, rest, offset.map(|at| at + done as u64));
        }
        total
    }
}

/// After a part of a write: writes the rest, or as much of it as can be. A
/// thread returns when all is written, or nothing more can be: the next call
/// then says why, and what was written counts.
///
/// # Safety
///
/// As [`write`].
unsafe fn write_more(fd: RawFd, rest: (*const u8, usize), offset: Option<u64>) -> isize {
    let (buf, len) = rest;
    let mut total = 0;
    while total < len {
        // SAFETY: the caller's promise.
        let more = unsafe {
            plain(Op::Write {
                fd,
                buf: buf.byte_add(total),
                len: len - total,
                offset: offset.map(|at| at + total as u64),
            })
        };
        if more <= 0 {
            break;
        }
        total += more as usize;
    }
    total as isize
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
        if offset.is_none() && flags & !FILE_FLAGS == 0 && is_socket(fd) {
            return send_vectored(fd, iov, count);
        }
        if asks_not_to_wait(flags) {
            return op.run();
        }
        let mut total = plain(op);
        if total > 0 {
            let pieces = slice::from_raw_parts(iov, count as usize);
            let mut position = offset.map(|at| at + total as u64);
            total += for_rest(pieces, total as usize, |rest| {
                let written = write_more(fd, rest, position);
                position = position.map(|at| at + written as u64);
                written
            });
        }
        total
    }
}

/// After `done` bytes of a vectored transfer: calls `transfer` with what is left
/// of each piece, until it does not do all. Returns the sum.
pub(super) fn for_rest(
    pieces: &[libc::iovec],
    done: usize,
    mut transfer: impl FnMut((*const u8, usize)) -> isize,
) -> isize {
    let mut skip = done;
    let mut total = 0;
    for piece in pieces {
        let start = skip.min(piece.iov_len);
        skip -= start;
        let len = piece.iov_len - start;
        if len == 0 {
            continue;
        }
        let transferred = transfer((piece.iov_base.wrapping_byte_add(start).cast(), len));
        total += transferred.max(0);
        if transferred < len as isize {
            break;
        }
    }
    total
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
        match attempt(&op) {
            Some(EAGAIN) | None => wait_for(op),
            Some(result) => {
                sched::spend();
                result
            }
        }
    }
}

/// [`Op::attempt`], unless that would wait all the same.
///
/// # Safety
///
/// As for that.
unsafe fn attempt(op: &Op) -> Option<isize> {
    if waits_for_disk(op) {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { op.attempt() }
}

/// Whether trying first is of no use: for writes to a file at an offset, which
/// few file systems can try, and under a driver that performs them for pipes and
/// sockets, which have no position and mostly have to wait. (An offset in
/// anything but a file is an error, to which io_uring is blind.)
fn is_submitted_at_once(op: &Op) -> bool {
    let is = |what: fn(RawFd) -> bool| op.fd().is_some_and(what);
    if moves_position(op) {
        sched::driver_supports(op) && is(is_stream)
    } else {
        matches!(op, Op::Write { .. } | Op::WriteV { .. }) && is(is_file)
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
/// So it does for a read of a terminal that returns without any input.
///
/// # Safety
///
/// As `perform`.
unsafe fn wait_for(op: Op) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        let is = |what: fn(RawFd) -> bool| op.fd().is_some_and(what);
        let is_read = matches!(op, Op::Read { .. } | Op::ReadV { .. });
        if moves_position(&op) && is(is_file) {
            blocking(Awaits::System, op)
        } else if is_read && !is(is_stream) && is(is_hasty_terminal) {
            blocking(Awaits::Others, op)
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
            _ => perform(op, None),
        }
    }
}

/// Whether `fd` is a terminal that is set up so that a read returns, at once or
/// after a time, when nothing was typed (`VMIN` is 0). It is not ready then, but
/// waiting for it to be would be wrong.
fn is_hasty_terminal(fd: RawFd) -> bool {
    // SAFETY: all-zero bytes are settings to be filled in.
    let mut settings: libc::termios2 = unsafe { mem::zeroed() };
    let args = [
        fd as usize,
        libc::TCGETS2 as usize,
        &raw mut settings as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the settings live across the call.
    let result = unsafe { sys::syscall(libc::SYS_ioctl, args) };
    result == 0 && settings.c_lflag & libc::ICANON == 0 && settings.c_cc[libc::VMIN] == 0
}
