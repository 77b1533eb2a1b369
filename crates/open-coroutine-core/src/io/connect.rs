//! `connect(2)`.

use std::ffi::c_int;
use std::mem;
use std::os::fd::RawFd;
use std::time::Instant;

use super::descriptor::is_nonblocking;
use super::perform::{Awaits, EAGAIN, EXPIRED, blocking, perform, wait_ready};
use super::socket::{is_stream, socket_deadline};
use crate::driver::Op;
use crate::sched::{self, Cancel};
use crate::sys;

/// `connect(2)`
///
/// # Safety
///
/// The contract of `connect(2)`. Called on a coroutine.
pub unsafe fn connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> isize {
    let op = Op::Connect { fd, addr, len };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if is_nonblocking(fd) {
            return op.run();
        }
        let deadline = socket_deadline(fd, libc::SO_SNDTIMEO);
        let result = if sched::driver_supports(&op) {
            perform(op, deadline)
        } else {
            connect_by_readiness(op, fd, deadline)
        };
        match result {
            EXPIRED => -(libc::EINPROGRESS as isize),
            result => {
                end_attempt(fd, result);
                result
            }
        }
    }
}

/// After an attempt to connect that the peer or the net has ended: makes the
/// socket what a connect that waits leaves behind, one that is not connected and
/// can be connected anew. The kernel does that only for who waits in the call.
fn end_attempt(fd: RawFd, result: isize) {
    const ENDS: [c_int; 5] = [
        libc::ECONNREFUSED,
        libc::ECONNRESET,
        libc::ETIMEDOUT,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    if !ENDS.contains(&(-result as c_int)) || !is_stream(fd) {
        return;
    }
    // SAFETY: all-zero bytes are a valid address, of no family.
    let nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    let len = mem::size_of_val(&nowhere);
    let args = [fd as usize, &raw const nowhere as usize, len, 0, 0, 0];
    // SAFETY: the address lives across the call, which does not wait: a stream
    // that is not connected forgets the attempt, or refuses (UNIX sockets, which
    // have nothing to forget).
    unsafe { sys::syscall(libc::SYS_connect, args) };
}

/// Connects a blocking socket without blocking. The one case in which the
/// descriptor's `O_NONBLOCK` is changed: for one call, while the socket is not
/// connected and so of no use to anybody else.
///
/// # Safety
///
/// The contract of `op`'s system call, a connect on `fd`.
unsafe fn connect_by_readiness(op: Op, fd: RawFd, deadline: Option<Instant>) -> isize {
    // SAFETY: the caller's promise.
    let result = unsafe { op.attempt() }.expect("a connect can be tried");
    if result == EAGAIN {
        // A UNIX socket whose listener's queue is full: nothing tells when
        // there is room, so a thread has to wait.
        // SAFETY: the caller's promise.
        return unsafe { blocking(Awaits::Others, op) };
    }
    if result != -(libc::EINPROGRESS as isize) {
        return result;
    }
    match wait_ready(fd, libc::POLLOUT as u32, deadline, Cancel::Peers) {
        0.. => Op::connect_result(fd),
        error => error,
    }
}
