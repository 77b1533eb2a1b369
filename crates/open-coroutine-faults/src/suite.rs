//! Which faults there are, and what came of each.

use std::collections::BTreeMap;
use std::env;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{Driver, Mode, capabilities};

use crate::calls::{CALLS, name_of};
use crate::child::{ANY, MARK, UNAVAILABLE, VARIABLE};
use crate::workload;

/// `all`, or a single fault.
const CHOICE: &str = "OPEN_COROUTINE_FAULTS";
/// How long a child may take: some hundred times what it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Occurrences that are tried of one call: all of so few.
const MOST: u32 = 60;

/// Has each system call fail in turn under `driver`, by children that run the test
/// `test`.
///
/// # Panics
///
/// If a child saw something that it must not see.
pub fn try_faults(test: &str, driver: Driver) {
    if !is_full_mode() {
        return;
    }
    let runner = Runner { test };
    let choice = env::var(CHOICE).unwrap_or_default();
    if choice.contains('/') {
        if choice.starts_with(&driver.to_string()) {
            let report = runner.run(&choice);
            println!("{report:#?}");
            assert_eq!(None, report.failure());
        }
        return;
    }
    let plain = runner.run(&driver.to_string());
    if plain.status == Some(UNAVAILABLE) || plain.text.contains("Driver(") {
        eprintln!("skipped: {driver}: {}", plain.text);
        return;
    }
    assert_eq!(None, plain.failure(), "without a fault");
    let mut counts = plain.counts();
    for call in CALLS.iter().filter(|call| call.behind.is_some()) {
        let name = call.name;
        let plain = runner.run(&format!("{driver}/{name}/{}/0", name_of(call.errors[0])));
        assert_eq!(None, plain.failure(), "only what leads to {name} fails");
        counts.extend(plain.counts().remove_entry(name));
    }
    summarize(&runner.run_all(&faults(driver, &counts, choice == "all")));
}

/// Has each step fail in which rings are made, where no driver was asked for, by
/// children that run the test `test`.
///
/// # Panics
///
/// If a child saw anything of that.
pub fn try_rings(test: &str) {
    if !is_full_mode() {
        return;
    }
    let runner = Runner { test };
    let plain = runner.run(ANY);
    if plain.status == Some(UNAVAILABLE) {
        eprintln!("skipped: {}", plain.text);
        return;
    }
    assert_eq!(None, plain.failure(), "without a fault");
    let mut faults = Vec::new();
    for name in ["io_uring_setup", "mmap of a ring"] {
        let count = plain.counts().get(name).copied().unwrap_or(0);
        faults.extend((1..=count).map(|occurrence| format!("{ANY}/{name}/ENOMEM/{occurrence}")));
    }
    let reports = runner.run_all(&faults);
    summarize(&reports);
    for (fault, report) in reports {
        assert!(report.lines("seen").next().is_none(), "{fault}: {report:?}");
    }
}

/// Whether blocking calls suspend here, which the workload relies on; else says so.
fn is_full_mode() -> bool {
    let mode = capabilities().mode;
    let is_full = mode == Mode::Full;
    if !is_full {
        eprintln!("skipped: {mode:?}");
    }
    is_full
}

/// What is tried: each call with each error, at the first occurrence, the last one
/// and one between them, or at all of them.
fn faults(driver: Driver, counts: &BTreeMap<String, u32>, all: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, call) in CALLS.iter().enumerate() {
        let count = counts.get(call.name).copied().unwrap_or(0);
        for (nth, &error) in call.errors.iter().enumerate() {
            let step = count.div_ceil(MOST).max(1) as usize;
            let occurrences: Vec<u32> = if all {
                (1..=count).step_by(step).collect()
            } else if count == 0 {
                vec![]
            } else {
                // Another one for each.
                let place = (index * 7 + nth * 13) as u32 % count + 1;
                vec![place]
            };
            for occurrence in occurrences {
                let error = name_of(error);
                faults.push(format!("{driver}/{}/{error}/{occurrence}", call.name));
            }
        }
    }
    faults
}

