//! Programs that are compiled with `_FORTIFY_SOURCE` call other functions of libc,
//! which suspend the coroutine just as well.

mod runtimes;

use std::ffi::{CStr, c_char, c_int};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{env, fs, process};

use runtimes::on_every_driver;

unsafe extern "C" {
    fn __readlink_chk(path: *const c_char, buf: *mut c_char, len: usize, size: usize) -> isize;
    fn __readlinkat_chk(
        dir: c_int,
        path: *const c_char,
        buf: *mut c_char,
        len: usize,
        size: usize,
    ) -> isize;
    fn __realpath_chk(path: *const c_char, resolved: *mut c_char, size: usize) -> *mut c_char;
    fn __poll_chk(
        fds: *mut libc::pollfd,
        count: libc::nfds_t,
        timeout: c_int,
        size: usize,
    ) -> c_int;
}

/// Runs `call` on the only worker, where another coroutine must run meanwhile.
fn suspends<R>(call: impl FnOnce() -> R) -> R {
    let has_run = Arc::new(AtomicBool::new(false));
    let runs = has_run.clone();
    let other = open_coroutine::spawn(move || runs.store(true, SeqCst));
    let result = call();
    assert!(has_run.load(SeqCst));
    other.join().unwrap();
    result
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn links_are_read_without_blocking_the_worker() {
    on_every_driver(1, || {
        let link = env::temp_dir().join(format!("fortified_calls.{}", process::id()));
        symlink("/", &link).unwrap();
        let path = std::ffi::CString::new(link.to_str().unwrap()).unwrap();
        let path = path.as_ptr();
        let mut buf: [c_char; 4096] = [1; 4096];
        let (start, size) = (buf.as_mut_ptr(), buf.len());
        // SAFETY: the path and the buffer live across the calls.
        unsafe {
            assert_eq!(1, suspends(|| __readlink_chk(path, start, size, size)));
            let here = libc::AT_FDCWD;
            assert_eq!(
                1,
                suspends(|| __readlinkat_chk(here, path, start, size, size))
            );
            assert_eq!(start, suspends(|| __realpath_chk(path, start, size)));
            assert_eq!(c"/", CStr::from_ptr(start));
        }
        fs::remove_file(link).unwrap();
    });
}

#[test]
fn a_poll_does_not_block_the_worker() {
    on_every_driver(1, || {
        let mut fds = [];
        // SAFETY: no entries.
        let ready = suspends(|| unsafe { __poll_chk(fds.as_mut_ptr(), 0, 5, 0) });
        assert_eq!(0, ready);
    });
}
