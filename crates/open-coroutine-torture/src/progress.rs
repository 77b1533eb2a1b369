//! Who has done how much, and a watchdog that ends the process if somebody does
//! no more.

use std::fmt::Write as _;
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

/// One coroutine's.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) rounds: AtomicU64,
    pub(crate) migrations: AtomicU64,
    pub(crate) is_done: AtomicBool,
}

impl Entry {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            rounds: AtomicU64::new(0),
            migrations: AtomicU64::new(0),
            is_done: AtomicBool::new(false),
        }
    }
}

/// How many times the patience with all a single coroutine gets: others may
/// hold what it waits for, again and again.
const SINGLE: u32 = 3;

/// Watches `entries` on a plain thread until all are done.
pub(crate) fn watch(entries: &[Entry], patience: Duration) {
    let start = Instant::now();
    let mut seen: Vec<_> = entries.iter().map(|_| (0, start)).collect();
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = Instant::now();
        let mut shortest = None;
        let mut longest = Duration::ZERO;
        for (entry, (rounds, since)) in entries.iter().zip(&mut seen) {
            let current = entry.rounds.load(Relaxed);
            if current != *rounds {
                (*rounds, *since) = (current, now);
            }
            if !entry.is_done.load(Relaxed) {
                let stands = now - *since;
                shortest = Some(shortest.map_or(stands, |shortest| stands.min(shortest)));
                longest = stands.max(longest);
            }
        }
        let Some(shortest) = shortest else {
            return;
        };
        if shortest > patience || longest > patience * SINGLE {
            report(entries, &seen, now);
        }
    }
}

/// Names those that stand still, and aborts. Nothing here waits for a lock that
/// a coroutine may hold.
fn report(entries: &[Entry], seen: &[(u64, Instant)], now: Instant) -> ! {
    let mut text = String::from("FAILED: no progress\n");
    for (index, (entry, (rounds, since))) in entries.iter().zip(seen).enumerate() {
        let state = if entry.is_done.load(Relaxed) {
            "done"
        } else {
            "stands"
        };
        let _ = writeln!(
            text,
            "  {index:3} {:12} {rounds:9} rounds, {state} for {:.1} s",
            entry.name,
            (now - *since).as_secs_f64()
        );
    }
    // SAFETY: `text` is readable.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    process::abort()
}
