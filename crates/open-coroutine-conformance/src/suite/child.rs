//! The process that performs scripts.

use std::env;
use std::process;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::Job;
use super::compare::difference;
use crate::interpret::threads::install_handlers;
use crate::run::{COROUTINES, Performer, Progress, Record, run};
use crate::script::Script;

/// Tells a child its job.
pub(super) const VARIABLE: &str = "OPEN_COROUTINE_CONFORMANCE_CHILD";
/// Begins the lines that tell which script is performed.
pub(super) const MARK: &str = "script";

/// How long a script may take: some thousand times what it takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long while it is shrunk.
const SHRINK_PATIENCE: Duration = Duration::from_secs(5);
/// How often threads perform a script again on which coroutines differ.
const THREAD_RUNS: usize = 30;
/// How often a script is performed that is being shrunk, because a race does
/// not show each time.
const SHRINK_RUNS: usize = 4;

/// Whether this process is a child.
pub fn is_child() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Does the child's job, and ends the process.
///
/// # Panics
///
/// If the job is not one that the parent would give.
pub fn run_child() -> ! {
    let text = env::var(VARIABLE).expect("the parent sets it");
    let job = Job::from_text(&text).expect("a job as the parent writes it");
    // Ends the line that the test harness has begun.
    println!();
    install_handlers();
    let scripts: Vec<(usize, Arc<Script>)> = (job.first..job.first + job.count)
        .map(|index| (index, Arc::new(job.tree(index).current())))
        .collect();
    let watch = if job.is_shrinking() {
        Watch {
            patience: SHRINK_PATIENCE,
            repeats: SHRINK_RUNS,
        }
    } else {
        Watch {
            patience: PATIENCE,
            repeats: 1,
        }
    };
    let records: Vec<Record> = scripts
        .iter()
        .map(|(index, script)| watch.run(*index, script, Performer::Threads))
        .collect();
    for performer in COROUTINES {
        if !performer.start() {
            println!("{performer:?} is not available here");
            continue;
        }
        for ((index, script), right) in scripts.iter().zip(&records) {
            watch.check(*index, script, performer, right);
        }
        if let Err(error) = performer.stop() {
            println!("{performer:?}: {error}");
            process::exit(1);
        }
    }
    process::exit(0)
}

/// How scripts are performed.
struct Watch {
    /// How long one may take.
    patience: Duration,
    /// How often coroutines perform each.
    repeats: usize,
}

impl Watch {
    /// Performs a script on coroutines; ends the process if it differs.
    fn check(&self, index: usize, script: &Arc<Script>, performer: Performer, right: &Record) {
        for _ in 0..self.repeats {
            let seen = self.run(index, script, performer);
            let Some(text) = difference(script, right, &seen) else {
                continue;
            };
            let is_seen = |_| self.run(index, script, Performer::Threads) == seen;
            if !(0..THREAD_RUNS).any(is_seen) {
                println!("{MARK} {index} on {performer:?} differs\n{text}");
                process::exit(1);
            }
        }
    }

    /// Performs a script, and ends the process if that takes too long.
    fn run(&self, index: usize, script: &Arc<Script>, performer: Performer) -> Record {
        println!("{MARK} {index} on {performer:?}");
        let progress = Arc::new(Progress::default());
        let (ended, end) = mpsc::channel::<()>();
        let watcher = {
            let (script, progress, patience) = (script.clone(), progress.clone(), self.patience);
            thread::spawn(move || {
                if end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let places = progress.describe(&script);
                    println!("{MARK} {index} on {performer:?} hangs\n{places}");
                    process::abort();
                }
            })
        };
        let record = run(script, performer, &progress);
        drop(ended);
        watcher.join().expect("it only waits");
        record
    }
}
