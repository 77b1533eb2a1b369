//! Directories are listed as on a thread, whole and at a bearable cost.

mod runtimes;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use runtimes::{on_every_driver, on_every_runtime};

/// A directory of `count` files, which are also returned.
fn directory(count: usize) -> (PathBuf, BTreeSet<String>) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("open-coroutine-listing-{}-{id}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::create_dir(&path).unwrap();
    let names: BTreeSet<_> = (0..count).map(|id| format!("file-{id:06}")).collect();
    open_coroutine::without_hooks(|| {
        for name in &names {
            fs::write(path.join(name), "").unwrap();
        }
    });
    (path, names)
}

fn remove(path: &PathBuf) {
    open_coroutine::without_hooks(|| fs::remove_dir_all(path)).unwrap();
}

fn list(path: &PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_listing_has_every_entry_once() {
    on_every_driver(1, || {
        // Empty; within one buffer of libc's; and more than one.
        for count in [0, 10, 1200] {
            let (path, names) = directory(count);
            assert_eq!(names, list(&path));
            remove(&path);
        }
    });
}

#[test]
fn listings_do_not_disturb_each_other() {
    on_every_runtime(|| {
        let (path, names) = directory(1200);
        let listers: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                open_coroutine::spawn(move || list(&path))
            })
            .collect();
        for lister in listers {
            assert_eq!(names, lister.join().unwrap());
        }
        remove(&path);
    });
}

/// Most entries come out of a buffer that is there already, without the help of
/// another thread: one that did would have made a system call for each.
#[test]
fn a_listing_moves_to_the_pool_only_to_fill_its_buffer() {
    on_every_driver(1, || {
        let (path, names) = directory(1200);
        // The first listing finds out about libc's buffer.
        list(&path);
        let before = switches();
        assert_eq!(names.len(), list(&path).len());
        let after = switches();
        assert!(
            after - before < names.len() as u64,
            "{} switches",
            after - before
        );
        remove(&path);
    });
}

/// How often the threads of this process have given up their processor.
fn switches() -> u64 {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let lines = status.lines().filter(|line| line.starts_with("voluntary"));
        total += lines
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    total
}
