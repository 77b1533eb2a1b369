//! Files and directories. What a driver can do is done by it; the rest waits
//! for the disk on a thread of the pool.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libc::{mode_t, off_t, off64_t, size_t, ssize_t};
use open_coroutine_core::driver::Op;
use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched::Hooks;

use crate::convert::{divert, offload, to_int};
use crate::descriptors::{beginning, begins};
use crate::real;

/// `open(2)`. The variadic `mode` is passed like any other
/// argument on the supported architectures.
///
/// # Safety
///
/// The contract of `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !divert(Hooks::FILES) {
        // SAFETY: the caller's contract, passed on unchanged.
        return beginning(|| unsafe { real::open.get()(path, flags, mode) });
    }
    // SAFETY: the caller keeps the path valid until we return.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// `open(2)`. The variadic `mode` is passed like any other
/// argument on the supported architectures.
///
/// # Safety
///
/// The contract of `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !divert(Hooks::FILES) {
        // SAFETY: the caller's contract, passed on unchanged.
        return beginning(|| unsafe { real::open64.get()(path, flags, mode) });
    }
    // SAFETY: the caller keeps the path valid until we return.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// What a call of `open(2)` without a mode is in C code that was built with
/// `_FORTIFY_SOURCE`, if the compiler does not know the flags.
///
/// # Safety
///
/// The contract of `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    if needs_mode(flags) {
        // SAFETY: libc's function does not return from this.
        return unsafe { real::__open_2.get()(path, flags) };
    }
    // SAFETY: the caller's contract; with these flags no mode is used.
    unsafe { open(path, flags, 0) }
}

/// [`__open_2`] for `open64`.
///
/// # Safety
///
/// The contract of `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    if needs_mode(flags) {
        // SAFETY: libc's function does not return from this.
        return unsafe { real::__open64_2.get()(path, flags) };
    }
    // SAFETY: the caller's contract; with these flags no mode is used.
    unsafe { open64(path, flags, 0) }
}

/// [`__open_2`] for `openat(2)`.
///
/// # Safety
///
/// The contract of `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    if needs_mode(flags) {
        // SAFETY: libc's function does not return from this.
        return unsafe { real::__openat_2.get()(dir, path, flags) };
    }
    // SAFETY: the caller's contract; with these flags no mode is used.
    unsafe { openat(dir, path, flags, 0) }
}

/// [`__open_2`] for `openat64`.
///
/// # Safety
///
/// The contract of `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    if needs_mode(flags) {
        // SAFETY: libc's function does not return from this.
        return unsafe { real::__openat64_2.get()(dir, path, flags) };
    }
    // SAFETY: the caller's contract; with these flags no mode is used.
    unsafe { openat64(dir, path, flags, 0) }
}

/// Whether a call without a mode is wrong: libc ends the process with a message.
fn needs_mode(flags: c_int) -> bool {
    flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
}

/// `openat(2)`. The variadic `mode` is passed like any other
/// argument on the supported architectures.
///
/// # Safety
///
/// The contract of `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    if !divert(Hooks::FILES) {
        // SAFETY: the caller's contract, passed on unchanged.
        return beginning(|| unsafe { real::openat.get()(dir, path, flags, mode) });
    }
    // SAFETY: the caller keeps the path valid until we return.
    unsafe { open_at(dir, path, flags, mode) }
}

/// `openat(2)`. The variadic `mode` is passed like any other
/// argument on the supported architectures.
///
/// # Safety
///
/// The contract of `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    if !divert(Hooks::FILES) {
        // SAFETY: the caller's contract, passed on unchanged.
        return beginning(|| unsafe { real::openat64.get()(dir, path, flags, mode) });
    }
    // SAFETY: the caller keeps the path valid until we return.
    unsafe { open_at(dir, path, flags, mode) }
}

/// Out of line, so that plain threads do not pay for its frame.
///
/// # Safety
///
/// The contract of `openat(2)`. Called on a coroutine.
#[inline(never)]
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // As libc does on 64-bit systems.
    let flags = flags | libc::O_LARGEFILE;
    // SAFETY: the caller's promise.
    begins(to_int(unsafe { io::open(dir, path, flags, mode) }))
}

/// `statx(2)`
///
/// # Safety
///
/// The contract of `statx(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    buf: *mut libc::statx,
) -> c_int {
    // What is asked of an open file is in memory.
    if !divert(Hooks::FILES) || flags & libc::AT_EMPTY_PATH != 0 {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::statx.get()(dir, path, flags, mask, buf) };
    }
    // SAFETY: the caller keeps path and buffer valid until we return.
    to_int(unsafe {
        io::perform(
            Op::StatX {
                dir,
                path,
                flags,
                mask,
                buf,
            },
            None,
        )
    })
}

