//! Children of a fork that run Rust code, and their end.

use std::ffi::c_int;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use open_coroutine::{JoinHandle, spawn};

/// Runs `body` in a forked process, where it must not return, and returns how that
/// has ended. It is killed if it hangs.
pub(crate) fn status_of(body: impl FnOnce()) -> c_int {
    // SAFETY: glibc's allocator and std's locks that the child uses survive the
    // fork.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            // Also if it waits for ever.
            libc::alarm(60);
            body();
            eprintln!("the child's body has returned");
            libc::_exit(99);
        }
        let mut status: c_int = 0;
        assert_eq!(pid, libc::waitpid(pid, &raw mut status, 0));
        status
    }
}

/// Runs `body` in a forked process, which must come to its end.
pub(crate) fn in_child(body: impl FnOnce()) {
    let status = status_of(|| {
        body();
        // SAFETY: ends the child.
        unsafe { libc::_exit(7) }
    });
    assert_eq!(7 << 8, status, "exit code and signal");
}

/// Coroutines that send bytes to and fro until it is dropped, in this process only.
pub(crate) struct Traffic {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
    process: u32,
}

impl Traffic {
    #[allow(dead_code, reason = "not every test file uses every function")]
    pub(crate) fn start(pairs: usize) -> Self {
        let (is_over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut traffic = Self {
            is_over,
            rounds,
            tasks: Vec::new(),
            process: process::id(),
        };
        for _ in 0..pairs {
            let (near, far) = UnixStream::pair().unwrap();
            traffic.tasks.push(spawn(move || echo(far)));
            let (is_over, rounds) = (traffic.is_over.clone(), traffic.rounds.clone());
            let ask = move || ask(near, &is_over, &rounds);
            traffic.tasks.push(spawn(ask));
        }
        traffic
    }

    /// Waits for some more rounds.
    #[allow(dead_code, reason = "not every test file uses every function")]
    pub(crate) fn flows(&self) {
        let end = self.rounds.load(SeqCst) + 10 * self.tasks.len();
        while self.rounds.load(SeqCst) < end {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }
}

fn ask(mut stream: UnixStream, is_over: &AtomicBool, rounds: &AtomicUsize) {
    let mut number = 0u32;
    while !is_over.load(SeqCst) {
        stream.write_all(&number.to_ne_bytes()).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(number + 1, u32::from_ne_bytes(answer));
        number += 1;
        rounds.fetch_add(1, SeqCst);
    }
}

fn echo(mut stream: UnixStream) {
    let mut number = [0; 4];
    while stream.read_exact(&mut number).is_ok() {
        let next = u32::from_ne_bytes(number) + 1;
        stream.write_all(&next.to_ne_bytes()).unwrap();
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        // In a child they never end.
        if self.process == process::id() {
            for task in self.tasks.drain(..) {
                task.join().unwrap();
            }
        }
    }
}
