//! The pool: which slots exist, who has them, which are guarded.
//!
//! Every rounded size has a *class*. Stacks of ordinary size are cut out of
//! slabs that double, so that few stacks map little and a million need few
//! mappings; a huge stack has a mapping of its own, which goes when it is
//! trimmed. The addresses of a slab are kept; only its pages are given back.
//!
//! A slot that no [`Stack`] owns is in one of the lists of its class:
//!
//! * `warm`: guarded, its pages still there; oldest first. Taken from the back.
//! * `cold`: guarded, its pages given back.
//! * `fresh`: never used and not guarded yet.
//!
//! `scarce` is about what happens when there is no room for more.
//!
//! # Invariants
//!
//! 1. A slot has one owner: a `Stack`, one list of its class, or the function
//!    of this module that moves it.
//! 2. A slot in `warm`, in `cold` or owned by a `Stack` starts with a guard page.
//! 3. Each list of a class has room for all its slots, so that giving a stack
//!    back never allocates.
//! 4. `classes` is sorted by size, without duplicates; a class without slots
//!    is removed, others never.
//! 5. No system call is made while the lock is held.

mod scarce;

use std::collections::{TryReserveError, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::memory::Mappings;
use super::{Layout, SPARE_PER_STACK, Stack, StackError, memory};
use crate::sys;
use crate::util::lock::Lock;

/// Larger strides get a mapping of their own.
const LARGEST_IN_SLAB: usize = 2 << 20;

/// How many stacks the first slab of a class holds.
const FIRST_SLAB: usize = 4;

/// Slabs stop growing here: a million default stacks are some 300 of them.
const LARGEST_SLAB: usize = 512 << 20;

/// How many stacks `trim` moves at a time. They are in nobody's reach
/// meanwhile, so it is small.
const TRIM_BATCH: usize = 32;

/// Allocates stacks and reuses them.
#[derive(Debug)]
pub struct StackPool {
    state: Lock<State>,
}

/// How many stacks a pool has.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Stacks in use.
    pub live: usize,
    /// Stacks that wait for reuse and still hold memory.
    pub idle: usize,
}

/// How guard pages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guards {
    /// By marks, if the first one turns out to work.
    Untested,
    /// By marks in the page table.
    Marks,
    /// By a mapping each.
    Protection,
}

#[derive(Debug)]
struct State {
    guards: Guards,
    /// Only where each guard page is a mapping.
    reserve: Option<Mappings>,
    classes: Vec<Class>,
}

#[derive(Debug)]
struct Class {
    layout: Layout,
    /// All slots of this size, wherever they are.
    total: usize,
    warm: VecDeque<Idle>,
    cold: Vec<usize>,
    fresh: Vec<usize>,
}

#[derive(Debug)]
struct Idle {
    slot: usize,
    /// When it was given back, by the clock of `memory::now`.
    since: Duration,
}

/// A slot that was in a list, and whether it is guarded.
#[derive(Clone, Copy)]
enum Taken {
    Guarded(usize),
    Fresh(usize),
}

impl StackPool {
    /// An empty pool. It guards stacks in the cheapest way that works here.
    pub const fn new() -> Self {
        Self::with(Guards::Untested)
    }

    /// An empty pool that guards every stack by `mprotect`, as on kernels
    /// older than Linux 6.13.
    pub const fn with_protected_guards() -> Self {
        Self::with(Guards::Protection)
    }

    const fn with(guards: Guards) -> Self {
        Self {
            state: Lock::new(State::new(guards)),
        }
    }

    /// A stack of at least `size` usable bytes. The size is rounded up to
    /// whole pages and to [`MIN_STACK_SIZE`](super::MIN_STACK_SIZE), so 0 means
    /// the smallest.
    ///
    /// # Errors
    ///
    /// [`StackError`]: the size is absurd, or memory, addresses or mappings are
    /// used up. The pool stays usable: once there is room, so are new stacks.
    pub fn allocate(&'static self, size: usize) -> Result<Stack, StackError> {
        let layout = Layout::of(size)?;
        // A statement of its own, so that the lock is free again after it.
        let taken = self.state.lock().take(layout);
        let slot = match taken {
            Some(Taken::Guarded(slot)) => slot,
            Some(Taken::Fresh(slot)) => self.guard_or_return(slot, layout)?,
            None => self.grow(layout)?,
        };
        Ok(Stack {
            pool: self,
            slot,
            layout,
        })
    }

    /// Gives back the pages of the stacks that have been idle for `idle_for`,
    /// and the addresses too of huge ones. Returns how many stacks that were.
    pub fn trim(&self, idle_for: Duration) -> usize {
        let Some(cutoff) = memory::now().checked_sub(idle_for) else {
            return 0;
        };
        let mut given_back = 0;
        let mut batch = [0; TRIM_BATCH];
        loop {
            let oldest = self.state.lock().take_oldest(cutoff, &mut batch);
            let Some((layout, count)) = oldest else {
                return given_back;
            };
            for &slot in &batch[..count] {
                given_back += usize::from(self.release(slot, layout));
            }
        }
    }

