//! Messages: `recvmsg(2)`, `sendmsg(2)`, and what is made of them: `recvfrom(2)`,
//! `sendto(2)`, `recvmmsg(2)`, `sendmmsg(2)`.

use std::ffi::{c_int, c_uint};
use std::mem;
use std::os::fd::RawFd;
use std::time::Instant;

use libc::{iovec, mmsghdr, msghdr, sockaddr, socklen_t};

use super::descriptor::is_nonblocking;
use super::perform::{EAGAIN, EXPIRED, wait_ready};
use super::socket::{is_stream, receive, send, socket_deadline, timed};
use super::stream::send_signal_on_broken_pipe;
use super::vectors;
use crate::driver::Op;
use crate::sched;
use crate::sys;

/// `recvmsg(2)`
///
/// # Safety
///
/// The contract of `recvmsg(2)`. Called on a coroutine.
pub unsafe fn receive_message(fd: RawFd, msg: *mut msghdr, flags: c_int) -> isize {
    let op = Op::RecvMsg { fd, msg, flags };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op.run();
        }
        let mut total = timed(op, libc::SO_RCVTIMEO);
        // A driver that tries returns early in spite of this flag. What comes
        // with a control message ends a receive anyway.
        while flags & (libc::MSG_WAITALL | libc::MSG_PEEK) == libc::MSG_WAITALL
            && total > 0
            && !sched::driver_supports(&op)
            && (*msg).msg_control.is_null()
            && let Some(rest) = rest_of(msg, total)
            && is_stream(fd)
        {
            let mut next = header(&rest);
            let msg = &raw mut next;
            match timed(Op::RecvMsg { fd, msg, flags }, libc::SO_RCVTIMEO) {
                more @ 1.. => total += more,
                _ => break,
            }
        }
        total
    }
}

