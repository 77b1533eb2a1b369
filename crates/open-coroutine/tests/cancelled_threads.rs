//! `pthread_cancel` still ends plain threads that wait in hooked functions: it
//! unwinds their stack from inside of libc's function, through the hook's frames.

extern crate open_coroutine;

use std::env;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::Write;
use std::mem;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use libc::pthread_t;

/// Things to wait for that never come: bytes of a stream, a connection, room in a
/// stream, a writer of a FIFO, an unlock of a file, the end of a thread or a child.
struct Nothing {
    stream: (UnixStream, UnixStream),
    listener: TcpListener,
    full: (UnixStream, UnixStream),
    fifo: CString,
    locked: (File, File),
    sleeper: pthread_t,
    wait: unsafe fn(&Nothing),
    thread: AtomicI32,
}

impl Nothing {
    fn stream(&self) -> RawFd {
        self.stream.0.as_raw_fd()
    }
}

/// A thread that never ends by itself.
extern "C-unwind" fn sleep_on(_: *mut c_void) -> *mut c_void {
    // SAFETY: takes nothing.
    unsafe { pause() };
    ptr::null_mut()
}

/// A thread that waits, and in whose frames nothing needs to be dropped.
extern "C-unwind" fn wait_once(nothing: *mut c_void) -> *mut c_void {
    // SAFETY: the test passes one that lives until this thread has ended.
    unsafe {
        let nothing = &*nothing.cast::<Nothing>();
        nothing.thread.store(libc::gettid(), SeqCst);
        (nothing.wait)(nothing);
    }
    ptr::null_mut()
}

// The libc crate says of these that they do not unwind, which a compiler may rely
// on in the frames above.
unsafe extern "C-unwind" {
    fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize;
    fn write(fd: c_int, buf: *const c_void, len: usize) -> isize;
    fn readv(fd: c_int, iov: *const libc::iovec, count: c_int) -> isize;
    fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize;
    fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize;
    fn recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> isize;
    fn accept(fd: c_int, addr: *mut c_void, len: *mut c_void) -> c_int;
    fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    fn select(
        count: c_int,
        read: *mut libc::fd_set,
        write: *mut c_void,
        except: *mut c_void,
        timeout: *mut c_void,
    ) -> c_int;
    fn epoll_wait(fd: c_int, events: *mut libc::epoll_event, max: c_int, timeout: c_int) -> c_int;
    fn nanosleep(time: *const libc::timespec, left: *mut libc::timespec) -> c_int;
    fn clock_nanosleep(
        clock: c_int,
        flags: c_int,
        time: *const libc::timespec,
        left: *mut libc::timespec,
    ) -> c_int;
    fn usleep(microseconds: u32) -> c_int;
    fn sleep(seconds: u32) -> u32;
    fn pause() -> c_int;
    fn sigsuspend(mask: *const libc::sigset_t) -> c_int;
    fn sigwaitinfo(set: *const libc::sigset_t, info: *mut c_void) -> c_int;
    fn sigpause(mask: c_int) -> c_int;
    fn wait(status: *mut c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn waitid(kind: c_int, id: libc::id_t, info: *mut libc::siginfo_t, options: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn thrd_sleep(time: *const libc::timespec, left: *mut libc::timespec) -> c_int;
    fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
}

static HOUR: libc::timespec = libc::timespec {
    tv_sec: 3600,
    tv_nsec: 0,
};

static BYTES: [u8; 1 << 20] = [0; 1 << 20];

/// Declares the waits by name.
macro_rules! waits {
    ($($name:ident($nothing:pat) => $body:block)*) => {
        const WAITS: &[(&str, unsafe fn(&Nothing))] = &[$((stringify!($name), |$nothing| {
            // SAFETY: the caller promises that the descriptors and the thread
            // live; the rest lives in this frame.
            unsafe { $body }
        }),)*];
    };
}

waits! {
    read(it) => {
        let mut byte = 0_u8;
        read(it.stream(), (&raw mut byte).cast(), 1);
    }
    write(it) => {
        write(it.full.0.as_raw_fd(), BYTES.as_ptr().cast(), BYTES.len());
    }
    readv(it) => {
        let mut byte = 0_u8;
        let piece = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        readv(it.stream(), &raw const piece, 1);
    }
    recv(it) => {
        let mut byte = 0_u8;
        recv(it.stream(), (&raw mut byte).cast(), 1, 0);
    }
    send(it) => {
        send(it.full.0.as_raw_fd(), BYTES.as_ptr().cast(), BYTES.len(), 0);
    }
    recvmsg(it) => {
        let mut byte = 0_u8;
        let mut piece = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        recvmsg(it.stream(), &raw mut message, 0);
    }
    accept(it) => {
        accept(it.listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut());
    }
    poll(it) => {
        let mut entry = libc::pollfd {
            fd: it.stream(),
            events: libc::POLLIN,
            revents: 0,
        };
        poll(&raw mut entry, 1, -1);
    }
    select(it) => {
        let mut set: libc::fd_set = mem::zeroed();
        libc::FD_SET(it.stream(), &raw mut set);
        let none = ptr::null_mut();
        select(it.stream() + 1, &raw mut set, none, none, none);
    }
    epoll_wait(_) => {
        let mut event: libc::epoll_event = mem::zeroed();
        let set = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        epoll_wait(set, &raw mut event, 1, -1);
    }
    nanosleep(_) => {
        nanosleep(&raw const HOUR, ptr::null_mut());
    }
    clock_nanosleep(_) => {
        clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const HOUR, ptr::null_mut());
    }
    usleep(_) => {
        usleep(1_000_000_000);
    }
    sleep(_) => {
        sleep(3600);
    }
    pause(_) => {
        pause();
    }
    sigsuspend(_) => {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        sigsuspend(&raw const set);
    }
    sigwaitinfo(_) => {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        sigwaitinfo(&raw const set, ptr::null_mut());
    }
    sigpause(_) => {
        sigpause(0);
    }
    wait(_) => {
        wait(ptr::null_mut());
    }
    waitpid(_) => {
        waitpid(-1, ptr::null_mut(), 0);
    }
    waitid(_) => {
        let mut info: libc::siginfo_t = mem::zeroed();
        waitid(libc::P_ALL as c_int, 0, &raw mut info, libc::WEXITED);
    }
    fcntl(it) => {
        let mut lock: libc::flock = mem::zeroed();
        lock.l_type = libc::F_WRLCK as i16;
        fcntl(it.locked.0.as_raw_fd(), libc::F_OFD_SETLKW, &raw const lock);
    }
    thrd_sleep(_) => {
        thrd_sleep(&raw const HOUR, ptr::null_mut());
    }
    pthread_join(it) => {
        pthread_join(it.sleeper, ptr::null_mut());
    }
    open(it) => {
        open(it.fifo.as_ptr(), libc::O_RDONLY);
    }
}

/// Starts a thread without Rust frames that would have to be unwound.
fn start(
    body: extern "C-unwind" fn(*mut c_void) -> *mut c_void,
    argument: *const Nothing,
) -> pthread_t {
    type Body = extern "C" fn(*mut c_void) -> *mut c_void;
    let mut thread = 0;
    // SAFETY: libc's declaration calls a function that may unwind; the argument
    // outlives the thread, which is joined.
    let result = unsafe {
        let body = mem::transmute::<extern "C-unwind" fn(*mut c_void) -> *mut c_void, Body>(body);
        libc::pthread_create(
            &raw mut thread,
            ptr::null(),
            body,
            argument.cast_mut().cast(),
        )
    };
    assert_eq!(0, result);
    thread
}

/// Cancels a thread of the test's; returns when it has ended.
fn cancel(thread: pthread_t) {
    let mut value = ptr::null_mut();
    // SAFETY: the thread is joined once, here.
    unsafe {
        assert_eq!(0, libc::pthread_cancel(thread));
        assert_eq!(0, libc::pthread_join(thread, &raw mut value));
    }
    // PTHREAD_CANCELED
    assert_eq!(usize::MAX, value as usize);
}

/// Returns when the thread sleeps in the kernel, which it does nowhere but in the
/// call that is tested.
fn wait_until_asleep(nothing: &Nothing) {
    loop {
        let thread = nothing.thread.load(SeqCst);
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        if thread != 0 && stat.is_ok_and(|stat| stat.contains(") S ")) {
            return;
        }
        thread::yield_now();
    }
}

/// A stream with its peer, which takes no more bytes.
fn full() -> (UnixStream, UnixStream) {
    let (mut stream, peer) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&BYTES).is_ok() {}
    stream.set_nonblocking(false).unwrap();
    (stream, peer)
}

