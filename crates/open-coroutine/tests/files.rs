//! `std::fs` on coroutines.

mod runtimes;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use runtimes::on_every_runtime;

/// A directory of the test's own, which goes when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "open-coroutine-files-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn what_is_written_is_read_back() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let path = directory.at("file");
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ n >> 8) as u8).collect();
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert_eq!(bytes.len() as u64, file.metadata().unwrap().len());
        assert_eq!(bytes, fs::read(&path).unwrap());
        drop(file);
        let mut file = File::open(&path).unwrap();
        let mut all = Vec::new();
        assert_eq!(bytes.len(), file.read_to_end(&mut all).unwrap());
        assert_eq!(bytes, all);
        assert_eq!(0, file.read(&mut [0; 8]).unwrap());
    });
}

#[test]
fn the_position_moves_as_asked() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.at("f"))
            .unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(10, file.stream_position().unwrap());
        assert_eq!(3, file.seek(SeekFrom::Start(3)).unwrap());
        let mut two = [0; 2];
        file.read_exact(&mut two).unwrap();
        assert_eq!(b"34", &two);
        assert_eq!(7, file.seek(SeekFrom::Current(2)).unwrap());
        file.write_all(b"x").unwrap();
        file.set_len(9).unwrap();
        assert_eq!(8, file.seek(SeekFrom::End(-1)).unwrap());
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!("8", rest);
        // Beside the position.
        assert_eq!(2, file.read_at(&mut two, 6).unwrap());
        assert_eq!(b"6x", &two);
        file.write_all_at(b"end", 9).unwrap();
        assert_eq!(9, file.stream_position().unwrap());
        file.rewind().unwrap();
        rest.clear();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!("0123456x8end", rest);
    });
}

#[test]
fn errors_are_those_of_a_thread() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let path = directory.at("file");
        let kind = |result: std::io::Result<File>| result.unwrap_err().kind();
        assert_eq!(ErrorKind::NotFound, kind(File::open(&path)));
        File::create_new(&path).unwrap();
        assert_eq!(ErrorKind::AlreadyExists, kind(File::create_new(&path)));
        assert_eq!(ErrorKind::NotADirectory, kind(File::open(path.join("x"))));
        assert_eq!(ErrorKind::IsADirectory, kind(File::create(&directory.0)));
        assert_eq!(
            ErrorKind::DirectoryNotEmpty,
            fs::remove_dir(&directory.0).unwrap_err().kind()
        );
        assert_eq!(
            ErrorKind::NotFound,
            fs::metadata(directory.at("none")).unwrap_err().kind()
        );
        let mut file = File::open(&path).unwrap();
        assert_eq!(
            Some(libc::EBADF),
            file.write(b"x").unwrap_err().raw_os_error()
        );
        let mut opened = File::open(&directory.0).unwrap();
        assert_eq!(
            ErrorKind::IsADirectory,
            opened.read(&mut [0; 8]).unwrap_err().kind()
        );
        assert!(!fs::exists(directory.at("none")).unwrap());
    });
}

