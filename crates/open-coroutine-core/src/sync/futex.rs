//! Futexes (`futex(2)`) whose waiters are coroutines.
//!
//! A thread that waits on a futex sleeps in the kernel. A coroutine must not,
//! so it waits in a table of buckets, chosen by the address. A wake looks into the
//! table first, then asks the kernel for waiters that are threads.
//!
//! # Protocol
//!
//! Waiting on `word` for as long as it holds `expected`:
//!
//! 1. Prepare the wait, lock the bucket, add one to its `count`.
//! 2. Fence, then load the word. If it differs: undo 1, `EAGAIN`.
//! 3. Link the node, which lies in the waiting frame. Unlock. Suspend.
//! 4. If it was notified it was woken (step 6 has unlinked the node). If the
//!    deadline came: lock the node's bucket (a requeue may have moved it). A node
//!    that is still linked timed out: unlink it, `ETIMEDOUT`. Else it was woken.
//!
//! Waking, after the caller has changed the word:
//!
//! 5. Fence, then load `count`. The fences of 2 and 5 order the two loads: if
//!    the waker misses the count, the waiter sees the changed word. (A load
//!    alone may overtake the caller's store, also on x86.) Where the count
//!    seems to be 0 the kernel is asked for threads before it is looked at
//!    again: its wake is the fence, since it orders the caller's store
//!    before its own look at who waits in the same way. Where it is not 0 there
//!    is no need of a fence: whoever comes to wait after step 6 has had the lock
//!    after it, and sees the changed word.
//! 6. Lock the bucket, unlink matching nodes, oldest first, and notify their
//!    waiters, in this order; until then they cannot return, or must have the
//!    lock first (step 4). Unlock, then make them runnable.
//!
//! A wait may end with 0 without reason (`table` says when), as `futex(2)` says.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, fence};
use std::time::Instant;

use super::table::{Entry, Limits, Table, Waited};
use crate::sched::{self, PointWait, Turn};
use crate::sys;

pub use super::table::MATCH_ANY;

/// Every how many wakes threads are asked before coroutines, so that neither
/// can keep the other from ever being served.
const THREADS_FIRST: u32 = 64;

/// Waiters of one address do not belong to any runtime: the waker may be any
/// thread of the process, before and after a runtime lives.
pub(super) static TABLE: Table = Table::new();

/// Waits until a wake on `word` matches `bitset`, as long as the word holds
/// `expected`, at most until `deadline`. Returns 0, or minus `EAGAIN` or
/// `ETIMEDOUT`.
///
/// # Safety
///
/// `word` is readable for the length of the call. Called on a coroutine.
///
/// # Panics
///
/// If the caller is no coroutine.
pub unsafe fn wait(
    word: *const u32,
    expected: u32,
    bitset: u32,
    deadline: Option<Instant>,
) -> c_int {
    let entry = Entry {
        key: word as usize,
        bitset,
        deadline,
    };
    // SAFETY: the caller keeps the word readable; others access it atomically.
    let holds = || unsafe { AtomicU32::from_ptr(word.cast_mut()) }.load(Relaxed) == expected;
    match TABLE.wait(entry, holds, || true) {
        Waited::Not => -libc::EAGAIN,
        Waited::Woken => 0,
        Waited::TimedOut => -libc::ETIMEDOUT,
    }
}

/// Wakes up to `limit` waiters of `word` that match `bitset`, coroutines and
/// threads. Returns how many there were, or minus the error number.
///
/// May be called on any thread, on a coroutine and in a signal handler's
/// trampoline; it does not suspend.
#[inline]
pub fn wake(word: *const u32, limit: u32, bitset: u32) -> c_int {
    let key = word as usize;
    if TABLE.may_wait(key) {
        return wake_both(word, limit, bitset);
    }
    let threads = wake_threads(word, limit, bitset);
    // Step 5, with the kernel's fence.
    match TABLE.waiting_after_atomic(key) {
        0 => threads,
        _ => threads + wake_rest(word, limit, bitset, threads),
    }
}

/// [`wake`], if coroutines may wait.
fn wake_both(word: *const u32, limit: u32, bitset: u32) -> c_int {
    let key = word as usize;
    let mut woken = 0;
    if TABLE.turn(key).is_multiple_of(THREADS_FIRST) {
        woken = wake_threads(word, limit, bitset).max(0) as u32;
    }
    let left = limit.saturating_sub(woken) as usize;
    woken += TABLE.wake(key, left, bitset) as u32;
    if woken < limit {
        woken += wake_threads(word, limit - woken, bitset).max(0) as u32;
    }
    woken as c_int
}

/// After so many threads were woken, or an error: wakes coroutines that have come
/// meanwhile. Returns how many.
#[cold]
fn wake_rest(word: *const u32, limit: u32, bitset: u32, threads: c_int) -> c_int {
    let Ok(threads) = u32::try_from(threads) else {
        return 0;
    };
    let left = limit.saturating_sub(threads) as usize;
    TABLE.wake(word as usize, left, bitset) as c_int
}

#[inline]
fn wake_threads(word: *const u32, limit: u32, bitset: u32) -> c_int {
    let operation = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let limit = limit.min(c_int::MAX as u32);
    let arguments = [
        word as usize,
        operation as usize,
        limit as usize,
        0,
        0,
        bitset as usize,
    ];
    // SAFETY: a wake uses the address only as a key.
    let wake = || unsafe { sys::syscall(libc::SYS_futex, arguments) };
    sys::insist(wake) as c_int
}

