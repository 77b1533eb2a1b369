//! One fault, in the process that is made for it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::Driver;

use crate::calls::{CALLS, error_named};
use crate::supervisor::{self, Fault, supervise};
use crate::workload;

/// Tells a child its job.
pub(crate) const VARIABLE: &str = "OPEN_COROUTINE_FAULTS_CHILD";
/// Begins the lines that a child has for its parent.
pub(crate) const MARK: &str = "fault:";
/// In the place of a driver: whichever there is.
pub(crate) const ANY: &str = "any";
/// How a child ends that cannot do its job here.
pub(crate) const UNAVAILABLE: i32 = 77;

/// Panics so far, wherever they were caught.
static PANICS: AtomicU32 = AtomicU32::new(0);

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
    let (driver, fault) = parse(&text).expect("a job as the parent writes it");
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, SeqCst);
        usual(info);
    }));
    // Ends the line that the test harness has begun.
    println!();
    if let Err(error) = supervise(fault) {
        println!("{MARK} unavailable {error}");
        process::exit(UNAVAILABLE);
    }
    let before = descriptors();
    // Every other fault happens where one worker does everything.
    let workers = 1 + fault.map_or(0, |fault| fault.occurrence as usize) % 2;
    let outcome = workload::run(driver, workers);
    let leaked = leaked_since(&before);
    for (call, count) in CALLS.iter().zip(supervisor::counts()) {
        println!("{MARK} count {count} {}", call.name);
    }
    for call in workload::seen() {
        println!("{MARK} seen {call}");
    }
    let mut failed = false;
    let mut fail = |text: String| {
        println!("{MARK} failure {text}");
        failed = true;
    };
    if let Err(error) = outcome {
        fail(format!("{error} ({error:?})"));
    }
    if PANICS.load(SeqCst) > 0 {
        fail("something has panicked".into());
    }
    if !leaked.is_empty() {
        fail(format!("open still: {leaked:?}"));
    }
    println!("{MARK} given {:?}", supervisor::given());
    process::exit(i32::from(failed))
}

/// `driver` or `driver/call/error/occurrence`.
fn parse(text: &str) -> Option<(Option<Driver>, Option<Fault>)> {
    let mut words = text.split('/');
    let driver = match words.next()? {
        "io_uring" => Some(Driver::IoUring),
        "epoll" => Some(Driver::Epoll),
        ANY => None,
        _ => return None,
    };
    let Some(name) = words.next() else {
        return Some((driver, None));
    };
    let fault = Fault {
        call: CALLS.iter().position(|call| call.name == name)?,
        error: error_named(words.next()?)?,
        occurrence: words.next()?.parse().ok()?,
    };
    Some((driver, Some(fault)))
}

/// What is open that was not `before`. A thread that has just woken a coroutine may
/// be the last one to leave the runtime, a moment after it has stopped.
fn leaked_since(before: &BTreeSet<(String, PathBuf)>) -> Vec<(String, PathBuf)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let leaked: Vec<_> = descriptors().difference(before).cloned().collect();
        if leaked.is_empty() || Instant::now() > deadline {
            return leaked;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What is open, and what that is.
fn descriptors() -> BTreeSet<(String, PathBuf)> {
    let names = fs::read_dir("/proc/self/fd").expect("there is /proc");
    let links = names.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        // The directory itself is open while it is read.
        let is_own = target.to_string_lossy().ends_with("/fd");
        (!is_own).then(|| (entry.file_name().to_string_lossy().into_owned(), target))
    });
    links.collect()
}
