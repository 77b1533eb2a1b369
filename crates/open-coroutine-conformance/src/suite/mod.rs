//! Batches of scripts in child processes, comparison, shrinking, reports.
//!
//! The test's process only generates. Scripts are performed by children, so
//! that one that crashes or hangs is shrunk like any other. A child is told the
//! seed, which script, and which steps of shrinking to take; both generate the
//! same from that. What it finds it prints.
//!
//! A result that threads give too, now and then, is no divergence: where a
//! coroutine's result differs, threads perform the script again, many times.

mod child;
mod compare;

use std::env;
use std::fmt::Write as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::generate::{self, Family};
use crate::script::Script;

pub use child::{is_child, run_child};

/// Scripts of each family, unless `OPEN_COROUTINE_CONFORMANCE_SCRIPTS` says
/// how many.
const SCRIPTS: usize = 500;
/// Scripts that a child performs, one kind of runtime after the other.
const BATCH: usize = 50;
/// The seed, unless `OPEN_COROUTINE_CONFORMANCE_SEED` says which.
const SEED: u64 = 1;
/// How long a failure may be shrunk.
const SHRINKING: Duration = Duration::from_secs(90);

/// Which scripts a child performs. Each is generated from the seed and its
/// number alone.
#[derive(Clone, Debug)]
struct Job {
    family: Family,
    seed: u64,
    /// The first script.
    first: usize,
    count: usize,
    /// Steps of shrinking, of one script: see [`Shrinking`].
    steps: String,
}

/// Performs many scripts of `family` on threads and on coroutines, and panics
/// with the smallest that differs. `test` is the name of the calling test, which
/// must call [`run_child`] if it [is a child](is_child).
///
/// # Panics
///
/// If a script differs, crashes or hangs.
pub fn conform(test: &str, family: Family) {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect(name))
    };
    let seed = number("OPEN_COROUTINE_CONFORMANCE_SEED").unwrap_or(SEED);
    let scripts = number("OPEN_COROUTINE_CONFORMANCE_SCRIPTS").map_or(SCRIPTS, |n| n as usize);
    let begin = Instant::now();
    for first in (0..scripts).step_by(BATCH) {
        let count = BATCH.min(scripts - first);
        let job = Job {
            family,
            seed,
            first,
            count,
            steps: String::new(),
        };
        let ran = job.run(test);
        if !ran.status.success() {
            report(test, &job, ran);
        }
    }
    let rate = scripts as f64 / begin.elapsed().as_secs_f64();
    eprintln!("{family:?}: {scripts} scripts, {rate:.0} per second, seed {seed}");
}

/// Shrinks what failed, and panics.
fn report(test: &str, job: &Job, ran: Ran) -> ! {
    let Some(index) = ran.script() else {
        panic!("a child failed before its first script\n{}", ran.output);
    };
    let mut shrinking = Shrinking::new(job, index);
    let (mut smallest, mut ran) = (shrinking.tree.current(), ran);
    let begin = Instant::now();
    while begin.elapsed() < SHRINKING && shrinking.step() {
        let again = shrinking.job.run(test);
        shrinking.fails = !again.status.success();
        if shrinking.fails {
            (smallest, ran) = (shrinking.tree.current(), again);
        }
    }
    let mut text = String::new();
    for (number, round) in smallest.rounds.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {number}: {round:?}");
    }
    panic!(
        "coroutines differ from threads\nfamily {:?}, seed {}, script {index}\n{} actors\n{text}{}\n{}",
        job.family, job.seed, smallest.actors, ran.status, ran.output
    );
}

/// One script on its way to a smaller one that fails too.
struct Shrinking {
    job: Job,
    tree: Tree,
    /// Whether the latest one failed.
    fails: bool,
}

impl Shrinking {
    fn new(job: &Job, index: usize) -> Self {
        let job = Job {
            first: index,
            count: 1,
            ..job.clone()
        };
        Self {
            tree: job.tree(index),
            job,
            fails: true,
        }
    }

    /// Takes a step to another script; `false` if there is none.
    fn step(&mut self) -> bool {
        let step = if self.fails { 's' } else { 'c' };
        self.job.steps.push(step);
        take(&mut self.tree, step)
    }
}

type Tree = Box<dyn ValueTree<Value = Script>>;

/// Simplifies (`s`), or complicates (`c`) after a step too far.
fn take(tree: &mut Tree, step: char) -> bool {
    match step {
        's' => tree.simplify(),
        _ => tree.complicate(),
    }
}

/// A child that has ended.
struct Ran {
    status: ExitStatus,
    output: String,
}

impl Ran {
    /// The script that it performed last.
    fn script(&self) -> Option<usize> {
        let line = self
            .output
            .lines()
            .rfind(|line| line.starts_with(child::MARK))?;
        line.split(' ').nth(1)?.parse().ok()
    }
}

impl Job {
    /// What script `index` is generated and shrunk from.
    fn tree(&self, index: usize) -> Tree {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let tree = generate::script(self.family).new_tree(&mut runner);
        let mut tree = tree.expect("few values are filtered out");
        for step in self.steps.chars() {
            take(&mut tree, step);
        }
        tree
    }

    /// Lets a child do it.
    fn run(&self, test: &str) -> Ran {
        let output = Command::new(env::current_exe().expect("the test's own path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(child::VARIABLE, self.to_text())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .expect("a child starts");
        let text = [output.stdout, output.stderr].concat();
        Ran {
            status: output.status,
            output: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// Whether it is about one script that has failed.
    fn is_shrinking(&self) -> bool {
        self.count == 1
    }

    fn to_text(&self) -> String {
        let Self {
            family,
            seed,
            first,
            count,
            steps,
        } = self;
        format!("{family:?} {seed} {first} {count} {steps}")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let family = words.next()?;
        Some(Self {
            family: Family::ALL
                .into_iter()
                .find(|known| format!("{known:?}") == family)?,
            seed: words.next()?.parse().ok()?,
            first: words.next()?.parse().ok()?,
            count: words.next()?.parse().ok()?,
            steps: words.next()?.to_owned(),
        })
    }
}