/// `fstatat(2)`
///
/// # Safety
///
/// The contract of `fstatat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstatat64(
    dir: c_int,
    path: *const c_char,
    buf: *mut libc::stat64,
    flags: c_int,
) -> c_int {
    // SAFETY: on 64-bit systems the two structures are the same.
    unsafe { fstatat(dir, path, buf.cast(), flags) }
}

/// `fstatat(2)`
///
/// # Safety
///
/// The contract of `fstatat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstatat(
    dir: c_int,
    path: *const c_char,
    buf: *mut libc::stat,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller keeps what it passes valid until we return.
    let call = move || unsafe { real::fstatat.get()(dir, path, buf, flags) };
    // What is asked of an open file is in memory.
    if divert(Hooks::FILES) && flags & libc::AT_EMPTY_PATH == 0 {
        offload(Awaits::System, call)
    } else {
        call()
    }
}

shims! { FILES:
    /// `fsync(2)`
    fn fsync(fd: c_int) -> c_int => to_int(io::perform(Op::Fsync { fd, data_only: false }, None));
    /// `fdatasync(2)`
    fn fdatasync(fd: c_int) -> c_int => {
        to_int(io::perform(Op::Fsync { fd, data_only: true }, None))
    };
}

offloaded! { FILES, System:
    /// `stat(2)`
    fn stat(path: *const c_char, buf: *mut libc::stat) -> c_int;
    /// `stat(2)`
    fn stat64(path: *const c_char, buf: *mut libc::stat64) -> c_int;
    /// `lstat(2)`
    fn lstat(path: *const c_char, buf: *mut libc::stat) -> c_int;
    /// `lstat(2)`
    fn lstat64(path: *const c_char, buf: *mut libc::stat64) -> c_int;
    /// `ftruncate(2)`
    fn ftruncate(fd: c_int, length: off_t) -> c_int;
    /// `ftruncate(2)`
    fn ftruncate64(fd: c_int, length: off64_t) -> c_int;
    /// `fallocate(2)`
    fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int;
    /// `fallocate(2)`
    fn fallocate64(fd: c_int, mode: c_int, offset: off64_t, length: off64_t) -> c_int;
    /// `posix_fallocate(3)`
    fn posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int;
    /// `posix_fallocate(3)`
    fn posix_fallocate64(fd: c_int, offset: off64_t, length: off64_t) -> c_int;
    /// `sync_file_range(2)`
    fn sync_file_range(fd: c_int, offset: off64_t, length: off64_t, flags: c_uint) -> c_int;
    /// `syncfs(2)`
    fn syncfs(fd: c_int) -> c_int;
    /// `sync(2)`
    fn sync() -> ();
    /// `msync(2)`
    fn msync(start: *mut c_void, length: size_t, flags: c_int) -> c_int;
    /// `copy_file_range(2)`
    fn copy_file_range(
        from: c_int,
        from_offset: *mut off64_t,
        to: c_int,
        to_offset: *mut off64_t,
        len: size_t,
        flags: c_uint
    ) -> ssize_t;
}

offloaded! { FILES, Others:
    /// `flock(2)`
    fn flock(fd: c_int, operation: c_int) -> c_int;
    /// `lockf(3)`
    fn lockf(fd: c_int, command: c_int, length: off_t) -> c_int;
    /// `lockf(3)`
    fn lockf64(fd: c_int, command: c_int, length: off64_t) -> c_int;
}

// Between pipes and sockets these wait for a peer.
offloaded! { STREAMS, Others:
    /// `sendfile(2)`
    fn sendfile(to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t;
    /// `sendfile(2)`
    fn sendfile64(to: c_int, from: c_int, offset: *mut off64_t, len: size_t) -> ssize_t;
    /// `splice(2)`
    fn splice(
        from: c_int,
        from_offset: *mut off64_t,
        to: c_int,
        to_offset: *mut off64_t,
        len: size_t,
        flags: c_uint
    ) -> ssize_t;
    /// `tee(2)`
    fn tee(from: c_int, to: c_int, len: size_t, flags: c_uint) -> ssize_t;
    /// `vmsplice(2)`
    fn vmsplice(fd: c_int, iov: *const libc::iovec, count: size_t, flags: c_uint) -> ssize_t;
}
