//! Blocks: ids, and the list of those that are alive.

use std::alloc;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::Ordering::Relaxed;

use super::arch;
use super::layout::{LEVELS, Layout, Specific};
use super::slab::{Chunk, Refused, Slab, Slot};
use super::Isolation;
use crate::util::lock::Lock;

/// Ids of blocks start here: no kernel gives a thread such an id, and futexes
/// still have room for it.
const FIRST_ID: i32 = 0x2000_0000;
/// The first bits above it mean something else in a futex.
const END_OF_IDS: i32 = 0x3fff_0000;

const SHARDS: usize = 8;

const NO_MEMORY: &str = "cannot allocate thread-local storage, see RLIMIT_AS, RLIMIT_DATA, \
     vm.overcommit_memory, vm.max_map_count and the memory left";

/// Whether a thread descriptor with this id is that of a block.
pub(super) fn is_id(thread_id: i32) -> bool {
    (FIRST_ID..END_OF_IDS).contains(&thread_id)
}

/// What lies in front of a block.
#[repr(C, align(16))]
struct Header {
    next: *mut Header,
    previous: *mut Header,
    thread_pointer: *mut u8,
    /// Where the memory is from; malloc's if it is not from a chunk.
    chunk: Option<NonNull<Chunk>>,
    thread_id: i32,
}

/// The memory of all blocks. Static because blocks may outlive what made them.
static SLAB: Slab = Slab::new();

/// In the child of a fork: see [`Slab::abandon`].
///
/// # Safety
///
/// As for that.
pub(super) unsafe fn abandon() {
    // SAFETY: the caller's promise.
    unsafe { SLAB.abandon() };
}

/// The memory of a block that is in no list.
pub(super) struct Memory(NonNull<Header>);

impl Memory {
    /// Asks glibc for a block, in memory of our own; `None` without memory.
    pub(super) fn allocate(layout: &Layout) -> Option<Self> {
        let memory_layout = memory_layout(layout)?;
        let (below, _) = layout.span();
        let (memory, chunk) = match SLAB.allocate(memory_layout.size()) {
            Ok(slot) => (slot.memory.as_ptr(), Some(slot.chunk)),
            // It leaves what it must not use to malloc.
            Err(Refused::Memory) => return None,
            // SAFETY: the size is not 0.
            Err(Refused::Size) => (unsafe { alloc::alloc_zeroed(memory_layout) }, None),
        };
        let header = NonNull::new(memory.cast::<Header>())?;
        let start = memory as usize + size_of::<Header>() + below;
        let thread_pointer = memory.wrapping_add(start.next_multiple_of(layout.alignment) - memory as usize);
        // SAFETY: `static_size` and the descriptor fit around the pointer,
        // which is aligned as glibc wants it.
        let made = unsafe { (layout.allocate)(thread_pointer.cast()) };
        // SAFETY: the memory starts with room for a header.
        unsafe {
            header.write(Header {
                next: ptr::null_mut(),
                previous: ptr::null_mut(),
                thread_pointer,
                chunk,
                thread_id: 0,
            });
        }
        let memory = Self(header);
        if made.is_null() {
            memory.give_back(memory_layout);
            return None;
        }
        Some(memory)
    }

    /// Gives the memory back, on which glibc has nothing any more.
    fn give_back(self, layout: alloc::Layout) {
        let memory = self.0.cast::<u8>();
        // SAFETY: `allocate` has got it so, and `self` is its only owner.
        unsafe {
            match self.0.as_ref().chunk {
                Some(chunk) => SLAB.free(Slot { memory, chunk }),
                None => alloc::dealloc(memory.as_ptr(), layout),
            }
        }
    }

    pub(super) fn thread_pointer(&self) -> *mut u8 {
        // SAFETY: `allocate` wrote the header.
        unsafe { self.0.as_ref().thread_pointer }
    }

    /// Gives everything back.
    pub(super) fn free(self, layout: &Layout) {
        let block = self.thread_pointer();
        // SAFETY: `allocate` made the block in memory of this layout; `self`
        // is its only owner.
        unsafe {
            free_upper_levels(layout, block);
            (layout.deallocate)(block.cast(), false);
        }
        if let Some(memory_layout) = memory_layout(layout) {
            self.give_back(memory_layout);
        }
    }
}