    /// When a [`trim`](Self::trim) with the same `idle_for` will have work, if
    /// there is an idle stack at all.
    pub fn next_trim(&self, idle_for: Duration) -> Option<Instant> {
        let oldest = self.state.lock().oldest()?;
        let due = oldest.checked_add(idle_for)?;
        Instant::now().checked_add(due.saturating_sub(memory::now()))
    }

    /// How many stacks there are now.
    pub fn stats(&self) -> StackStats {
        let state = self.state.lock();
        let mut stats = StackStats::default();
        for class in &state.classes {
            let listed = class.warm.len() + class.cold.len() + class.fresh.len();
            stats.live += class.total - listed;
            stats.idle += class.warm.len();
        }
        stats
    }

    /// Whether each guard page costs a mapping, which limits the number of
    /// stacks to half of vm.max_map_count. Known after the first stack.
    pub fn is_limited_by_mappings(&self) -> bool {
        self.state.lock().guards == Guards::Protection
    }

    /// Goes on in the child of a fork: if another thread was about to change what
    /// there is, all of it is forgotten but for the stacks in use.
    ///
    /// # Safety
    ///
    /// No other thread exists, and the caller's is not inside this module.
    pub unsafe fn abandon(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.abandon_held(State::new(Guards::Untested)) };
    }

    /// Takes the slot of a stack, warm, from its last owner.
    #[inline]
    pub(super) fn give_back(&self, slot: usize, layout: Layout) {
        let since = memory::recently();
        let mut state = self.state.lock();
        state.class(layout).warm.push_back(Idle { slot, since });
    }

    /// Takes a guarded slot from its owner and gives its pages back, and
    /// returns whether that worked.
    pub(super) fn release(&self, slot: usize, layout: Layout) -> bool {
        if self.unmap_if_huge(slot, layout) {
            return true;
        }
        let page = sys::page_size();
        // SAFETY: this function owns the slot (invariant 1), and what a stack
        // without an owner holds is of no use to anybody.
        let result = unsafe { memory::discard(slot + page, layout.stride - page) };
        // Also when the kernel refuses, as for locked memory: it would again.
        self.state.lock().class(layout).cold.push(slot);
        result.is_ok()
    }

    /// Unmaps a slot that has a mapping of its own. On `true` it is no more.
    fn unmap_if_huge(&self, slot: usize, layout: Layout) -> bool {
        if layout.stride <= LARGEST_IN_SLAB {
            return false;
        }
        // SAFETY: the caller owns the slot (invariant 1).
        let is_unmapped = unsafe { sys::unmap(slot, layout.stride) }.is_ok();
        if is_unmapped {
            self.state.lock().forget_slot(layout);
        }
        is_unmapped
    }

    /// Maps a slab for the class of `layout`, and returns its first slot,
    /// guarded.
    #[cold]
    fn grow(&self, layout: Layout) -> Result<usize, StackError> {
        let out_of_memory = |source| StackError::OutOfMemory {
            size: layout.size,
            source,
        };
        let mut count = self.state.lock().next_slab(layout);
        let start = loop {
            match sys::map(count * layout.stride, sys::SPARE + count * SPARE_PER_STACK) {
                Ok(start) => break start,
                // A smaller slab may fit where the limit is near.
                Err(_) if count > 1 => count /= 2,
                Err(_) if self.reclaim(layout) => {}
                Err(source) => return Err(out_of_memory(source)),
            }
        };
        let added = self.state.lock().add_slab(start, count, layout);
        if added.is_err() {
            // SAFETY: the slab was mapped above and is in no list. Should
            // unmapping fail too, addresses are lost, but nothing else.
            let _ = unsafe { sys::unmap(start, count * layout.stride) };
            return Err(out_of_memory(io::ErrorKind::OutOfMemory.into()));
        }
        self.guard_or_return(start, layout)
    }

    /// Guards a fresh slot, or puts it back where it came from.
    fn guard_or_return(&self, slot: usize, layout: Layout) -> Result<usize, StackError> {
        let result = self.guard(slot, layout);
        if result.is_err() && !self.unmap_if_huge(slot, layout) {
            self.state.lock().class(layout).fresh.push(slot);
        }
        result.map(|()| slot)
    }

    fn guard(&self, slot: usize, layout: Layout) -> Result<(), StackError> {
        let size = layout.size;
        let page = sys::page_size();
        let guards = self.state.lock().guards;
        if guards != Guards::Protection {
            // SAFETY: the caller owns the slot (invariant 1), which is fresh.
            match unsafe { memory::guard_by_marks(slot, page) } {
                Ok(()) if guards == Guards::Marks => return Ok(()),
                // Emulators may ignore advice that they do not know.
                Ok(()) if !memory::is_readable(slot) => {
                    self.state.lock().guards = Guards::Marks;
                    return Ok(());
                }
                Err(source) if source.raw_os_error() == Some(libc::ENOMEM) => {
                    return Err(StackError::OutOfMemory { size, source });
                }
                // The kernel is too old, or the memory is locked (mlockall).
                Ok(()) | Err(_) => self.state.lock().guards = Guards::Protection,
            }
        }
        loop {
            let protected = self.keep_reserve().and_then(|()| {
                // SAFETY: as above.
                unsafe { memory::guard_by_protection(slot, page) }
            });
            let Err(source) = protected else {
                return Ok(());
            };
            self.leave_reserve();
            if !self.reclaim(layout) {
                return Err(StackError::OutOfMappings { size, source });
            }
        }
    }
}

