//! Messages: `recvmsg(2)`, `sendmsg(2)`, and what is made of them: `recvfrom(2)`,
//! `sendto(2)`, `recvmmsg(2)`, `sendmmsg(2)`, and `writev(2)` on a socket.

use std::ffi::{c_int, c_uint};
use std::mem;
use std::os::fd::RawFd;
use std::slice;
use std::time::Instant;

use libc::mmsghdr;

use super::descriptor::{is_message_socket, is_nonblocking};
use super::perform::EAGAIN;
use super::socket::{
    is_stream, receive, send, send_more, signal_broken_pipe, timed, transmit, waiting_flags,
    waits_for_all,
};
use super::stream::for_rest;
use crate::driver::Op;
use crate::sys;

/// `recvmsg(2)`
///
/// # Safety
///
/// The contract of `recvmsg(2)`. Called on a coroutine.
pub unsafe fn receive_message(fd: RawFd, msg: *mut libc::msghdr, flags: c_int) -> isize {
    let op = |flags| Op::RecvMsg { fd, msg, flags };
    // SAFETY: the caller's promise.
    unsafe {
        let Some(flags) = waiting_flags(fd, flags) else {
            return op(flags).run();
        };
        let op = op(flags);
        let mut total = timed(op, libc::SO_RCVTIMEO);
        if total > 0 && waits_for_all(&op, flags) && is_stream(fd) {
            total += for_rest(pieces(msg), total as usize, |(buf, len)| {
                receive(fd, buf.cast_mut(), len, flags)
            });
        }
        total
    }
}

/// The buffers of a message.
///
/// # Safety
///
/// The message is valid, and not changed meanwhile.
unsafe fn pieces<'a>(msg: *const libc::msghdr) -> &'a [libc::iovec] {
    // SAFETY: the caller's promise: there are as many entries as the header
    // says. Without any, the pointer need not be valid.
    unsafe {
        match (*msg).msg_iovlen {
            0 => &[],
            count => slice::from_raw_parts((*msg).msg_iov, count),
        }
    }
}

/// `sendmsg(2)`
///
/// # Safety
///
/// The contract of `sendmsg(2)`. Called on a coroutine.
pub unsafe fn send_message(fd: RawFd, msg: *const libc::msghdr, flags: c_int) -> isize {
    let op = |flags| Op::SendMsg { fd, msg, flags };
    // SAFETY: the caller's promise.
    unsafe {
        if flags & libc::MSG_DONTWAIT != 0 {
            return op(flags).run();
        }
        let op = op(flags | libc::MSG_NOSIGNAL);
        let mut total = transmit(op, fd);
        if total > 0 {
            total += for_rest(pieces(msg), total as usize, |rest| {
                send_more(fd, rest, flags)
            });
        }
        signal_broken_pipe(fd, total, flags);
        total
    }
}

/// `writev(2)` on a socket
///
/// # Safety
///
/// The contract of `writev(2)`. Called on a coroutine.
pub(super) unsafe fn send_vectored(fd: RawFd, iov: *const libc::iovec, count: c_int) -> isize {
    // SAFETY: all-zero bytes are a valid, empty message header.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = iov.cast_mut();
    match usize::try_from(count) {
        Ok(count) if count <= libc::UIO_MAXIOV as usize => msg.msg_iovlen = count,
        // Where sendmsg says EMSGSIZE.
        _ => return -(libc::EINVAL as isize),
    }
    // SAFETY: the caller's promise; the kernel only reads what the message
    // points to.
    unsafe {
        if pieces(&raw const msg)
            .iter()
            .all(|piece| piece.iov_len == 0)
        {
            // Not even an empty message.
            return 0;
        }
        send_message(fd, &raw const msg, 0)
    }
}

fn message(iov: &mut libc::iovec, addr: *mut libc::sockaddr, len: libc::socklen_t) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid, empty message header.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_name = addr.cast();
    msg.msg_namelen = len;
    msg.msg_iov = iov;
    msg.msg_iovlen = 1;
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
    addr: *mut libc::sockaddr,
    addr_len: *mut libc::socklen_t,
) -> isize {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        if addr.is_null() || addr_len.is_null() {
            return receive(fd, buf, len, flags);
        }
        let mut iov = libc::iovec {
            iov_base: buf.cast(),
            iov_len: len,
        };
        let mut msg = message(&mut iov, addr, *addr_len);
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
    addr: *const libc::sockaddr,
    addr_len: libc::socklen_t,
) -> isize {
    // SAFETY: the caller's promise, in each call; the kernel only reads what
    // the message points to.
    unsafe {
        if addr.is_null() {
            return send(fd, buf, len, flags);
        }
        let mut iov = libc::iovec {
            iov_base: buf.cast_mut().cast(),
            iov_len: len,
        };
        let msg = message(&mut iov, addr.cast_mut(), addr_len);
        send_message(fd, &raw const msg, flags)
    }
}

