//! The monitor: a thread that looks after workers that run one coroutine for long.
//!
//! A worker that gets its coroutines back looks after everything itself. One that
//! does not is *held up*: its `resumes` stay the same from look to look. Then the
//! monitor sees who waits on that worker, and has the coroutine preempted
//! (`preempt`) when somebody is due.
//!
//! # When somebody is due
//!
//! * at a deadline of the worker's timers;
//! * when its driver has something to submit, or something complete;
//! * at the end of the coroutine's time slice, if something else can run there; a
//!   [`TICK`] is enough for one that was preempted before, if others than such are
//!   queued there.
//!   If another worker sleeps, the run-next slot, which it cannot steal from,
//!   goes to it a moment earlier.
//!
//! Nobody is signalled when nobody waits, nor is a thread that makes no progress.
//!
//! A thread that sleeps in the kernel for [`STUCK`] while it runs a coroutine, or does
//! not give way for so long, is *stuck*: a spare takes its worker over (`takeover`).
//!
//! # When the monitor looks
//!
//! Once per [`STROLL`] as long as some worker is awake. Where a worker was held up
//! lately, once per [`TICK`], and at its deadlines. When all of them sleep, and have done nothing since its last look, it sleeps
//! too, until a worker wakes:
//!
//! 1. The monitor stores `ASLEEP`, and then loads who sleeps. If all do it sleeps
//!    on the word.
//! 2. A worker that wakes takes its bit back, and then loads the word. If it is
//!    `ASLEEP` it stores `CALLED` and wakes the monitor.
//!
//! All four are sequentially consistent, so one of the two sees the other.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use std::time::{Duration, Instant};

use super::carrier::Carrier;
use super::runnable::Runnable;
use super::seat::Seat;
use super::shared::Shared;
use super::takeover::Stuck;
use crate::sys;

/// How often the monitor looks at workers that are awake.
const STROLL: Duration = Duration::from_millis(5);
/// How often it does so where a coroutine ran for long a short while ago.
const TICK: Duration = Duration::from_millis(1);
/// How many looks make that short while.
const ALERT: u32 = 500;
/// How often it looks at a coroutine with which nobody shares a worker.
const RARELY: Duration = Duration::from_millis(10);
/// How long a coroutine runs at least before it is preempted for who is due, and
/// how soon the monitor looks again after that.
const GRACE: Duration = Duration::from_micros(100);
/// The longest time between two signals to a coroutine that does not give way.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a thread may be stuck.
const STUCK: Duration = Duration::from_millis(20);

/// It looks from time to time.
const AWAKE: u32 = 0;
/// It sleeps until it is called.
const ASLEEP: u32 = 1;
/// It is to look now.
const CALLED: u32 = 2;

/// The part of the monitor that the workers see.
pub(super) struct Monitor(AtomicU32);

impl Monitor {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(AWAKE))
    }

    /// Step 2: a worker has woken up.
    #[inline]
    pub(super) fn attend(&self) {
        if self.0.load(SeqCst) == ASLEEP {
            self.wake();
        }
    }

    /// Has the monitor look now.
    #[cold]
    pub(super) fn wake(&self) {
        self.0.store(CALLED, SeqCst);
        sys::futex_wake(&self.0, 1);
    }
}

/// What the monitor knows of one worker.
#[derive(Default)]
struct Watched {
    was_asleep: bool,
    resumes: u64,
    /// How long its coroutine has been running, as far as the monitor saw it.
    ran: Duration,
    /// Signals that this coroutine was sent.
    signals: u32,
    /// How long it has computed since the first of them.
    ignored: Duration,
    /// The processor time of the thread when it was last looked at, and the calls
    /// that may block that it had made.
    progress: Duration,
    calls: u32,
    /// A spare was called, at this `ran`.
    relieved: Option<Duration>,
    /// Looks during which it is looked at often.
    alert: u32,
}

