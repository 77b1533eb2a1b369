//! When the process has as many memory mappings as it may have, tasks and calls
//! fail with an error or do without, and afterwards everything works.

mod child;
mod limits;
mod runtimes;
mod workload;

use std::fs;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::{Builder, JoinError, JoinHandle, park, sleep, spawn, unblock};
use runtimes::{on_every_driver, on_every_runtime};
use workload::works;

/// Single pages that differ from their neighbours.
struct Mappings {
    start: *mut libc::c_void,
    len: usize,
}

impl Mappings {
    const PAGE: usize = 4096;

    /// Uses up all that this process may have, but for `spare`.
    fn use_up(spare: usize) -> Self {
        let max = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let max: usize = max.trim().parse().unwrap();
        assert!(max < 1 << 20, "there are too many to use them up");
        let len = 2 * max * Self::PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(libc::MAP_FAILED, start);
        let mappings = Self { start, len };
        let count = (0..max).take_while(|&page| mappings.split(page)).count();
        // SAFETY: the pages are this object's.
        unsafe { libc::munmap(start, 2 * spare.div_ceil(2) * Self::PAGE) };
        assert!(count > spare);
        mappings
    }

    fn split(&self, page: usize) -> bool {
        let page = self.start.wrapping_byte_add((2 * page + 1) * Self::PAGE);
        // SAFETY: the page is this object's.
        unsafe { libc::mprotect(page, Self::PAGE, libc::PROT_READ) == 0 }
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: the pages are this object's; those unmapped already are free.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Spawns so many tasks, and returns the errors of those that did not start.
fn errors_of(count: usize, stack_size: usize) -> Vec<String> {
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<JoinHandle<()>> = (0..count)
        .map(|_| {
            let is_over = is_over.clone();
            let task = Builder::new().stack_size(stack_size);
            task.spawn(move || {
                while !is_over.load(SeqCst) {
                    park();
                }
            })
            .unwrap()
        })
        .collect();
    // Those that do not start end at once.
    sleep(Duration::from_millis(50));
    is_over.store(true, SeqCst);
    tasks.iter().for_each(|task| task.task().unpark());
    let results = tasks.into_iter().map(JoinHandle::join);
    results
        .filter_map(|result| match result {
            Ok(()) => None,
            Err(JoinError::NotStarted(cause)) => Some(cause.to_string()),
            Err(error) => panic!("{error:?}"),
        })
        .collect()
}

#[test]
fn a_process_without_mappings_goes_on_and_recovers() {
    child::succeeds("a_process_without_mappings_goes_on_and_recovers", || {
        on_every_runtime(|| {
            works();
            for (round, spare) in [0, 2, 6, 20].into_iter().enumerate() {
                let mappings = Mappings::use_up(spare);
                // Each of these needs a mapping of its own; idle ones are given up for it.
                let errors = errors_of(300, (round + 4) << 20);
                assert!(errors.len() > 100, "{}", errors.len());
                let is_clear = |error: &String| error.contains("vm.max_map_count");
                assert!(errors.iter().all(is_clear), "{errors:?}");
                let is_over = Arc::new(AtomicBool::new(false));
                let jobs: Vec<_> = (0..20)
                    .map(|_| {
                        let is_over = is_over.clone();
                        spawn(move || {
                            unblock(move || {
                                let is_over = || is_over.load(SeqCst);
                                for _ in (0..30).take_while(|_| !is_over()) {
                                    thread::sleep(Duration::from_millis(1));
                                }
                            });
                        })
                    })
                    .collect();
                is_over.store(true, SeqCst);
                for job in jobs {
                    if let Err(error) = job.join() {
                        assert!(matches!(error, JoinError::NotStarted(_)), "{error:?}");
                    }
                }
                drop(mappings);
                works();
            }
        });
    });
}

#[test]
fn guards_that_cost_a_mapping_each_run_out_with_an_error() {
    child::succeeds(
        "guards_that_cost_a_mapping_each_run_out_with_an_error",
        || {
            on_every_driver(1, || {
                // Locked memory cannot be guarded in the cheap way.
                // SAFETY: affects only how long pages of this process live.
                if unsafe { libc::mlockall(libc::MCL_FUTURE | libc::MCL_ONFAULT) } != 0 {
                    println!("this process may not lock memory: nothing to check");
                    return;
                }
                works();
                let errors = errors_of(40_000, 64 << 10);
                assert!(errors.len() > 1000, "{}", errors.len());
                let is_clear = |error: &String| error.contains("vm.max_map_count");
                assert!(errors.iter().all(is_clear), "{errors:?}");
                // SAFETY: as above.
                unsafe { libc::munlockall() };
                works();
            });
        },
    );
}