/// `recvmmsg(2)`. As in the kernel, `timeout` is looked at after messages have
/// come, so without any the call goes on; what is left of it is stored.
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
    let limit = timeout.as_deref().and_then(sys::to_duration);
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let one_is_enough = flags & libc::MSG_WAITFORONE != 0;
    let flags = flags & !libc::MSG_WAITFORONE;
    let waits = flags & libc::MSG_DONTWAIT == 0 && !is_nonblocking(fd);
    let mut done = 0;
    let result = loop {
        // SAFETY: within the array of `count` messages; the caller's promise.
        let rest = (unsafe { messages.add(done) }, count as usize - done);
        // SAFETY: as above.
        let tried = unsafe { call(libc::SYS_recvmmsg, fd, rest, flags) };
        let must_wait = waits && tried == EAGAIN && !(one_is_enough && done > 0);
        let result = if must_wait {
            // SAFETY: as above.
            unsafe { receive_one(fd, rest.0, flags) }
        } else {
            tried
        };
        if result <= 0 {
            // After some messages an error is not told.
            break if done > 0 { done as isize } else { result };
        }
        done += result as usize;
        // What ended a call that need not wait is told to the next one, which
        // is the caller's.
        let is_enough = !waits || one_is_enough && !must_wait;
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        if done >= count as usize || is_enough || is_over {
            break done as isize;
        }
    };
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
    let waits = flags & libc::MSG_DONTWAIT == 0 && !is_nonblocking(fd);
    // A stream may take a part of a message, the rest of which has to follow.
    let is_tried = !waits || is_message_socket(fd);
    let mut done = 0;
    loop {
        // SAFETY: within the array of `count` messages; the caller's promise.
        let result = unsafe {
            let rest = (messages.add(done), count as usize - done);
            let tried = match is_tried || rest.1 == 0 {
                true => call(libc::SYS_sendmmsg, fd, rest, flags),
                false => EAGAIN,
            };
            match tried {
                EAGAIN if waits => send_one(fd, rest.0, flags),
                result => result,
            }
        };
        if result <= 0 {
            return if done > 0 { done as isize } else { result };
        }
        done += result as usize;
        // A call that need not wait has also met what hinders the others.
        if done >= count as usize || !waits {
            return done as isize;
        }
    }
}

/// Makes one of the two calls for several messages, without waiting.
///
/// # Safety
///
/// The contract of the call.
unsafe fn call(
    number: libc::c_long,
    fd: RawFd,
    (messages, count): (*mut mmsghdr, usize),
    flags: c_int,
) -> isize {
    let flags = (flags | libc::MSG_DONTWAIT) as usize;
    // SAFETY: the caller's promise.
    unsafe { sys::syscall(number, [fd as usize, messages as usize, count, flags, 0, 0]) }
}

/// Waits for one of several messages. Returns 1, or minus the error number.
///
/// # Safety
///
/// The contract of `recvmsg(2)` for the message. Called on a coroutine.
unsafe fn receive_one(fd: RawFd, message: *mut mmsghdr, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        let result = receive_message(fd, &raw mut (*message).msg_hdr, flags);
        counted(message, result)
    }
}

/// Sends one of several messages. Returns 1, or minus the error number.
///
/// # Safety
///
/// The contract of `sendmsg(2)` for the message. Called on a coroutine.
unsafe fn send_one(fd: RawFd, message: *mut mmsghdr, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        let result = send_message(fd, &raw const (*message).msg_hdr, flags);
        counted(message, result)
    }
}

/// Stores the length of a message that was transferred, and counts it.
///
/// # Safety
///
/// `message` can be written to.
unsafe fn counted(message: *mut mmsghdr, result: isize) -> isize {
    if result < 0 {
        return result;
    }
    // SAFETY: the caller's promise.
    unsafe { (*message).msg_len = result as c_uint };
    1
}
