//! Memory for blocks: chunks of many, in mappings of their own.
//!
//! malloc would get it page by page, each with a system call, where the thread is not
//! the first one of the process; a million coroutines would start a sixth later.
//!
//! A chunk whose slots are all unused is given back, unless it is the only one. In the
//! child of a fork the chunks of the parent are left alone: another thread may have been
//! about to change them.

use std::ptr::{self, NonNull};

use crate::sys;
use crate::util::child;
use crate::util::lock::Lock;

/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;
/// Slots lie at multiples of this, so that no two share a cache line.
const ALIGNMENT: usize = 64;
/// Larger slots than this are refused: too few would fit into a chunk.
const MAX_SLOT: usize = CHUNK / 16;

/// See the [module](self).
pub(super) struct Slab(Lock<Chunks>);

struct Chunks {
    /// Bytes of every slot; 0 before the first one.
    slot: usize,
    /// The first chunk with an unused slot.
    first: *mut Chunk,
    /// How many chunks have unused slots only.
    unused: usize,
}

// SAFETY: the chunks belong to the object, whichever thread has it.
unsafe impl Send for Chunks {}

/// What a chunk begins with.
#[repr(C, align(64))]
pub(super) struct Chunk {
    next: *mut Chunk,
    previous: *mut Chunk,
    /// The first slot that was used before and is not now.
    free: *mut Free,
    /// How many slots are in use.
    used: usize,
    /// How many slots were ever used: the first ones.
    begun: usize,
    /// Which child of a fork has made it.
    generation: u32,
}

/// An unused slot.
struct Free {
    next: *mut Free,
}

/// A slot in use.
pub(super) struct Slot {
    pub(super) memory: NonNull<u8>,
    pub(super) chunk: NonNull<Chunk>,
}

impl Slab {
    pub(super) const fn new() -> Self {
        Self(Lock::new(Chunks::new()))
    }

    /// Zeroed memory for `size` bytes.
    ///
    /// # Errors
    ///
    /// The kernel has none, or that size is not served here.
    pub(super) fn allocate(&self, size: usize) -> Result<Slot, Refused> {
        let size = size.next_multiple_of(ALIGNMENT);
        if size > MAX_SLOT {
            return Err(Refused::Size);
        }
        // A statement of its own, so that the lock is free while the kernel is asked.
        let mut taken = self.0.lock().take(size);
        if let Err(Refused::Memory) = taken {
            let chunk = map().ok_or(Refused::Memory)?;
            let mut chunks = self.0.lock();
            // SAFETY: nobody else knows it.
            unsafe { chunks.insert_unused(chunk) };
            taken = chunks.take(size);
        }
        let (slot, is_new) = taken?;
        if !is_new {
            // SAFETY: the slot has so many bytes, and is the caller's.
            unsafe { slot.memory.write_bytes(0, size) };
        }
        Ok(slot)
    }

    /// Takes a slot back.
    ///
    /// # Safety
    ///
    /// It was allocated here, and is not used any more.
    pub(super) unsafe fn free(&self, slot: Slot) {
        // SAFETY: a chunk with a slot in use exists, and this never changes.
        if unsafe { slot.chunk.as_ref() }.generation != child::generation() {
            return;
        }
        // SAFETY: the caller's promise.
        let unused = unsafe { self.0.lock().give_back(slot) };
        if let Some(chunk) = unused {
            // SAFETY: it is in no list, and no slot of it is in use.
            if unsafe { sys::unmap(chunk.addr().get(), CHUNK) }.is_err() {
                // The process has too many mappings to split one.
                // SAFETY: it is still there, and nobody else knows it.
                unsafe { self.0.lock().insert_unused(chunk) };
            }
        }
    }

    /// In the child of a fork: the chunks of its parent are not used.
    ///
    /// # Safety
    ///
    /// No other thread exists, and the caller's is not inside this object.
    pub(super) unsafe fn abandon(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.abandon(Chunks::new()) };
    }
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All are in use, or there is no memory.
    Memory,
    /// Too few of this size would fit into a chunk, or slots have another one.
    Size,
}

impl Chunks {
    const fn new() -> Self {
        Self {
            slot: 0,
            first: ptr::null_mut(),
            unused: 0,
        }
    }

    /// A slot of `size` bytes, and whether it is as the kernel has made it.
    fn take(&mut self, size: usize) -> Result<(Slot, bool), Refused> {
        if self.slot == 0 {
            self.slot = size;
        }
        if self.slot != size {
            return Err(Refused::Size);
        }
        let mut chunk = NonNull::new(self.first).ok_or(Refused::Memory)?;
        // SAFETY: chunks in the list exist, and are changed with the lock held, as here;
        // what is in their lists of unused slots is unused.
        unsafe {
            let this = chunk.as_mut();
            self.unused -= usize::from(this.used == 0);
            this.used += 1;
            let is_new = this.free.is_null();
            let memory = if is_new {
                let offset = size_of::<Chunk>() + this.begun * size;
                this.begun += 1;
                chunk.cast::<u8>().add(offset)
            } else {
                let free = this.free;
                this.free = (*free).next;
                NonNull::new_unchecked(free.cast())
            };
            if !self.has_unused(chunk) {
                self.remove(chunk);
            }
            Ok((Slot { memory, chunk }, is_new))
        }
    }

