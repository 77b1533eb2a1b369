//! Servers of the tests' own, and how they are started and ended.
//!
//! # Invariants
//!
//! 1. A server ends before its value is gone, and with the process that started
//!    it, however that ends: the kernel sends the signal.
//! 2. All it writes is in a folder of its own, which goes with it.

mod folder;
mod mariadb;
mod nginx;
mod postgres;
mod redis;

pub use folder::TemporaryFolder;
pub use mariadb::MariaDb;
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use folder::{NOBODY, is_root};

/// How long a server may take to start and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server; dropping it ends it.
struct Server {
    child: Child,
    port: u16,
    /// What ends it at once.
    signal: libc::c_int,
    folder: TemporaryFolder,
}

/// How a server is started.
struct Launch<'a> {
    command: &'a dyn Fn(&TemporaryFolder, u16) -> Command,
    /// Whether it answers at this port by now.
    answers: &'a dyn Fn(u16) -> bool,
    signal: libc::c_int,
}

impl Server {
    /// Starts a server in `folder` and waits until it answers.
    fn start(folder: TemporaryFolder, launch: &Launch<'_>) -> Self {
        let port = free_port();
        let mut command = (launch.command)(&folder, port);
        let log = File::create(folder.path().join("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        end_with_parent(&mut command, launch.signal);
        let child = unprivileged(&mut command).spawn().unwrap();
        let mut server = Self {
            child,
            port,
            signal: launch.signal,
            folder,
        };
        let deadline = Instant::now() + LIMIT;
        while !(launch.answers)(port) {
            let state = server.child.try_wait().unwrap();
            assert!(state.is_none(), "{command:?} ended: {state:?}");
            assert!(Instant::now() < deadline, "{command:?} does not answer");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn end(&mut self) {
        let id = libc::pid_t::try_from(self.child.id()).expect("process ids are positive");
        // SAFETY: takes integers. The child has not been waited for, or `kill`
        // is not reached: the id is its own.
        unsafe { libc::kill(id, self.signal) };
        let deadline = Instant::now() + LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
        if thread::panicking() {
            let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
            let end = &log[log.len().saturating_sub(2000)..];
            eprintln!("the server said: {}", String::from_utf8_lossy(end));
        }
    }
}

/// Has the kernel end the process with the thread that starts it.
fn end_with_parent(command: &mut Command, signal: libc::c_int) {
    let end = move || {
        let signal = libc::c_ulong::try_from(signal).expect("signals are positive");
        // SAFETY: takes integers.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call and, on success,
    // allocates nothing.
    unsafe { command.pre_exec(end) };
}

/// Database servers refuse to run as root.
fn unprivileged(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs `command` to its end, as the servers are.
fn run(command: &mut Command) {
    let output = unprivileged(command).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// A port that nobody listens at, below those that the kernel gives to clients:
/// a client that waits for a server there could otherwise meet itself.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let begin = (std::process::id() % u32::from(COUNT)) as u16;
    loop {
        let offset = NEXT.fetch_add(1, Relaxed);
        let port = FIRST + ((u32::from(begin) * 17 + u32::from(offset)) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
