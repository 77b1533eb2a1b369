//! Futexes (`futex(2)`) whose waiters are coroutines.
//!
//! A thread that waits on a futex sleeps in the kernel. A coroutine must not,
//! so it waits here: in a table of buckets, chosen by the address. A wake looks
//! into the table first, then asks the kernel for waiters that are threads.
//!
//! # Protocol
//!
//! Waiting on `word` for as long as it holds `expected`:
//!
//! 1. Prepare the wait, lock the bucket, add one to its `count`.
//! 2. Fence, then load the word. If it differs: undo 1, `EAGAIN`.
//! 3. Link the node, which lies in the waiting frame. Unlock. Suspend.
//! 4. Lock the node's bucket (a requeue may have moved it). A node that is
//!    still linked timed out: unlink it, `ETIMEDOUT`. Else it was woken.
//!
//! Waking, after the caller has changed the word:
//!
//! 5. Fence, then load `count`. The fences of 2 and 5 order the two loads: if
//!    the waker misses the count, the waiter sees the changed word. (A load
//!    alone may overtake the caller's store, also on x86.)
//! 6. Lock the bucket, unlink matching nodes, oldest first, and notify their
//!    waiters while the lock keeps them from returning (step 4). Unlock, then
//!    make them runnable.
//!
//! # Invariants
//!
//! 1. `count` is at least the number of linked nodes.
//! 2. A node is only touched under the lock of the bucket that it names.
//! 3. Nothing suspends while a bucket is locked.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, fence};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::count::WaiterCount;
use crate::sched::{self, Waiter, Woken};
use crate::sys;
use crate::util::lock::{Guard, Lock};

/// Matches every wake.
pub const MATCH_ANY: u32 = u32::MAX;

const BUCKETS: usize = 1024;
/// Every how many wakes threads are asked before coroutines, so that neither
/// can keep the other from ever being served.
const THREADS_FIRST: u32 = 8;
/// How many waiters are woken per turn with the lock.
const BATCH: usize = 16;

/// Waiters of one address do not belong to any runtime: the waker may be any
/// thread of the process, before and after a runtime lives.
static TABLE: [CachePadded<Bucket>; BUCKETS] = [const { CachePadded::new(Bucket::new()) }; BUCKETS];

/// Set in the child of a fork: the table's locks may be held by threads that do
/// not exist there, and its waiters do not either.
static ABANDONED: AtomicBool = AtomicBool::new(false);

struct Bucket {
    count: WaiterCount,
    wakes: AtomicU32,
    list: Lock<List>,
}

impl Bucket {
    const fn new() -> Self {
        Self {
            count: WaiterCount::new(),
            wakes: AtomicU32::new(0),
            list: Lock::new(List {
                first: None,
                last: None,
            }),
        }
    }
}

/// The waiters of one bucket, oldest first.
struct List {
    first: Option<NonNull<Node>>,
    last: Option<NonNull<Node>>,
}

// SAFETY: the nodes are only touched under the bucket's lock (invariant 2).
unsafe impl Send for List {}

/// One waiting coroutine, in its own frame.
struct Node {
    key: Cell<usize>,
    /// The bucket whose lock guards this node.
    bucket: AtomicUsize,
    bitset: u32,
    waiter: Waiter,
    is_linked: Cell<bool>,
    previous: Cell<Option<NonNull<Node>>>,
    next: Cell<Option<NonNull<Node>>>,
}

fn bucket_of(key: usize) -> usize {
    // Words are 4-aligned; multiplication spreads neighbours over the table.
    (key >> 2).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - BUCKETS.trailing_zeros())
}

