//! `preempt` and `preempt-yield`: does a task in pure computation starve another one?
//!
//! One worker, two tasks: a spinner, and a victim that sleeps a millisecond at a time or only
//! yields. The victim starts first, so that it is truly running; only what it does after the
//! spinner began is counted. A plain thread stops the spinner in the end, so that a runtime
//! without preemption finishes too and can say that it starved.

use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::{spawn, yield_now};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const HEAD_START: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1);
/// With fewer turns than this, the victim starved: one may slip through when the spinner ends.
const FEW: u64 = 10;

/// What spinner, victim and the stopping thread share.
#[derive(Default)]
struct Contest {
    /// When the spinner began.
    began: OnceLock<Instant>,
    stopped: AtomicBool,
    /// How far the spinner has come.
    rounds: AtomicU64,
}

impl Contest {
    fn is_running(&self) -> bool {
        !self.stopped.load(Relaxed)
    }

    /// Pure computation: no call, no allocation, only a look at the flag now and then.
    #[inline(never)]
    fn spin(&self, started: &Sender<()>) -> u64 {
        self.began.get_or_init(Instant::now);
        let _ = started.send(());
        let mut state = 0x1234_5678_u64;
        while self.is_running() {
            for _ in 0..64 {
                state = black_box(
                    state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
            self.rounds.store(self.rounds.load(Relaxed) + 1, Relaxed);
        }
        state
    }

    /// Ends the contest `duration` after the spinner began, or soon if it never does.
    fn stop_after(self: Arc<Self>, duration: Duration, started: Receiver<()>) {
        std::thread::spawn(move || {
            match started.recv_timeout(Duration::from_secs(5)) {
                Ok(()) => std::thread::sleep(duration),
                Err(_) => eprintln!("preempt: the spinner never got to run"),
            }
            self.stopped.store(true, Relaxed);
        });
    }
}

/// Runs `victim` beside a spinner; `head_start` is how the root lets it get going. Returns
/// also how many rounds the spinner did per second.
fn compete<R: Send + 'static>(
    options: &Options,
    head_start: fn(),
    victim: impl FnOnce(&Contest) -> R + Send + 'static,
) -> (R, f64) {
    let duration = options.duration(2.0);
    in_root(move || {
        let contest = Arc::new(Contest::default());
        let (started, wait) = channel();
        contest.clone().stop_after(duration, wait);
        let shared = contest.clone();
        let victim = spawn(move || victim(&shared));
        head_start();
        let spinning = contest.clone();
        let spinner = spawn(move || spinning.spin(&started));
        spinner.join().expect("the spinner ends");
        let spun = contest.began.get().expect("it has begun").elapsed();
        let rounds = contest.rounds.load(Relaxed) as f64 / spun.as_secs_f64();
        (victim.join().expect("the victim ends"), rounds)
    })
}

/// How many rounds per second the spinner does with nobody beside it.
fn alone(options: &Options) -> f64 {
    compete(options, || {}, |_| {}).1
}

/// `preempt`: how late does a task wake up that sleeps a millisecond?
pub fn late_wakeups(options: &Options, report: &Report) {
    let sleep = || std::thread::sleep(HEAD_START);
    let (mut late, rounds) = compete(options, sleep, |contest| {
        let mut late = Vec::with_capacity(1 << 16);
        while contest.is_running() {
            let start = Instant::now();
            std::thread::sleep(PAUSE);
            let end = Instant::now();
            if contest.began.get().is_some_and(|began| *began <= end) {
                late.push((end - start).saturating_sub(PAUSE));
            }
        }
        late
    });
    late.sort_unstable();
    report.metric("wakeups", late.len() as f64, "count");
    if let Some(longest) = late.last() {
        let microseconds = |time: &Duration| time.as_nanos() as f64 / 1e3;
        report.metric("late_p50", microseconds(&late[late.len() / 2]), "us");
        report.metric("late_p99", microseconds(&late[late.len() * 99 / 100]), "us");
        report.metric("late_max", microseconds(longest), "us");
    }
    report.metric("spinner_share", rounds / alone(options), "ratio");
    report_starved(report, late.len() as u64);
}

/// `preempt-yield`: how often does a task run that only yields?
pub fn yields(options: &Options, report: &Report) {
    // Yields and no sleep: the loop of a yielding victim must not be able to keep the root from
    // starting the spinner by starving timers.
    let head_start = || (0..100).for_each(|_| yield_now());
    let (yields, _) = compete(options, head_start, |contest| {
        let count = AtomicU64::new(0);
        while contest.is_running() {
            yield_now();
            if contest.began.get().is_some() && contest.is_running() {
                count.fetch_add(1, Relaxed);
            }
        }
        count.into_inner()
    });
    let per_second = yields as f64 / options.duration(2.0).as_secs_f64();
    report.metric("yields_per_s", per_second, "1/s");
    report_starved(report, yields);
}

fn report_starved(report: &Report, turns: u64) {
    let starved = if turns < FEW { 1.0 } else { 0.0 };
    report.metric("starved", starved, "bool");
}