impl Default for StackPool {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    const fn new(guards: Guards) -> Self {
        Self {
            guards,
            reserve: None,
            classes: Vec::new(),
        }
    }

    fn find(&self, layout: Layout) -> Result<usize, usize> {
        self.classes
            .binary_search_by_key(&layout.size, |class| class.layout.size)
    }

    /// The class of a slot that is not in a list.
    fn class(&mut self, layout: Layout) -> &mut Class {
        let index = self.find(layout).unwrap_or_else(|index| {
            // A class stays while it has slots (invariant 4), but for the stacks
            // that `abandon` leaves in use. This is the first one to come back.
            let mut class = Class::new(layout);
            class.total = 1;
            self.classes.insert(index, class);
            index
        });
        &mut self.classes[index]
    }

    fn take(&mut self, layout: Layout) -> Option<Taken> {
        let index = self.find(layout).ok()?;
        let class = &mut self.classes[index];
        if let Some(idle) = class.warm.pop_back() {
            return Some(Taken::Guarded(idle.slot));
        }
        if let Some(slot) = class.cold.pop() {
            return Some(Taken::Guarded(slot));
        }
        class.fresh.pop().map(Taken::Fresh)
    }

    /// Takes some of the warm slots of one class that were given back before
    /// `cutoff` into `batch`, and returns their number.
    fn take_oldest(
        &mut self,
        cutoff: Duration,
        batch: &mut [usize; TRIM_BATCH],
    ) -> Option<(Layout, usize)> {
        let is_due = |idle: &mut Idle| idle.since <= cutoff;
        for class in &mut self.classes {
            let mut count = 0;
            while count < TRIM_BATCH
                && let Some(idle) = class.warm.pop_front_if(is_due)
            {
                batch[count] = idle.slot;
                count += 1;
            }
            if count > 0 {
                return Some((class.layout, count));
            }
        }
        None
    }

    fn oldest(&self) -> Option<Duration> {
        let fronts = self.classes.iter().filter_map(|class| class.warm.front());
        fronts.map(|idle| idle.since).min()
    }

    /// How many slots the next slab of this class should have.
    fn next_slab(&self, layout: Layout) -> usize {
        if layout.stride > LARGEST_IN_SLAB {
            return 1;
        }
        let total = self.find(layout).map_or(0, |i| self.classes[i].total);
        total.clamp(FIRST_SLAB, LARGEST_SLAB / layout.stride)
    }

    /// Adds the slots of a slab. The first one is the caller's, others `fresh`.
    fn add_slab(
        &mut self,
        start: usize,
        count: usize,
        layout: Layout,
    ) -> Result<(), TryReserveError> {
        let index = match self.find(layout) {
            Ok(index) => index,
            Err(index) => {
                self.classes.try_reserve(1)?;
                let mut class = Class::new(layout);
                class.reserve(count)?;
                self.classes.insert(index, class);
                index
            }
        };
        let class = &mut self.classes[index];
        class.reserve(count)?;
        class.total += count;
        // Reversed, so that slots are taken by rising address.
        let rest = (1..count).rev().map(|i| start + i * layout.stride);
        class.fresh.extend(rest);
        Ok(())
    }

    /// Removes one unlisted slot of this class, and the class with its last.
    fn forget_slot(&mut self, layout: Layout) {
        let class = self.class(layout);
        class.total -= 1;
        if class.total == 0 {
            self.classes.retain(|class| class.total > 0);
        }
    }
}

impl Class {
    fn new(layout: Layout) -> Self {
        Self {
            layout,
            total: 0,
            warm: VecDeque::new(),
            cold: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Makes room for `count` more slots in each list (invariant 3).
    fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        let total = self.total + count;
        self.warm.try_reserve(total - self.warm.len())?;
        self.cold.try_reserve(total - self.cold.len())?;
        self.fresh.try_reserve(total - self.fresh.len())
    }
}
