//! Files and directories. What a driver can do is done by it; the rest waits
//! for the disk on a thread of the pool.

use std::ffi::{c_char, c_int, c_uint};

use libc::{mode_t, off_t, off64_t, size_t, ssize_t};
use open_coroutine_core::driver::Op;
use open_coroutine_core::io;

use crate::convert::{divert, offload, to_int};
use crate::descriptors::begins;
use crate::real;

/// `open(2)`. The variadic `mode` is passed like any other
/// argument on the supported architectures.
///
/// # Safety
///
/// The contract of `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return begins(unsafe { real::open.get()(path, flags, mode) });
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
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return begins(unsafe { real::open64.get()(path, flags, mode) });
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
pub unsafe extern "C" fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return begins(unsafe { real::openat.get()(dir, path, flags, mode) });
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
pub unsafe extern "C" fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return begins(unsafe { real::openat64.get()(dir, path, flags, mode) });
    }
    // SAFETY: the caller keeps the path valid until we return.
    unsafe { open_at(dir, path, flags, mode) }
}

/// # Safety
///
/// The contract of `openat(2)`. Called on a coroutine.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // As libc does on 64-bit systems.
    let flags = flags | libc::O_LARGEFILE;
    // SAFETY: the caller's promise.
    begins(to_int(unsafe { io::open(dir, path, flags, mode) }))
}

/// `stat(2)`
///
/// # Safety
///
/// The contract of `stat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat(path: *const c_char, buf: *mut libc::stat) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::stat.get()(path, buf) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::stat.get()(path, buf) })
}

/// `stat(2)`
///
/// # Safety
///
/// The contract of `stat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat64(path: *const c_char, buf: *mut libc::stat64) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::stat64.get()(path, buf) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::stat64.get()(path, buf) })
}

/// `lstat(2)`
///
/// # Safety
///
/// The contract of `lstat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lstat(path: *const c_char, buf: *mut libc::stat) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::lstat.get()(path, buf) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::lstat.get()(path, buf) })
}

/// `lstat(2)`
///
/// # Safety
///
/// The contract of `lstat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lstat64(path: *const c_char, buf: *mut libc::stat64) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::lstat64.get()(path, buf) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::lstat64.get()(path, buf) })
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
    if !divert() || flags & libc::AT_EMPTY_PATH != 0 {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::statx.get()(dir, path, flags, mask, buf) };
    }
    // SAFETY: the caller keeps path and buffer valid until we return.
    to_int(unsafe { io::perform(Op::StatX { dir, path, flags, mask, buf }, None) })
}

/// `fsync(2)`
///
/// # Safety
///
/// The contract of `fsync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::fsync.get()(fd) };
    }
    // SAFETY: the descriptor is the caller's.
    to_int(unsafe { io::perform(Op::Fsync { fd, data_only: false }, None) })
}

/// `fdatasync(2)`
///
/// # Safety
///
/// The contract of `fdatasync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::fdatasync.get()(fd) };
    }
    // SAFETY: the descriptor is the caller's.
    to_int(unsafe { io::perform(Op::Fsync { fd, data_only: true }, None) })
}

/// `ftruncate(2)`
///
/// # Safety
///
/// The contract of `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::ftruncate.get()(fd, length) };
    }
    // SAFETY: the descriptor is the caller's.
    offload(move || unsafe { real::ftruncate.get()(fd, length) })
}

/// `ftruncate(2)`
///
/// # Safety
///
/// The contract of `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off64_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::ftruncate64.get()(fd, length) };
    }
    // SAFETY: the descriptor is the caller's.
    offload(move || unsafe { real::ftruncate64.get()(fd, length) })
}

/// `fallocate(2)`
///
/// # Safety
///
/// The contract of `fallocate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::fallocate.get()(fd, mode, offset, length) };
    }
    // SAFETY: the descriptor is the caller's.
    offload(move || unsafe { real::fallocate.get()(fd, mode, offset, length) })
}

/// `fallocate(2)`
///
/// # Safety
///
/// The contract of `fallocate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: off64_t, length: off64_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::fallocate64.get()(fd, mode, offset, length) };
    }
    // SAFETY: the descriptor is the caller's.
    offload(move || unsafe { real::fallocate64.get()(fd, mode, offset, length) })
}

/// `flock(2)`
///
/// # Safety
///
/// The contract of `flock(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::flock.get()(fd, operation) };
    }
    // SAFETY: the descriptor is the caller's.
    offload(move || unsafe { real::flock.get()(fd, operation) })
}

/// `chmod(2)`
///
/// # Safety
///
/// The contract of `chmod(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chmod(path: *const c_char, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::chmod.get()(path, mode) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::chmod.get()(path, mode) })
}

/// `copy_file_range(2)`
///
/// # Safety
///
/// The contract of `copy_file_range(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t, len: size_t, flags: c_uint) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::copy_file_range.get()(from, from_offset, to, to_offset, len, flags) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::copy_file_range.get()(from, from_offset, to, to_offset, len, flags) })
}

/// `sendfile(2)`
///
/// # Safety
///
/// The contract of `sendfile(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sendfile.get()(to, from, offset, len) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::sendfile.get()(to, from, offset, len) })
}

/// `sendfile(2)`
///
/// # Safety
///
/// The contract of `sendfile(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off64_t, len: size_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::sendfile64.get()(to, from, offset, len) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::sendfile64.get()(to, from, offset, len) })
}

/// `splice(2)`
///
/// # Safety
///
/// The contract of `splice(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn splice(from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t, len: size_t, flags: c_uint) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::splice.get()(from, from_offset, to, to_offset, len, flags) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::splice.get()(from, from_offset, to, to_offset, len, flags) })
}