fn memory_layout(layout: &Layout) -> Option<alloc::Layout> {
    let (below, above) = layout.span();
    // Aligned by hand: malloc is faster without an alignment.
    let size = size_of::<Header>() + below + layout.alignment + above;
    alloc::Layout::from_size_align(size, align_of::<Header>()).ok()
}

/// Copies `image` to `bytes` where they differ: mostly in few places, and
/// reading is cheaper than writing.
fn restore(bytes: &mut [u8], image: &[u8]) {
    const STEP: usize = 256;
    for (bytes, image) in bytes.chunks_mut(STEP).zip(image.chunks(STEP)) {
        if bytes != image {
            bytes.copy_from_slice(image);
        }
    }
}

/// Frees the tables of pthread keys that do not fit the descriptor.
///
/// # Safety
///
/// `block` is the thread pointer of a block on which nobody runs.
unsafe fn free_upper_levels(layout: &Layout, block: *mut u8) {
    // SAFETY: the descriptor has `LEVELS` pointers there; glibc allocated all
    // but the first with calloc.
    unsafe {
        let levels = block.offset(layout.specific).cast::<*mut Specific>();
        for level in 1..LEVELS {
            let table = levels.add(level).replace(ptr::null_mut());
            if !table.is_null() {
                libc::free(table.cast());
            }
        }
    }
}

/// The TLS of one coroutine.
pub struct Block {
    memory: NonNull<Header>,
    thread_pointer: *mut u8,
    isolation: &'static Isolation,
}

// SAFETY: a block is memory without ties to the thread that made it; running
// on it needs unsafe functions whose contract asks for exclusive use.
unsafe impl Send for Block {}

impl Block {
    /// A block for a new coroutine.
    ///
    /// # Errors
    ///
    /// Out of memory, or `EAGAIN` when half a thousand million blocks are alive.
    pub fn new(isolation: &'static Isolation) -> io::Result<Self> {
        loop {
            let adoptions = isolation.adoptions.load(Relaxed);
            let Some(memory) = Memory::allocate(&isolation.layout) else {
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, NO_MEMORY));
            };
            // If modules are being added, either `around_dlopen` finds the block
            // in the list or the block is allocated again, with the modules.
            let is_complete = || adoptions == isolation.adoptions.load(Relaxed);
            match isolation.live.insert(memory.0, is_complete) {
                Ok(Some(thread_id)) => {
                    let thread_pointer = memory.thread_pointer();
                    // SAFETY: nobody runs on the block yet.
                    unsafe { isolation.layout.personalise(thread_pointer, thread_id) };
                    return Ok(Self {
                        memory: memory.0,
                        thread_pointer,
                        isolation,
                    });
                }
                Ok(None) => memory.free(&isolation.layout),
                Err(error) => {
                    memory.free(&isolation.layout);
                    return Err(error);
                }
            }
        }
    }

    /// Makes the block as new for the next task, on which [`super::end`] has
    /// been called. Returns whether that worked: if not, something of the
    /// former task is left (variables of a module that was loaded later), and
    /// the block must be dropped.
    ///
    /// # Safety
    ///
    /// Nobody runs on the block, and nobody keeps a reference to one of its
    /// variables.
    #[must_use]
    pub unsafe fn reset(&mut self) -> bool {
        let isolation = self.isolation;
        let layout = &isolation.layout;
        let block = self.thread_pointer;
        let mut has_dynamic = false;
        // SAFETY: `block` was made by glibc.
        unsafe { layout.for_each_module(block, |_, _, dynamic| has_dynamic |= dynamic) };
        if has_dynamic {
            return false;
        }
        let template = isolation.template();
        // SAFETY: the template was taken from a block of the same layout, and
        // nobody else uses this one.
        unsafe {
            let vector = block.offset(arch::DTV).cast::<usize>().read();
            for &offset in &isolation.transient {
                block.offset(offset).cast::<u64>().write(template.word(offset));
            }
            let start = block.offset(template.start);
            let bytes = slice::from_raw_parts_mut(start, template.image.len());
            if *bytes != *template.image {
                free_upper_levels(layout, block);
                restore(bytes, &template.image);
            }
            layout.personalise(block, self.thread_id());
            block.offset(arch::DTV).cast::<usize>().write(vector);
        }
        true
    }

    /// What code on the block has as the id of its thread, in its thread
    /// descriptor. No other live block and no thread has it.
    pub fn thread_id(&self) -> i32 {
        // SAFETY: the header lives as long as `self`, and its id is constant.
        unsafe { (*self.memory.as_ptr()).thread_id }
    }

    #[inline(always)]
    pub(super) fn thread_pointer(&self) -> *mut u8 {
        self.thread_pointer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.isolation.live.remove(self.memory);
        Memory(self.memory).free(&self.isolation.layout);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("thread_id", &self.thread_id())
            .finish_non_exhaustive()
    }
}

