//! Sockets: `recv(2)`, `send(2)`, `accept(2)` and their kin.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::descriptor::{is_message_socket, is_nonblocking, socket_option};
use super::perform::{Awaits, EAGAIN, EXPIRED, blocking, perform, wait_ready};
use crate::driver::Op;
use crate::sched::{self, Cancel};
use crate::sys;
use crate::util::lock::Lock;

/// Whether `SO_RCVTIMEO` or `SO_SNDTIMEO` was ever set. Only then are sockets
/// asked for theirs, which costs a system call. Static because sockets are the
/// process's; per descriptor it could not be known, since a duplicate shares
/// the setting and descriptors are closed and passed on unseen.
static TIMEOUTS_IN_USE: AtomicBool = AtomicBool::new(false);

/// To be called after `setsockopt(2)` has set a time-out on any socket.
pub fn note_socket_timeout() {
    TIMEOUTS_IN_USE.store(true, Relaxed);
}

/// Whether `SO_LINGER` was ever set. Static for the same reasons.
static LINGER_IN_USE: AtomicBool = AtomicBool::new(false);

/// To be called after `setsockopt(2)` has set `SO_LINGER` on any socket.
pub fn note_linger() {
    LINGER_IN_USE.store(true, Relaxed);
}

/// Whether closing `fd` may wait until its peer has received everything.
pub fn lingers(fd: RawFd) -> bool {
    let off = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    LINGER_IN_USE.load(Relaxed)
        && socket_option(fd, libc::SO_LINGER, off)
            .is_some_and(|linger| linger.l_onoff != 0 && linger.l_linger != 0)
}

/// When a call on `fd` has to end, by its `SO_RCVTIMEO` or `SO_SNDTIMEO`.
pub(super) fn socket_deadline(fd: RawFd, option: c_int) -> Option<Instant> {
    if !TIMEOUTS_IN_USE.load(Relaxed) {
        return None;
    }
    let none = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let time = socket_option(fd, option, none)?;
    if time.tv_sec == 0 && time.tv_usec == 0 {
        return None;
    }
    let timeout = Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Instant::now().checked_add(timeout)
}

/// Performs `op` within the time that the socket allows.
///
/// # Safety
///
/// As `perform`.
pub(super) unsafe fn timed(op: Op, option: c_int) -> isize {
    let deadline = op.fd().and_then(|fd| socket_deadline(fd, option));
    // SAFETY: the caller's promise.
    match unsafe { perform(op, deadline) } {
        EXPIRED => EAGAIN,
        result => result,
    }
}

/// Performs `op`, which sends.
///
/// A message is tried first, because io_uring cannot send one that a UNIX socket
/// has refused for lack of room: it has copied the bytes by then, and sends an
/// empty message when there is. And whoever sends to an address is told by poll
/// that there is room, whatever the receiver's queue; then a thread has to wait.
///
/// # Safety
///
/// As `perform`.
pub(super) unsafe fn transmit(op: Op, fd: RawFd) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if !is_message_socket(fd) {
            return timed(op, libc::SO_SNDTIMEO);
        }
        let deadline = socket_deadline(fd, libc::SO_SNDTIMEO);
        let attempt = || op.attempt().expect("a send can be tried");
        let mut result = attempt();
        if result == EAGAIN && is_nonblocking(fd) {
            // Or it was closed since: then this says so.
            result = attempt();
        } else if result == EAGAIN {
            match wait_ready(fd, libc::POLLOUT as u32, deadline, Cancel::Peers) {
                0.. => result = attempt(),
                EXPIRED => return EAGAIN,
                error => return error,
            }
            if result == EAGAIN {
                return blocking(Awaits::Others, op);
            }
        }
        sched::spend();
        result
    }
}

/// The flags of a receiving call that may wait; `None` if it does not. The error
/// queue is never waited for, except that UNIX sockets have none and ignore the
/// flag, and io_uring would wait for an error there.
pub(super) fn waiting_flags(fd: RawFd, flags: c_int) -> Option<c_int> {
    if flags & libc::MSG_DONTWAIT != 0 {
        return None;
    }
    if flags & libc::MSG_ERRQUEUE == 0 {
        return Some(flags);
    }
    let is_unix = socket_option(fd, libc::SO_DOMAIN, 0) == Some(libc::AF_UNIX);
    is_unix.then_some(flags & !libc::MSG_ERRQUEUE)
}

/// `recv(2)`
///
/// # Safety
///
/// The contract of `recv(2)`. Called on a coroutine.
pub unsafe fn receive(fd: RawFd, buf: *mut u8, len: usize, flags: c_int) -> isize {
    let op = |flags| Op::Recv {
        fd,
        buf,
        len,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        let Some(flags) = waiting_flags(fd, flags) else {
            return op(flags).run();
        };
        let op = op(flags);
        let mut total = timed(op, libc::SO_RCVTIMEO);
        // At the end of the stream the next call ends the loop.
        while total > 0 && (total as usize) < len && waits_for_all(&op, flags) && is_stream(fd) {
            let buf = buf.byte_add(total as usize);
            let len = len - total as usize;
            match timed(
                Op::Recv {
                    fd,
                    buf,
                    len,
                    flags,
                },
                libc::SO_RCVTIMEO,
            ) {
                more @ 1.. => total += more,
                _ => break,
            }
        }
        total
    }
}