impl List {
    /// # Safety
    ///
    /// The list is locked, the node unlinked and in place until it is unlinked.
    unsafe fn push(&mut self, node: NonNull<Node>) {
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
    unsafe fn unlink(&mut self, node: NonNull<Node>) {
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

    /// The oldest node on `key` that a wake with `bitset` ends.
    fn find(&self, key: usize, bitset: u32) -> Option<NonNull<Node>> {
        let mut next = self.first;
        while let Some(node) = next {
            // SAFETY: linked nodes are alive, and the list is locked.
            let node_ref = unsafe { node.as_ref() };
            if node_ref.key.get() == key && node_ref.bitset & bitset != 0 {
                return Some(node);
            }
            next = node_ref.next.get();
        }
        None
    }
}

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
    let waiter = sched::prepare_wait().expect("called on a coroutine");
    let key = word as usize;
    let index = bucket_of(key);
    let bucket = &TABLE[index];
    let node = Node {
        key: Cell::new(key),
        bucket: AtomicUsize::new(index),
        bitset,
        waiter,
        is_linked: Cell::new(false),
        previous: Cell::new(None),
        next: Cell::new(None),
    };
    let mut list = bucket.list.lock();
    bucket.count.enter();
    // SAFETY: the caller keeps the word readable; others access it atomically.
    if unsafe { AtomicU32::from_ptr(word.cast_mut()) }.load(Relaxed) != expected {
        bucket.count.leave();
        return -libc::EAGAIN;
    }
    // SAFETY: locked, and `node` stays in this frame, which does not return
    // before step 4 has found it unlinked or has unlinked it.
    unsafe { list.push(NonNull::from(&node)) };
    drop(list);
    sched::wait(deadline);
    if leave(&node) { -libc::ETIMEDOUT } else { 0 }
}

/// Step 4: takes the node out; returns whether it was still linked.
fn leave(node: &Node) -> bool {
    let (index, mut list) = lock_bucket_of(node);
    if !node.is_linked.get() {
        return false;
    }
    // SAFETY: locked and linked.
    unsafe { list.unlink(NonNull::from(node)) };
    TABLE[index].count.leave();
    true
}

fn lock_bucket_of(node: &Node) -> (usize, Guard<'static, List>) {
    loop {
        let index = node.bucket.load(Relaxed);
        let list = TABLE[index].list.lock();
        // A requeue changes it under both locks, so it is stable from here.
        if node.bucket.load(Relaxed) == index {
            return (index, list);
        }
    }
}

/// Wakes up to `limit` waiters of `word` that match `bitset`, coroutines and
/// threads. Returns how many there were, or minus the error number.
///
/// May be called on any thread, on a coroutine and in a signal handler's
/// trampoline; it does not suspend.
pub fn wake(word: *const u32, limit: u32, bitset: u32) -> c_int {
    let bucket = &TABLE[bucket_of(word as usize)];
    // Step 5.
    let waiting = bucket.count.after_change();
    if waiting == 0 || ABANDONED.load(Relaxed) {
        return wake_threads(word, limit, bitset);
    }
    let mut woken = 0;
    if bucket
        .wakes
        .fetch_add(1, Relaxed)
        .is_multiple_of(THREADS_FIRST)
    {
        woken = wake_threads(word, limit, bitset).max(0) as u32;
    }
    let left = limit.saturating_sub(woken) as usize;
    woken += wake_coroutines(word as usize, left.min(waiting), bitset);
    if woken < limit {
        woken += wake_threads(word, limit - woken, bitset).max(0) as u32;
    }
    woken as c_int
}

/// Step 6. `limit` is at most the count of step 5: those that come later may
/// stay, or waiters that wait again at once could keep this busy forever.
fn wake_coroutines(key: usize, limit: usize, bitset: u32) -> u32 {
    let bucket = &TABLE[bucket_of(key)];
    let mut total = 0;
    loop {
        let mut ready: [Option<Woken>; BATCH] = [const { None }; BATCH];
        let mut list = bucket.list.lock();
        let mut found = 0;
        while found < BATCH && total < limit {
            let Some(node) = list.find(key, bitset) else {
                break;
            };
            // SAFETY: locked and linked; the waiter cannot return from its wait
            // before it has had the lock.
            unsafe {
                list.unlink(node);
                ready[found] = node.as_ref().waiter.notify();
            }
            bucket.count.leave();
            found += 1;
            total += 1;
        }
        drop(list);
        for woken in ready.into_iter().flatten() {
            woken.run();
        }
        if found < BATCH {
            return total as u32;
        }
    }
}

fn wake_threads(word: *const u32, limit: u32, bitset: u32) -> c_int {
    let operation = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let limit = limit.min(c_int::MAX as u32);
    // SAFETY: a wake uses the address only as a key.
    let result = unsafe {
        let arguments = [
            word as usize,
            operation as usize,
            limit as usize,
            0,
            0,
            bitset as usize,
        ];
        sys::syscall(libc::SYS_futex, arguments)
    };
    result as c_int
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
    fence(SeqCst);
    // SAFETY: the caller keeps the word readable.
    let holds = |value| unsafe { AtomicU32::from_ptr(from.cast_mut()) }.load(SeqCst) == value;
    if !expected.is_none_or(holds) {
        return -libc::EAGAIN;
    }
    let woken = wake(from, wake_limit, MATCH_ANY).max(0) as u32;
    let moved = move_coroutines(from as usize, to as usize, move_limit);
    let arguments = [
        from as usize,
        (libc::FUTEX_REQUEUE | libc::FUTEX_PRIVATE_FLAG) as usize,
        0,
        (move_limit - moved).min(c_int::MAX as u32) as usize,
        to as usize,
        0,
    ];
    // SAFETY: a requeue uses the addresses only as keys.
    let threads = unsafe { sys::syscall(libc::SYS_futex, arguments) };
    (woken + moved) as c_int + threads.max(0) as c_int
}

fn move_coroutines(from: usize, to: usize, limit: u32) -> u32 {
    let (source, target) = (bucket_of(from), bucket_of(to));
    let mut moved = 0;
    if source == target {
        let list = TABLE[source].list.lock();
        while moved < limit
            && from != to
            && let Some(node) = list.find(from, MATCH_ANY)
        {
            // SAFETY: locked and linked.
            unsafe { node.as_ref() }.key.set(to);
            moved += 1;
        }
        return moved;
    }
    // In the order of the table, so that two requeues cannot block each other.
    let low = TABLE[source.min(target)].list.lock();
    let high = TABLE[source.max(target)].list.lock();
    let (mut source_list, mut target_list) = if source < target {
        (low, high)
    } else {
        (high, low)
    };
    while moved < limit
        && let Some(node) = source_list.find(from, MATCH_ANY)
    {
        TABLE[target].count.enter();
        // SAFETY: linked in the source, and both lists are locked.
        unsafe {
            source_list.unlink(node);
            node.as_ref().key.set(to);
            node.as_ref().bucket.store(target, Relaxed);
            target_list.push(node);
        }
        TABLE[source].count.leave();
        moved += 1;
    }
    moved
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

/// Wakes everything that waits on `word` with [`wait_anywhere`].
pub fn wake_all(word: &AtomicU32) {
    wake(word.as_ptr(), c_int::MAX as u32, MATCH_ANY);
}

/// Wakes all coroutines that wait on `word`, for words on which no thread waits.
pub fn wake_all_coroutines(word: &AtomicU32) {
    let key = ptr::from_ref(word) as usize;
    // Step 5.
    let waiting = TABLE[bucket_of(key)].count.after_change();
    if waiting > 0 && !ABANDONED.load(Relaxed) {
        wake_coroutines(key, waiting, MATCH_ANY);
    }
}

/// To be called in the child of a fork, before anything else wakes there.
pub fn abandon() {
    ABANDONED.store(true, Relaxed);
}