struct Runner<'a> {
    test: &'a str,
}

/// What a child has said.
#[derive(Debug)]
struct Report {
    /// `None` if a signal ended it, or we did because it took too long.
    status: Option<i32>,
    signal: Option<i32>,
    text: String,
}

impl Runner<'_> {
    /// Each fault in a child of its own, some at a time.
    fn run_all<'a>(&self, faults: &'a [String]) -> BTreeMap<&'a str, Report> {
        let reports = Mutex::new(BTreeMap::new());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some(fault) = faults.get(next.fetch_add(1, Relaxed)) {
                        let report = self.run(fault);
                        reports.lock().unwrap().insert(&**fault, report);
                    }
                });
            }
        });
        reports.into_inner().unwrap()
    }

    fn run(&self, job: &str) -> Report {
        let mut command = Command::new(env::current_exe().expect("it is running"));
        // SAFETY: async-signal-safe; the set is alive for the call.
        unsafe {
            command.pre_exec(|| {
                let set = workload::awaited_signals();
                libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
                Ok(())
            })
        };
        let child = command
            .args(["--exact", self.test, "--nocapture", "--test-threads=1"])
            .env(VARIABLE, job)
            .env_remove("OPEN_COROUTINE_DRIVER")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the test itself can be run");
        wait(child)
    }
}

/// Reads what the child says until it ends; ends it when its time is over.
fn wait(mut child: Child) -> Report {
    let read = |mut stream: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("piped")));
    let errors = read(Box::new(child.stderr.take().expect("piped")));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                break ExitStatusExt::from_raw(libc::SIGKILL);
            }
        }
    };
    let text = out.join().expect("it only reads") + &errors.join().expect("it only reads");
    Report {
        status: status.code(),
        signal: status.signal(),
        text,
    }
}

impl Report {
    /// The rests of lines that begin with `key`.
    fn lines<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let said = self.text.lines().filter_map(|line| line.strip_prefix(MARK));
        said.filter_map(move |line| line.trim().strip_prefix(key).map(str::trim))
    }

    fn counts(&self) -> BTreeMap<String, u32> {
        let parse = |line: &str| {
            let (count, name) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        self.lines("count").filter_map(parse).collect()
    }

    /// What must not have happened.
    fn failure(&self) -> Option<String> {
        if let Some(libc::SIGKILL) = self.signal {
            return Some(format!("it hangs\n{}", self.text));
        }
        (self.status != Some(0))
            .then(|| format!("{:?} {:?}\n{}", self.status, self.signal, self.text))
    }

    /// What its user saw.
    fn outcome(&self) -> String {
        if self.lines("given").any(|given| given == "None") {
            return "not reached".into();
        }
        let seen: Vec<_> = self.lines("seen").collect();
        if seen.is_empty() {
            "nothing".into()
        } else {
            seen.join(", ")
        }
    }
}

/// Prints what was seen of each error of each call, and panics for what must not be.
fn summarize(reports: &BTreeMap<&str, Report>) {
    let mut outcomes: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
    let mut failures = Vec::new();
    for (fault, report) in reports {
        let kind = fault.rsplit_once('/').expect("it has an occurrence").0;
        let counts = outcomes.entry(kind).or_default();
        if let Some(text) = report.failure() {
            failures.push(format!("{fault}: {text}"));
            *counts.entry("FAILED".into()).or_default() += 1;
        } else {
            *counts.entry(report.outcome()).or_default() += 1;
        }
    }
    for (kind, counts) in &outcomes {
        println!("{kind}: {counts:?}");
    }
    assert!(
        failures.is_empty(),
        "{} of {} faults:\n{}",
        failures.len(),
        reports.len(),
        failures.join("\n")
    );
}
