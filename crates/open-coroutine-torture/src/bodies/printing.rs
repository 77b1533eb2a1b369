//! `println!` and `eprintln!`: std's locks around its buffers, and pipes that
//! may be full.

use std::io::{self, Write};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{Round, work};
use crate::lines;

pub(crate) const STDOUT: usize = 0;
pub(crate) const STDERR: usize = 1;

/// The parts of a long line.
const PART: usize = 700;

/// How many lines went to each stream.
#[derive(Default)]
pub(crate) struct Shared {
    lines: [AtomicU64; 2],
}

impl Shared {
    pub(crate) fn lines_of(&self, stream: usize) -> u64 {
        self.lines[stream].load(Relaxed)
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines_of(STDOUT) + self.lines_of(STDERR)
    }

    pub(super) fn count(&self, stream: usize) {
        self.lines[stream].fetch_add(1, Relaxed);
    }
}

/// A line in one call, one in parts under the lock, one to standard error.
pub(super) fn round(round: &mut Round) {
    let length = round.below(200) as usize;
    let shared = round.world.clone();
    println!("{}", lines::make(round.index, 2 * round.number, length));
    shared.printing.count(STDOUT);
    let length = round.below(3000) as usize;
    let line = lines::make(round.index, 2 * round.number + 1, length);
    let mut stdout = io::stdout().lock();
    for part in line.as_bytes().chunks(PART) {
        stdout.write_all(part).expect("somebody reads");
        work(1);
    }
    writeln!(stdout).expect("somebody reads");
    drop(stdout);
    shared.printing.count(STDOUT);
    let length = round.below(400) as usize;
    eprintln!("{}", lines::make(round.index, round.number, length));
    shared.printing.count(STDERR);
}
