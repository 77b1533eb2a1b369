//! A table in which coroutines wait for an address.
//!
//! Buckets are chosen by the address, several addresses share one. `futex` has
//! the protocol between waiters and wakers, and cites its steps.
//!
//! # Wakes in signal handlers
//!
//! A handler may have interrupted, on its own thread, whoever holds a bucket's
//! lock, so it must not wait for it:
//!
//! 1. The handler tries the lock. If that fails: set `missed`, try again.
//! 2. If that fails too it gives up: whoever holds the lock does the rest.
//! 3. Whoever unlocks a bucket then loads `missed`. All four are sequentially
//!    consistent: either the handler finds the lock free, or the holder sees the
//!    flag.
//! 4. Whoever sees the flag takes it back and wakes every waiter of the bucket.
//!    So a wait may end without reason; users of this table look again.
//!
//! # Invariants
//!
//! 1. `count` is at least the number of linked nodes.
//! 2. A node is only touched under the lock of the bucket that it names.
//! 3. Nothing suspends while a bucket is locked.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::count::WaiterCount;
use super::list::{List, Node};
use crate::sched::{self, Turn, Wake, Woken};
use crate::util::handler;
use crate::util::lock::{Guard, Lock};

/// Matches every wake.
pub const MATCH_ANY: u32 = u32::MAX;

/// How many buckets a table has.
pub(super) const BUCKETS: usize = 1024;
/// How many waiters are woken per turn with the lock.
const BATCH: usize = 16;

/// See the module's header.
pub(super) struct Table {
    buckets: [CachePadded<Bucket>; BUCKETS],
}

struct Bucket {
    count: WaiterCount,
    turn: AtomicU32,
    missed: AtomicBool,
    list: Lock<List>,
}

/// What is waited for, and how long.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: usize,
    pub(super) bitset: u32,
    pub(super) deadline: Option<Instant>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There was no reason to wait.
    Not,
    /// It was woken.
    Woken,
    /// Its deadline came first.
    TimedOut,
}

/// The bucket of `key`.
pub(super) fn bucket_of(key: usize) -> usize {
    // Words are 4-aligned; multiplication spreads neighbours over the table.
    (key >> 2).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - BUCKETS.trailing_zeros())
}

impl Bucket {
    const fn new() -> Self {
        Self {
            count: WaiterCount::new(),
            turn: AtomicU32::new(0),
            missed: AtomicBool::new(false),
            list: Lock::new(List::new()),
        }
    }

    /// Locks the bucket. Not in signal handlers.
    fn lock(&self) -> Locked<'_> {
        self.guard(self.list.lock())
    }

    /// Locks the bucket for a wake. `None` in a signal handler, if the lock is
    /// held: its holder will wake everything.
    fn lock_to_wake(&self) -> Option<Locked<'_>> {
        if !handler::is_inside() {
            return Some(self.lock());
        }
        let free = self.list.try_lock().or_else(|| {
            // Steps 1 and 2 of wakes in handlers.
            self.missed.store(true, SeqCst);
            self.list.try_lock()
        });
        free.map(|list| self.guard(list))
    }

    fn guard<'a>(&'a self, list: Guard<'a, List>) -> Locked<'a> {
        Locked {
            bucket: self,
            list: ManuallyDrop::new(list),
        }
    }

    /// Unlinks and wakes what `wanted` says yes to, at most `limit`, oldest
    /// first; returns how many. (Step 6 of `futex`.) Those that come later may
    /// stay: waiters that wait again at once could keep this busy forever.
    fn wake(&self, mut limit: usize, turn: Turn, wanted: impl Fn(&Node) -> bool) -> usize {
        let mut total = 0;
        loop {
            let mut ready: [Option<Woken>; BATCH] = [const { None }; BATCH];
            let Some(mut list) = self.lock_to_wake() else {
                return total;
            };
            if total == 0 {
                limit = limit.min(self.count.now());
            }
            let mut found = 0;
            while found < BATCH && total < limit {
                let Some(node) = list.find(&wanted) else {
                    break;
                };
                // SAFETY: locked and linked; the waiter does not return from its
                // wait before it is notified or has had the lock, and the node is
                // not touched after that.
                unsafe {
                    list.unlink(node);
                    ready[found] = node.as_ref().waiter.notify();
                }
                self.count.leave();
                found += 1;
                total += 1;
            }
            drop(list);
            for woken in ready.into_iter().flatten() {
                woken.run(turn);
            }
            if found < BATCH {
                return total;
            }
        }
    }
}

