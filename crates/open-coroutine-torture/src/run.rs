//! One run: the coroutines, what ends them, and what is checked at the end.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use open_coroutine::{Builder, JoinHandle, capabilities, init, shutdown, yield_now};
use open_coroutine_core::sched::Census;
use open_coroutine_core::{runtime, sys};

use crate::bodies::{self, Body, HOG, Round, World, printing};
use crate::lines;
use crate::options::Options;
use crate::progress::{self, Entry};
use crate::soak::{self, Sample};

/// Room for backtraces without optimization.
const STACK_SIZE: usize = 512 * 1024;

struct Run {
    world: Arc<World>,
    entries: Vec<Entry>,
    is_over: AtomicBool,
    /// Whether coroutines give way by themselves.
    yields: bool,
    failures: Mutex<Vec<String>>,
}

/// Runs what `options` say and prints a summary.
pub(crate) fn run(options: &Options) -> ExitCode {
    panic::set_hook(Box::new(bodies::panics::hook));
    let chosen = choose(options);
    if chosen.is_empty() {
        eprintln!("no such body; there are {}", bodies::names().join(", "));
        return ExitCode::from(2);
    }
    let run = Arc::new(Run {
        world: Arc::new(World::default()),
        entries: chosen.iter().map(|body| Entry::new(body.name)).collect(),
        is_over: AtomicBool::new(false),
        yields: options.cooperative,
        failures: Mutex::default(),
    });
    let before = Sample::take();
    init(options.config()).expect("the runtime starts");
    let driver = capabilities().driver;
    let idle = Sample::take();
    let start = Instant::now();
    let samples = run.load(options, &chosen);
    let elapsed = start.elapsed();
    let Census {
        preemptions,
        takeovers,
        ..
    } = runtime::census();
    if options.soak {
        run.judge(&samples, &idle);
    }
    if let Err(error) = shutdown() {
        run.fail(format!("shutdown: {error}"));
    }
    if options.soak {
        run.expect(soak::settle(&before));
    }
    run.world
        .check()
        .into_iter()
        .for_each(|wrong| run.fail(wrong));
    run.summarize(&format!(
        "{driver}, {} workers, {} coroutines, {} hogs, slices of {:?}, {:.1} s: \
         {preemptions} preemptions, {takeovers} take-overs",
        options.workers,
        options.coroutines,
        options.hogs,
        options.slice,
        elapsed.as_secs_f64(),
    ))
}

/// The bodies of all coroutines.
fn choose(options: &Options) -> Vec<&'static Body> {
    let is_wanted =
        |body: &&Body| options.only.is_empty() || options.only.iter().any(|name| name == body.name);
    let wanted: Vec<_> = bodies::ALL.iter().filter(is_wanted).collect();
    let others = wanted.iter().copied().cycle().take(options.coroutines);
    let hogs = std::iter::repeat_n(&HOG, options.hogs);
    others.chain(hogs).collect()
}

fn start_one(run: &Arc<Run>, index: usize, body: &'static Body) -> JoinHandle<()> {
    let run = run.clone();
    let task = Builder::new().name(body.name).stack_size(STACK_SIZE);
    task.spawn(move || run.perform(index, body))
        .expect("a coroutine starts")
}

impl Run {
    /// Starts all coroutines and a watchdog, and waits until they have ended.
    fn load(self: &Arc<Self>, options: &Options, chosen: &[&'static Body]) -> Vec<Sample> {
        let start = |(index, body): (usize, &&'static Body)| start_one(self, index, body);
        let handles: Vec<_> = chosen.iter().enumerate().map(start).collect();
        let (watched, patience) = (self.clone(), options.patience);
        let watchdog = thread::spawn(move || progress::watch(&watched.entries, patience));
        let samples = soak::watch(options.time);
        self.is_over.store(true, Relaxed);
        for handle in handles {
            if let Err(error) = handle.join() {
                self.fail(format!("a coroutine ended with {error}"));
            }
        }
        watchdog.join().expect("it only watches");
        samples
    }

    /// Looks for what has grown, and for what is left over.
    fn judge(&self, samples: &[Sample], idle: &Sample) {
        match soak::check_growth(samples) {
            Ok(growth) => eprintln!("memory has grown by {:.0} kB", growth / 1024.0),
            Err(wrong) => self.fail(wrong),
        }
        self.expect(soak::settle(idle));
    }

    /// Prints how it went: `how`, and numbers.
    fn summarize(&self, how: &str) -> ExitCode {
        let failures = self.failures.lock().expect("nobody panics with it").len();
        for entry in &self.entries {
            eprintln!("  {:12} {:9}", entry.name, entry.rounds.load(Relaxed));
        }
        let sum = |what: fn(&Entry) -> u64| self.entries.iter().map(what).sum::<u64>();
        let printing = &self.world.printing;
        println!(
            "{how}, {} rounds, {} migrations seen, {} lines, {failures} failures",
            sum(|entry| entry.rounds.load(Relaxed)),
            sum(|entry| entry.migrations.load(Relaxed)),
            printing.lines(),
        );
        println!("{}", lines::last(printing.lines_of(printing::STDOUT)));
        eprintln!("{}", lines::last(printing.lines_of(printing::STDERR)));
        ExitCode::from(u8::from(failures != 0))
    }

    /// Rounds until the run is over.
    fn perform(&self, index: usize, body: &'static Body) {
        let entry = &self.entries[index];
        let mut round = Round::new(index, self.world.clone());
        let mut thread = sys::gettid();
        while !self.is_over.load(Relaxed) {
            let result = panic::catch_unwind(AssertUnwindSafe(|| (body.round)(&mut round)));
            if let Err(payload) = result {
                self.fail(format!(
                    "{} {index}: {}",
                    body.name,
                    bodies::message(&*payload)
                ));
                break;
            }
            round.number += 1;
            entry.rounds.fetch_add(1, Relaxed);
            if self.yields {
                yield_now();
            }
            let now = sys::gettid();
            if now != thread {
                entry.migrations.fetch_add(1, Relaxed);
                thread = now;
            }
        }
        entry.is_done.store(true, Relaxed);
    }

    fn expect(&self, result: Result<(), String>) {
        if let Err(wrong) = result {
            self.fail(wrong);
        }
    }

    fn fail(&self, wrong: String) {
        eprintln!("FAILED: {wrong}");
        self.failures
            .lock()
            .expect("nobody panics with it")
            .push(wrong);
    }
}