impl Watched {
    /// Looks at the thread, which was looked at `elapsed` ago.
    fn observe(&mut self, carrier: &Carrier, elapsed: Duration) -> Progress {
        let progress = sys::thread_time(carrier.thread()).unwrap_or_default();
        let used = progress.saturating_sub(std::mem::replace(&mut self.progress, progress));
        let calls = carrier.calls();
        let is_calling = calls != std::mem::replace(&mut self.calls, calls);
        if used.is_zero() {
            return Progress::None;
        }
        if self.signals > 0 {
            // Not by the clock: a busy machine may not let it run at all.
            self.ignored += used;
        }
        if 2 * used >= elapsed {
            Progress::Computes
        } else if is_calling {
            Progress::Calls
        } else {
            Progress::Little
        }
    }
}

/// What a thread has done since the monitor's last look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It has not used the processor.
    None,
    /// It has made calls that may block, and may be in one that a signal would end.
    Calls,
    /// It has run for less than half of the time: it may have begun to wait in a call
    /// that no hook sees, or others use the processor.
    Little,
    /// It runs.
    Computes,
}

/// Runs the monitor on the calling thread, which blocks the signals that others can
/// take, until the runtime stops.
pub(crate) fn monitor(shared: &Arc<Shared>) {
    sys::be_punctual();
    let watched = shared.seats().iter().map(|_| Watched {
        resumes: u64::MAX,
        ..Watched::default()
    });
    let mut watch = Watch {
        shared,
        watched: watched.collect(),
        now: Instant::now(),
        tick: TICK.min(shared.settings().time_slice),
        stroll: STROLL.min(shared.settings().time_slice),
    };
    while !shared.is_stopping() {
        let next = watch.look();
        watch.sleep(next);
    }
}

struct Watch<'a> {
    shared: &'a Arc<Shared>,
    watched: Vec<Watched>,
    now: Instant,
    tick: Duration,
    stroll: Duration,
}

