//! Signals all the time, to every thread: who waits on a coroutine sees none of
//! them, and who waits on a thread sees what its handler's flags say.

mod child;
mod flows;
mod runtimes;

use std::env;
use std::ffi::c_int;
use std::fs;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use flows::{Random, check, receive, send};
use open_coroutine::{Config, JoinHandle, spawn, yield_now};
use runtimes::on_every_driver_as;

/// What every thread is sent.
const SIGNAL: c_int = libc::SIGUSR1;
/// How often.
const PERIOD: Duration = Duration::from_micros(100);

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

fn install(signal: c_int, flags: c_int) {
    // SAFETY: all-zero bytes are a valid `sigaction`; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(
            0,
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        );
    }
}

/// Signals to each thread but its own, and `SIGALRM` to the process, until it is
/// dropped.
struct Storm {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    /// Begins, with these flags of the handlers.
    fn begin(flags: c_int) -> Self {
        install(SIGNAL, flags);
        install(libc::SIGALRM, flags);
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let thread = thread::spawn(move || {
            while !until.load(SeqCst) {
                send_to_all_others();
                thread::sleep(PERIOD);
            }
        });
        set_timer(PERIOD);
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
        self.is_over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Has `SIGALRM` come every `period`.
fn set_timer(period: Duration) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: period.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the setting lives across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            ptr::from_ref(&timer),
            ptr::null_mut::<libc::itimerval>(),
        )
    };
    assert_eq!(0, result);
}

fn send_to_all_others() {
    // SAFETY: takes nothing.
    let (process, own) = unsafe { (libc::getpid(), libc::gettid()) };
    for entry in fs::read_dir("/proc/self/task").unwrap() {
        // A thread may have ended meanwhile.
        let thread: Option<c_int> = entry
            .ok()
            .and_then(|entry| entry.file_name().to_str()?.parse().ok());
        if let Some(thread) = thread.filter(|thread| *thread != own) {
            // SAFETY: takes integers.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL) };
        }
    }
}

/// How long each part goes on.
fn duration() -> Duration {
    Duration::from_millis(match env::var("OPEN_COROUTINE_FAULTS").as_deref() {
        Ok("all") => 10_000,
        _ => 150,
    })
}

/// Repeats `round` for as long.
fn repeat(mut round: impl FnMut(u64)) {
    let begin = Instant::now();
    for number in 0.. {
        round(number);
        if begin.elapsed() >= duration() {
            return;
        }
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Both wait, for each other.
    let client = spawn(move || TcpStream::connect(address).unwrap());
    let server = listener.accept().unwrap().0;
    (client.join().unwrap(), server)
}

/// Every kind of read and write, in calls of libc that repeat nothing.
fn transfers() {
    repeat(|number| {
        let (client, server) = tcp_pair();
        let (one, other) = UnixStream::pair().unwrap();
        let total = 200_000;
        let flow = |from: i32, to: i32, seed: u64| {
            let sender = spawn(move || send(from, total, Random::new(seed)));
            assert_eq!(total, receive(to, Random::new(seed + 1)));
            sender.join().unwrap();
        };
        flow(client.as_raw_fd(), server.as_raw_fd(), number);
        flow(one.as_raw_fd(), other.as_raw_fd(), number + 7);
    });
}

fn pipes() {
    repeat(|_| {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written.
        check(unsafe { libc::pipe(ends.as_mut_ptr()) } as isize).unwrap();
        let [reader, writer] = ends;
        let bytes = vec![7u8; 100_000];
        let writes = spawn(move || {
            // SAFETY: the bytes live across the call, and nobody else closes it.
            unsafe {
                assert_eq!(
                    Ok(bytes.len()),
                    check(libc::write(writer, bytes.as_ptr().cast(), bytes.len()))
                );
                libc::close(writer);
            }
        });
        let mut buffer = [0u8; 3000];
        let mut total = 0;
        loop {
            // SAFETY: as above.
            match check(unsafe { libc::read(reader, buffer.as_mut_ptr().cast(), buffer.len()) }) {
                Ok(0) => break,
                count => total += count.unwrap(),
            }
        }
        assert_eq!(100_000, total);
        writes.join().unwrap();
        // SAFETY: nobody else closes it.
        unsafe { libc::close(reader) };
    });
}

/// Waits that nothing ends but their time.
fn timeouts() {
    let (one, _other) = UnixStream::pair().unwrap();
    let fd = one.as_raw_fd();
    repeat(|_| {
        let begin = Instant::now();
        let mut entry = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let millisecond = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        // SAFETY: what is pointed to lives across each call.
        unsafe {
            assert_eq!(Ok(0), check(libc::poll(&raw mut entry, 1, 1) as isize));
            assert_eq!(Ok(0), check(libc::poll(&raw mut entry, 1, 0) as isize));
            assert_eq!(0, libc::usleep(1000));
            assert_eq!(0, libc::nanosleep(&raw const millisecond, ptr::null_mut()));
            let mut set: libc::fd_set = mem::zeroed();
            libc::FD_SET(fd, &raw mut set);
            let mut limit = libc::timeval {
                tv_sec: 0,
                tv_usec: 1000,
            };
            let none = ptr::null_mut();
            let ready = libc::select(fd + 1, &raw mut set, none, none, &raw mut limit);
            assert_eq!(Ok(0), check(ready as isize));
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            let mut event = libc::epoll_event { events: 1, u64: 0 };
            assert_eq!(
                0,
                libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event)
            );
            let ready = libc::epoll_wait(epoll, &raw mut event, 1, 1);
            assert_eq!(Ok(0), check(ready as isize));
            libc::close(epoll);
        }
        thread::sleep(Duration::from_millis(1));
        assert!(begin.elapsed() >= Duration::from_millis(6));
    });
}

