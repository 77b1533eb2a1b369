//! Waiting for objects whose state belongs to somebody else: the mutexes,
//! condition variables, read-write locks and semaphores of pthread.
//!
//! libc waits for them by system calls that no hook sees, but it also has a
//! function that only tries. A coroutine tries, and waits in a table of its own
//! (`table`) by the object's address until the hook of the function that changes
//! the object finds it there. The real functions are called for every change, so
//! threads and other processes notice nothing. The steps of waiting and waking
//! are those of `futex`, with the attempt in the place of the word's value:
//!
//! 1. Count the waiter in, fence, try once more; then link and suspend.
//! 2. The hook calls the real function, then looks at the count.
//!
//! Whoever was woken tries again, also when its time is over, so the wake is
//! never lost: if the attempt fails, somebody holds the object who will wake the
//! next one.
//!
//! # Mutexes
//!
//! Unlocks that no hook sees are announced (`silent`). Then, and always for
//! mutexes that processes share, coroutines wait in the kernel by libc's own
//! protocol. The mutex begins with its lock word: `FREE`, `HELD`, or `CONTENDED`
//! (held, and somebody may sleep).
//!
//! * K1. Try. On success set `CONTENDED`: others may sleep, and this wait may have
//!   used up the wake that was for one of them.
//! * K2. `HELD -> CONTENDED`, before giving up too, for the same reason.
//! * K3. Sleep for as long as the word is `CONTENDED`; then K1. An unlock that
//!   finds `CONTENDED` wakes one sleeper.

use std::ffi::c_int;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::limit::Limit;
use super::silent::SilentUnlockers;
use super::table::{BUCKETS, Entry, MATCH_ANY, Table, Waited, bucket_of};
use crate::io;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// The objects belong to the program, which uses them on any thread.
pub(super) static TABLE: Table = Table::new();

/// The marks of mutexes, chosen like buckets.
static SILENT: [SilentUnlockers; BUCKETS] = [const { SilentUnlockers::new() }; BUCKETS];

/// Those of the parent, in the child of a fork.
pub(super) fn forget_silent_unlockers() {
    SILENT.iter().for_each(SilentUnlockers::clear);
}

fn entry(object: *const (), limit: Option<&Limit>) -> Entry {
    Entry {
        key: object as usize,
        bitset: MATCH_ANY,
        deadline: limit.and_then(Limit::deadline),
    }
}

/// Waits until `attempt` has a result, which [`changed`] and [`changed_for_all`]
/// let it look for; `None` if `limit` comes first. The attempt does not wait.
///
/// # Panics
///
/// If the caller is no coroutine.
pub fn wait_until<R>(
    object: *const (),
    limit: Option<&Limit>,
    mut attempt: impl FnMut() -> Option<R>,
) -> Option<R> {
    loop {
        let mut result = None;
        let is_without_result = || {
            result = attempt();
            result.is_none()
        };
        TABLE.wait(entry(object, limit), is_without_result, || true);
        if result.is_some() {
            return result;
        }
        if limit.is_some_and(Limit::is_over) {
            return attempt();
        }
    }
}

/// To be called after an atomic instruction has changed `object`: lets one
/// coroutine that waits for it look again. In signal handlers too.
#[inline(always)]
pub fn changed(object: *const ()) {
    if TABLE.waiting_after_atomic(object as usize) != 0 {
        wake(object, 1);
    }
}

/// [`changed`], for all that wait.
#[inline(always)]
pub fn changed_for_all(object: *const ()) {
    let waiting = TABLE.waiting_after_atomic(object as usize);
    if waiting != 0 {
        wake(object, waiting);
    }
}

#[cold]
fn wake(object: *const (), limit: usize) -> usize {
    TABLE.wake(object as usize, limit, MATCH_ANY)
}

/// A mutex of libc's.
#[derive(Clone, Copy, Debug)]
pub struct Mutex {
    /// Where it begins, with its lock word.
    pub word: *const u32,
    /// Whether other processes use it too.
    pub is_shared: bool,
}