/// `FUTEX_REQUEUE` and, with `expected`, `FUTEX_CMP_REQUEUE`: wakes up to
/// `wake_limit` waiters of `from` and makes up to `move_limit` others wait on
/// `to`. Returns how many were woken and moved, or minus `EAGAIN`.
///
/// # Safety
///
/// `from` is readable.
pub unsafe fn requeue(
    from: *const u32,
    to: *const u32,
    wake_limit: u32,
    move_limit: u32,
    expected: Option<u32>,
) -> c_int {
    // Step 5, for both parts.
    fence(SeqCst);
    // SAFETY: the caller keeps the word readable.
    let word = unsafe { AtomicU32::from_ptr(from.cast_mut()) };
    let holds = || expected.is_none_or(|value| word.load(SeqCst) == value);
    let is_threads_turn = TABLE.turn(from as usize).is_multiple_of(THREADS_FIRST);
    let mut limits = Limits {
        wake: wake_limit,
        moved: move_limit,
    };
    let mut total = 0;
    if is_threads_turn && holds() {
        total += requeue_threads(from, to, &mut limits);
    }
    let Some(coroutines) = TABLE.requeue(from as usize, to as usize, &mut limits, holds) else {
        return if total > 0 { total } else { -libc::EAGAIN };
    };
    total += coroutines as c_int;
    if !is_threads_turn {
        total += requeue_threads(from, to, &mut limits);
    }
    total
}

/// [`requeue`] for threads. Takes what it does from the limits.
fn requeue_threads(from: *const u32, to: *const u32, limits: &mut Limits) -> c_int {
    let number = |limit: u32| limit.min(c_int::MAX as u32);
    let arguments = [
        from as usize,
        (libc::FUTEX_REQUEUE | libc::FUTEX_PRIVATE_FLAG) as usize,
        number(limits.wake) as usize,
        number(limits.moved) as usize,
        to as usize,
        0,
    ];
    // SAFETY: a requeue uses the addresses only as keys.
    let result = unsafe { sys::syscall(libc::SYS_futex, arguments) }.max(0) as u32;
    // First of all it wakes.
    let woken = result.min(limits.wake);
    limits.wake -= woken;
    limits.moved = limits.moved.saturating_sub(result - woken);
    result as c_int
}

/// `FUTEX_WAKE_OP`: changes the word at `second` as `operation` says, wakes up
/// to `first_limit` waiters of `first`, and up to `second_limit` of `second` if
/// its old value compares as `operation` says. Returns how many were woken, or
/// minus `ENOSYS` for an unknown operation.
///
/// # Safety
///
/// `second` is valid for atomic reads and writes.
pub unsafe fn wake_op(
    first: *const u32,
    second: *const u32,
    first_limit: u32,
    second_limit: u32,
    operation: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    let word = unsafe { AtomicU32::from_ptr(second.cast_mut()) };
    // futex(2): 4 bits operation, 4 bits comparison, 12 bits each argument.
    let sign_extend = |value: u32| ((value << 20) as i32 >> 20) as u32;
    let mut argument = sign_extend(operation >> 12 & 0xfff);
    if operation >> 28 & 8 != 0 {
        argument = 1u32.wrapping_shl(argument & 31);
    }
    let old = match operation >> 28 & 7 {
        0 => word.swap(argument, SeqCst),
        1 => word.fetch_add(argument, SeqCst),
        2 => word.fetch_or(argument, SeqCst),
        3 => word.fetch_and(!argument, SeqCst),
        4 => word.fetch_xor(argument, SeqCst),
        _ => return -libc::ENOSYS,
    };
    let (old, against) = (old as i32, sign_extend(operation & 0xfff) as i32);
    let holds = match operation >> 24 & 0xf {
        0 => old == against,
        1 => old != against,
        2 => old < against,
        3 => old <= against,
        4 => old > against,
        5 => old >= against,
        _ => return -libc::ENOSYS,
    };
    let mut woken = wake(first, first_limit, MATCH_ANY).max(0);
    if holds {
        woken += wake(second, second_limit, MATCH_ANY).max(0);
    }
    woken
}

/// Waits as [`wait`] does, on a coroutine or a plain thread. A spurious return
/// is possible; the caller looks at the word again.
pub fn wait_anywhere(word: &AtomicU32, expected: u32, deadline: Option<Instant>) {
    if sched::on_coroutine() {
        // SAFETY: `word` is borrowed for the call; called on a coroutine.
        unsafe { wait(word.as_ptr(), expected, MATCH_ANY, deadline) };
    } else {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        sys::futex_wait(word, expected, left);
    }
}

/// Waits as [`wait_anywhere`] does; also returns when the calling task is asked to
/// end, if `begin` says that this `word` is waited for in such a way.
pub fn wait_at_point(
    word: &AtomicU32,
    expected: u32,
    deadline: Option<Instant>,
    begin: fn(usize) -> Option<PointWait>,
) {
    let key = word.as_ptr() as usize;
    let Some(wait) = begin(key) else {
        return wait_anywhere(word, expected, deadline);
    };
    let entry = Entry {
        key,
        bitset: MATCH_ANY,
        deadline,
    };
    // The table fences before it asks.
    let must_wait = || word.load(Relaxed) == expected && !wait.is_cancelled();
    TABLE.wait(entry, must_wait, || true);
}

/// Wakes everything that waits on `word` with [`wait_anywhere`].
pub fn wake_all(word: &AtomicU32) {
    wake(word.as_ptr(), c_int::MAX as u32, MATCH_ANY);
}

/// Wakes all coroutines that wait on `word`, for words on which no thread waits.
pub fn wake_all_coroutines(word: &AtomicU32, turn: Turn) {
    wake_coroutines_at(ptr::from_ref(word) as usize, turn);
}

/// [`wake_all_coroutines`] of the word at address `key`, which need not exist any
/// more.
pub fn wake_coroutines_at(key: usize, turn: Turn) {
    // Step 5.
    if TABLE.waiting(key) > 0 {
        TABLE.wake_all(key, turn);
    }
}
