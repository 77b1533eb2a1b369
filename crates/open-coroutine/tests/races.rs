//! Coroutines that use a descriptor while others close, replace, shut down or
//! change it, or while signals and forks come: each call ends as it may on a
//! thread, no byte is lost, and none comes twice or from another file.

mod flows;
mod posix_signals;
mod runtimes;

use std::ffi::c_int;
use std::fs::File;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use flows::{Random, check, receive, rounds, send};
use open_coroutine::{Config, JoinHandle, spawn, yield_now};
use runtimes::{on_every_driver_as, on_every_runtime};

/// Two ends of a connection.
fn pair(random: &mut Random) -> [OwnedFd; 2] {
    if random.below(2) == 0 {
        let (one, other) = UnixStream::pair().unwrap();
        return [one.into(), other.into()];
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [client.into(), listener.accept().unwrap().0.into()]
}

/// A coroutine's flow through a connection, and its length.
struct Flow {
    sender: JoinHandle<()>,
    receiver: JoinHandle<usize>,
    total: usize,
}

impl Flow {
    fn start(ends: &[OwnedFd; 2], seed: u64) -> Self {
        let [from, to] = [0, 1].map(|end: usize| ends[end].as_raw_fd());
        let total = Random::new(seed).below(1 << 21);
        Self {
            sender: spawn(move || send(from, total, Random::new(seed + 1))),
            receiver: spawn(move || receive(to, Random::new(seed + 2))),
            total,
        }
    }

    fn is_over(&self) -> bool {
        self.sender.is_finished() && self.receiver.is_finished()
    }

    fn join(self) {
        self.sender.join().unwrap();
        assert_eq!(self.total, self.receiver.join().unwrap());
    }
}

fn set_timeout(fd: RawFd, option: c_int, microseconds: usize) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds as libc::suseconds_t,
    };
    let len = mem::size_of_val(&time) as libc::socklen_t;
    let time = (&raw const time).cast();
    // SAFETY: the time lives across the call.
    assert_eq!(0, unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, option, time, len)
    });
}

#[test]
fn what_times_out_while_bytes_come_loses_none() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let ends = pair(&mut random);
            for end in &ends {
                for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
                    set_timeout(end.as_raw_fd(), option, 1 + random.below(1000));
                }
            }
            Flow::start(&ends, seed).join();
        });
    });
}

#[test]
fn a_mode_that_changes_while_others_wait_loses_no_byte() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let ends = pair(&mut random);
            let flow = Flow::start(&ends, seed);
            let mut flags = libc::O_NONBLOCK;
            while !flow.is_over() {
                let end = ends[random.below(2)].as_raw_fd();
                // SAFETY: takes integers.
                assert_eq!(0, unsafe { libc::fcntl(end, libc::F_SETFL, flags) });
                flags ^= libc::O_NONBLOCK;
                random.pause();
            }
            flow.join();
        });
    });
}

#[test]
fn signals_that_rain_lose_no_byte() {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: c_int) {
        HANDLED.fetch_add(1, SeqCst);
    }
    posix_signals::handle(libc::SIGUSR2, count, 0);
    on_every_runtime(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let rain = thread::spawn(move || {
            posix_signals::block(&[libc::SIGUSR2]);
            while !until.load(SeqCst) {
                posix_signals::send_to_process(libc::SIGUSR2);
                open_coroutine::without_hooks(|| thread::sleep(Duration::from_micros(50)));
            }
        });
        rounds(|seed| {
            let ends = pair(&mut Random::new(seed));
            Flow::start(&ends, seed).join();
        });
        stop.store(true, SeqCst);
        rain.join().unwrap();
    });
    assert!(HANDLED.load(SeqCst) > 0);
}

#[test]
fn forks_and_programs_lose_no_byte() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let ends = pair(&mut random);
            let flow = Flow::start(&ends, seed);
            while !flow.is_over() {
                match random.below(2) {
                    0 => assert!(Command::new("true").status().unwrap().success()),
                    _ => fork_and_close_all(),
                }
                random.pause();
            }
            flow.join();
        });
    });
}

/// Forks a child that closes what its parent's coroutines wait on.
fn fork_and_close_all() {
    // SAFETY: the child only makes system calls.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::close_range(3, u32::MAX, 0);
            libc::_exit(7);
        }
        let mut status = 0;
        assert_eq!(pid, libc::waitpid(pid, &raw mut status, 0));
        assert_eq!(7 << 8, status);
    }
}

#[test]
fn a_shutdown_ends_reads_after_all_that_was_sent() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let ends = pair(&mut random);
            let flow = Flow::start(&ends, seed);
            let (mut reading, _writing) = UnixStream::pair().unwrap();
            let own = reading.try_clone().unwrap();
            let reader = spawn(move || std::io::Read::read(&mut reading, &mut [0]).unwrap());
            random.pause();
            own.shutdown(std::net::Shutdown::Read).unwrap();
            assert_eq!(0, reader.join().unwrap());
            flow.join();
        });
    });
}

/// Numbers that nobody else gets: the kernel gives the lowest ones.
const FIRST: RawFd = 700;
const COUNT: RawFd = 6;

/// Makes `file` known by `number` too.
fn place(file: &impl AsRawFd, number: RawFd) {
    // SAFETY: the number is this test's own.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert_eq!(number, result);
}

