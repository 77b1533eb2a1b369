//! `read(2)`, `write(2)`, `pread(2)`, `pwrite(2)` and the vectored ones.

use std::ffi::{c_int, c_void};

use libc::{iovec, off_t, off64_t, size_t, ssize_t};
use open_coroutine_core::io;
use open_coroutine_core::sched::Hooks;

use crate::convert::{divert, to_c};
use crate::real;

/// Calls `transfer` with a position in a file; a negative one is refused first
/// of all, as by the kernel.
fn at(offset: off64_t, transfer: impl FnOnce(Option<u64>) -> isize) -> ssize_t {
    to_c(match u64::try_from(offset) {
        Ok(position) => transfer(Some(position)),
        Err(_) => -(libc::EINVAL as isize),
    })
}

/// [`at`], for functions to which -1 means the current position.
fn at_or_current(offset: off64_t, transfer: impl FnOnce(Option<u64>) -> isize) -> ssize_t {
    if offset == -1 {
        return to_c(transfer(None));
    }
    at(offset, transfer)
}

shims! { STREAMS:
    /// `read(2)`
    fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t => {
        to_c(io::read(fd, buf.cast(), len, None))
    };
    /// `write(2)`
    fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t => {
        to_c(io::write(fd, buf.cast(), len, None))
    };
    /// `readv(2)`
    fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t => {
        to_c(io::read_vectored(fd, iov, count, None, 0))
    };
    /// `writev(2)`
    fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t => {
        to_c(io::write_vectored(fd, iov, count, None, 0))
    };
    /// `pread(2)`
    fn pread(fd: c_int, buf: *mut c_void, len: size_t, offset: off_t) -> ssize_t => {
        at(offset, |position| io::read(fd, buf.cast(), len, position))
    };
    /// `pread(2)`
    fn pread64(fd: c_int, buf: *mut c_void, len: size_t, offset: off64_t) -> ssize_t => {
        at(offset, |position| io::read(fd, buf.cast(), len, position))
    };
    /// `pwrite(2)`
    fn pwrite(fd: c_int, buf: *const c_void, len: size_t, offset: off_t) -> ssize_t => {
        at(offset, |position| io::write(fd, buf.cast(), len, position))
    };
    /// `pwrite(2)`
    fn pwrite64(fd: c_int, buf: *const c_void, len: size_t, offset: off64_t) -> ssize_t => {
        at(offset, |position| io::write(fd, buf.cast(), len, position))
    };
    /// `preadv(2)`
    fn preadv(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t => {
        at(offset, |position| io::read_vectored(fd, iov, count, position, 0))
    };
    /// `preadv(2)`
    fn preadv64(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t) -> ssize_t => {
        at(offset, |position| io::read_vectored(fd, iov, count, position, 0))
    };
    /// `pwritev(2)`
    fn pwritev(fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> ssize_t => {
        at(offset, |position| io::write_vectored(fd, iov, count, position, 0))
    };
    /// `pwritev(2)`
    fn pwritev64(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t) -> ssize_t => {
        at(offset, |position| io::write_vectored(fd, iov, count, position, 0))
    };
    /// `preadv2(2)`
    fn preadv2(
        fd: c_int,
        iov: *const iovec,
        count: c_int,
        offset: off_t,
        flags: c_int
    ) -> ssize_t => {
        at_or_current(offset, |position| io::read_vectored(fd, iov, count, position, flags))
    };
    /// `preadv2(2)`
    fn preadv64v2(
        fd: c_int,
        iov: *const iovec,
        count: c_int,
        offset: off64_t,
        flags: c_int
    ) -> ssize_t => {
        at_or_current(offset, |position| io::read_vectored(fd, iov, count, position, flags))
    };
    /// `pwritev2(2)`
    fn pwritev2(
        fd: c_int,
        iov: *const iovec,
        count: c_int,
        offset: off_t,
        flags: c_int
    ) -> ssize_t => {
        at_or_current(offset, |position| io::write_vectored(fd, iov, count, position, flags))
    };
    /// `pwritev2(2)`
    fn pwritev64v2(
        fd: c_int,
        iov: *const iovec,
        count: c_int,
        offset: off64_t,
        flags: c_int
    ) -> ssize_t => {
        at_or_current(offset, |position| io::write_vectored(fd, iov, count, position, flags))
    };
}

/// Declares functions as programs call them that are compiled with
/// `_FORTIFY_SOURCE`: they also get the size of the buffer, and libc's own end a
/// program whose buffer is too small.
macro_rules! fortified {
    ($($name:ident => $plain:ident($($argument:ident: $kind:ty),*);)*) => { $(
        #[doc = concat!("[`", stringify!($plain), "`], with the size of the buffer.")]
        ///
        /// # Safety
        ///
        /// The contract of the man page; `size` is that of the buffer.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int,
            buf: *mut c_void,
            len: size_t,
            $($argument: $kind,)*
            size: size_t,
        ) -> ssize_t {
            // SAFETY: the caller's contract, passed on.
            unsafe {
                if !divert(Hooks::STREAMS) || size < len {
                    return real::$name.get()(fd, buf, len, $($argument,)* size);
                }
                $plain(fd, buf, len, $($argument),*)
            }
        }
    )* };
}

fortified! {
    __read_chk => read();
    __pread_chk => pread(offset: off_t);
    __pread64_chk => pread64(offset: off64_t);
}