/// A locked bucket.
struct Locked<'a> {
    bucket: &'a Bucket,
    list: ManuallyDrop<Guard<'a, List>>,
}

impl Deref for Locked<'_> {
    type Target = List;

    fn deref(&self) -> &List {
        &self.list
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut List {
        &mut self.list
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: dropped here only, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.list) };
        // Step 3 of wakes in handlers.
        if self.bucket.missed.load(SeqCst) && self.bucket.missed.swap(false, SeqCst) {
            // Step 4. A wake that comes meanwhile sets the flag again.
            self.bucket.wake(usize::MAX, Turn::Next, |_| true);
        }
    }
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            buckets: [const { CachePadded::new(Bucket::new()) }; BUCKETS],
        }
    }

    /// Forgets all waiters and the locks of buckets: in the child of a fork the
    /// threads that hold them do not exist, and the waiters never run.
    ///
    /// # Safety
    ///
    /// No other thread exists, and the caller's uses no table.
    pub(super) unsafe fn abandon(&self) {
        for bucket in &self.buckets {
            if bucket.count.now() != 0 || !bucket.list.is_free() {
                // SAFETY: the caller's promise.
                unsafe { bucket.list.abandon(List::new()) };
                bucket.count.clear();
            }
        }
    }

    #[inline(always)]
    fn bucket(&self, key: usize) -> &Bucket {
        &self.buckets[bucket_of(key)]
    }

    /// Whether somebody seems to wait for `key`, in no order with anything else.
    #[inline(always)]
    pub(super) fn may_wait(&self, key: usize) -> bool {
        self.bucket(key).count.now() > 0
    }

    /// How many may wait for `key`, after what they wait for has changed.
    #[inline]
    pub(super) fn waiting(&self, key: usize) -> usize {
        self.bucket(key).count.after_change()
    }

    /// [`waiting`](Self::waiting), if an atomic instruction made the change.
    #[inline(always)]
    pub(super) fn waiting_after_atomic(&self, key: usize) -> usize {
        self.bucket(key).count.after_atomic_change()
    }

    /// A number that is mostly another one each time, per bucket: for taking turns.
    pub(super) fn turn(&self, key: usize) -> u32 {
        let turn = &self.bucket(key).turn;
        let number = turn.load(Relaxed);
        // Where two wake at once, one of them gets the other's.
        turn.store(number.wrapping_add(1), Relaxed);
        number
    }

    /// Waits as `entry` says. `check` tells, once this waiter is counted and
    /// with the bucket locked, whether there is a reason to wait; `act` then
    /// does what a waker may be waiting for, and tells the same.
    ///
    /// # Panics
    ///
    /// If the caller is no coroutine.
    pub(super) fn wait(
        &self,
        entry: Entry,
        check: impl FnOnce() -> bool,
        act: impl FnOnce() -> bool,
    ) -> Waited {
        let waiter = sched::prepare_wait().expect("called on a coroutine");
        let index = bucket_of(entry.key);
        let bucket = &self.buckets[index];
        let node = Node {
            key: Cell::new(entry.key),
            bucket: AtomicUsize::new(index),
            bitset: entry.bitset,
            waiter,
            is_linked: Cell::new(false),
            previous: Cell::new(None),
            next: Cell::new(None),
        };
        let mut list = bucket.lock();
        bucket.count.enter();
        if !check() {
            bucket.count.leave();
            return Waited::Not;
        }
        // SAFETY: locked, and `node` stays in this frame, which does not return
        // before somebody has unlinked it, step 4 of `futex`.
        unsafe { list.push(NonNull::from(&node)) };
        drop(list);
        let is_waiting = act();
        if is_waiting && sched::wait(entry.deadline) == Wake::Notified {
            // Whoever did it has unlinked the node, and does not touch it any more.
            return Waited::Woken;
        }
        match (is_waiting, self.leave(&node)) {
            (_, false) => Waited::Woken,
            (true, true) => Waited::TimedOut,
            (false, true) => Waited::Not,
        }
    }

    /// Step 4 of `futex`: takes the node out; returns whether it was linked.
    fn leave(&self, node: &Node) -> bool {
        let (bucket, mut list) = self.lock_bucket_of(node);
        if !node.is_linked.get() {
            return false;
        }
        // SAFETY: locked and linked.
        unsafe { list.unlink(NonNull::from(node)) };
        bucket.count.leave();
        true
    }

    fn lock_bucket_of(&self, node: &Node) -> (&Bucket, Locked<'_>) {
        loop {
            let index = node.bucket.load(Relaxed);
            let bucket = &*self.buckets[index];
            let list = bucket.lock();
            // A requeue changes it under both locks, so it is stable from here.
            if node.bucket.load(Relaxed) == index {
                return (bucket, list);
            }
        }
    }

    /// Wakes up to `limit` that wait for `key` and match `bitset`; returns how
    /// many.
    pub(super) fn wake(&self, key: usize, limit: usize, bitset: u32) -> usize {
        let wanted = |node: &Node| node.key.get() == key && node.bitset & bitset != 0;
        self.bucket(key).wake(limit, Turn::Next, wanted)
    }

    /// Wakes all that wait for `key`, as `turn` says.
    pub(super) fn wake_all(&self, key: usize, turn: Turn) {
        self.bucket(key)
            .wake(usize::MAX, turn, |node| node.key.get() == key);
    }

    /// If `check` says so with the buckets locked: wakes as many that wait for
    /// `from` as the limits say, and makes others wait for `to`. Takes what it
    /// does from the limits, and returns how many that were.
    ///
    /// Nobody who comes meanwhile is moved before the limit of wakes is used
    /// up: whoever is woken is to look after those that are moved.
    pub(super) fn requeue(
        &self,
        from: usize,
        to: usize,
        limits: &mut Limits,
        check: impl Fn() -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        loop {
            let mut ready: [Option<Woken>; BATCH] = [const { None }; BATCH];
            let mut buckets = self.lock_both(from, to);
            if !check() {
                return (total > 0).then_some(total);
            }
            let (source, _) = buckets.parts();
            let mut found = 0;
            while found < BATCH
                && limits.wake > 0
                && let Some(node) = source.find(|node| node.key.get() == from)
            {
                // SAFETY: as in `Bucket::wake`.
                unsafe {
                    source.unlink(node);
                    ready[found] = node.as_ref().waiter.notify();
                }
                source.bucket.count.leave();
                limits.wake -= 1;
                found += 1;
            }
            total += found;
            let is_last = found < BATCH;
            if is_last {
                total += buckets.move_waiters(from, to, limits);
            }
            drop(buckets);
            for woken in ready.into_iter().flatten() {
                woken.run(Turn::Next);
            }
            if is_last {
                return Some(total);
            }
        }
    }

    /// Locks the buckets of two keys, which may be the same one.
    fn lock_both(&self, from: usize, to: usize) -> TwoBuckets<'_> {
        let (source, target) = (bucket_of(from), bucket_of(to));
        // In the order of the table, so that two requeues cannot block each other.
        let low = self.buckets[source.min(target)].lock();
        let high = (source != target).then(|| self.buckets[source.max(target)].lock());
        TwoBuckets {
            high,
            low,
            source,
            target,
        }
    }
}

