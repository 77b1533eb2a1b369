//! Calls that wait for a disk or for another process are not made by the worker's
//! thread: strace tells which thread makes them. (A disk cannot be stopped to see
//! that others go on meanwhile.)

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::ptr;

use open_coroutine::{Config, Driver, init};

/// Says what the process that is traced is to do.
const VARIABLE: &str = "OPEN_COROUTINE_TRACED";

/// Where the calls work.
struct Place(PathBuf);

impl Place {
    fn path(&self, name: &str) -> CString {
        CString::new(self.0.join(name).into_os_string().into_encoded_bytes()).unwrap()
    }
}

/// A file of the place, open for reading and writing.
fn open(place: &Place, name: &str) -> OwnedFd {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a C string, and the mode that O_CREAT asks for.
    let fd = unsafe { libc::open(place.path(name).as_ptr(), flags, 0o600) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: opened just now.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn succeeds(result: impl Into<i64>) {
    assert!(result.into() >= 0, "{}", std::io::Error::last_os_error());
}

/// Directories, links and attributes by path.
fn use_paths(place: &Place) {
    let (one, other, directory) = (place.path("one"), place.path("other"), place.path("dir"));
    let (one, other, directory) = (one.as_ptr(), other.as_ptr(), directory.as_ptr());
    drop(open(place, "one"));
    let here = libc::AT_FDCWD;
    let mut bytes = [0 as c_char; 4096];
    let start = bytes.as_mut_ptr();
    // SAFETY: C strings, and buffers of the sizes that are told.
    unsafe {
        succeeds(libc::mkdir(directory, 0o700));
        succeeds(libc::rmdir(directory));
        succeeds(libc::link(one, other));
        succeeds(libc::rename(other, directory));
        succeeds(libc::unlink(directory));
        succeeds(libc::symlink(one, other));
        succeeds(libc::readlink(other, start, 4096) as i64);
        assert!(!libc::realpath(other, start).is_null());
        succeeds(libc::access(one, libc::R_OK));
        succeeds(libc::faccessat(here, one, libc::R_OK, 0));
        succeeds(libc::chmod(one, 0o600));
        succeeds(libc::chown(one, libc::getuid(), libc::getgid()));
        succeeds(libc::utimensat(here, one, ptr::null(), 0));
        succeeds(libc::truncate(one, 10));
        let mut stat: libc::stat = mem::zeroed();
        succeeds(libc::stat(one, &raw mut stat));
        succeeds(libc::lstat(other, &raw mut stat));
        succeeds(libc::fstatat(here, one, &raw mut stat, 0));
        let mut system: libc::statfs = mem::zeroed();
        succeeds(libc::statfs(one, &raw mut system));
        libc::getxattr(one, c"user.none".as_ptr(), start.cast(), 4096);
        succeeds(libc::mkfifo(place.path("fifo").as_ptr(), 0o600));
    }
    assert!(fs::read_dir(&place.0).unwrap().count() >= 3);
    assert!(fs::metadata(&place.0).unwrap().is_dir());
}

/// Files that are open.
fn use_files(place: &Place) {
    let (from, to) = (open(place, "from"), open(place, "to"));
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: a buffer of the size that is told, and valid descriptors.
    unsafe {
        succeeds(libc::ftruncate(from, 1 << 20));
        succeeds(libc::fallocate(from, 0, 0, 1 << 20));
        succeeds(libc::copy_file_range(from, ptr::null_mut(), to, ptr::null_mut(), 4096, 0) as i64);
        succeeds(libc::sendfile(to, from, ptr::null_mut(), 4096) as i64);
        succeeds(libc::pwrite(to, [1u8; 512].as_ptr().cast(), 512, 0) as i64);
        succeeds(libc::fsync(to));
        succeeds(libc::fdatasync(to));
        succeeds(libc::sync_file_range(to, 0, 0, libc::SYNC_FILE_RANGE_WRITE));
        succeeds(libc::syncfs(to));
        succeeds(libc::flock(to, libc::LOCK_EX));
        let lock: libc::flock = {
            let mut lock: libc::flock = mem::zeroed();
            lock.l_type = libc::F_WRLCK as i16;
            lock
        };
        succeeds(libc::fcntl(to, libc::F_OFD_SETLKW, &raw const lock));
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, to, 0);
        assert_ne!(libc::MAP_FAILED, memory);
        memory.cast::<u8>().write(7);
        succeeds(libc::msync(memory, 4096, libc::MS_SYNC));
        libc::munmap(memory, 4096);
    }
}

/// A file that passes the page cache by, where even who asks not to wait does. False if
/// there are none in this place.
fn use_direct_file(place: &Place) -> bool {
    #[repr(align(4096))]
    struct Block([u8; 4096]);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC | libc::O_DIRECT;
    // SAFETY: a C string, and the mode that O_CREAT asks for.
    let fd = unsafe { libc::open(place.path("direct").as_ptr(), flags, 0o600) };
    if fd < 0 {
        return false;
    }
    // SAFETY: opened just now.
    let file = unsafe { fs::File::from_raw_fd(fd) };
    let mut block = Block([7; 4096]);
    (&file).write_all(&block.0).unwrap();
    file.write_all_at(&block.0, 4096).unwrap();
    (&file).seek(SeekFrom::Start(4096)).unwrap();
    block.0.fill(0);
    (&file).read_exact(&mut block.0).unwrap();
    assert_eq!([7; 4096], block.0);
    file.read_exact_at(&mut block.0, 0).unwrap();
    // What was learnt of the descriptor does not outlive a change of its mode.
    // SAFETY: takes integers.
    succeeds(unsafe { libc::fcntl(fd, libc::F_SETFL, 0) });
    file.read_exact_at(&mut block.0[..512], 0).unwrap();
    true
}

/// Users, hosts and other programs.
fn use_names_and_processes() {
    // SAFETY: C strings; what is returned is not kept.
    unsafe {
        assert!(!libc::getpwnam(c"root".as_ptr()).is_null());
        assert!(!libc::getgrgid(0).is_null());
        let mut found = ptr::null_mut();
        let hints = ptr::null();
        let result = libc::getaddrinfo(c"localhost".as_ptr(), ptr::null(), hints, &raw mut found);
        assert_eq!(0, result);
        libc::freeaddrinfo(found);
        assert_eq!(0, libc::system(c"true".as_ptr()));
        let stream = libc::popen(c"echo hello".as_ptr(), c"r".as_ptr());
        let mut line = [0 as c_char; 16];
        assert!(!libc::fgets(line.as_mut_ptr(), 16, stream).is_null());
        assert_eq!(c"hello\n", CStr::from_ptr(line.as_ptr()));
        assert_eq!(0, libc::pclose(stream));
    }
    assert!(Command::new("true").status().unwrap().success());
}

/// Marks a place in the trace, by a call that the worker itself makes.
fn mark(text: &CStr) {
    // SAFETY: a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
}

/// The process that is traced runs this test.
#[test]
fn traced() {
    let Ok(driver) = env::var(VARIABLE) else {
        return;
    };
    let driver = match &*driver {
        "epoll" => Driver::Epoll,
        _ => Driver::IoUring,
    };
    init(Config::default().event_loop_size(1).driver(driver)).unwrap();
    let work = || {
        let place = Place(env::temp_dir().join(format!("open-coroutine-off-{}", process::id())));
        fs::create_dir(&place.0).unwrap();
        mark(c"oc-begin");
        use_paths(&place);
        use_files(&place);
        use_names_and_processes();
        mark(c"oc-end");
        if use_direct_file(&place) {
            mark(c"oc-direct");
        }
        fs::remove_dir_all(&place.0).unwrap();
    };
    open_coroutine::spawn(work).join().unwrap();
}

/// A trace. `None`, with a message, without strace.
fn trace(driver: &str) -> Option<String> {
    let has_strace = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if !has_strace.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace to look at threads with");
        return None;
    }
    let name = format!("open-coroutine-strace-off-{}-{driver}", process::id());
    let path = env::temp_dir().join(name);
    let status = Command::new("strace")
        .args(["-f", "-o"])
        .args([path.as_os_str(), env::current_exe().unwrap().as_os_str()])
        .args(["--exact", "traced"])
        .env(VARIABLE, driver)
        .env_remove("OPEN_COROUTINE_DRIVER")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    Some(text)
}