impl Mutex {
    /// Waits until `attempt` has a result, 0 if it has locked the mutex; `None`
    /// if `limit` comes first.
    ///
    /// # Safety
    ///
    /// It is an initialised mutex of a kind whose lock word is as the module's
    /// header says, and stays one meanwhile.
    ///
    /// # Panics
    ///
    /// If the caller is no coroutine.
    pub unsafe fn lock(
        self,
        limit: Option<&Limit>,
        mut attempt: impl FnMut() -> Option<c_int>,
    ) -> Option<c_int> {
        let object = self.word.cast::<()>();
        let silent = &SILENT[bucket_of(object as usize)];
        let mut is_silent = self.is_shared;
        while !is_silent {
            let mut result = None;
            let must_wait = || {
                result = attempt();
                is_silent = result.is_none() && silent.are_there();
                result.is_none() && !is_silent
            };
            let waited = TABLE.wait(entry(object, limit), must_wait, || true);
            if result.is_some() {
                return result;
            }
            if waited != Waited::Not && limit.is_some_and(Limit::is_over) {
                return attempt();
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.lock_in_kernel(limit, attempt) }
    }

    /// # Safety
    ///
    /// As for [`lock`](Self::lock).
    unsafe fn lock_in_kernel(
        self,
        limit: Option<&Limit>,
        mut attempt: impl FnMut() -> Option<c_int>,
    ) -> Option<c_int> {
        // SAFETY: the caller's promise; libc changes the word atomically too.
        let word = unsafe { AtomicU32::from_ptr(self.word.cast_mut()) };
        loop {
            // K1.
            if let Some(result) = attempt() {
                if result == 0 {
                    word.swap(CONTENDED, Relaxed);
                }
                return Some(result);
            }
            // K2. Relaxed: the attempt and the kernel order the rest.
            if word.compare_exchange(HELD, CONTENDED, Relaxed, Relaxed) == Err(FREE) {
                continue;
            }
            if limit.is_some_and(Limit::is_over) {
                return None;
            }
            let deadline = limit.and_then(Limit::deadline);
            // K3.
            // SAFETY: the caller's promise; called on a coroutine.
            unsafe { io::futex_wait(self.word, CONTENDED, !self.is_shared, deadline) };
        }
    }

    /// To be called before the mutex is unlocked where no hook sees it, and
    /// followed by [`ends_silence`](Self::ends_silence) when it is locked again.
    /// A mark that stays because its thread was cancelled only costs time.
    pub fn begins_silence(self) {
        let object = self.word.cast::<()>();
        SILENT[bucket_of(object as usize)].begin();
        let waiting = TABLE.waiting(object as usize);
        if waiting != 0 {
            wake(object, waiting);
        }
    }

    /// See [`begins_silence`](Self::begins_silence).
    pub fn ends_silence(self) {
        SILENT[bucket_of(self.word as usize)].end();
    }
}

/// How a wait for a condition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It was signalled, or there was no reason.
    Came,
    /// The limit came first.
    TimedOut,
    /// The mutex could not be unlocked: the error number.
    Refused(c_int),
}

/// Waits for `condition` to be signalled. `unlock` is called once a signal would
/// be noticed; it returns 0 or an error number.
///
/// # Panics
///
/// If the caller is no coroutine.
pub fn wait_for_signal(
    condition: *const (),
    limit: Option<&Limit>,
    unlock: impl FnOnce() -> c_int,
) -> Signal {
    let mut error = 0;
    let unlocks = || {
        error = unlock();
        error == 0
    };
    let waited = TABLE.wait(entry(condition, limit), || true, unlocks);
    if error != 0 {
        if waited == Waited::Woken {
            // It was meant for one that waits.
            wake(condition, 1);
        }
        return Signal::Refused(error);
    }
    if waited == Waited::TimedOut && limit.is_some_and(Limit::is_over) {
        Signal::TimedOut
    } else {
        Signal::Came
    }
}

/// Wakes one coroutine that waits for `condition`. Returns whether a thread must
/// be woken too: if there was none, and every other time, so that both are
/// served. The caller's mutex orders this behind the waiters' counts.
#[must_use = "a thread may wait for the condition too"]
#[inline(always)]
pub fn signal(condition: *const ()) -> bool {
    let key = condition as usize;
    TABLE.waiting_after_atomic(key) == 0
        || wake(condition, 1) == 0
        || TABLE.turn(key).is_multiple_of(2)
}
