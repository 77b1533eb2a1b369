//! What must not grow in a long run, and what must be gone after it.

use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine_core::runtime;
use open_coroutine_core::sched::Census;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The part of a run, at its begin, in which memory may still grow.
const WARM_UP: f64 = 0.25;
/// Growth by this many bytes, and by this part of all, is noise.
const NOISE: f64 = 4.0 * 1024.0 * 1024.0;
const NOISE_PART: f64 = 0.02;
/// A run that is shorter than this may be warming up all the time on a busy machine: then
/// growth by `WARM_MEMORY` is noise.
const SHORT: Duration = Duration::from_secs(60);
/// More than what a process takes that has done everything once, most of it for the names
/// in backtraces.
const WARM_MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
/// How long what is idle may stay.
const SETTLE: Duration = Duration::from_secs(40);

/// What the process holds at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    time: Instant,
    /// In bytes, without pages of files, such as debug information.
    memory: usize,
    descriptors: usize,
    threads: usize,
    census: Census,
}

impl Sample {
    pub(crate) fn take() -> Self {
        Self {
            time: Instant::now(),
            memory: own_memory(),
            descriptors: fs::read_dir("/proc/self/fd")
                .expect("/proc is there")
                .count(),
            threads: threads(),
            census: runtime::census(),
        }
    }

    /// Whether there is no more than at the time of `idle`.
    fn is_back_to(&self, idle: &Self) -> bool {
        self.descriptors <= idle.descriptors
            && self.threads <= idle.threads
            && (self.census.tasks, self.census.coroutines) == (0, 0)
    }
}

fn own_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
    1024 * size.map_or(0, |size| size.parse().expect("it is a number"))
}

/// How many threads there are, without the kernel's own for the rings, which
/// stay as long as these.
fn threads() -> usize {
    let threads = fs::read_dir("/proc/self/task")
        .expect("/proc is there")
        .flatten();
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
    let names = threads.filter_map(|thread| name(thread).ok());
    names.filter(|name| !name.starts_with("iou-")).count()
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Census {
            tasks, coroutines, ..
        } = self.census;
        write!(
            f,
            "{} kB of memory, {} descriptors, {} threads, {tasks} tasks, {coroutines} coroutines",
            self.memory / 1024,
            self.descriptors,
            self.threads
        )
    }
}

/// Takes samples until `time` is over.
pub(crate) fn watch(time: Duration) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    while start.elapsed() < time {
        thread::sleep(INTERVAL.min(time - start.elapsed().min(time)));
        let sample = Sample::take();
        if samples.len().is_multiple_of(60) {
            eprintln!("{:6.0} s: {sample}", start.elapsed().as_secs_f64());
        }
        samples.push(sample);
    }
    samples
}

/// By how many bytes memory has grown since the warm-up: what the line through
/// all samples, of least squares, rises.
///
/// # Errors
///
/// If that is more than noise.
pub(crate) fn check_growth(samples: &[Sample]) -> Result<f64, String> {
    let warm = &samples[(samples.len() as f64 * WARM_UP) as usize..];
    let (Some(first), Some(last)) = (warm.first(), warm.last()) else {
        return Err(String::from("no samples"));
    };
    let count = warm.len() as f64;
    let point = |sample: &Sample| {
        let time = (sample.time - first.time).as_secs_f64();
        (time, sample.memory as f64)
    };
    let sum = |what: fn((f64, f64)) -> f64| warm.iter().map(point).map(what).sum::<f64>();
    let (mean_time, mean) = (sum(|(time, _)| time) / count, sum(|(_, size)| size) / count);
    let covariance = sum(|(time, size)| time * size) / count - mean_time * mean;
    let variance = sum(|(time, _)| time * time) / count - mean_time * mean_time;
    let time = last.time - first.time;
    let growth = covariance / variance.max(f64::MIN_POSITIVE) * time.as_secs_f64();
    let noise = if time < SHORT { WARM_MEMORY } else { NOISE };
    if growth > noise + NOISE_PART * mean {
        Err(format!(
            "memory has grown by {:.0} kB from {first} to {last}",
            growth / 1024.0
        ))
    } else {
        Ok(growth)
    }
}

/// Waits until there is no more than at the time of `idle`.
///
/// # Errors
///
/// What is still there.
pub(crate) fn settle(idle: &Sample) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let sample = Sample::take();
        if sample.is_back_to(idle) {
            return Ok(());
        }
        if start.elapsed() > SETTLE {
            return Err(format!("left over: {sample}; before: {idle}"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}
