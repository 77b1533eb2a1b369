//! Names of files: directories, links, renaming. They wait for the disk on a
//! thread of the pool.

use std::ffi::{c_char, c_int};

use libc::{DIR, mode_t, size_t, ssize_t};

use crate::convert::{divert, offload};
use crate::real;

/// `mkdir(2)`
///
/// # Safety
///
/// The contract of `mkdir(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::mkdir.get()(path, mode) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::mkdir.get()(path, mode) })
}

/// `mkdirat(2)`
///
/// # Safety
///
/// The contract of `mkdirat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::mkdirat.get()(dir, path, mode) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::mkdirat.get()(dir, path, mode) })
}

/// `rmdir(2)`
///
/// # Safety
///
/// The contract of `rmdir(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::rmdir.get()(path) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::rmdir.get()(path) })
}

/// `unlink(2)`
///
/// # Safety
///
/// The contract of `unlink(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::unlink.get()(path) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::unlink.get()(path) })
}

/// `unlinkat(2)`
///
/// # Safety
///
/// The contract of `unlinkat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::unlinkat.get()(dir, path, flags) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::unlinkat.get()(dir, path, flags) })
}

/// `rename(2)`
///
/// # Safety
///
/// The contract of `rename(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::rename.get()(from, to) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::rename.get()(from, to) })
}

/// `renameat(2)`
///
/// # Safety
///
/// The contract of `renameat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat(from_dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::renameat.get()(from_dir, from, to_dir, to) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::renameat.get()(from_dir, from, to_dir, to) })
}

/// `link(2)`
///
/// # Safety
///
/// The contract of `link(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::link.get()(from, to) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::link.get()(from, to) })
}

/// `linkat(2)`
///
/// # Safety
///
/// The contract of `linkat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn linkat(from_dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_int) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::linkat.get()(from_dir, from, to_dir, to, flags) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::linkat.get()(from_dir, from, to_dir, to, flags) })
}

/// `symlink(2)`
///
/// # Safety
///
/// The contract of `symlink(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symlink(from: *const c_char, to: *const c_char) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::symlink.get()(from, to) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::symlink.get()(from, to) })
}

/// `readlink(2)`
///
/// # Safety
///
/// The contract of `readlink(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlink(path: *const c_char, buf: *mut c_char, len: size_t) -> ssize_t {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::readlink.get()(path, buf, len) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::readlink.get()(path, buf, len) })
}

/// `realpath(3)`
///
/// # Safety
///
/// The contract of `realpath(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::realpath.get()(path, resolved) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || Pointer(unsafe { real::realpath.get()(path, resolved) })).0
}

/// `opendir(3)`
///
/// # Safety
///
/// The contract of `opendir(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn opendir(path: *const c_char) -> *mut DIR {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::opendir.get()(path) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || Pointer(unsafe { real::opendir.get()(path) })).0
}

/// A pointer on its way back from the pool.
struct Pointer<T>(*mut T);

// SAFETY: the pool's thread does not use it after it has handed it over.
unsafe impl<T> Send for Pointer<T> {}

