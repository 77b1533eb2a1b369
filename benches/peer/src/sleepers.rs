//! `sleepers`: what a task costs that only waits.

use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::spawn;
use std::time::Instant;

/// `n` tasks asleep at once, in `std::thread::sleep`.
pub fn sleep_all(options: &Options, report: &Report) {
    let count = options.count(100_000);
    let pause = options.sleep(5.0);
    let (before, spawned, total) = in_root(move || {
        let before = status_bytes("VmRSS:");
        let start = Instant::now();
        let tasks: Vec<_> = (0..count)
            .map(|_| spawn(move || std::thread::sleep(pause)))
            .collect();
        let spawned = start.elapsed();
        for task in tasks {
            task.join().expect("a sleeping task ends");
        }
        (before, spawned, start.elapsed())
    });
    let peak = status_bytes("VmHWM:");
    let per_task = peak.saturating_sub(before) as f64 / count as f64;
    report.metric("rss_per_task", per_task, "B");
    report.metric("spawn_all", spawned.as_secs_f64(), "s");
    report.metric("total", total.as_secs_f64(), "s");
}

/// A field of `/proc/self/status` that is given in kB, in bytes; 0 where there is none.
fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next());
    kilobytes.map_or(0, |number| number.parse().unwrap_or(0)) * 1024
}
