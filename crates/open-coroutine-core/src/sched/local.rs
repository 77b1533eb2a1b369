//! What the running code knows of the runtime: its coroutine and its carrier.
//!
//! In full mode a coroutine has a copy of its own, in its own thread-local
//! storage, whose `coroutine` never changes while it runs a task; so the
//! compiler may keep the address across suspensions. In restricted mode the
//! worker sets and clears the thread's copy around each resume.
//!
//! In the child of a fork, the coroutine that forked is none any more, but it is
//! still on its stack and on its storage.

use std::cell::Cell;
use std::ptr;

use super::carrier::Carrier;
use super::scheduled::Scheduled;

struct Local {
    coroutine: Cell<*const Scheduled>,
    /// Only set on the thread's own stack and storage, see [`carrier`].
    carrier: Cell<*const Carrier>,
    /// The coroutine that the caller was in the parent of this process.
    left: Cell<*const Scheduled>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            coroutine: Cell::new(ptr::null()),
            carrier: Cell::new(ptr::null()),
            left: Cell::new(ptr::null()),
        }
    };
}

/// The coroutine that the caller runs on, or null.
#[inline]
pub(super) fn coroutine() -> *const Scheduled {
    LOCAL.with(|local| local.coroutine.get())
}

/// Sets what [`coroutine`] returns.
#[inline]
pub(super) fn set_coroutine(coroutine: *const Scheduled) {
    LOCAL.with(|local| local.coroutine.set(coroutine));
}

/// Sets what [`carrier`] returns on this thread's own stack.
pub(super) fn set_carrier(carrier: *const Carrier) {
    LOCAL.with(|local| local.carrier.set(carrier));
}

/// The thread that the caller runs on, as a coroutine or as its scheduler, or
/// null. On a coroutine it is valid until the next suspension, and so as long as
/// the caller is in a section.
#[inline]
pub(super) fn carrier() -> *const Carrier {
    LOCAL.with(|local| {
        let coroutine = local.coroutine.get();
        if coroutine.is_null() {
            local.carrier.get()
        } else {
            // SAFETY: code that runs on a coroutine keeps it alive.
            unsafe { (*coroutine).carrier() }
        }
    })
}

/// From here on the caller is no coroutine, and the thread no carrier of one.
pub(super) fn leave() {
    LOCAL.with(|local| {
        local.left.set(local.coroutine.replace(ptr::null()));
        local.carrier.set(ptr::null());
    });
}

/// The coroutine that the caller was before it called [`leave`], or null.
pub(super) fn left() -> *const Scheduled {
    LOCAL.with(|local| local.left.get())
}