/// `sendmsg(2)`
///
/// # Safety
///
/// The contract of `sendmsg(2)`. Called on a coroutine.
pub unsafe fn send_message(fd: RawFd, msg: *const msghdr, flags: c_int) -> isize {
    let op = Op::SendMsg { fd, msg, flags };
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op.run();
        }
        let mut total = timed(op, libc::SO_SNDTIMEO);
        // A thread returns when all is in the socket's buffer. Control data has
        // gone with the first part.
        while total > 0
            && let Some(rest) = rest_of(msg, total)
        {
            let next = header(&rest);
            let msg = &raw const next;
            match timed(Op::SendMsg { fd, msg, flags }, libc::SO_SNDTIMEO) {
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

/// The buffers of `msg` that are left after `done` bytes; `None` if that is all.
///
/// # Safety
///
/// The kernel has read the message already.
unsafe fn rest_of(msg: *const msghdr, done: isize) -> Option<Vec<iovec>> {
    // SAFETY: the caller's promise.
    let whole = unsafe { vectors::buffers((*msg).msg_iov, (*msg).msg_iovlen) };
    let done = done as usize;
    (done < vectors::length(whole)).then(|| vectors::after(whole, done))
}

/// A message of these buffers, without address and control data.
fn header(buffers: &[iovec]) -> msghdr {
    // SAFETY: all-zero bytes are a valid, empty message header.
    let mut msg: msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = buffers.as_ptr().cast_mut();
    msg.msg_iovlen = buffers.len();
    msg
}

fn message(buffer: &iovec, addr: *mut sockaddr, len: socklen_t) -> msghdr {
    let mut msg = header(std::slice::from_ref(buffer));
    msg.msg_name = addr.cast();
    msg.msg_namelen = len;
    msg
}

/// `recvfrom(2)`
///
/// # Safety
///
/// The contract of `recvfrom(2)`. Called on a coroutine.
pub unsafe fn receive_from(
    fd: RawFd,
    (buf, len): (*mut u8, usize),
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if addr.is_null() || addr_len.is_null() {
            return receive(fd, buf, len, flags);
        }
        let buffer = iovec {
            iov_base: buf.cast(),
            iov_len: len,
        };
        let mut msg = message(&buffer, addr, *addr_len);
        let result = receive_message(fd, &raw mut msg, flags);
        if result >= 0 {
            *addr_len = msg.msg_namelen;
        }
        result
    }
}

/// `sendto(2)`
///
/// # Safety
///
/// The contract of `sendto(2)`. Called on a coroutine.
pub unsafe fn send_to(
    fd: RawFd,
    (buf, len): (*const u8, usize),
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> isize {
    // SAFETY: the caller's promise, in each call; the kernel only reads what
    // the message points to.
    unsafe {
        if addr.is_null() {
            return send(fd, buf, len, flags);
        }
        let buffer = iovec {
            iov_base: buf.cast_mut().cast(),
            iov_len: len,
        };
        let msg = message(&buffer, addr.cast_mut(), addr_len);
        send_message(fd, &raw const msg, flags)
    }
}

/// `recvmmsg(2)`. As in the kernel, `timeout` is looked at after each batch of
/// messages, so without any the call goes on; what is left of it is stored.
///
/// # Safety
///
/// The contract of `recvmmsg(2)`. Called on a coroutine.
pub unsafe fn receive_messages(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: Option<&mut libc::timespec>,
) -> isize {
    let until = timeout
        .as_deref()
        .and_then(sys::to_duration)
        .and_then(|limit| Instant::now().checked_add(limit));
    let read = |done: usize, flags: c_int| {
        let args = [
            fd as usize,
            // SAFETY: within the array of `count` messages.
            unsafe { messages.add(done) } as usize,
            count as usize - done,
            flags as usize,
            0,
            0,
        ];
        // SAFETY: the caller's promise.
        unsafe { sys::syscall(libc::SYS_recvmmsg, args) }
    };
    let waits = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0 && !is_nonblocking(fd);
    let enough = if flags & libc::MSG_WAITFORONE != 0 {
        1
    } else {
        count as usize
    };
    let at_once = flags & !libc::MSG_WAITFORONE | libc::MSG_DONTWAIT;
    let interest = Op::RecvMsg {
        fd,
        msg: std::ptr::null_mut(),
        flags,
    };
    let result = transfer(
        interest,
        libc::SO_RCVTIMEO,
        (enough, waits),
        |done| read(done, at_once),
        || until.is_some_and(|until| Instant::now() >= until),
    );
    if let (Some(timeout), Some(until), 0..) = (timeout, until, result) {
        *timeout = sys::to_timespec(until.saturating_duration_since(Instant::now()));
    }
    result
}

/// `sendmmsg(2)`
///
/// # Safety
///
/// The contract of `sendmmsg(2)`. Called on a coroutine.
pub unsafe fn send_messages(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> isize {
    let write = |done: usize| {
        if is_stream(fd) {
            // SAFETY: within the array of `count` messages; the caller's promise.
            return unsafe { send_one(fd, messages.add(done), flags) };
        }
        let args = [
            fd as usize,
            // SAFETY: within the array of `count` messages.
            unsafe { messages.add(done) } as usize,
            count as usize - done,
            (flags | libc::MSG_DONTWAIT) as usize,
            0,
            0,
        ];
        // SAFETY: the caller's promise.
        unsafe { sys::syscall(libc::SYS_sendmmsg, args) }
    };
    let waits = flags & libc::MSG_DONTWAIT == 0 && !is_nonblocking(fd);
    let interest = Op::SendMsg {
        fd,
        msg: std::ptr::null(),
        flags,
    };
    transfer(
        interest,
        libc::SO_SNDTIMEO,
        (count as usize, waits),
        write,
        || false,
    )
}

/// Sends the whole of one message of a stream. Returns 1, the number of
/// messages, or minus the error number.
///
/// # Safety
///
/// The contract of `sendmsg(2)` for the message. Called on a coroutine.
unsafe fn send_one(fd: RawFd, message: *mut mmsghdr, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        let result = send_message(fd, &raw const (*message).msg_hdr, flags);
        if result >= 0 {
            (*message).msg_len = result as c_uint;
            return 1;
        }
        result
    }
}

/// Transfers messages, from the given one on, until there are enough, `is_over`
/// says so, or there is an error, which counts only if it is the first thing
/// that happens. In between it waits for `interest`'s readiness, within the time
/// that the socket allows. Returns how many there were.
fn transfer(
    interest: Op,
    time_limit: c_int,
    (enough, waits): (usize, bool),
    mut some: impl FnMut(usize) -> isize,
    is_over: impl Fn() -> bool,
) -> isize {
    let mut done = 0;
    let or_error = |done, error| if done > 0 { done as isize } else { error };
    loop {
        match some(done) {
            EAGAIN if waits && done < enough => match wait_for(&interest, time_limit) {
                0.. => {}
                error => return or_error(done, error),
            },
            result @ ..=0 => return or_error(done, result),
            more => done += more as usize,
        }
        if done > 0 && (done >= enough || is_over()) {
            return done as isize;
        }
    }
}

/// Waits until `op` can be tried again.
fn wait_for(op: &Op, time_limit: c_int) -> isize {
    let (Some(fd), Some(events)) = (op.fd(), op.readiness()) else {
        unreachable!("messages are of a socket, which has readiness");
    };
    match wait_ready(fd, events, socket_deadline(fd, time_limit)) {
        EXPIRED => EAGAIN,
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer_of(results: &[isize], enough: usize, waits: bool) -> isize {
        let mut results = results.iter().copied();
        let interest = Op::RecvMsg {
            fd: -1,
            msg: std::ptr::null_mut(),
            flags: 0,
        };
        transfer(
            interest,
            0,
            (enough, waits),
            |_| results.next().unwrap(),
            || false,
        )
    }

    #[test]
    fn an_error_counts_only_if_nothing_was_transferred() {
        let error = -(libc::ECONNRESET as isize);
        assert_eq!(error, transfer_of(&[error], 3, true));
        assert_eq!(2, transfer_of(&[2, error], 3, true));
        assert_eq!(3, transfer_of(&[2, 1], 3, true));
    }

    #[test]
    fn who_does_not_wait_gets_what_there_is() {
        assert_eq!(EAGAIN, transfer_of(&[EAGAIN], 3, false));
        assert_eq!(2, transfer_of(&[2, EAGAIN], 3, false));
    }
}
