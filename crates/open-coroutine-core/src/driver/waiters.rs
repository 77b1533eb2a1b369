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
//! 3. It reads each driver's count for the descriptor (most often they are all
//!    0: [`anyone_waits_on`]). To a driver with
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
use std::ptr;
use std::slice;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use crate::sys;
use crate::util::lock::Lock;

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
    slot: usize,
    counters: &'static [AtomicU32],
    /// No descriptor above this one was ever waited on.
    highest: AtomicI32,
}

/// The counters of all drivers, those of the past included, which the next ones
/// use again. Static, and never unmapped, so that a close on any thread can look
/// at them without a lock.
static SLOTS: [AtomicPtr<AtomicU32>; MAX_DRIVERS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_DRIVERS];
/// How many of the slots were ever used.
static USED_SLOTS: AtomicUsize = AtomicUsize::new(0);
/// The slots that no driver uses now.
static FREE_SLOTS: Lock<Vec<usize>> = Lock::new(Vec::new());

/// As many drivers can exist at once, two for each of the workers that a runtime
/// may have.
const MAX_DRIVERS: usize = 8192;

/// Whether a request of any driver may wait on `fd`; see step 3.
#[inline]
pub fn anyone_waits_on(fd: RawFd) -> bool {
    let used = USED_SLOTS.load(Relaxed);
    SLOTS[..used].iter().any(|slot| {
        // Acquire: pairs with the Release in `new`.
        let counters = slot.load(Acquire);
        // SAFETY: a published pointer is to `COUNTERS` counters, for good.
        !counters.is_null() && unsafe { &*counters.add(index(fd)) }.load(Relaxed) != 0
    })
}

/// Whether a request of any driver may wait on any descriptor.
pub fn anyone_waits() -> bool {
    USED_SLOTS.load(Relaxed) != 0
}

/// Forgets all requests, in the child of a fork: they are its parent's, who goes
/// on to wait for them.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub(super) unsafe fn abandon() {
    let used = USED_SLOTS.swap(0, Relaxed);
    // The memory of the parent's counters is left alone, and new drivers map
    // their own.
    for slot in &SLOTS[..used] {
        slot.store(ptr::null_mut(), Relaxed);
    }
    // SAFETY: the caller's promise.
    unsafe { FREE_SLOTS.abandon(Vec::new()) };
}

fn index(fd: RawFd) -> usize {
    fd as usize % COUNTERS
}

impl FdWaiters {
    /// # Errors
    ///
    /// Out of memory, or too many drivers.
    pub(super) fn new() -> io::Result<Self> {
        let mut free = FREE_SLOTS.lock();
        let slot = free.pop().unwrap_or_else(|| USED_SLOTS.load(Relaxed));
        let place = SLOTS
            .get(slot)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        let mut counters = place.load(Relaxed);
        if counters.is_null() {
            // Zero bytes are a counter.
            counters = ptr::with_exposed_provenance_mut(sys::map(BYTES, 0)?);
            // Release: pairs with the Acquire in `anyone_waits_on`.
            place.store(counters, Release);
            USED_SLOTS.fetch_max(slot + 1, Relaxed);
        }
        Ok(Self {
            slot,
            // SAFETY: mapped for good, and zero bytes are a counter.
            counters: unsafe { slice::from_raw_parts(counters, COUNTERS) },
            highest: AtomicI32::new(-1),
        })
    }

    /// How many requests wait on `fd`: 0 if there are surely none.
    pub fn count(&self, fd: RawFd) -> u32 {
        self.counters[index(fd)].load(Relaxed)
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
        let counter = &self.counters[index(fd)];
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    /// Undoes [`FdWaiters::add`]. For the owner only.
    pub(super) fn remove(&self, fd: RawFd) {
        let counter = &self.counters[index(fd)];
        counter.store(counter.load(Relaxed) - 1, Relaxed);
    }
}

impl FdWaiters {
    /// Back to zero, whatever was still in flight, and no memory.
    pub(super) fn clear(&self) {
        let start = self.counters.as_ptr().addr();
        // SAFETY: the range is that of the counters, which are zero after this.
        let _ = unsafe { sys::madvise(start, BYTES, libc::MADV_DONTNEED as usize) };
        self.highest.store(-1, Relaxed);
    }
}

impl Drop for FdWaiters {
    fn drop(&mut self) {
        self.clear();
        FREE_SLOTS.lock().push(self.slot);
    }
}