impl Watch<'_> {
    /// Looks at every worker. Returns when to look again; `None` if all sleep.
    fn look(&mut self) -> Option<Duration> {
        let before = std::mem::replace(&mut self.now, Instant::now());
        // Not all of it, if this whole process was stopped meanwhile.
        let elapsed = (self.now - before).min(2 * RARELY);
        (0..self.watched.len())
            .filter_map(|index| self.look_at(index, elapsed))
            .min()
    }

    fn look_at(&mut self, index: usize, elapsed: Duration) -> Option<Duration> {
        let seat = &self.shared.seats()[index];
        let watched = &mut self.watched[index];
        let resumes = seat.resumes.load(Relaxed);
        let is_same = resumes == watched.resumes;
        let is_asleep = self.shared.sleepers.is_asleep(index);
        let was_asleep = std::mem::replace(&mut watched.was_asleep, is_asleep);
        if is_asleep {
            watched.resumes = resumes;
            return (!is_same).then_some(self.stroll);
        }
        if is_same && !was_asleep {
            watched.ran += elapsed;
        } else {
            watched.resumes = resumes;
            watched.ran = Duration::ZERO;
            watched.signals = 0;
            watched.ignored = Duration::ZERO;
            watched.relieved = None;
        }
        Some(self.attend_to(index, elapsed))
    }

    /// Looks at a worker that is awake. Returns when to look again.
    fn attend_to(&mut self, index: usize, elapsed: Duration) -> Duration {
        let shared = self.shared;
        let seat = &shared.seats()[index];
        let Some(carrier) = seat.carrier.lock().clone() else {
            return self.tick;
        };
        let watched = &mut self.watched[index];
        let progress = watched.observe(&carrier, elapsed);
        let ran = watched.ran;
        // Less is nothing special: one look at the driver may take that long.
        watched.alert = if ran < self.tick / 2 {
            watched.alert.saturating_sub(1)
        } else {
            ALERT
        };
        if watched.alert == 0 {
            // It looks after everything itself.
            return self.stroll;
        }
        if ran >= self.tick {
            self.pass_on(seat);
        }
        let (is_due, next) = self.who_is_due(seat, ran);
        let grace = GRACE.min(shared.settings().time_slice);
        let again = if ran >= STUCK && self.is_stuck(index, &carrier, progress) {
            self.relieve(index, carrier)
        } else if is_due && ran >= grace {
            self.preempt(index, &carrier, progress)
        } else if is_due {
            grace
        } else {
            next
        };
        again.max(grace)
    }

    /// Whether somebody is due who waits on a worker whose coroutine `ran` for a
    /// while, and when that may change.
    fn who_is_due(&self, seat: &Seat, ran: Duration) -> (bool, Duration) {
        let next = if ran < self.tick || seat.has_io() {
            self.tick
        } else {
            RARELY
        };
        let deadline = seat.timers.lock().next_deadline();
        let left = deadline.map_or(next, |at| at.saturating_duration_since(self.now));
        let has_runnable = seat.has_runnable();
        let slice = if has_runnable && seat.computes.load(Relaxed) {
            self.tick.saturating_sub(ran)
        } else if has_runnable || self.shared.has_global_work() {
            self.shared.settings().time_slice.saturating_sub(ran)
        } else {
            next
        };
        let is_due = left.is_zero() || slice.is_zero() || self.has_urgent_io(seat);
        if is_due {
            return (true, next);
        }
        (false, next.min(left).min(slice))
    }

    /// Whether the driver has something to submit or to hand out.
    fn has_urgent_io(&self, seat: &Seat) -> bool {
        seat.has_unsubmitted_io()
            || (seat.has_io()
                && seat
                    .outside
                    .get()
                    .is_some_and(|outside| sys::is_readable(outside.fd.load(Relaxed))))
    }

    /// A coroutine in the run-next slot of a worker that is held up goes to one
    /// that sleeps.
    fn pass_on(&self, seat: &Seat) {
        if seat.run_next.load(Relaxed).is_null() || !self.shared.sleepers.any_asleep() {
            return;
        }
        // AcqRel: pairs with `push_next`. Any coroutine in the slot is runnable and
        // in no other queue.
        if let Some(stranded) = NonNull::new(seat.run_next.swap(ptr::null_mut(), AcqRel)) {
            self.shared.enqueue(Runnable::coroutine(stranded), 0);
        }
    }

    /// Signals the coroutine of a worker. Returns when to look again.
    fn preempt(&mut self, index: usize, carrier: &Carrier, progress: Progress) -> Duration {
        let runs = match progress {
            Progress::None | Progress::Calls => false,
            Progress::Little => !sys::is_asleep(carrier.thread()),
            Progress::Computes => true,
        };
        if !runs || !self.shared.settings().preemptive {
            return self.tick;
        }
        super::preempt::signal(carrier);
        let watched = &mut self.watched[index];
        watched.signals += 1;
        (GRACE * watched.signals.min(64)).min(PATIENCE)
    }

    /// Whether a thread that has run one coroutine for long is stuck.
    fn is_stuck(&self, index: usize, carrier: &Carrier, progress: Progress) -> bool {
        self.shared.settings().take_over
            && (self.watched[index].ignored >= STUCK
                || (progress == Progress::None && sys::is_asleep(carrier.thread())))
    }

    /// Calls a spare, and again if the thread is still stuck much later.
    fn relieve(&mut self, index: usize, carrier: Arc<Carrier>) -> Duration {
        let watched = &mut self.watched[index];
        let is_called = |at: Duration| watched.ran < at + STUCK;
        if !watched.relieved.is_some_and(is_called) {
            watched.relieved = Some(watched.ran);
            // Without a thread for it, see above.
            let _ = self.shared.relieve(Stuck {
                carrier,
                index,
                resumes: watched.resumes,
                since: self.now - watched.ran,
            });
        }
        self.tick
    }

    fn sleep(&self, next: Option<Duration>) {
        let word = &self.shared.monitor.0;
        let Some(next) = next else {
            return self.sleep_long();
        };
        sys::futex_wait(word, AWAKE, Some(next));
        word.store(AWAKE, SeqCst);
    }

    /// Step 1.
    fn sleep_long(&self) {
        let word = &self.shared.monitor.0;
        word.store(ASLEEP, SeqCst);
        let workers = self.shared.seats().len();
        while word.load(SeqCst) == ASLEEP
            && self.shared.sleepers.asleep() == workers
            && !self.shared.is_stopping()
        {
            sys::futex_wait(word, ASLEEP, None);
        }
        word.store(AWAKE, SeqCst);
    }
}
