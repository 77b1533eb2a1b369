//! What a thread does when it starts and when it ends, done for a task.
//!
//! One thing is left out, because glibc exports no function for it: a buffer
//! that `strerror` or `strsignal` allocated for an unknown number is leaked.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::Isolation;
use super::arch;
use super::layout::{Destructor, KEYS_PER_LEVEL, LEVELS, Layout, Specific};

/// How often destructors may set values again, as in glibc.
const ROUNDS: usize = 4;
/// Where `struct __res_state` has the number of name servers.
const NAME_SERVER_COUNT: usize = 16;

/// Destructors as the hook saw them, by key. Used with versions of glibc that
/// do not export their own table. Static because keys are, and because keys
/// are created before anything else of this crate exists.
static DESTRUCTORS: [AtomicPtr<c_void>; KEYS_PER_LEVEL * LEVELS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; KEYS_PER_LEVEL * LEVELS];

/// Takes note of a new pthread key, whose values [`end`] then destroys also
/// with versions of glibc that do not tell.
///
/// # Safety
///
/// `pthread_key_create` has just returned `key` for this destructor.
pub unsafe fn key_created(key: libc::pthread_key_t, destructor: Option<Destructor>) {
    note(key, destructor.map_or(ptr::null_mut(), |function| function as *mut c_void));
}

/// Takes note that a pthread key is being deleted.
pub fn key_deleted(key: libc::pthread_key_t) {
    note(key, ptr::null_mut());
}

fn note(key: libc::pthread_key_t, destructor: *mut c_void) {
    if let Some(slot) = DESTRUCTORS.get(key as usize) {
        // Release: pairs with the Acquire in `noted_destructor`.
        slot.store(destructor, Release);
    }
}

pub(super) fn noted_destructor(key: usize) -> Option<Destructor> {
    // Acquire: pairs with the Release in `note`.
    let pointer = DESTRUCTORS[key].load(Acquire);
    // SAFETY: `key_created` stored a function of this type, or null.
    unsafe { std::mem::transmute(pointer) }
}

/// Starts a task on a block that is new or reset.
///
/// # Safety
///
/// The caller runs on that block.
pub unsafe fn begin(isolation: &Isolation) {
    // SAFETY: glibc calls it on each new thread in the same way.
    unsafe { (isolation.layout.ctype_init)() };
}

/// Ends a task: destroys its thread-local variables and the values of its
/// pthread keys. That runs user code, which may suspend.
///
/// # Safety
///
/// The caller runs on the task's block, on which `begin` was called.
pub unsafe fn end(isolation: &Isolation) {
    // SAFETY: passed on.
    unsafe { end_thread(&isolation.layout) };
}

/// # Safety
///
/// The caller runs on a block.
pub(super) unsafe fn end_thread(layout: &Layout) {
    // SAFETY: glibc calls it on each ending thread in the same way.
    unsafe { (layout.call_tls_dtors)() };
    for _ in 0..ROUNDS {
        // SAFETY: the flag is a byte of the block's descriptor; for the rest
        // see the caller's promise.
        let again = unsafe {
            let flag = arch::thread_pointer().offset(layout.specific_used());
            flag.replace(0) != 0 && destroy_specific(layout)
        };
        if !again {
            break;
        }
    }
    // SAFETY: the resolver's state lies in the block; with name servers in it
    // the resolver has initialised it, and nobody uses it any more.
    unsafe {
        let state = arch::thread_pointer().offset(layout.resolver);
        if let Some(close) = layout.resolver_close
            && state.add(NAME_SERVER_COUNT).cast::<i32>().read() != 0
        {
            close(state.cast());
            state.add(NAME_SERVER_COUNT).cast::<i32>().write(0);
        }
        // The second call frees the message that the first one returns.
        if !libc::dlerror().is_null() {
            libc::dlerror();
        }
    }
}

/// One round over all pthread keys. Returns whether a destructor was called.
///
/// # Safety
///
/// The caller runs on a block.
unsafe fn destroy_specific(layout: &Layout) -> bool {
    let mut called = false;
    for level in 0..LEVELS {
        // SAFETY: the block's descriptor has `LEVELS` pointers there, null or
        // to a table of values.
        let table = unsafe {
            let levels = arch::thread_pointer().offset(layout.specific);
            levels.cast::<*mut Specific>().add(level).read()
        };
        if table.is_null() {
            continue;
        }
        for index in 0..KEYS_PER_LEVEL {
            // SAFETY: tables stay where they are until the block is reset.
            let entry = unsafe { &mut *table.add(index) };
            let value = entry.value;
            if value.is_null() {
                continue;
            }
            let destructor = destructor(layout, level * KEYS_PER_LEVEL + index, entry.sequence);
            entry.value = ptr::null_mut();
            if let Some(destructor) = destructor {
                called = true;
                // SAFETY: the value was set for this key by this task, and is
                // no longer reachable.
                unsafe { destructor(value) };
            }
        }
    }
    called
}

/// The destructor of `key`, unless the key is another one by now.
fn destructor(layout: &Layout, key: usize, sequence: usize) -> Option<Destructor> {
    match layout.keys {
        Some(keys) => {
            // SAFETY: the table has an entry for each key; other threads may
            // write it, so each field is read once.
            let (now, destructor) = unsafe {
                let key = keys.add(key);
                (
                    (&raw const (*key).sequence).read_volatile(),
                    (&raw const (*key).destructor).read_volatile(),
                )
            };
            destructor.filter(|_| now == sequence)
        }
        // SAFETY: any key may be asked for; a value that was set for a former
        // key of the same number is not returned.
        None if unsafe { libc::pthread_getspecific(key as _) }.is_null() => None,
        None => noted_destructor(key),
    }
}