/// Uses a descriptor until something comes of it.
fn use_in_some_way(fd: RawFd, way: usize) -> Result<usize, c_int> {
    let mut buffer = vec![0_u8; 1 << 20];
    let (start, len) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: what the calls use lives across them. The descriptor may be closed.
    check(unsafe {
        match way {
            0 => libc::read(fd, start, len),
            1 => libc::recv(fd, start, len, 0),
            2 => {
                let mut entry = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                let ready = check(libc::poll(&raw mut entry, 1, -1) as isize);
                assert_eq!(Ok(1), ready);
                return Err(libc::EBADF);
            }
            3 => libc::accept(fd, ptr::null_mut(), ptr::null_mut()) as isize,
            _ => loop {
                let count = libc::write(fd, start, len);
                if count < 0 {
                    break count;
                }
                yield_now();
            },
        }
    })
}

/// Closes some numbers in one of the ways that programs do.
fn end_all(random: &mut Random, null: &File) {
    let range = FIRST..FIRST + COUNT;
    // SAFETY: the numbers are this test's own.
    unsafe {
        match random.below(5) {
            0 => range.for_each(|fd| assert_eq!(0, libc::close(fd))),
            1 => {
                let last = (FIRST + COUNT - 1) as u32;
                assert_eq!(0, libc::close_range(FIRST as u32, last, 0));
            }
            2 => range.for_each(|fd| assert_eq!(0, libc::syscall(libc::SYS_close, fd))),
            3 => {
                for fd in range.clone() {
                    assert_eq!(fd, libc::dup2(null.as_raw_fd(), fd));
                }
                range.for_each(|fd| assert_eq!(0, libc::close(fd)));
            }
            _ => {
                for fd in range.clone() {
                    assert_eq!(fd, libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC));
                }
                range.for_each(|fd| assert_eq!(0, libc::close(fd)));
            }
        }
    }
}

#[test]
fn all_uses_of_what_is_closed_come_to_an_end() {
    on_every_runtime(|| {
        // Ready for everything, refuses nothing.
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.unwrap();
        rounds(|seed| {
            let mut random = Random::new(seed);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let streams: Vec<_> = (1..COUNT).map(|_| pair(&mut random)).collect();
            place(&listener, FIRST);
            for (number, stream) in (FIRST + 1..).zip(&streams) {
                place(&stream[0], number);
            }
            let users: Vec<_> = (0..2 * COUNT as usize)
                .map(|user| {
                    let fd = FIRST + user as RawFd % COUNT;
                    let way = if fd == FIRST {
                        3
                    } else {
                        [0, 1, 2, 4][random.below(4)]
                    };
                    (spawn(move || use_in_some_way(fd, way)), way)
                })
                .collect();
            random.pause();
            end_all(&mut random, &null);
            // Whoever came while a close was under way still waits for the file.
            let files = streams.iter().flatten().map(AsRawFd::as_raw_fd);
            for file in files.chain([listener.as_raw_fd()]) {
                // SAFETY: takes integers.
                unsafe { libc::shutdown(file, libc::SHUT_RDWR) };
            }
            for (user, way) in users {
                let result = user.join().unwrap();
                let ok = match result {
                    // The end of the stream, or the null device.
                    Ok(count) => count == 0 && way < 2,
                    Err(libc::EPIPE) => way == 4,
                    Err(libc::EINVAL) => way == 3,
                    Err(error) => [libc::EBADF, libc::ENOTSOCK].contains(&error),
                };
                assert!(ok, "way {way}: {result:?}");
            }
        });
    });
}

/// How often a number is used again, with each driver.
const REUSES: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};

#[test]
fn a_number_that_is_used_again_has_the_bytes_of_its_own_file() {
    // One worker: who has begun to read waits when others run, unless he is preempted
    // in between. So there is no monitor, which also opens files of `/proc`.
    let config = Config::default().event_loop_size(1).preemptive(false);
    on_every_driver_as(&config.take_over(false), || {
        let mut random = Random::new(1);
        for id in 0..REUSES {
            use_again(id, &mut random);
        }
    });
}

fn use_again(id: u64, random: &mut Random) {
    let (old, old_peer) = UnixStream::pair().unwrap();
    let old = OwnedFd::from(old);
    let begun = Arc::new(AtomicBool::new(false));
    let begins = begun.clone();
    let fd = old.as_raw_fd();
    let is_sent = random.below(4) == 0;
    let reader = spawn(move || {
        begins.store(true, SeqCst);
        read_number(fd)
    });
    while !begun.load(SeqCst) {
        yield_now();
    }
    if is_sent {
        write_number(&old_peer, !id);
    }
    if random.below(3) == 0 {
        yield_now();
    }
    drop(old);
    let (new, new_peer) = UnixStream::pair().unwrap();
    assert_eq!(fd, new.as_raw_fd());
    write_number(&new_peer, id);
    match reader.join().unwrap() {
        Ok(number) => assert_eq!((true, !id), (is_sent, number)),
        Err(error) => assert_eq!(libc::EBADF, error),
    }
    assert_eq!(Ok(id), read_number(new.as_raw_fd()));
}

fn read_number(fd: RawFd) -> Result<u64, c_int> {
    let mut bytes = [0; 8];
    // SAFETY: the buffer lives across the call.
    let count = check(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })?;
    assert_eq!(bytes.len(), count);
    Ok(u64::from_ne_bytes(bytes))
}

fn write_number(stream: &UnixStream, number: u64) {
    let bytes = number.to_ne_bytes();
    let mut stream = stream;
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
}
