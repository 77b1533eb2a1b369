//! Sections in which the running code must not be preempted.
//!
//! A flow of control (a thread, or a coroutine with thread-local storage of its
//! own) counts the sections that it is in. Preemption looks at that number on
//! the flow's own thread, from a signal handler, so plain loads and stores are
//! enough. A new flow begins in one section: plain threads never leave it, and a
//! coroutine does while its task runs.
//!
//! Who wants to preempt and finds the flow in a section leaves a note, which the
//! flow acts on when it leaves the last section.
//!
//! # Invariants
//!
//! 1. The number is 0 only while code of a task runs, and nothing of the runtime
//!    that others wait for is held: no [`Lock`](super::lock::Lock), no worker.
//! 2. No suspension happens at 0: it is a section itself.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::compiler_fence;

/// Somebody wants the processor.
const WANTED: u32 = 1 << 31;

/// The number of sections that a flow begins with.
const INITIAL: u32 = 1;

thread_local! {
    static SECTIONS: Cell<u32> = const { Cell::new(INITIAL) };
}

/// What a flow does that leaves its last section and is [`WANTED`]. Static because
/// this module knows nothing of those above it.
static GIVE_WAY: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// A section; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the section ends when this is dropped"]
pub struct Section(PhantomData<*const ()>);

/// Begins a section.
#[inline(always)]
pub fn section() -> Section {
    enter();
    Section(PhantomData)
}

impl Drop for Section {
    #[inline(always)]
    fn drop(&mut self) {
        leave();
    }
}

/// Runs `body` in a section: it is not preempted.
///
/// A long section keeps the others waiting, as a long computation does where
/// preemption is off.
#[inline]
pub fn no_preempt<R>(body: impl FnOnce() -> R) -> R {
    let _section = section();
    body()
}

/// Begins a section that [`leave`] ends.
#[inline(always)]
pub(crate) fn enter() {
    SECTIONS.set(SECTIONS.get() + 1);
    // The handler runs on this very thread: what follows must stay in here.
    compiler_fence(SeqCst);
}

/// Ends a section.
#[inline(always)]
pub(crate) fn leave() {
    compiler_fence(SeqCst);
    let sections = SECTIONS.get() - 1;
    SECTIONS.set(sections);
    if sections == WANTED {
        give_way();
    }
}

/// Ends a section after a suspension: what was wanted before has been done.
#[inline(always)]
pub(crate) fn leave_quietly() {
    compiler_fence(SeqCst);
    SECTIONS.set((SECTIONS.get() & !WANTED) - 1);
}

/// Ends a section in a signal handler that may not suspend: the flow is to give
/// way when it can.
pub(crate) fn leave_wanted() {
    compiler_fence(SeqCst);
    SECTIONS.set((SECTIONS.get() | WANTED) - 1);
}

#[cold]
#[inline(never)]
fn give_way() {
    // Acquire: pairs with the Release in `on_wanted`.
    let function = GIVE_WAY.load(Acquire);
    if !function.is_null() {
        // SAFETY: `on_wanted` stored a function of this type.
        unsafe { std::mem::transmute::<*mut (), fn()>(function)() };
    }
}

/// Has `function` called by flows that are wanted and leave their last section.
pub(crate) fn on_wanted(function: fn()) {
    // Release: pairs with the Acquire in `give_way`.
    GIVE_WAY.store(function as *mut (), Release);
}

/// Whether the caller is in a section. Async-signal-safe.
#[inline]
pub(crate) fn is_in_section() -> bool {
    SECTIONS.get() & !WANTED != 0
}

/// The number of sections, for who has several flows on one thread-local storage.
/// Returns the one before.
pub(crate) fn replace(sections: u32) -> u32 {
    SECTIONS.replace(sections)
}

/// What [`replace`] is given for a flow that has not begun.
pub(crate) const fn initial() -> u32 {
    INITIAL
}

/// A task begins: from here on its flow may be preempted.
pub(crate) fn begin_task() {
    SECTIONS.set(INITIAL);
    leave();
}

/// A task has ended: its flow is as a new one.
pub(crate) fn end_task() {
    SECTIONS.set(INITIAL);
    compiler_fence(SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_thread_is_always_in_a_section() {
        assert!(is_in_section());
        no_preempt(|| assert!(is_in_section()));
        assert!(is_in_section());
    }

    #[test]
    fn a_wanted_flow_gives_way_when_it_leaves_the_last_section() {
        thread_local! {
            static CALLS: Cell<u32> = const { Cell::new(0) };
        }
        let before = GIVE_WAY.load(Acquire);
        on_wanted(|| {
            CALLS.set(CALLS.get() + 1);
            enter();
            leave_quietly();
        });
        begin_task();
        assert!(!is_in_section());
        {
            let _outer = section();
            let inner = section();
            enter();
            leave_wanted();
            drop(inner);
            assert_eq!(0, CALLS.get());
        }
        assert_eq!(1, CALLS.get());
        drop(section());
        assert_eq!(1, CALLS.get());
        end_task();
        GIVE_WAY.store(before, Release);
    }
}
