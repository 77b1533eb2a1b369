//! The waiters of one bucket of a `table`: a list through nodes that lie in the
//! frames that wait.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

use crate::sched::Waiter;

/// The waiters of one bucket, oldest first.
pub(super) struct List {
    first: Option<NonNull<Node>>,
    last: Option<NonNull<Node>>,
}

// SAFETY: the nodes are only touched under the bucket's lock (invariant 2 of
// `table`).
unsafe impl Send for List {}

/// One waiting coroutine, in its own frame.
pub(super) struct Node {
    pub(super) key: Cell<usize>,
    /// The bucket whose lock guards this node.
    pub(super) bucket: AtomicUsize,
    pub(super) bitset: u32,
    pub(super) waiter: Waiter,
    pub(super) is_linked: Cell<bool>,
    pub(super) previous: Cell<Option<NonNull<Node>>>,
    pub(super) next: Cell<Option<NonNull<Node>>>,
}

impl List {
    pub(super) const fn new() -> Self {
        Self {
            first: None,
            last: None,
        }
    }

    /// # Safety
    ///
    /// The list is locked, the node unlinked and in place until it is unlinked.
    pub(super) unsafe fn push(&mut self, node: NonNull<Node>) {
        // SAFETY: the caller's promise; linked nodes are alive.
        unsafe {
            node.as_ref().previous.set(self.last);
            node.as_ref().next.set(None);
            node.as_ref().is_linked.set(true);
            match self.last {
                Some(last) => last.as_ref().next.set(Some(node)),
                None => self.first = Some(node),
            }
        }
        self.last = Some(node);
    }

    /// # Safety
    ///
    /// The list is locked and the node linked in it.
    pub(super) unsafe fn unlink(&mut self, node: NonNull<Node>) {
        // SAFETY: the caller's promise; linked nodes are alive.
        unsafe {
            let (previous, next) = (node.as_ref().previous.get(), node.as_ref().next.get());
            match previous {
                Some(previous) => previous.as_ref().next.set(next),
                None => self.first = next,
            }
            match next {
                Some(next) => next.as_ref().previous.set(previous),
                None => self.last = previous,
            }
            node.as_ref().is_linked.set(false);
        }
    }

    /// The oldest node that `wanted` says yes to.
    pub(super) fn find(&self, wanted: impl Fn(&Node) -> bool) -> Option<NonNull<Node>> {
        let mut next = self.first;
        while let Some(node) = next {
            // SAFETY: linked nodes are alive, and the list is locked.
            let node_ref = unsafe { node.as_ref() };
            if wanted(node_ref) {
                return Some(node);
            }
            next = node_ref.next.get();
        }
        None
    }
}
