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
            searching: AtomicUsize::new(0),
        }
    }

    /// Whether some worker sleeps: a hint for code that has cheaper means.
    #[inline]
    pub(crate) fn any_asleep(&self) -> bool {
        self.asleep.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Whether `worker` sleeps: a hint.
    pub(crate) fn is_asleep(&self, worker: usize) -> bool {
        self.asleep[worker / BITS].load(Relaxed) & 1 << (worker % BITS) != 0
    }

    /// How many workers sleep.
    pub(crate) fn asleep(&self) -> usize {
        let counts = self.asleep.iter();
        counts
            // SeqCst: see the steps of `monitor`.
            .map(|word| word.load(SeqCst).count_ones() as usize)
            .sum()
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
        if !self.any_asleep() || self.searching.load(Relaxed) != 0 {
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
            // Pairs with the fences in `announce` (S1) and of that notifier (N1):
            // it saw the sleeper and our `searching`, so now we see the sleeper.
            fence(SeqCst);
            if !self.any_asleep() {
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
        self.asleep[worker / BITS].fetch_and(!mask, SeqCst) & mask != 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::util::sync::Arc;
    use loom::sync::Notify;
    use loom::thread;

    /// One queue, and for each worker the token that `driver::Waker` stands for.
    /// A worker whose wake-up is lost blocks forever, which loom reports as a
    /// deadlock.
    struct Model {
        sleepers: Sleepers,
        work: AtomicUsize,
        tokens: Box<[Notify]>,
    }

    impl Model {
        fn new(workers: usize) -> Arc<Self> {
            Arc::new(Self {
                sleepers: Sleepers::new(workers),
                work: AtomicUsize::new(0),
                tokens: (0..workers).map(|_| Notify::new()).collect(),
            })
        }

        fn wake_one(&self) {
            if let Some(worker) = self.sleepers.choose_sleeper() {
                self.tokens[worker].notify();
            }
        }

        fn push(&self) {
            self.work.fetch_add(1, Relaxed);
            self.wake_one();
        }

        fn take(&self) -> bool {
            let take = |work: usize| work.checked_sub(1);
            self.work.fetch_update(Relaxed, Relaxed, take).is_ok()
        }

        /// A worker that takes `share` pieces of work and stops.
        fn work(&self, worker: usize, mut share: usize) {
            let mut is_searching = false;
            while share > 0 {
                if self.take() {
                    share -= 1;
                    if std::mem::take(&mut is_searching) && self.sleepers.stop_searching() {
                        self.wake_one();
                    }
                    continue;
                }
                if std::mem::take(&mut is_searching) {
                    let _ = self.sleepers.stop_searching();
                }
                self.sleepers.announce(worker);
                if self.work.load(Relaxed) == 0 {
                    self.tokens[worker].wait();
                    is_searching = self.sleepers.retract(worker);
                } else {
                    if !self.sleepers.retract(worker) {
                        self.sleepers.search_on();
                    }
                    is_searching = true;
                }
            }
            if is_searching {
                let _ = self.sleepers.stop_searching();
            }
        }
    }

    /// Every interleaving with at most so many preemptions.
    fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    #[test]
    fn one_worker_finds_the_work_of_two_outside_threads() {
        check(3, || {
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
        check(3, || {
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

    #[test]
    fn two_pieces_of_work_wake_two_workers() {
        check(2, || {
            let model = Model::new(2);
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let model = model.clone();
                    thread::spawn(move || model.work(worker, 1))
                })
                .collect();
            model.push();
            model.push();
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}