/// Whether `op`, which has received something, was to wait for more. Only a
/// driver that tries returns early with this flag.
pub(super) fn waits_for_all(op: &Op, flags: c_int) -> bool {
    flags & (libc::MSG_WAITALL | libc::MSG_PEEK) == libc::MSG_WAITALL && !sched::driver_supports(op)
}

/// Whether `fd` is a socket without message boundaries.
pub(super) fn is_stream(fd: RawFd) -> bool {
    socket_option(fd, libc::SO_TYPE, 0) == Some(libc::SOCK_STREAM)
}

fn is_listener(fd: RawFd) -> bool {
    socket_option(fd, libc::SO_ACCEPTCONN, 0) == Some(1)
}

/// `send(2)`
///
/// # Safety
///
/// The contract of `send(2)`. Called on a coroutine.
pub unsafe fn send(fd: RawFd, buf: *const u8, len: usize, flags: c_int) -> isize {
    let op = |flags| Op::Send {
        fd,
        buf,
        len,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op(flags).run();
        }
        let op = op(flags | libc::MSG_NOSIGNAL);
        let mut total = transmit(op, fd);
        if total > 0 && (total as usize) < len {
            let done = total as usize;
            total += send_more(fd, (buf.byte_add(done), len - done), flags);
        }
        signal_broken_pipe(fd, total, flags);
        total
    }
}

/// The signal that a thread gets with `EPIPE` from a stream. io_uring never sends
/// it for sockets, and the kernel would send it once more for each further part
/// of what is to be one call; so no operation here asks for it.
pub(super) fn signal_broken_pipe(fd: RawFd, result: isize, flags: c_int) {
    let is_wanted = result == -(libc::EPIPE as isize) && flags & libc::MSG_NOSIGNAL == 0;
    if !is_wanted || !is_stream(fd) {
        return;
    }
    // SAFETY: sends a signal to the calling thread.
    unsafe {
        let pid = sys::syscall(libc::SYS_getpid, [0; 6]) as usize;
        let args = [pid, sys::gettid() as usize, libc::SIGPIPE as usize, 0, 0, 0];
        sys::syscall(libc::SYS_tgkill, args);
    }
}

/// After a part of what is to be sent: sends the rest, or as much of it as can
/// be. A thread returns when all is in the socket's buffer; if the peer goes
/// away meanwhile, what was sent counts, and there is no signal.
///
/// # Safety
///
/// As [`send`].
pub(super) unsafe fn send_more(fd: RawFd, (buf, len): (*const u8, usize), flags: c_int) -> isize {
    let mut total = 0;
    while total < len {
        // SAFETY: the caller's promise.
        let more = unsafe {
            let op = Op::Send {
                fd,
                buf: buf.byte_add(total),
                len: len - total,
                flags: flags | libc::MSG_NOSIGNAL,
            };
            timed(op, libc::SO_SNDTIMEO)
        };
        if more <= 0 {
            break;
        }
        total += more as usize;
    }
    total as isize
}

/// `accept4(2)`
///
/// # Safety
///
/// The contract of `accept4(2)`. Called on a coroutine.
pub unsafe fn accept(
    fd: RawFd,
    addr: *mut libc::sockaddr,
    len: *mut libc::socklen_t,
    flags: c_int,
) -> isize {
    let op = Op::Accept {
        fd,
        addr,
        len,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            // Refused before anything is waited for.
            return op.run();
        }
        if sched::driver_supports(&op) {
            return timed(op, libc::SO_RCVTIMEO);
        }
        let deadline = socket_deadline(fd, libc::SO_RCVTIMEO);
        loop {
            let result = attempt_accept(op, fd);
            if result != EAGAIN {
                sched::spend();
                return result;
            }
            // What does not wait, or does not listen and so never has a
            // connection: the call itself says why.
            if is_nonblocking(fd) || !is_listener(fd) {
                let result = op.run();
                sched::spend();
                return result;
            }
            match wait_ready(fd, libc::POLLIN as u32, deadline, Cancel::Peers) {
                EXPIRED => return EAGAIN,
                0.. => {}
                result => return result,
            }
        }
    }
}

/// Listeners are the process's, and so are the races for them.
static TURNS: [Lock<()>; 64] = [const { Lock::new(()) }; 64];

/// Frees what other threads hold, in the child of a fork.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub(crate) unsafe fn abandon() {
    for turn in &TURNS {
        // SAFETY: the caller's promise.
        unsafe { turn.abandon_held(()) };
    }
}

/// Accepts a connection if there is one. There is no flag with which accept
/// would not wait, so nobody else of this process may come between the look and
/// the call. (Another process may, if it shares the listener; then this thread
/// waits for the next connection.)
///
/// # Safety
///
/// The contract of `op`'s system call, an accept on `fd`.
unsafe fn attempt_accept(op: Op, fd: RawFd) -> isize {
    let _turn = TURNS[fd as usize % TURNS.len()].lock();
    // SAFETY: the caller's promise.
    unsafe { op.attempt() }.expect("an accept can be tried")
}
