//! Stacks for coroutines: allocated, guarded, reused and trimmed.
//!
//! * [`StackPool`] hands out a [`Stack`] of at least the requested size;
//!   dropping the stack gives it back.
//! * Below the usable part lies a guard page: an overflow is a fault, never a
//!   write into a neighbour.
//! * Idle stacks are reused last in, first out, because the latest is the one
//!   whose pages are still in the caches. [`StackPool::trim`] returns the pages
//!   of those that were idle for long.
//!
//! `pool` holds the bookkeeping, and the platform's `memory` the system calls.
//!
//! # Layout
//!
//! A stack lies in a *slot*, whose size is its *stride*:
//!
//! ```text
//! slot                                                       slot + stride
//! | guard page | usable, at least the rounded size  | colour |
//!              usable().start                       base()
//! ```
//!
//! * The *colour*, a multiple of 128 bytes that depends on the slot, spreads
//!   the busy ends of many stacks over the sets of the first-level cache.
//! * The stride is an odd number of pages, which does the same for the TLB: at
//!   250 and 1000 stacks, visiting one took 40 ns with a stride of 32 pages and
//!   20-25 ns with 33 or 35 (Zen 3).

mod pool;

cfg_select! {
    target_os = "linux" => {
        #[path = "linux.rs"]
        mod memory;
    }
    _ => { compile_error!("no stack allocator for this platform"); }
}

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Range;

use crate::sys;

pub use pool::{StackPool, StackStats};

/// The usable size of a stack when nobody asks for another, in bytes.
pub const DEFAULT_STACK_SIZE: usize = 128 * 1024;

/// The smallest stack, in bytes; smaller requests are rounded up to it.
///
/// Processors with large register files get more: a stack holds two signal
/// frames (a preemption inside a signal handler) besides 8 KiB for the code.
pub const MIN_STACK_SIZE: usize = 16 * 1024;

/// The largest stack, in bytes: more is taken for a miscalculated size.
///
/// An eighth of the address space of the smallest supported configuration
/// (39 bits, on aarch64), so that one such stack does not use it up.
pub const MAX_STACK_SIZE: usize = 64 << 30;

/// What a coroutine's own code needs on top of signal frames.
const CODE_SIZE: usize = 8 * 1024;

/// Distance of two colours: two cache lines, which are fetched as a pair.
const COLOUR_STEP: usize = 128;

/// Number of colours. More would make small coroutines touch a second page.
const COLOURS: usize = 16;

/// Heap that goes with a stack: a coroutine's thread-local storage, its task.
const SPARE_PER_STACK: usize = 16 << 10;

/// The pool of this process.
///
/// It is a static because stacks belong to no runtime: `maybe_grow` runs on
/// plain threads, before a runtime starts and after it ended.
pub fn pool() -> &'static StackPool {
    static POOL: StackPool = StackPool::new();
    &POOL
}

/// Why there is no stack.
#[non_exhaustive]
#[derive(Debug)]
pub enum StackError {
    /// The size is beyond all reason.
    TooLarge {
        /// The requested size in bytes.
        size: usize,
        /// The largest possible size, [`MAX_STACK_SIZE`].
        max: usize,
    },
    /// The kernel gives no memory or no addresses.
    OutOfMemory {
        /// The usable size of the stack in bytes.
        size: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The stack cannot be guarded, because every guard page needs a memory
    /// mapping and the process has as many as it may have.
    OutOfMappings {
        /// The usable size of the stack in bytes.
        size: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, max } => write!(
                f,
                "cannot allocate a stack of {size} bytes, the largest has {max}"
            ),
            Self::OutOfMemory { size, .. } => write!(
                f,
                "cannot map memory for a stack of {size} bytes, see RLIMIT_AS, \
                 vm.overcommit_memory, vm.max_map_count and the memory left"
            ),
            Self::OutOfMappings { size, .. } => write!(
                f,
                "cannot guard a stack of {size} bytes, the process has as many \
                 memory mappings as vm.max_map_count allows"
            ),
        }
    }
}

impl Error for StackError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::OutOfMemory { source, .. } | Self::OutOfMappings { source, .. } => Some(source),
        }
    }
}

