//! `readdir(3)`: most calls take the next entry out of a buffer, and only those
//! that find it empty wait for the disk. Sending each to the pool would make a
//! listing a hundred times slower, so the buffer is looked at first.
//!
//! Where libc keeps it is not documented. glibc has had it in the same place for
//! twenty years, but it is only believed after it was seen: the first call is
//! checked before and after, and if it is not as expected, calls wait on the
//! worker.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use libc::{DIR, dirent, dirent64};
use open_coroutine_core::io::Awaits;

use crate::convert::offload;
use crate::real;

/// The start of glibc's `struct __dirstream`.
#[repr(C)]
struct Stream {
    fd: c_int,
    lock: c_int,
    allocation: usize,
    /// Bytes of entries in the buffer.
    size: usize,
    /// Where the next one begins.
    offset: usize,
    position: i64,
    error: c_int,
}

/// Nobody has looked yet.
const UNKNOWN: u8 = 0;
/// A stream begins with a [`Stream`].
const KNOWN: u8 = 1;
/// It begins with something else.
const OTHER: u8 = 2;

/// Which of these it is. Static because there is one libc.
static LAYOUT: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Runs `read`, which takes the next entry of `stream`, where it may wait.
/// Called on a coroutine.
///
/// # Safety
///
/// `stream` is an open directory stream that nobody else uses.
unsafe fn next<T>(stream: *mut DIR, read: impl FnOnce() -> T) -> T {
    let pointer = stream.cast::<Stream>();
    match LAYOUT.load(Relaxed) {
        // SAFETY: the layout was seen to be this.
        KNOWN if unsafe { (*pointer).offset < (*pointer).size } => read(),
        OTHER => read(),
        _ => offload(Awaits::System, read),
    }
}

/// [`next`] for functions that return the entry, which also finds out about the
/// layout.
///
/// # Safety
///
/// As for `next`.
unsafe fn next_entry<E>(
    stream: *mut DIR,
    read: impl FnOnce() -> *mut E,
    length: impl Fn(&E) -> u16,
) -> *mut E {
    if LAYOUT.load(Relaxed) != UNKNOWN {
        // SAFETY: the caller's promise.
        return unsafe { next(stream, read) };
    }
    let pointer = stream.cast::<Stream>();
    // SAFETY: any stream has more bytes than this.
    let was_empty = unsafe { (*pointer).offset == (*pointer).size };
    let entry = offload(Awaits::System, read);
    // SAFETY: an entry is valid until the next call on the stream.
    if let Some(found) = unsafe { entry.as_ref() }
        && was_empty
    {
        // SAFETY: as above.
        let after = unsafe { &*pointer };
        let is_expected = after.offset == usize::from(length(found))
            && (after.offset..=after.allocation).contains(&after.size)
            && ptr::from_ref(found).addr() == stream.addr() + size_of::<Stream>();
        LAYOUT.store(if is_expected { KNOWN } else { OTHER }, Relaxed);
    }
    entry
}

shims! { FILES:
    /// `readdir(3)`
    fn readdir(stream: *mut DIR) -> *mut dirent => {
        next_entry(stream, move || real::readdir.get()(stream), |entry: &dirent| entry.d_reclen)
    };
    /// `readdir(3)`
    fn readdir64(stream: *mut DIR) -> *mut dirent64 => {
        next_entry(stream, move || real::readdir64.get()(stream), |entry: &dirent64| {
            entry.d_reclen
        })
    };
    /// `readdir_r(3)`
    fn readdir_r(stream: *mut DIR, entry: *mut dirent, result: *mut *mut dirent) -> c_int => {
        next(stream, move || real::readdir_r.get()(stream, entry, result))
    };
    /// `readdir_r(3)`
    fn readdir64_r(
        stream: *mut DIR,
        entry: *mut dirent64,
        result: *mut *mut dirent64
    ) -> c_int => {
        next(stream, move || real::readdir64_r.get()(stream, entry, result))
    };
}