#[test]
fn names_are_made_moved_and_removed() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let deep = directory.at("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("one"), "content").unwrap();
        assert_eq!(7, fs::copy(deep.join("one"), deep.join("two")).unwrap());
        fs::rename(deep.join("two"), directory.at("three")).unwrap();
        fs::hard_link(directory.at("three"), directory.at("four")).unwrap();
        assert_eq!(2, fs::metadata(directory.at("four")).unwrap().nlink());
        symlink("four", directory.at("five")).unwrap();
        assert_eq!(
            Path::new("four"),
            fs::read_link(directory.at("five")).unwrap()
        );
        assert!(
            fs::symlink_metadata(directory.at("five"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!("content", fs::read_to_string(directory.at("five")).unwrap());
        let real = fs::canonicalize(directory.at("a/../five")).unwrap();
        assert_eq!(fs::canonicalize(directory.at("four")).unwrap(), real);
        fs::set_permissions(directory.at("four"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(
            0o640,
            fs::metadata(directory.at("three")).unwrap().mode() & 0o7777
        );
        let mut names: Vec<_> = fs::read_dir(&directory.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(["a", "five", "four", "three"], *names);
        fs::remove_file(directory.at("three")).unwrap();
        assert_eq!(1, fs::metadata(directory.at("four")).unwrap().nlink());
        fs::remove_dir_all(directory.at("a")).unwrap();
        assert!(!fs::exists(directory.at("a")).unwrap());
    });
}

/// Checks a file of 64-byte records, of which each of 50 writers wrote 20.
fn assert_whole(path: &Path) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(50 * 20 * 64, bytes.len());
    let mut counts = [0; 50];
    for record in bytes.chunks(64) {
        assert!(record.iter().all(|byte| *byte == record[0]), "torn");
        counts[usize::from(record[0])] += 1;
    }
    assert_eq!([20; 50], counts);
}

#[test]
fn appends_by_many_are_neither_lost_nor_torn() {
    on_every_runtime(|| {
        let directory = Directory::new();
        // By the append flag, and by a position that all share.
        for append in [true, false] {
            let path = directory.at(if append { "append" } else { "shared" });
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .write(true)
                .append(append)
                .open(&path)
                .unwrap();
            let file = Arc::new(file);
            let tasks: Vec<_> = (0..50_u8)
                .map(|id| {
                    let file = file.clone();
                    open_coroutine::spawn(move || {
                        let mut clone = file.try_clone().unwrap();
                        for round in 0..20 {
                            if round % 2 == 0 {
                                (&*file).write_all(&[id; 64]).unwrap();
                            } else {
                                clone.write_all(&[id; 64]).unwrap();
                            }
                            open_coroutine::yield_now();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            assert_whole(&path);
        }
    });
}

#[test]
fn reads_by_many_share_a_position() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let path = directory.at("file");
        let bytes: Vec<u8> = (0..4000_u32).flat_map(u32::to_ne_bytes).collect();
        fs::write(&path, bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let file = file.clone();
                open_coroutine::spawn(move || {
                    let mut seen = Vec::new();
                    let mut bytes = [0; 4];
                    while (&*file).read(&mut bytes).unwrap() == 4 {
                        seen.push(u32::from_ne_bytes(bytes));
                        open_coroutine::yield_now();
                    }
                    seen
                })
            })
            .collect();
        let mut seen: Vec<_> = tasks
            .into_iter()
            .flat_map(|task| task.join().unwrap())
            .collect();
        seen.sort_unstable();
        assert_eq!((0..4000).collect::<Vec<_>>(), seen);
    });
}

#[test]
fn devices_and_proc_can_be_read() {
    on_every_runtime(|| {
        assert!(
            fs::read_to_string("/proc/self/status")
                .unwrap()
                .contains("Name:")
        );
        assert!(fs::read_to_string("/proc/cpuinfo").unwrap().len() > 100);
        let mut buffer = [1; 100_000];
        File::open("/dev/zero")
            .unwrap()
            .read_exact(&mut buffer)
            .unwrap();
        assert!(buffer.iter().all(|byte| *byte == 0));
        File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut buffer)
            .unwrap();
        assert!(buffer.iter().any(|byte| *byte != 0));
        assert_eq!(
            0,
            File::open("/dev/null").unwrap().read(&mut buffer).unwrap()
        );
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(ErrorKind::StorageFull, full.write(b"x").unwrap_err().kind());
    });
}

#[test]
fn a_lock_on_a_file_is_waited_for() {
    on_every_runtime(|| {
        let directory = Directory::new();
        let path = directory.at("lock");
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let waiter = open_coroutine::spawn(move || other.lock().unwrap());
        open_coroutine::sleep(std::time::Duration::from_millis(5));
        assert!(!waiter.is_finished());
        held.unlock().unwrap();
        waiter.join().unwrap();
    });
}
