//! `read(2)`, `write(2)`, `pread(2)`, `pwrite(2)` and the vectored ones.

use std::ffi::{c_int, c_void};

use libc::{iovec, off_t, off64_t, size_t, ssize_t};
use open_coroutine_core::io;

use crate::convert::{divert, to_c};
use crate::real;

/// Makes a call at a position. A negative one is refused here, before anything
/// else is looked at, as libc's functions do: to what is below them, -1 is the
/// current position.
fn at(offset: off64_t, call: impl FnOnce(Option<u64>) -> isize) -> ssize_t {
    to_c(match u64::try_from(offset) {
        Ok(offset) => call(Some(offset)),
        Err(_) => -(libc::EINVAL as isize),
    })
}

/// `read(2)`
///
/// # Safety
///
/// The contract of `read(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    if !divert() {
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
    if !divert() {
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
    if !divert() {
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
    if !divert() {
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
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pread.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::read(fd, buf.cast(), len, offset) })
}

/// `pwrite(2)`
///
/// # Safety
///
/// The contract of `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, buf: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwrite.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::write(fd, buf.cast(), len, offset) })
}

/// `preadv(2)`
///
/// # Safety
///
/// The contract of `preadv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn preadv(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::preadv.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::read_vectored(fd, iov, count, offset, 0) })
}

/// `pwritev(2)`
///
/// # Safety
///
/// The contract of `pwritev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwritev.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::write_vectored(fd, iov, count, offset, 0) })
}

/// `pread(2)`
///
/// # Safety
///
/// The contract of `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, buf: *mut c_void, len: size_t, offset: off64_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pread64.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::read(fd, buf.cast(), len, offset) })
}

/// `pwrite(2)`
///
/// # Safety
///
/// The contract of `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, buf: *const c_void, len: size_t, offset: off64_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwrite64.get()(fd, buf, len, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::write(fd, buf.cast(), len, offset) })
}

/// `preadv(2)`
///
/// # Safety
///
/// The contract of `preadv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn preadv64(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::preadv64.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::read_vectored(fd, iov, count, offset, 0) })
}

/// `pwritev(2)`
///
/// # Safety
///
/// The contract of `pwritev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pwritev64.get()(fd, iov, count, offset) };
    }
    // SAFETY: the caller keeps the buffer valid until we return.
    at(offset, |offset| unsafe { io::write_vectored(fd, iov, count, offset, 0) })
}
