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
    install_handlers();
    let scripts: Vec<(usize, Arc<Script>)> = (job.first..job.first + job.count)
        .map(|index| (index, Arc::new(job.tree(index).current())))
        .collect();
    let watched = |index, script: &Arc<Script>, performer| watch(index, script, performer);
    let records: Vec<Record> = scripts
        .iter()
        .map(|(index, script)| watched(*index, script, Performer::Threads))
        .collect();
    let repeats = if job.count == 1 { SHRINK_RUNS } else { 1 };
    for performer in COROUTINES {
        if !performer.start() {
            println!("{performer:?} is not available here");
            continue;
        }
        for ((index, script), right) in scripts.iter().zip(&records) {
            for _ in 0..repeats {
                check(*index, script, performer, right);
            }
        }
        if let Err(error) = performer.stop() {
            println!("{performer:?}: {error}");
            process::exit(1);
        }
    }
    process::exit(0)
}

/// Performs a script on coroutines; ends the process if it differs.
fn check(index: usize, script: &Arc<Script>, performer: Performer, right: &Record) {
    let seen = watch(index, script, performer);
    let Some(text) = difference(script, right, &seen) else {
        return;
    };
    for _ in 0..THREAD_RUNS {
        if watch(index, script, Performer::Threads) == seen {
            return;
        }
    }
    println!("{MARK} {index} on {performer:?} differs\n{text}");
    process::exit(1);
}

/// Performs a script, and ends the process if that takes too long.
fn watch(index: usize, script: &Arc<Script>, performer: Performer) -> Record {
    println!("{MARK} {index} on {performer:?}");
    let progress = Arc::new(Progress::default());
    let (ended, end) = mpsc::channel::<()>();
    let watcher = {
        let (script, progress) = (script.clone(), progress.clone());
        thread::spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!(
                    "{MARK} {index} on {performer:?} hangs\n{}",
                    progress.describe(&script)
                );
                process::abort();
            }
        })
    };
    let record = run(script, performer, &progress);
    drop(ended);
    watcher.join().expect("it only waits");
    record
}