/// A path of this process's own.
fn path(name: &str) -> PathBuf {
    env::temp_dir().join(format!("cancelled_threads.{}.{name}", process::id()))
}

/// A file that is locked by the second descriptor of it.
fn locked() -> (File, File) {
    let path = path("lock");
    let files = (File::create(&path).unwrap(), File::create(&path).unwrap());
    fs::remove_file(path).unwrap();
    // SAFETY: all-zero bytes are a valid request.
    unsafe {
        let mut lock: libc::flock = mem::zeroed();
        lock.l_type = libc::F_WRLCK as i16;
        let fd = files.1.as_raw_fd();
        assert_eq!(0, libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock));
    }
    files
}

#[test]
fn threads_that_wait_in_hooked_functions_can_be_cancelled() {
    let fifo = path("fifo");
    let mut nothing = Nothing {
        stream: UnixStream::pair().unwrap(),
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        full: full(),
        fifo: CString::new(fifo.clone().into_os_string().into_vec()).unwrap(),
        locked: locked(),
        sleeper: start(sleep_on, ptr::null()),
        wait: |_| (),
        thread: AtomicI32::new(0),
    };
    // SAFETY: a path.
    assert_eq!(0, unsafe { libc::mkfifo(nothing.fifo.as_ptr(), 0o600) });
    let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
    for &(name, wait) in WAITS {
        eprintln!("{name}");
        nothing.wait = wait;
        nothing.thread = AtomicI32::new(0);
        let thread = start(wait_once, &raw const nothing);
        wait_until_asleep(&nothing);
        cancel(thread);
    }
    cancel(nothing.sleeper);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(fifo).unwrap();
}
