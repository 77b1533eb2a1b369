//! Other ways into the same calls: `syscall(2)`, and the names that programs use
//! which are compiled with `_FORTIFY_SOURCE`.

use std::ffi::{c_int, c_void};
use std::ptr;

use libc::{
    iovec, msghdr, nfds_t, pollfd, sigset_t, size_t, sockaddr, socklen_t, ssize_t, timespec,
};

use crate::script::{Checked, Numbered};

unsafe extern "C" {
    fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, size: size_t) -> ssize_t;
    fn __pread_chk(fd: c_int, buf: *mut c_void, len: size_t, at: i64, size: size_t) -> ssize_t;
    fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, size: size_t, flags: c_int) -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int,
        buf: *mut c_void,
        len: size_t,
        size: size_t,
        flags: c_int,
        address: *mut sockaddr,
        address_len: *mut socklen_t,
    ) -> ssize_t;
    /// `poll(2)` of an array of so many bytes
    pub(super) fn __poll_chk(
        entries: *mut pollfd,
        count: nfds_t,
        timeout: c_int,
        size: size_t,
    ) -> c_int;
    /// `ppoll(2)` of an array of so many bytes
    pub(super) fn __ppoll_chk(
        entries: *mut pollfd,
        count: nfds_t,
        timeout: *const timespec,
        mask: *const sigset_t,
        size: size_t,
    ) -> c_int;
}

/// A buffer, in one piece and in several.
pub(super) struct Buffer {
    pub(super) at: *mut c_void,
    pub(super) len: usize,
    pub(super) vector: *const iovec,
    pub(super) count: i32,
    pub(super) message: *mut msghdr,
}

/// # Safety
///
/// The buffer can be written to, and is the same in all its forms.
pub(super) unsafe fn read_by_number(fd: i32, buffer: &Buffer, by: Numbered) -> isize {
    let (at, len) = (buffer.at, buffer.len);
    let (vector, count, message) = (buffer.vector, buffer.count as usize, buffer.message);
    let none = ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise.
    let result = unsafe {
        match by {
            Numbered::Plain => libc::syscall(libc::SYS_read, fd, at, len),
            Numbered::Vector => libc::syscall(libc::SYS_readv, fd, vector, count),
            Numbered::Address(flags) => {
                libc::syscall(libc::SYS_recvfrom, fd, at, len, flags.0, none, none)
            }
            Numbered::Message(flags) => libc::syscall(libc::SYS_recvmsg, fd, message, flags.0),
            Numbered::At(offset) => libc::syscall(libc::SYS_pread64, fd, at, len, offset),
            Numbered::VectorAtFlags(offset, flags) => {
                libc::syscall(libc::SYS_preadv2, fd, vector, count, offset, 0_usize, flags)
            }
        }
    };
    result as isize
}

/// # Safety
///
/// The buffer can be read, and is the same in all its forms.
pub(super) unsafe fn write_by_number(fd: i32, buffer: &Buffer, by: Numbered) -> isize {
    let (at, len) = (buffer.at, buffer.len);
    let (vector, count, message) = (buffer.vector, buffer.count as usize, buffer.message);
    let none = ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise.
    let result = unsafe {
        match by {
            Numbered::Plain => libc::syscall(libc::SYS_write, fd, at, len),
            Numbered::Vector => libc::syscall(libc::SYS_writev, fd, vector, count),
            Numbered::Address(flags) => {
                libc::syscall(libc::SYS_sendto, fd, at, len, flags.0, none, 0_usize)
            }
            Numbered::Message(flags) => libc::syscall(libc::SYS_sendmsg, fd, message, flags.0),
            Numbered::At(offset) => libc::syscall(libc::SYS_pwrite64, fd, at, len, offset),
            Numbered::VectorAtFlags(offset, flags) => libc::syscall(
                libc::SYS_pwritev2,
                fd,
                vector,
                count,
                offset,
                0_usize,
                flags,
            ),
        }
    };
    result as isize
}

/// # Safety
///
/// As [`read_by_number`].
pub(super) unsafe fn read_checked(fd: i32, buffer: &Buffer, by: Checked) -> isize {
    let (at, len) = (buffer.at, buffer.len);
    // SAFETY: the caller's promise; the buffer is as large as it says.
    unsafe {
        match by {
            Checked::Plain => __read_chk(fd, at, len, len),
            Checked::Socket(flags) => __recv_chk(fd, at, len, len, flags.0),
            Checked::Address(flags) => {
                __recvfrom_chk(fd, at, len, len, flags.0, ptr::null_mut(), ptr::null_mut())
            }
            Checked::At(offset) => __pread_chk(fd, at, len, offset, len),
        }
    }
}
