//! `read(2)`, `write(2)`, `pread(2)`, `pwrite(2)` and the vectored ones.

use std::ffi::{c_int, c_void};

use libc::{iovec, off_t, off64_t, size_t, ssize_t};
use open_coroutine_core::io;
use open_coroutine_core::sched::Hooks;

use crate::convert::{divert, to_c};
use crate::real;

/// A file position as the core takes it. A negative one is refused there, as by
/// the kernel: it is beyond what any file can have.
fn position(offset: off64_t) -> Option<u64> {
    Some(offset as u64)
}

/// `read(2)`
///
/// # Safety
///
/// The contract of `read(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::read.get()(fd, buf, len) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read(fd, buf.cast(), len, None) })
}

/// `write(2)`
///
/// # Safety
///
/// The contract of `write(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::write.get()(fd, buf, len) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write(fd, buf.cast(), len, None) })
}

/// `readv(2)`
///
/// # Safety
///
/// The contract of `readv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::readv.get()(fd, iov, count) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read_vectored(fd, iov, count, None, 0) })
}

/// `writev(2)`
///
/// # Safety
///
/// The contract of `writev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::writev.get()(fd, iov, count) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write_vectored(fd, iov, count, None, 0) })
}

/// `pread(2)`
///
/// # Safety
///
/// The contract of `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread(fd: c_int, buf: *mut c_void, len: size_t, offset: off_t) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pread.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read(fd, buf.cast(), len, position(offset)) })
}

/// `pwrite(2)`
///
/// # Safety
///
/// The contract of `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    offset: off_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwrite.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write(fd, buf.cast(), len, position(offset)) })
}

/// `preadv(2)`
///
/// # Safety
///
/// The contract of `preadv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn preadv(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::preadv.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read_vectored(fd, iov, count, position(offset), 0) })
}

/// `pwritev(2)`
///
/// # Safety
///
/// The contract of `pwritev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwritev.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write_vectored(fd, iov, count, position(offset), 0) })
}

/// `pread(2)`
///
/// # Safety
///
/// The contract of `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    offset: off64_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pread64.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read(fd, buf.cast(), len, position(offset)) })
}

/// `pwrite(2)`
///
/// # Safety
///
/// The contract of `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    offset: off64_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwrite64.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write(fd, buf.cast(), len, position(offset)) })
}

/// `preadv(2)`
///
/// # Safety
///
/// The contract of `preadv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn preadv64(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    offset: off64_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::preadv64.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::read_vectored(fd, iov, count, position(offset), 0) })
}

/// `pwritev(2)`
///
/// # Safety
///
/// The contract of `pwritev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    offset: off64_t,
) -> ssize_t {
    if !divert(Hooks::STREAMS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwritev64.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    to_c(unsafe { io::write_vectored(fd, iov, count, position(offset), 0) })
}
