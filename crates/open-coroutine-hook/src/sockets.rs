//! `recv(2)`, `send(2)`, `accept(2)`, `socket(2)`, `connect(2)`,
//! `setsockopt(2)`.

use std::ffi::{c_int, c_uint, c_void};

use libc::{mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use open_coroutine_core::io;
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sys;

use crate::convert::{divert, to_c, to_int};
use crate::descriptors::{beginning, begins};
use crate::real;

/// `recv(2)`: suspends the calling coroutine instead of blocking its thread.
///
/// # Safety
///
/// The contract of `recv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::recv.get()(fd, buf, len, flags) };
    }
    // SAFETY: the caller keeps `len` bytes at `buf` writable until we return.
    to_c(unsafe { io::receive(fd, buf.cast(), len, flags) })
}

/// `send(2)`
///
/// # Safety
///
/// The contract of `send(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::send.get()(fd, buf, len, flags) };
    }
    // SAFETY: the caller keeps `len` bytes at `buf` readable until we return.
    to_c(unsafe { io::send(fd, buf.cast(), len, flags) })
}

/// `recvfrom(2)`
///
/// # Safety
///
/// The contract of `recvfrom(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::recvfrom.get()(fd, buf, len, flags, addr, addr_len) };
    }
    // SAFETY: the caller keeps the buffers valid until we return.
    to_c(unsafe { io::receive_from(fd, (buf.cast(), len), flags, addr, addr_len) })
}

/// `sendto(2)`
///
/// # Safety
///
/// The contract of `sendto(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sendto.get()(fd, buf, len, flags, addr, addr_len) };
    }
    // SAFETY: the caller keeps the buffers valid until we return.
    to_c(unsafe { io::send_to(fd, (buf.cast(), len), flags, addr, addr_len) })
}

/// `recvmsg(2)`
///
/// # Safety
///
/// The contract of `recvmsg(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::recvmsg.get()(fd, msg, flags) };
    }
    // SAFETY: the caller keeps the message valid until we return.
    to_c(unsafe { io::receive_message(fd, msg, flags) })
}

/// `sendmsg(2)`
///
/// # Safety
///
/// The contract of `sendmsg(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sendmsg.get()(fd, msg, flags) };
    }
    // SAFETY: the caller keeps the message valid until we return.
    to_c(unsafe { io::send_message(fd, msg, flags) })
}

shims! { SOCKETS:
    /// `recvmmsg(2)`
    fn recvmmsg(
        fd: c_int,
        messages: *mut mmsghdr,
        count: c_uint,
        flags: c_int,
        timeout: *mut timespec
    ) -> c_int => {
        let timeout = timeout.as_mut();
        if timeout.as_deref().is_some_and(|time| sys::to_duration(time).is_none()) {
            return to_int(-(libc::EINVAL as isize));
        }
        to_int(io::receive_messages(fd, messages, count, flags, timeout))
    };
    /// `sendmmsg(2)`
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int => {
        to_int(io::send_messages(fd, messages, count, flags))
    };
}

/// `recv(2)`, as programs call it that are compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// The contract of `recv(2)`; `size` is that of the buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's contract; libc's function ends a program whose buffer
    // is too small.
    unsafe {
        if !divert(Hooks::SOCKETS) || size < len {
            return real::__recv_chk.get()(fd, buf, len, size, flags);
        }
        recv(fd, buf, len, flags)
    }
}

/// `recvfrom(2)`, as programs call it that are compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// The contract of `recvfrom(2)`; `size` is that of the buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's contract; libc's function ends a program whose buffer
    // is too small.
    unsafe {
        if !divert(Hooks::SOCKETS) || size < len {
            return real::__recvfrom_chk.get()(fd, buf, len, size, flags, addr, addr_len);
        }
        recvfrom(fd, buf, len, flags, addr, addr_len)
    }
}

/// `accept(2)`
///
/// # Safety
///
/// The contract of `accept(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::accept.get()(fd, addr, len) };
    }
    // SAFETY: the caller keeps the address valid until we return.
    accepted(unsafe { io::accept(fd, addr, len, 0) })
}

/// `accept4(2)`
///
/// # Safety
///
/// The contract of `accept4(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::accept4.get()(fd, addr, len, flags) };
    }
    // SAFETY: the caller keeps the address valid until we return.
    accepted(unsafe { io::accept(fd, addr, len, flags) })
}

/// The descriptor of a new connection, of whose number nothing is known.
fn accepted(result: isize) -> c_int {
    begins(to_int(result))
}

/// `socket(2)`: never blocks.
///
/// # Safety
///
/// The contract of `socket(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    beginning(|| unsafe { real::socket.get()(domain, kind, protocol) })
}

/// `connect(2)`
///
/// # Safety
///
/// The contract of `connect(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    if !divert(Hooks::SOCKETS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::connect.get()(fd, addr, len) };
    }
    // SAFETY: the caller keeps the address valid until we return.
    to_int(unsafe { io::connect(fd, addr, len) })
}

/// `setsockopt(2)`: never blocks; notes that time-outs or lingering are in use.
///
/// # Safety
///
/// The contract of `setsockopt(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) {
        io::note_socket_timeout();
    }
    if level == libc::SOL_SOCKET && name == libc::SO_LINGER {
        io::note_linger();
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::setsockopt.get()(fd, level, name, value, len) }
}
