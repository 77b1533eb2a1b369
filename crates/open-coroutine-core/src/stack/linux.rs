//! Memory of stacks on Linux: guard, discard.
//!
//! Two ways to guard a page. `MADV_GUARD_INSTALL` (Linux 6.13) marks it in the
//! page table: a million guards fit in one mapping, and the marks survive
//! `MADV_DONTNEED` and `fork`. `mprotect` works everywhere but splits the
//! mapping in two, so that the default vm.max_map_count ends at some 32,000
//! stacks.

use std::io;
use std::mem;
use std::ptr;
use std::time::Duration;

use crate::sys::{check, madvise, map, syscall, unmap};

/// Not in libc's list yet.
const MADV_GUARD_INSTALL: usize = 102;

/// Not in libc's list for all targets.
const AT_MINSIGSTKSZ: libc::c_ulong = 51;

/// Pages of which every second one differs from its neighbours, so that they take
/// up `2 * pairs` memory mappings of the process.
#[derive(Debug)]
pub(super) struct Mappings {
    start: usize,
    len: usize,
}

impl Mappings {
    /// Fails also if less than `spare` bytes could be mapped besides.
    pub(super) fn take(pairs: usize, spare: usize) -> io::Result<Self> {
        let page = crate::sys::page_size();
        let len = 2 * pairs * page;
        let start = map(len, spare)?;
        let mappings = Self { start, len };
        for pair in 0..pairs {
            // SAFETY: whole pages of the new mapping, which nobody uses.
            unsafe { guard_by_protection(start + (2 * pair + 1) * page, page) }?;
        }
        Ok(mappings)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: mapped by `take`, and nobody uses them.
        let _ = unsafe { unmap(self.start, self.len) };
    }
}

/// Guards `len` bytes at `start` by marks in the page table.
///
/// # Safety
///
/// The caller owns these whole pages, and nobody uses them.
pub(super) unsafe fn guard_by_marks(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    unsafe { madvise(start, len, MADV_GUARD_INSTALL) }
}

/// Guards `len` bytes at `start` by a mapping without access rights.
///
/// # Safety
///
/// The caller owns these whole pages, and nobody uses them.
pub(super) unsafe fn guard_by_protection(start: usize, len: usize) -> io::Result<()> {
    let args = [start, len, libc::PROT_NONE as usize, 0, 0, 0];
    // SAFETY: the caller's contract.
    check(unsafe { syscall(libc::SYS_mprotect, args) }).map(drop)
}

/// Gives the pages of `len` bytes at `start` to the system. Guards stay.
///
/// `MADV_DONTNEED` and not `MADV_FREE`, which leaves the pages in the resident
/// size until memory is short: trimming would look as if it did nothing.
///
/// # Safety
///
/// The caller owns these whole pages, and nobody needs what they hold.
pub(super) unsafe fn discard(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    unsafe { madvise(start, len, libc::MADV_DONTNEED as usize) }
}

/// Whether the kernel can read the word at `address`, which may be anything.
pub(super) fn is_readable(address: usize) -> bool {
    let no_time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let args = [
        address & !3,
        (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize,
        0,
        &raw const no_time as usize,
        0,
        0,
    ];
    // SAFETY: FUTEX_WAIT compares the word and waits for no time at all; an
    // address that cannot be read is an error and nothing else.
    let result = unsafe { syscall(libc::SYS_futex, args) };
    result != -(libc::EFAULT as isize)
}

/// A cheap clock for time stamps: at most [`now`], and some milliseconds old.
pub(super) fn recently() -> Duration {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// The clock of `Instant`.
pub(super) fn now() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes `time`; the two clocks above exist everywhere.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The bytes that the kernel puts on the stack for a signal, 0 if unknown.
pub(super) fn signal_frame_size() -> usize {
    // SAFETY: getauxval reads a table that does not change.
    unsafe { libc::getauxval(AT_MINSIGSTKSZ) as usize }
}

/// The lowest address that the calling thread's own stack may grow to, above
/// its guard; 0 if the system does not tell.
pub(super) fn thread_stack_limit() -> usize {
    // SAFETY: all-zero bytes are a valid attribute object to be filled in.
    let mut attributes: libc::pthread_attr_t = unsafe { mem::zeroed() };
    let mut address = ptr::null_mut();
    let (mut size, mut guard) = (0, 0);
    // SAFETY: the calling thread is alive; the object is initialised by the
    // first call, read by the next two, and destroyed.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return 0;
        }
        libc::pthread_attr_getstack(&raw const attributes, &raw mut address, &raw mut size);
        libc::pthread_attr_getguardsize(&raw const attributes, &raw mut guard);
        libc::pthread_attr_destroy(&raw mut attributes);
    }
    address as usize + guard
}
