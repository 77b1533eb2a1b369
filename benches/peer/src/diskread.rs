//! `diskread`: random 4 KiB reads that the page cache does not have, 64 at a time.
//!
//! With `--direct 1` (the default) past the cache, else in a file that was evicted from it, each
//! block once. With `--ring 1` by a loop over an io_uring of that depth in place of coroutines:
//! what the kernel and the disk can do.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::fileread::{BLOCK_SIZE, FILE_SIZE, data_file};
use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use io_uring::{IoUring, opcode, types};
use open_coroutine::spawn;

const DEPTH: u64 = 64;
const BLOCKS: u64 = FILE_SIZE / BLOCK_SIZE as u64;

/// What the disk and `O_DIRECT` ask of a buffer.
#[repr(align(4096))]
struct Block([u8; BLOCK_SIZE]);

pub fn uncached_blocks(options: &Options, report: &Report) {
    let count = options.count(BLOCKS).min(BLOCKS);
    let path = data_file().expect("the data file can be made");
    let is_direct = options.is_set("direct", true);
    let flags = if is_direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.expect("the data file opens");
    if !is_direct {
        evict(&file).expect("the data file leaves the cache");
    }
    let elapsed = if options.is_set("ring", false) {
        by_ring(&file, count).expect("the ring works")
    } else {
        in_root(move || by_coroutines(file, count))
    };
    report.metric("reads_per_s", count as f64 / elapsed.as_secs_f64(), "1/s");
}

/// Writes back what is dirty, and forgets the pages; no reading ahead from here on.
fn evict(file: &File) -> io::Result<()> {
    file.sync_all()?;
    for advice in [libc::POSIX_FADV_DONTNEED, libc::POSIX_FADV_RANDOM] {
        // SAFETY: takes integers.
        match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Ok(())
}

/// The `n`th position: all blocks once, in no order that a disk could like.
fn position(n: u64) -> u64 {
    // Odd, and the number of blocks is a power of two.
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % BLOCKS * BLOCK_SIZE as u64
}

fn by_coroutines(file: File, count: u64) -> Duration {
    let (file, next) = (Arc::new(file), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let tasks: Vec<_> = (0..DEPTH)
        .map(|_| {
            let (file, next) = (file.clone(), next.clone());
            spawn(move || {
                let mut block = Box::new(Block([0; BLOCK_SIZE]));
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= count {
                        return io::Result::Ok(());
                    }
                    file.read_exact_at(&mut block.0, position(n))?;
                    black_box(block.0[0]);
                }
            })
        })
        .collect();
    for task in tasks {
        task.join()
            .expect("a reading task ends")
            .expect("the data file is readable");
    }
    start.elapsed()
}

fn by_ring(file: &File, count: u64) -> io::Result<Duration> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(DEPTH as u32)?;
    let mut blocks: Vec<_> = (0..DEPTH).map(|_| Block([0; BLOCK_SIZE])).collect();
    let fd = types::Fd(file.as_raw_fd());
    let mut read = |slot: u64, n: u64| {
        let block = blocks[slot as usize].0.as_mut_ptr();
        opcode::Read::new(fd, block, BLOCK_SIZE as u32)
            .offset(position(n))
            .build()
            .user_data(slot)
    };
    let start = Instant::now();
    let mut next = count.min(DEPTH);
    for slot in 0..next {
        // SAFETY: a block is in the hands of one read at a time, and outlives the ring's work.
        unsafe { ring.submission().push(&read(slot, slot)) }.expect("there is room");
    }
    let mut done = 0;
    while done < count {
        ring.submit_and_wait(1)?;
        let completed: Vec<_> = ring.completion().collect();
        for entry in completed {
            assert_eq!(BLOCK_SIZE as i32, entry.result());
            done += 1;
            if next < count {
                // SAFETY: as above; the former read of this block has ended.
                unsafe { ring.submission().push(&read(entry.user_data(), next)) }
                    .expect("there is room");
                next += 1;
            }
        }
    }
    Ok(start.elapsed())
}
