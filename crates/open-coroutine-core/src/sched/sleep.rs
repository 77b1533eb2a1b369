//! Which workers sleep, and who is woken when there is work.
//!
//! The protocol is written down, step by step, in `README.md` beside this
//! file; the comments here cite its steps. The model checker runs the tests at
//! the end with every interleaving of these very functions.

use crate::util::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::util::sync::atomic::{AtomicU64, AtomicUsize, fence};

const BITS: usize = u64::BITS as usize;

/// Who sleeps and how many look for work.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// Bit `i % 64` of word `i / 64`: worker `i` sleeps, or is about to.
    asleep: Box<[AtomicU64]>,
    /// How many bits are set in `asleep`.
    count: AtomicUsize,
    /// Workers that were woken, or are awake with empty queues, and have not
    /// yet found work. While there is one, no further worker needs waking: it
    /// wakes the next one itself when it finds something (step W3).
    searching: AtomicUsize,
}

impl Sleepers {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            asleep: (0..workers.div_ceil(BITS))
                .map(|_| AtomicU64::new(0))
                .collect(),
            count: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
        }
    }

    /// Whether some worker sleeps: a hint for code that has cheaper means.
    #[inline]
    pub(crate) fn any_asleep(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// How many workers sleep: a hint.
    pub(crate) fn asleep(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Steps N1 to N3, after work was made visible in a queue that others can
    /// take from. Returns the worker that the caller must wake; it counts as
    /// searching from here on.
    #[must_use = "the worker has been chosen and must be woken"]
    #[inline]
    pub(crate) fn choose_sleeper(&self) -> Option<usize> {
        // N1. Pairs with the fence in `announce` (S1): either this load sees
        // the sleeper, or the sleeper's last look sees the work.
        fence(SeqCst);
        if self.count.load(Relaxed) == 0 || self.searching.load(Relaxed) != 0 {
            return None;
        }
        self.claim_sleeper()
    }

    #[cold]
    fn claim_sleeper(&self) -> Option<usize> {
        loop {
            // N2. At most one notifier goes on; the others rely on its searcher.
            if self
                .searching
                .compare_exchange(0, 1, SeqCst, SeqCst)
                .is_err()
            {
                return None;
            }
            // N3.
            let found = self.first_asleep().filter(|&worker| self.clear(worker));
            if found.is_some() {
                return found;
            }
            // N4. Whoever slept has woken by itself, or another may have gone to
            // sleep behind our back while a second notifier relied on us.
            self.searching.fetch_sub(1, SeqCst);
            if self.count.load(SeqCst) == 0 {
                return None;
            }
        }
    }

    fn first_asleep(&self) -> Option<usize> {
        self.asleep.iter().enumerate().find_map(|(index, word)| {
            let bits = word.load(SeqCst);
            (bits != 0).then(|| index * BITS + bits.trailing_zeros() as usize)
        })
    }

    /// Step S1: worker `worker` has found nothing and is going to sleep. It
    /// must look at every queue once more before it does.
    pub(crate) fn announce(&self, worker: usize) {
        self.asleep[worker / BITS].fetch_or(1 << (worker % BITS), SeqCst);
        self.count.fetch_add(1, SeqCst);
        // Pairs with the fence in `choose_sleeper` (N1).
        fence(SeqCst);
    }

    /// Step S4: `worker` is awake. Returns whether a notifier chose it, so
    /// that it counts as searching; otherwise an event or a deadline of its
    /// own woke it.
    #[must_use = "a chosen worker counts as searching until it says otherwise"]
    pub(crate) fn retract(&self, worker: usize) -> bool {
        !self.clear(worker)
    }

    /// Step W1: a worker with empty queues starts to look at the others'. At
    /// most half of the workers do so at once, which bounds the contention.
    #[must_use = "a worker that searches must stop searching"]
    pub(crate) fn start_searching(&self, workers: usize) -> bool {
        let searching = self.searching.load(Relaxed);
        if 2 * searching >= workers {
            return false;
        }
        self.searching.fetch_add(1, SeqCst);
        true
    }

    /// Step S2 found work: the worker's search goes on, whatever the others do.
    pub(crate) fn search_on(&self) {
        self.searching.fetch_add(1, SeqCst);
    }

    /// Steps W2 and W3: a searching worker found work, or gives up. Returns
    /// whether it was the last one searching. If it found work, it then has to
    /// wake another worker (there may be more work, and nobody looks); if it
    /// did not, it has to look once more after its announcement (S2).
    #[must_use = "the last searcher has a duty"]
    pub(crate) fn stop_searching(&self) -> bool {
        self.searching.fetch_sub(1, SeqCst) == 1
    }

    /// Clears the bit of `worker`; returns whether it was set.
    fn clear(&self, worker: usize) -> bool {
        let mask = 1 << (worker % BITS);
        let was_set = self.asleep[worker / BITS].fetch_and(!mask, SeqCst) & mask != 0;
        if was_set {
            self.count.fetch_sub(1, SeqCst);
        }
        was_set
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use crate::util::sync::atomic::AtomicBool;
    use loom::thread;

    /// One queue, and for each worker the token that `Waker` stands for.
    struct Model {
        sleepers: Sleepers,
        work: AtomicUsize,
        woken: Box<[AtomicBool]>,
    }

    impl Model {
        fn new(workers: usize) -> Arc<Self> {
            Arc::new(Self {
                sleepers: Sleepers::new(workers),
                work: AtomicUsize::new(0),
                woken: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            })
        }

        fn push(&self) {
            self.work.fetch_add(1, Relaxed);
            if let Some(worker) = self.sleepers.choose_sleeper() {
                self.woken[worker].store(true, SeqCst);
            }
        }

        fn take(&self) -> bool {
            let take = |work: usize| work.checked_sub(1);
            self.work.fetch_update(Relaxed, Relaxed, take).is_ok()
        }

        /// A worker that takes `share` pieces of work and stops.
        fn work(&self, worker: usize, mut share: usize) {
            let mut searching = false;
            while share > 0 {
                if self.take() {
                    share -= 1;
                    if std::mem::take(&mut searching) && self.sleepers.stop_searching() {
                        if let Some(other) = self.sleepers.choose_sleeper() {
                            self.woken[other].store(true, SeqCst);
                        }
                    }
                    continue;
                }
                if std::mem::take(&mut searching) {
                    let _ = self.sleepers.stop_searching();
                }
                self.sleepers.announce(worker);
                if self.work.load(Relaxed) == 0 {
                    // A lost wake-up leaves this loop without any thread that
                    // could make progress, which loom reports.
                    while !self.woken[worker].swap(false, SeqCst) {
                        thread::yield_now();
                    }
                }
                searching = self.sleepers.retract(worker);
            }
        }
    }

    #[test]
    fn one_worker_finds_the_work_of_two_outside_threads() {
        loom::model(|| {
            let model = Model::new(1);
            let pushers: Vec<_> = (0..2)
                .map(|_| {
                    let model = model.clone();
                    thread::spawn(move || model.push())
                })
                .collect();
            model.work(0, 2);
            for pusher in pushers {
                pusher.join().unwrap();
            }
        });
    }

    #[test]
    fn a_worker_that_announces_while_work_arrives_takes_it() {
        loom::model(|| {
            let model = Model::new(1);
            let worker = {
                let model = model.clone();
                thread::spawn(move || model.work(0, 2))
            };
            model.push();
            model.push();
            worker.join().unwrap();
        });
    }
}