/// Two that wake each other.
fn turns() {
    let turn = Arc::new((Mutex::new(0u64), Condvar::new()));
    let is_over = Arc::new(AtomicBool::new(false));
    let players: Vec<_> = (0..2)
        .map(|parity| {
            let (turn, is_over) = (turn.clone(), is_over.clone());
            spawn(move || {
                let mut number = turn.0.lock().unwrap();
                while !is_over.load(SeqCst) {
                    if *number % 2 == parity {
                        *number += 1;
                        turn.1.notify_all();
                    } else {
                        let limit = Duration::from_millis(5);
                        number = turn.1.wait_timeout(number, limit).unwrap().0;
                    }
                }
            })
        })
        .collect();
    let (sender, receiver) = mpsc::channel();
    // A thread, so that wake-ups cross.
    let thread = thread::spawn(move || receiver.iter().sum::<u64>());
    let mut sum = 0;
    repeat(|number| {
        sender.send(number).unwrap();
        sum += number;
        yield_now();
    });
    drop(sender);
    assert_eq!(sum, thread.join().unwrap());
    is_over.store(true, SeqCst);
    for player in players {
        player.join().unwrap();
    }
    assert!(*turn.0.lock().unwrap() > 10);
}

/// Keeps the worker until it is preempted, and checks what it computes.
fn computing() {
    repeat(|_| {
        let mut numbers = std::hint::black_box([1.0f64, 1.0]);
        for _ in 0..200_000 {
            numbers = std::hint::black_box([numbers[1], (numbers[0] + numbers[1]) % 1000.0]);
        }
        assert_eq!(fibonacci(200_000), numbers.map(|number| number as u32));
    });
}

/// The same by other means.
fn fibonacci(steps: u32) -> [u32; 2] {
    (0..steps).fold([1, 1], |[one, other], _| [other, (one + other) % 1000])
}

/// What threads of the pool do: where one would be interrupted, the call may be.
fn offloaded(flags: c_int) {
    let may_be_interrupted = flags & libc::SA_RESTART == 0;
    let path = env::temp_dir().join(format!("open-coroutine-storm-{}", std::process::id()));
    let file = fs::File::create(&path).unwrap();
    let other = fs::File::open(&path).unwrap();
    repeat(|_| {
        let lock = move |fd: c_int| loop {
            // SAFETY: takes integers.
            match check(unsafe { libc::flock(fd, libc::LOCK_EX) } as isize) {
                Err(libc::EINTR) if may_be_interrupted => {}
                result => break result.unwrap(),
            }
        };
        lock(file.as_raw_fd());
        let fd = other.as_raw_fd();
        let waits = spawn(move || {
            lock(fd);
            // SAFETY: takes integers.
            assert_eq!(0, unsafe { libc::flock(fd, libc::LOCK_UN) });
        });
        yield_now();
        // SAFETY: takes integers.
        assert_eq!(0, unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) });
        waits.join().unwrap();
        fs::write(&path, "bytes").unwrap();
        assert_eq!(b"bytes", &*fs::read(&path).unwrap());
        let output = Command::new("/bin/true").output().unwrap();
        assert!(output.status.success());
    });
    fs::remove_file(&path).unwrap();
}

fn under_storm(flags: c_int) {
    for workers in [1, 2] {
        let config = Config::default().event_loop_size(workers);
        on_every_driver_as(&config, move || {
            let before = HANDLED.load(SeqCst);
            let storm = Storm::begin(flags);
            let parts: [fn(); 5] = [transfers, pipes, timeouts, turns, computing];
            let tasks: Vec<JoinHandle<()>> = parts.into_iter().map(spawn).collect();
            let pool = spawn(move || offloaded(flags));
            for task in tasks {
                task.join().unwrap();
            }
            pool.join().unwrap();
            drop(storm);
            assert!(HANDLED.load(SeqCst) - before > 100, "it was no storm");
        });
    }
}

#[test]
fn no_wait_of_a_coroutine_ends_by_a_handler_that_restarts() {
    child::succeeds(
        "no_wait_of_a_coroutine_ends_by_a_handler_that_restarts",
        || under_storm(libc::SA_RESTART),
    );
}

#[test]
fn no_wait_of_a_coroutine_ends_by_a_handler_that_does_not_restart() {
    child::succeeds(
        "no_wait_of_a_coroutine_ends_by_a_handler_that_does_not_restart",
        || under_storm(0),
    );
}

/// What a `recv` on a plain thread, beside a runtime, returns if its peer closes the
/// connection after `patience`.
fn receive_on_a_thread(flags: c_int, patience: Duration) -> Result<usize, c_int> {
    let storm = Storm::begin(flags);
    let (one, other) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let mut byte = 0u8;
        // SAFETY: the byte lives across the call.
        check(unsafe { libc::recv(one.as_raw_fd(), (&raw mut byte).cast(), 1, 0) })
    });
    let end = Instant::now() + patience;
    while !thread.is_finished() && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    drop(other);
    let result = thread.join().unwrap();
    drop(storm);
    result
}

#[test]
fn a_plain_thread_is_interrupted_as_its_handler_says() {
    child::succeeds("a_plain_thread_is_interrupted_as_its_handler_says", || {
        spawn(|| ()).join().unwrap();
        let ever = Duration::from_secs(60);
        assert_eq!(Err(libc::EINTR), receive_on_a_thread(0, ever));
        let short = Duration::from_millis(20);
        assert_eq!(Ok(0), receive_on_a_thread(libc::SA_RESTART, short));
    });
}
