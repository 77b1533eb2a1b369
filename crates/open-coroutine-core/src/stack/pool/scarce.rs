//! What the pool does when addresses or mappings run out.
//!
//! * Stacks of other sizes that nobody uses are unmapped.
//! * Where each guard page is a mapping, the pool keeps some in reserve, so that
//!   stacks do not take the last ones.

use std::io;

use super::super::memory::Mappings;
use super::{Class, Layout, StackPool, State, TRIM_BATCH, Taken};
use crate::sys;

/// Pairs of mappings that stacks leave to threads, to `malloc` and to the program.
/// The pool has them while there are others, and gives them up when a stack finds
/// none: no stack can have them then, because the pool takes them first.
const RESERVE: usize = 128;

impl StackPool {
    /// Holds some mappings until the stacks have used up all others: see
    /// [`RESERVE`].
    pub(super) fn keep_reserve(&self) -> io::Result<()> {
        if self.state.lock().reserve.is_some() {
            return Ok(());
        }
        let reserve = Mappings::take(RESERVE, 0)?;
        // A statement of its own, so that the lock is free again before a drop.
        let other = self.state.lock().reserve.replace(reserve);
        drop(other);
        Ok(())
    }

    pub(super) fn leave_reserve(&self) {
        let reserve = self.state.lock().reserve.take();
        drop(reserve);
    }

    /// Unmaps some idle stacks of other sizes, for their addresses and mappings.
    /// Returns whether there were any.
    #[cold]
    pub(super) fn reclaim(&self, layout: Layout) -> bool {
        let mut batch = [Taken::Fresh(0); TRIM_BATCH];
        let taken = self.state.lock().take_idle_of_others(layout, &mut batch);
        let Some((other, count)) = taken else {
            return false;
        };
        let mut unmapped = 0;
        for &taken in &batch[..count] {
            let (Taken::Guarded(slot) | Taken::Fresh(slot)) = taken;
            // SAFETY: this function owns the slot (invariant 1).
            let is_unmapped = unsafe { sys::unmap(slot, other.stride) }.is_ok();
            unmapped += usize::from(is_unmapped);
            let mut state = self.state.lock();
            match taken {
                _ if is_unmapped => state.forget_slot(other),
                Taken::Guarded(slot) => state.class(other).cold.push(slot),
                Taken::Fresh(slot) => state.class(other).fresh.push(slot),
            }
        }
        unmapped > 0
    }
}

impl State {
    /// Takes some of the idle slots of a class other than that of `layout`.
    fn take_idle_of_others(
        &mut self,
        layout: Layout,
        batch: &mut [Taken; TRIM_BATCH],
    ) -> Option<(Layout, usize)> {
        let is_other = |class: &&mut Class| class.layout != layout;
        for class in self.classes.iter_mut().filter(is_other) {
            let mut count = 0;
            while count < TRIM_BATCH
                && let Some(taken) = class.take_coldest()
            {
                batch[count] = taken;
                count += 1;
            }
            if count > 0 {
                return Some((class.layout, count));
            }
        }
        None
    }
}

impl Class {
    /// The slot that is of the least use.
    fn take_coldest(&mut self) -> Option<Taken> {
        let fresh = self.fresh.pop().map(Taken::Fresh);
        let cold = || self.cold.pop().map(Taken::Guarded);
        let warm = || self.warm.pop_front().map(|idle| Taken::Guarded(idle.slot));
        fresh.or_else(cold).or_else(warm)
    }
}
