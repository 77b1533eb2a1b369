//! `fileread`: random 4 KiB reads in a file that the page cache holds.

use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::spawn;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub const FILE_SIZE: u64 = 256 << 20;
pub const BLOCK_SIZE: usize = 4096;
const TASKS: u64 = 64;

/// 64 tasks share `n` reads with `pread`.
pub fn random_blocks(options: &Options, report: &Report) {
    let each = options.count(200_000) / TASKS;
    let path = data_file().expect("the data file can be made");
    let elapsed = in_root(move || {
        let file = Arc::new(File::open(path).expect("the data file opens"));
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let file = file.clone();
                spawn(move || read_blocks(&file, task + 1, each))
            })
            .collect();
        for task in tasks {
            task.join()
                .expect("a reading task ends")
                .expect("the data file is readable");
        }
        start.elapsed()
    });
    let reads = (TASKS * each) as f64;
    report.metric("reads_per_s", reads / elapsed.as_secs_f64(), "1/s");
}

fn read_blocks(file: &File, seed: u64, count: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut block = vec![0; BLOCK_SIZE];
    for _ in 0..count {
        let index = random.next() % (FILE_SIZE / BLOCK_SIZE as u64);
        file.read_exact_at(&mut block, index * BLOCK_SIZE as u64)?;
        black_box(block[0]);
    }
    Ok(())
}

/// The file that all peers read, written by whichever comes first. Writing it also caches it.
pub fn data_file() -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join("bench-fileread.dat");
    if path.metadata().is_ok_and(|file| file.len() == FILE_SIZE) {
        return Ok(path);
    }
    // Renamed when it is whole, so that nobody sees half of it.
    let unfinished = path.with_extension(std::process::id().to_string());
    write_random(&unfinished)?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn write_random(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut random = Random::new(7);
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..FILE_SIZE / chunk.len() as u64 {
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    Ok(())
}

/// Marsaglia's xorshift with a multiplication at the end: a few instructions a number, so that
/// the reads are what is measured.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Odd, hence never the all-zero state that xorshift cannot leave.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
