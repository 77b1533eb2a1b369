//! Sockets: `recv(2)`, `send(2)`, `accept(2)`, `connect(2)` and their kin.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::descriptor::is_nonblocking;
use super::perform::{Awaits, EAGAIN, EXPIRED, blocking, perform, wait_ready};
use super::stream::send_signal_on_broken_pipe;
use crate::driver::Op;
use crate::sched;
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
    let mut linger = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    LINGER_IN_USE.load(Relaxed)
        && socket_option(fd, libc::SO_LINGER, &mut linger)
        && linger.l_onoff != 0
        && linger.l_linger != 0
}

/// Reads an option of socket `fd` into `value`. False if it has none.
fn socket_option<T: Copy>(fd: RawFd, name: c_int, value: &mut T) -> bool {
    let mut len = size_of::<T>() as libc::socklen_t;
    let args = [
        fd as usize,
        libc::SOL_SOCKET as usize,
        name as usize,
        ptr::from_mut(value) as usize,
        &raw mut len as usize,
        0,
    ];
    // SAFETY: the kernel writes at most `len` bytes, integers, to `value`.
    unsafe { sys::syscall(libc::SYS_getsockopt, args) == 0 }
}

/// When a call on `fd` has to end, by its `SO_RCVTIMEO` or `SO_SNDTIMEO`.
pub(super) fn socket_deadline(fd: RawFd, option: c_int) -> Option<Instant> {
    if !TIMEOUTS_IN_USE.load(Relaxed) {
        return None;
    }
    let mut time = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    if !socket_option(fd, option, &mut time) || (time.tv_sec == 0 && time.tv_usec == 0) {
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

/// `recv(2)`
///
/// # Safety
///
/// The contract of `recv(2)`. Called on a coroutine.
pub unsafe fn receive(fd: RawFd, buf: *mut u8, len: usize, flags: c_int) -> isize {
    let op = Op::Recv {
        fd,
        buf,
        len,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op.run();
        }
        let mut total = timed(op, libc::SO_RCVTIMEO);
        // Only a driver that tries returns early with this flag; at the end of
        // a stream, or for a datagram, the next call ends the loop.
        while flags & (libc::MSG_WAITALL | libc::MSG_PEEK) == libc::MSG_WAITALL
            && total > 0
            && (total as usize) < len
            && !sched::driver_supports(&op)
            && is_stream(fd)
        {
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

/// Whether `fd` is a socket that transfers bytes without borders.
pub(super) fn is_stream(fd: RawFd) -> bool {
    let mut kind: c_int = 0;
    socket_option(fd, libc::SO_TYPE, &mut kind) && kind == libc::SOCK_STREAM
}

/// `send(2)`
///
/// # Safety
///
/// The contract of `send(2)`. Called on a coroutine.
pub unsafe fn send(fd: RawFd, buf: *const u8, len: usize, flags: c_int) -> isize {
    let op = Op::Send {
        fd,
        buf,
        len,
        flags,
    };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op.run();
        }
        let mut total = timed(op, libc::SO_SNDTIMEO);
        // A thread returns when all is in the socket's buffer.
        while total > 0 && (total as usize) < len {
            let buf = buf.byte_add(total as usize);
            let len = len - total as usize;
            match timed(
                Op::Send {
                    fd,
                    buf,
                    len,
                    flags,
                },
                libc::SO_SNDTIMEO,
            ) {
                more @ 1.. => total += more,
                _ => break,
            }
        }
        if flags & libc::MSG_NOSIGNAL == 0 {
            send_signal_on_broken_pipe(total);
        }
        total
    }
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
        if sched::driver_supports(&op) {
            return timed(op, libc::SO_RCVTIMEO);
        }
        let deadline = socket_deadline(fd, libc::SO_RCVTIMEO);
        loop {
            let result = attempt_accept(op, fd);
            if result != EAGAIN || is_nonblocking(fd) {
                sched::spend();
                return result;
            }
            match wait_ready(fd, libc::POLLIN as u32, deadline) {
                EXPIRED => return EAGAIN,
                0.. => {}
                // Not a socket and the like: the call itself says it best.
                result if result == -(libc::EPERM as isize) => return op.run(),
                result => return result,
            }
        }
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
    const LOCKS: usize = 64;
    /// Listeners are the process's, and so are the races for them.
    static TURNS: [Lock<()>; LOCKS] = [const { Lock::new(()) }; LOCKS];
    let _turn = TURNS[fd as usize % LOCKS].lock();
    // SAFETY: the caller's promise.
    unsafe { op.attempt() }.expect("an accept can be tried")
}

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
            result => result,
        }
    }
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
    match wait_ready(fd, libc::POLLOUT as u32, deadline) {
        0.. => Op::connect_result(fd),
        error => error,
    }
}