/// How many waiters a requeue may wake, and how many others it may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) wake: u32,
    pub(super) moved: u32,
}

/// The locked buckets of a requeue. They are unlocked in the order of the fields,
/// the reverse of that of locking: an unlock may lock again, to serve handlers.
struct TwoBuckets<'a> {
    /// `None` if there is only one.
    high: Option<Locked<'a>>,
    low: Locked<'a>,
    source: usize,
    target: usize,
}

impl<'a> TwoBuckets<'a> {
    /// The bucket to take from, and the one to move to if it is another one.
    fn parts(&mut self) -> (&mut Locked<'a>, Option<&mut Locked<'a>>) {
        let source_is_high = self.source > self.target;
        let Self { high, low, .. } = self;
        let Some(high) = high else {
            return (low, None);
        };
        if source_is_high {
            (high, Some(low))
        } else {
            (low, Some(high))
        }
    }

    /// Moves as many waiters as the limits say; returns how many.
    fn move_waiters(&mut self, from: usize, to: usize, limits: &mut Limits) -> usize {
        let index = self.target;
        let (source, mut target) = self.parts();
        let mut moved = 0;
        while limits.moved > 0
            && from != to
            && let Some(node) = source.find(|node| node.key.get() == from)
        {
            // SAFETY: linked in the source, and both buckets are locked.
            unsafe {
                node.as_ref().key.set(to);
                if let Some(target) = &mut target {
                    target.bucket.count.enter();
                    source.unlink(node);
                    node.as_ref().bucket.store(index, Relaxed);
                    target.push(node);
                    source.bucket.count.leave();
                }
            }
            limits.moved -= 1;
            moved += 1;
        }
        moved
    }
}
