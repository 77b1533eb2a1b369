//! Deadlines of one worker, soonest first.
//!
//! A 4-ary heap whose entries can be removed by key, because most deadlines
//! never expire: a read with a time-out usually ends by data. Each entry has a
//! slot that remembers its place in the heap; the key names slot and
//! generation, so a key that outlives its entry removes nothing.
//!
//! # Invariants
//!
//! 1. `heap[i].slot = s` exactly if `slots[s]` is occupied with position `i`.
//! 2. No entry is sooner than its parent, `(i - 1) / 4`.

use std::time::Instant;

const ARITY: usize = 4;

/// Names one entry of [`Timers`], for [`Timers::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    slot: u32,
    generation: u32,
}

/// A set of deadlines, each with a value.
#[derive(Debug)]
pub struct Timers<T> {
    heap: Vec<Entry>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Instant,
    slot: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    position: u32,
    value: Option<T>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    /// An empty set.
    pub const fn new() -> Self {
        Self {
            heap: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many deadlines are pending.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no deadline is pending.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The soonest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Adds `value`, due at `deadline`.
    ///
    /// # Panics
    ///
    /// With 2³² deadlines pending at once.
    pub fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 pending deadlines");
            self.slots.push(Slot {
                generation: 0,
                position: 0,
                value: None,
            });
            slot
        });
        let entry = &mut self.slots[slot as usize];
        entry.value = Some(value);
        let generation = entry.generation;
        self.heap.push(Entry { deadline, slot });
        self.sift_up(self.heap.len() - 1);
        TimerKey { slot, generation }
    }

    /// Takes the entry named `key` out, if it is still pending.
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation != key.generation || slot.value.is_none() {
            return None;
        }
        let position = slot.position as usize;
        Some(self.take(position))
    }

    /// Takes the soonest entry out, if it is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.heap.first()?.deadline > now {
            return None;
        }
        Some(self.take(0))
    }

    fn take(&mut self, position: usize) -> T {
        let slot = self.heap[position].slot;
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sift_down(position);
            self.sift_up(position);
        }
        self.free.push(slot);
        let slot = &mut self.slots[slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.value.take().expect("occupied by invariant 1")
    }

    fn sift_up(&mut self, mut position: usize) {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if self.heap[parent].deadline <= entry.deadline {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, entry);
    }

    fn sift_down(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let first = position * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let soonest = (first..last).min_by_key(|&child| self.heap[child].deadline);
            let Some(child) = soonest else { break };
            if self.heap[child].deadline >= entry.deadline {
                break;
            }
            self.place(position, self.heap[child]);
            position = child;
        }
        self.place(position, entry);
    }

    fn place(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.slots[entry.slot as usize].position = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn at(base: Instant, milliseconds: u64) -> Instant {
        base + Duration::from_millis(milliseconds)
    }

    #[test]
    fn entries_come_out_soonest_first() {
        let base = Instant::now();
        let mut timers = Timers::new();
        for delay in [5, 1, 9, 3, 7, 2, 8, 0, 6, 4] {
            timers.insert(at(base, delay), delay);
        }
        let mut order = Vec::new();
        while let Some(delay) = timers.pop_due(at(base, 100)) {
            order.push(delay);
        }
        assert_eq!((0..10).collect::<Vec<_>>(), order);
    }

    #[test]
    fn an_entry_that_is_not_due_stays() {
        let base = Instant::now();
        let mut timers = Timers::new();
        timers.insert(at(base, 10), ());
        assert_eq!(None, timers.pop_due(at(base, 9)));
        assert_eq!(Some(()), timers.pop_due(at(base, 10)));
        assert!(timers.is_empty());
    }

    #[test]
    fn a_key_removes_its_entry_once() {
        let mut timers = Timers::new();
        let key = timers.insert(Instant::now(), 'a');
        assert_eq!(Some('a'), timers.remove(key));
        let reused = timers.insert(Instant::now(), 'b');
        assert_eq!(None, timers.remove(key));
        assert_eq!(Some('b'), timers.remove(reused));
    }

    #[test]
    fn random_operations_agree_with_an_ordered_map() {
        let base = Instant::now();
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut timers = Timers::new();
        let mut model = BTreeMap::new();
        let mut keys = Vec::new();
        for sequence in 0..20_000u64 {
            match next() % 4 {
                0 | 1 => {
                    let deadline = at(base, next() % 500);
                    keys.push((deadline, sequence, timers.insert(deadline, sequence)));
                    model.insert((deadline, sequence), sequence);
                }
                2 if !keys.is_empty() => {
                    let (deadline, sequence, key) =
                        keys.swap_remove((next() % keys.len() as u64) as usize);
                    assert_eq!(model.remove(&(deadline, sequence)), timers.remove(key));
                }
                _ => {
                    let now = at(base, next() % 500);
                    let expected = model.first_key_value().map(|(&(deadline, _), _)| deadline);
                    assert_eq!(expected, timers.next_deadline());
                    if let Some(value) = timers.pop_due(now) {
                        let deadline = expected.unwrap();
                        assert!(deadline <= now);
                        assert!(model.remove(&(deadline, value)).is_some());
                    }
                }
            }
            assert_eq!(model.len(), timers.len());
        }
    }
}