impl From<StackError> for io::Error {
    fn from(error: StackError) -> Self {
        let kind = match error {
            StackError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            StackError::OutOfMemory { .. } | StackError::OutOfMappings { .. } => {
                io::ErrorKind::OutOfMemory
            }
        };
        Self::new(kind, error)
    }
}

/// The lowest address that the calling thread's own stack may use.
pub fn thread_stack_limit() -> usize {
    memory::thread_stack_limit()
}

/// Whether there are memory and mappings for one thread more, and for what does
/// not fail gracefully after it: hardly any program can deal with a failed `malloc`.
///
/// # Errors
///
/// What the kernel says when there is not.
pub fn check_spare() -> io::Result<()> {
    /// A thread has a stack, and malloc may make an arena for it, each in two mappings,
    /// of which the last one may have to be split.
    const PAIRS: usize = 4;
    memory::Mappings::take(PAIRS, sys::SPARE).map(drop)
}

/// The sizes that follow from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Usable bytes promised: the request, rounded up to whole pages.
    size: usize,
    /// Bytes from one slot to the next.
    stride: usize,
}

impl Layout {
    fn of(requested: usize) -> Result<Self, StackError> {
        if requested > MAX_STACK_SIZE {
            return Err(StackError::TooLarge {
                size: requested,
                max: MAX_STACK_SIZE,
            });
        }
        let min = MIN_STACK_SIZE.max(CODE_SIZE + 2 * memory::signal_frame_size());
        let page = sys::page_size();
        let pages = requested.max(min).div_ceil(page);
        let colour_pages = (COLOURS * COLOUR_STEP).div_ceil(page);
        // `| 1` makes the stride odd and may add a page, which is usable too.
        let stride_pages = (1 + pages + colour_pages) | 1;
        Ok(Self {
            size: pages * page,
            stride: stride_pages * page,
        })
    }
}

/// An owned stack of a [`StackPool`], which gets it back on drop.
#[derive(Debug)]
pub struct Stack {
    pool: &'static StackPool,
    slot: usize,
    layout: Layout,
}

impl Stack {
    /// The highest address, where the stack starts; aligned to 128 bytes.
    #[inline]
    pub fn base(&self) -> usize {
        // Fibonacci hashing: neighbours get far colours, whatever the stride.
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let hash = ((self.slot >> 12) as u64).wrapping_mul(GOLDEN);
        let colour = (hash >> 32) as usize % COLOURS;
        self.slot + self.layout.stride - colour * COLOUR_STEP
    }

    /// The addresses that code may use, from the end of the guard page to
    /// [`base`](Self::base).
    #[inline]
    pub fn usable(&self) -> Range<usize> {
        self.guard().end..self.base()
    }

    /// The bytes that code may use: at least what was asked for.
    #[inline]
    pub fn usable_size(&self) -> usize {
        self.usable().len()
    }

    /// The addresses of the guard page, where an overflow faults.
    #[inline]
    pub fn guard(&self) -> Range<usize> {
        self.slot..self.slot + sys::page_size()
    }

    /// Gives the stack back and its pages to the system at once, where a drop
    /// keeps them for the next user until a [`trim`](StackPool::trim).
    pub fn release(self) {
        self.pool.release(self.slot, self.layout);
        // The pool has the slot again: dropping would give it back twice.
        mem::forget(self);
    }
}

impl Drop for Stack {
    #[inline]
    fn drop(&mut self) {
        self.pool.give_back(self.slot, self.layout);
    }
}

// SAFETY: the slot is mapped, and belongs to `self` alone until it is dropped
// (invariant 1 of `pool`); it starts with a guard page (invariant 2), above
// which at least `MIN_STACK_SIZE` bytes are readable and writable (`Layout::of`).
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> NonZeroUsize {
        NonZeroUsize::new(Stack::base(self)).expect("no stack lies at address 0")
    }

    /// Unlike `usable().start` this includes the guard page, as corosensei
    /// wants it.
    #[inline]
    fn limit(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.slot).expect("no stack lies at address 0")
    }
}