    /// Takes a slot back. Returns its chunk, which is then in no list, if that is to be
    /// given back.
    ///
    /// # Safety
    ///
    /// As for [`Slab::free`], of the same process.
    unsafe fn give_back(&mut self, slot: Slot) -> Option<NonNull<Chunk>> {
        let mut chunk = slot.chunk;
        // SAFETY: as in `take`; the slot is unused now, and aligned.
        unsafe {
            if !self.has_unused(chunk) {
                self.insert(chunk);
            }
            let this = chunk.as_mut();
            let free = slot.memory.cast::<Free>();
            free.write(Free { next: this.free });
            this.free = free.as_ptr();
            this.used -= 1;
            if this.used > 0 {
                return None;
            }
            if self.unused == 0 {
                self.unused = 1;
                return None;
            }
            self.remove(chunk);
            Some(chunk)
        }
    }

    /// # Safety
    ///
    /// The chunk exists, and the lock is held.
    unsafe fn has_unused(&self, chunk: NonNull<Chunk>) -> bool {
        // SAFETY: the caller's promise.
        let chunk = unsafe { chunk.as_ref() };
        let count = (CHUNK - size_of::<Chunk>()) / self.slot;
        !chunk.free.is_null() || chunk.begun < count
    }

    /// Adds a chunk with unused slots only.
    ///
    /// # Safety
    ///
    /// As for `insert`.
    unsafe fn insert_unused(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: the caller's promise.
        unsafe { self.insert(chunk) };
        self.unused += 1;
    }

    /// # Safety
    ///
    /// The chunk exists and is in no list.
    unsafe fn insert(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: the caller's promise; what is in the list exists.
        unsafe {
            (*chunk.as_ptr()).next = self.first;
            (*chunk.as_ptr()).previous = ptr::null_mut();
            if let Some(first) = self.first.as_mut() {
                first.previous = chunk.as_ptr();
            }
        }
        self.first = chunk.as_ptr();
    }

    /// # Safety
    ///
    /// The chunk is in the list.
    unsafe fn remove(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: the caller's promise; so its neighbours exist.
        unsafe {
            let Chunk { next, previous, .. } = *chunk.as_ptr();
            if let Some(next) = next.as_mut() {
                next.previous = previous;
            }
            match previous.as_mut() {
                Some(previous) => previous.next = next,
                None => self.first = next,
            }
        }
    }
}

/// A new chunk, without used slots.
fn map() -> Option<NonNull<Chunk>> {
    let address = sys::map(CHUNK, sys::SPARE).ok()?;
    let chunk = NonNull::new(ptr::with_exposed_provenance_mut::<Chunk>(address))?;
    // SAFETY: it is new, and starts at a page.
    unsafe {
        chunk.write(Chunk {
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            free: ptr::null_mut(),
            used: 0,
            begun: 0,
            generation: child::generation(),
        });
    }
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4400;
    const PER_CHUNK: usize = (CHUNK - size_of::<Chunk>()) / (SIZE.next_multiple_of(ALIGNMENT));

    fn allocate(slab: &Slab) -> Slot {
        let slot = slab.allocate(SIZE).unwrap();
        // SAFETY: so many bytes are ours.
        let bytes = unsafe { std::slice::from_raw_parts_mut(slot.memory.as_ptr(), SIZE) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(7);
        slot
    }

    fn chunks(slab: &Slab) -> usize {
        let chunks = slab.0.lock();
        let mut next = chunks.first;
        let mut count = 0;
        // SAFETY: what is in the list exists.
        while let Some(chunk) = unsafe { next.as_ref() } {
            next = chunk.next;
            count += 1;
        }
        count
    }

    #[test]
    fn slots_are_zero_and_apart_and_used_again() {
        let slab = Slab::new();
        let mut slots: Vec<Slot> = Vec::new();
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for limit in [5 * PER_CHUNK, 3, 2 * PER_CHUNK, 1] {
            for _ in 0..20 * PER_CHUNK {
                if slots.len() < limit && next(3) > 0 {
                    slots.push(allocate(&slab));
                } else if !slots.is_empty() {
                    let slot = slots.swap_remove(next(slots.len()));
                    // SAFETY: allocated above, and no longer used.
                    unsafe { slab.free(slot) };
                }
            }
            let mut addresses: Vec<_> = slots.iter().map(|slot| slot.memory.addr().get()).collect();
            addresses.sort_unstable();
            assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= SIZE));
        }
        for slot in slots {
            // SAFETY: as above.
            unsafe { slab.free(slot) };
        }
        assert_eq!(1, chunks(&slab), "the others are given back");
    }

    #[test]
    fn full_chunks_are_not_looked_at() {
        let slab = Slab::new();
        let slots: Vec<_> = (0..3 * PER_CHUNK).map(|_| allocate(&slab)).collect();
        assert_eq!(0, chunks(&slab));
        for slot in slots {
            // SAFETY: allocated above, and no longer used.
            unsafe { slab.free(slot) };
        }
        assert_eq!(1, chunks(&slab));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let slab = Slab::new();
        let _slot = allocate(&slab);
        for size in [2 * SIZE, MAX_SLOT + 1] {
            assert_eq!(Some(Refused::Size), slab.allocate(size).err());
        }
    }
}
