//! Who waits on which descriptor, for those who close one.
//!
//! Closing a descriptor ends the operations that wait on it, also those in
//! other threads' drivers. A descriptor's number may be reused at once, so
//! waits are told apart by age.
//!
//! # Protocol
//!
//! 1. A submission counts itself in its driver's [`FdWaiters`] and records the
//!    close epoch.
//! 2. A close advances the epoch with [`begin_close`], which returns the value
//!    `e` from before.
//! 3. It reads each driver's count for the descriptor. To a driver with
//!    waiters it sends `(fd, e)`, and the owner of that driver calls
//!    [`Driver::close_notice`](super::Driver::close_notice), which ends the
//!    requests of an epoch up to `e`. For the closer's own driver this is
//!    done before step 4, so that what is queued there still meets the old
//!    file.
//! 4. It closes the descriptor.
//!
//! Why relaxed atomics suffice: a wait that began before the close, in an
//! order that the program itself established (a lock, a channel, anything),
//! is counted where the closer looks, by that same order. A wait on the reused
//! number comes after the `open` that returned it, which the kernel orders
//! after step 4 and so after step 2: it records a newer epoch. For a wait that
//! begins while the close is under way, both outcomes are right, as they are
//! for threads.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::sys;

/// Number of closes so far. Global because descriptors belong to the process,
/// not to a runtime.
static CLOSE_EPOCH: AtomicU64 = AtomicU64::new(0);

/// Step 2: what [`Driver::close_notice`](super::Driver::close_notice) takes.
pub fn begin_close() -> u64 {
    CLOSE_EPOCH.fetch_add(1, Relaxed)
}

/// The epoch that a submission records.
pub(super) fn epoch() -> u64 {
    CLOSE_EPOCH.load(Relaxed)
}

/// Descriptors with a counter of their own; larger numbers share.
const COUNTERS: usize = 1 << 20;
const BYTES: usize = COUNTERS * size_of::<AtomicU32>();

/// How many requests of one driver wait on each descriptor. Written by the
/// driver's owner, readable by every thread.
///
/// The counters are indexed by descriptor, without hashing, so that a close
/// disturbs only drivers that have waiters. They are mapped lazily: a page
/// costs memory once one of its 1024 descriptors has been waited on.
#[derive(Debug)]
pub struct FdWaiters {
    counters: NonNull<AtomicU32>,
    /// No descriptor above this one was ever waited on.
    highest: AtomicI32,
}

// SAFETY: the counters are atomics in memory that lives as long as `self`.
unsafe impl Send for FdWaiters {}
// SAFETY: as above.
unsafe impl Sync for FdWaiters {}

impl FdWaiters {
    /// # Errors
    ///
    /// Out of memory.
    pub(super) fn new() -> io::Result<Self> {
        let args = [
            0,
            BYTES,
            (libc::PROT_READ | libc::PROT_WRITE) as usize,
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize,
            usize::MAX,
            0,
        ];
        // SAFETY: maps new memory at an address of the kernel's choice.
        let address = sys::check(unsafe { sys::syscall(libc::SYS_mmap, args) })?;
        let advice = [address, BYTES, libc::MADV_NOHUGEPAGE as usize, 0, 0, 0];
        // SAFETY: the range was mapped just now. Failure costs only memory.
        unsafe { sys::syscall(libc::SYS_madvise, advice) };
        let counters = NonNull::new(std::ptr::with_exposed_provenance_mut(address));
        Ok(Self {
            counters: counters.expect("mmap without a fixed address never returns 0"),
            highest: AtomicI32::new(-1),
        })
    }

    /// How many requests wait on `fd`: 0 if there are surely none.
    pub fn count(&self, fd: RawFd) -> u32 {
        self.counter(fd).load(Relaxed)
    }

    /// The highest descriptor that a request has waited on, or -1.
    pub fn highest(&self) -> RawFd {
        self.highest.load(Relaxed)
    }

    /// Counts a request. For the owner only.
    pub(super) fn add(&self, fd: RawFd) {
        if fd > self.highest.load(Relaxed) {
            self.highest.store(fd, Relaxed);
        }
        let counter = self.counter(fd);
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    /// Undoes [`FdWaiters::add`]. For the owner only.
    pub(super) fn remove(&self, fd: RawFd) {
        let counter = self.counter(fd);
        counter.store(counter.load(Relaxed) - 1, Relaxed);
    }

    fn counter(&self, fd: RawFd) -> &AtomicU32 {
        // SAFETY: the index is below `COUNTERS`, and zero bytes are a counter.
        unsafe { self.counters.add(fd as usize % COUNTERS).as_ref() }
    }
}

impl Drop for FdWaiters {
    fn drop(&mut self) {
        let args = [self.counters.as_ptr() as usize, BYTES, 0, 0, 0, 0];
        // SAFETY: the mapping is `self`'s own, and nothing refers to it now.
        unsafe { sys::syscall(libc::SYS_munmap, args) };
    }
}