/// All live blocks, and the ids of those that are gone.
pub(super) struct Registry([Lock<Shard>; SHARDS]);

/// The blocks whose address maps to one lock.
struct Shard {
    first: *mut Header,
    /// Ids to use again; its capacity is at least `issued`.
    free_ids: Vec<i32>,
    issued: i32,
}

// SAFETY: the list is only followed with the lock held.
unsafe impl Send for Shard {}

impl Registry {
    pub(super) const fn new() -> Self {
        Self(
            [const {
                Lock::new(Shard {
                    first: ptr::null_mut(),
                    free_ids: Vec::new(),
                    issued: 0,
                })
            }; SHARDS],
        )
    }

    /// # Safety
    ///
    /// As for [`super::abandon`].
    pub(super) unsafe fn abandon(&self) {
        for shard in &self.0 {
            // SAFETY: the caller's promise. How many ids were issued is one number,
            // which is whole at any time.
            unsafe {
                let issued = shard.peek().issued;
                shard.abandon_held(Shard {
                    first: ptr::null_mut(),
                    free_ids: Vec::new(),
                    issued,
                });
            }
        }
    }

    fn shard(block: NonNull<Header>) -> usize {
        let address = block.as_ptr() as usize;
        (address >> 12 ^ address >> 15) % SHARDS
    }

    /// Lists the block and gives it an id, if `is_complete` says so while the
    /// lock is held.
    fn insert(
        &self,
        block: NonNull<Header>,
        is_complete: impl FnOnce() -> bool,
    ) -> io::Result<Option<i32>> {
        let index = Self::shard(block);
        let mut shard = self.0[index].lock();
        if !is_complete() {
            return Ok(None);
        }
        let id = shard.take_id(index as i32)?;
        // SAFETY: the caller owns `block`, and listed blocks stay allocated
        // until `remove`.
        unsafe {
            (*block.as_ptr()).thread_id = id;
            (*block.as_ptr()).next = shard.first;
            (*block.as_ptr()).previous = ptr::null_mut();
            if let Some(next) = shard.first.as_mut() {
                next.previous = block.as_ptr();
            }
        }
        shard.first = block.as_ptr();
        Ok(Some(id))
    }

    fn remove(&self, block: NonNull<Header>) {
        let mut shard = self.0[Self::shard(block)].lock();
        // SAFETY: `block` and its neighbours are in the list.
        unsafe {
            let Header { next, previous, thread_id, .. } = *block.as_ptr();
            match previous.as_mut() {
                Some(previous) => previous.next = next,
                None => shard.first = next,
            }
            if let Some(next) = next.as_mut() {
                next.previous = previous;
            }
            // Within the capacity that `take_id` has reserved.
            shard.free_ids.push(thread_id);
        }
    }

    /// Calls `visit` with the thread pointer of each live block.
    pub(super) fn for_each(&self, visit: impl Fn(*mut u8)) {
        for shard in &self.0 {
            let shard = shard.lock();
            let mut next = shard.first;
            // SAFETY: listed blocks stay allocated while the lock is held.
            while let Some(header) = unsafe { next.as_ref() } {
                visit(header.thread_pointer);
                next = header.next;
            }
        }
    }
}

impl Shard {
    fn take_id(&mut self, index: i32) -> io::Result<i32> {
        if let Some(id) = self.free_ids.pop() {
            return Ok(id);
        }
        let id = FIRST_ID + self.issued * SHARDS as i32 + index;
        if id >= END_OF_IDS {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        self.free_ids
            .try_reserve(self.issued as usize + 1)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        self.issued += 1;
        Ok(id)
    }
}