/// The system calls of the worker, and those of all other threads, between two marks of
/// a trace. `None` if the second one is not there.
fn by_thread(text: &str, [begin, end]: [&str; 2]) -> Option<[BTreeSet<String>; 2]> {
    let position = |mark: &str| {
        let mark = format!("\"{mark}\"");
        text.lines().position(|line| line.contains(&mark))
    };
    let (begin, end) = (position(begin).expect("it begins"), position(end)?);
    let lines: Vec<&str> = text.lines().collect();
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let worker = thread(lines[begin]);
    let mut calls = BTreeMap::from([(true, BTreeSet::new()), (false, BTreeSet::new())]);
    for line in &lines[begin + 1..end] {
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        // Not what was begun earlier, nor signals and exits.
        if let Some((name, _)) = call.split_once('(') {
            let is_worker = thread(line) == worker;
            calls.get_mut(&is_worker).unwrap().insert(name.to_owned());
        }
    }
    Some([true, false].map(|is_worker| calls.remove(&is_worker).unwrap()))
}

/// What the worker may do: look without waiting, talk to its driver and its
/// threads, and manage memory and descriptors.
const HARMLESS: &[&str] = &[
    // The look at what is behind a path (RESOLVE_CACHED), and at an open file.
    "openat2",
    "fstat",
    "newfstatat",
    "fcntl",
    "close",
    // Transfers that must not wait (RWF_NOWAIT).
    "preadv2",
    "pwritev2",
    // The driver, and waking others.
    "epoll_pwait2",
    "epoll_ctl",
    "io_uring_enter",
    "futex",
    "write",
    // What stdio does by itself, in fgets.
    "read",
    // Memory, threads, identity.
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "brk",
    "clone3",
    "clone",
    "rt_sigprocmask",
    // Preemption.
    "rt_sigreturn",
    "sigaltstack",
    "sched_yield",
    "getpid",
    "gettid",
    "getuid",
    "getgid",
];

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer makes system calls too"
)]
fn the_worker_makes_no_call_that_waits_for_a_disk_or_a_process() {
    for driver in ["epoll", "io_uring"] {
        let Some(text) = trace(driver) else {
            return;
        };
        let [worker, others] = by_thread(&text, ["oc-begin", "oc-end"]).expect("it ends");
        let waits: Vec<_> = worker
            .iter()
            .filter(|name| !HARMLESS.contains(&name.as_str()))
            .collect();
        assert!(waits.is_empty(), "{driver}: the worker calls {waits:?}");
        let expected = [
            "mkdir",
            "rmdir",
            "rename",
            "unlink",
            "symlink",
            "readlink",
            "chmod",
            "truncate",
            "ftruncate",
            "fallocate",
            "copy_file_range",
            "sendfile",
            "sync_file_range",
            "syncfs",
            "flock",
            "msync",
            "openat",
            "getdents64",
        ];
        for name in expected {
            let is_made = others.contains(name) || others.contains(&format!("{name}at"));
            assert!(is_made, "{driver}: nobody calls {name}: {others:?}");
        }
        let Some([worker, _]) = by_thread(&text, ["oc-end", "oc-direct"]) else {
            eprintln!("skipped: no O_DIRECT in {}", env::temp_dir().display());
            continue;
        };
        for name in ["read", "pread64", "write", "pwrite64", "pwritev2"] {
            assert!(!worker.contains(name), "{driver}: the worker calls {name}");
        }
    }
}
