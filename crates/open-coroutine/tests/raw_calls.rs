//! `syscall(2)`: calls by number suspend like those by name.

mod runtimes;
mod waits;

use std::ffi::c_long;
use std::io::{self, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libc::{epoll_event, pollfd, timespec};
use runtimes::{on_every_driver, on_every_runtime};
use waits::ticks_during;

const SYS_FUTEX_WAKE: c_long = 454;
const SYS_FUTEX_WAIT: c_long = 455;
const SYS_FUTEX_REQUEUE: c_long = 456;
/// A private word of 32 bits, for these.
const PRIVATE_WORD: usize = 128 | 2;

/// Makes a system call with numbers and pointers that fit it.
fn call(number: c_long, args: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests pass what the call's manual asks for.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[test]
fn during_reads_and_receives() {
    on_every_driver(1, || {
        for number in [libc::SYS_read, libc::SYS_recvfrom] {
            let (reader, mut writer) = UnixStream::pair().unwrap();
            ticks_during(
                move || {
                    let mut bytes = [0u8; 8];
                    let start = bytes.as_mut_ptr() as usize;
                    let fd = reader.as_raw_fd() as usize;
                    assert_eq!(2, call(number, [fd, start, 8, 0, 0, 0]).unwrap());
                    assert_eq!(b"hi", &bytes[..2]);
                },
                move || writer.write_all(b"hi").unwrap(),
            );
        }
    });
}

#[test]
fn during_accept_and_connect() {
    on_every_driver(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ticks_during(
            move || {
                let fd = listener.as_raw_fd() as usize;
                let flags = libc::SOCK_CLOEXEC as usize;
                let accepted = call(libc::SYS_accept4, [fd, 0, 0, flags, 0, 0]).unwrap();
                assert_eq!(0, call(libc::SYS_close, [accepted, 0, 0, 0, 0, 0]).unwrap());
            },
            move || drop(TcpStream::connect(address).unwrap()),
        );
    });
}

#[test]
fn during_polls() {
    on_every_driver(1, || {
        let (reader, mut writer) = pipe().unwrap();
        ticks_during(
            move || {
                let mut entry = pollfd {
                    fd: reader.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                let args = [&raw mut entry as usize, 1, 0, 0, 8, 0];
                assert_eq!(1, call(libc::SYS_ppoll, args).unwrap());
                let set = call(libc::SYS_epoll_create1, [0; 6]).unwrap();
                let mut event = epoll_event {
                    events: libc::EPOLLIN as u32,
                    u64: 5,
                };
                let pointer = &raw mut event as usize;
                let (add, fd) = (libc::EPOLL_CTL_ADD as usize, entry.fd as usize);
                call(libc::SYS_epoll_ctl, [set, add, fd, pointer, 0, 0]).unwrap();
                let args = [set, pointer, 1, usize::MAX, 0, 8];
                assert_eq!(1, call(libc::SYS_epoll_pwait, args).unwrap());
                call(libc::SYS_close, [set, 0, 0, 0, 0, 0]).unwrap();
            },
            move || writer.write_all(b"x").unwrap(),
        );
    });
}

#[test]
fn during_a_select_whose_mask_is_in_memory() {
    on_every_driver(1, || {
        // SAFETY: all-zero bytes are an empty set.
        let none: libc::sigset_t = unsafe { std::mem::zeroed() };
        for mask in [ptr::null(), &raw const none] {
            let (reader, mut writer) = pipe().unwrap();
            let fd = reader.as_raw_fd();
            let behind = [mask as usize, 8];
            ticks_during(
                move || {
                    // SAFETY: as above; a new process has small numbers.
                    let mut read: libc::fd_set = unsafe { std::mem::zeroed() };
                    // SAFETY: as above.
                    unsafe { libc::FD_SET(fd, &raw mut read) };
                    let (read, behind) = (&raw mut read as usize, behind.as_ptr() as usize);
                    let args = [fd as usize + 1, read, 0, 0, 0, behind];
                    assert_eq!(1, call(libc::SYS_pselect6, args).unwrap());
                    drop(reader);
                },
                move || writer.write_all(b"!").unwrap(),
            );
        }
    });
}

#[test]
fn during_copies_from_a_pipe() {
    on_every_driver(1, || {
        for number in [libc::SYS_splice, libc::SYS_tee] {
            let (from, mut writer) = pipe().unwrap();
            let (_reader, to) = pipe().unwrap();
            ticks_during(
                move || {
                    let [from, to] = [from.as_raw_fd() as usize, to.as_raw_fd() as usize];
                    let args = match number {
                        libc::SYS_tee => [from, to, 9, 0, 0, 0],
                        _ => [from, 0, to, 0, 9, 0],
                    };
                    assert_eq!(1, call(number, args).unwrap());
                },
                move || writer.write_all(b"!").unwrap(),
            );
        }
    });
}

#[test]
fn a_mask_set_by_number_is_the_coroutines() {
    on_every_driver(1, || {
        let bit = 1_u64 << (libc::SIGUSR1 - 1);
        let mask = move |how, set: &u64| {
            let mut old = 0_u64;
            let (set, old_at) = (ptr::from_ref(set) as usize, &raw mut old as usize);
            let args = [how as usize, set, old_at, 8, 0, 0];
            call(libc::SYS_rt_sigprocmask, args).unwrap();
            old & bit
        };
        let blocker = open_coroutine::spawn(move || {
            mask(libc::SIG_BLOCK, &bit);
            for _ in 0..9 {
                open_coroutine::yield_now();
                assert_eq!(bit, mask(libc::SIG_BLOCK, &0));
            }
        });
        for _ in 0..9 {
            open_coroutine::yield_now();
            assert_eq!(0, mask(libc::SIG_BLOCK, &0));
        }
        blocker.join().unwrap();
    });
}

#[test]
fn during_sleeps() {
    on_every_driver(1, || {
        let time = timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        for (number, first) in [(libc::SYS_nanosleep, 0), (libc::SYS_clock_nanosleep, 2)] {
            // However long that takes, it runs before the sleeper does again.
            let has_run = Arc::new(AtomicBool::new(false));
            let runs = has_run.clone();
            let other = open_coroutine::spawn(move || runs.store(true, SeqCst));
            let begin = Instant::now();
            let mut args = [0; 6];
            args[first] = &raw const time as usize;
            assert_eq!(0, call(number, args).unwrap());
            assert!(begin.elapsed() >= Duration::from_millis(5));
            assert!(has_run.load(SeqCst));
            other.join().unwrap();
        }
    });
}

#[test]
fn an_invalid_argument_is_an_error_in_errno() {
    on_every_driver(1, || {
        let time = timespec {
            tv_sec: 0,
            tv_nsec: -1,
        };
        let pointer = &raw const time as usize;
        for args in [[0, 0, pointer, 0, 0, 0], [99, 0, pointer, 0, 0, 0]] {
            let error = call(libc::SYS_clock_nanosleep, args).unwrap_err();
            assert_eq!(Some(libc::EINVAL), error.raw_os_error());
        }
    });
}

#[test]
fn the_newer_futex_calls_wait_and_wake() {
    on_every_driver(1, || {
        let word = Arc::new(AtomicU32::new(1));
        let other = word.clone();
        ticks_during(
            move || {
                let args = [
                    word.as_ptr() as usize,
                    1,
                    u32::MAX as usize,
                    PRIVATE_WORD,
                    0,
                    1,
                ];
                call(SYS_FUTEX_WAIT, args).unwrap();
            },
            move || {
                let args = [
                    other.as_ptr() as usize,
                    u32::MAX as usize,
                    1,
                    PRIVATE_WORD,
                    0,
                    0,
                ];
                assert_eq!(1, call(SYS_FUTEX_WAKE, args).unwrap());
            },
        );
    });
}

#[test]
fn a_newer_futex_wait_ends_in_time() {
    on_every_driver(1, || {
        let word = AtomicU32::new(1);
        // SAFETY: all-zero bytes are a time to be filled in.
        let mut time: timespec = unsafe { std::mem::zeroed() };
        // SAFETY: a time to write to.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        let pointer = &raw const time as usize;
        let wait = |value| {
            let mask = u32::MAX as usize;
            call(
                SYS_FUTEX_WAIT,
                [
                    word.as_ptr() as usize,
                    value,
                    mask,
                    PRIVATE_WORD,
                    pointer,
                    1,
                ],
            )
        };
        assert_eq!(Some(libc::EAGAIN), wait(2).unwrap_err().raw_os_error());
        assert_eq!(Some(libc::ETIMEDOUT), wait(1).unwrap_err().raw_os_error());
    });
}

/// One of the words of `futex_waitv(2)` and `futex_requeue(2)`.
#[repr(C)]
struct Word {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl Word {
    fn new(word: &AtomicU32) -> Self {
        Self {
            value: word.load(SeqCst).into(),
            address: word.as_ptr() as u64,
            flags: PRIVATE_WORD as u32,
            reserved: 0,
        }
    }
}

#[test]
fn a_wait_for_any_of_several_words_ends_with_one() {
    on_every_driver(1, || {
        let words = Arc::new([AtomicU32::new(1), AtomicU32::new(2)]);
        let other = words.clone();
        ticks_during(
            move || {
                let waits = words.each_ref().map(Word::new);
                let args = [waits.as_ptr() as usize, 2, 0, 0, 1, 0];
                assert_eq!(1, call(libc::SYS_futex_waitv, args).unwrap());
            },
            move || {
                let args = [
                    other[1].as_ptr() as usize,
                    u32::MAX as usize,
                    1,
                    PRIVATE_WORD,
                    0,
                    0,
                ];
                // The thread that waits for the coroutine may still be on its way.
                while call(SYS_FUTEX_WAKE, args).unwrap() == 0 {
                    open_coroutine::yield_now();
                }
            },
        );
    });
}

#[test]
fn waiters_are_moved_to_another_word() {
    on_every_runtime(|| {
        let words = Arc::new([AtomicU32::new(1), AtomicU32::new(2)]);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let words = words.clone();
                open_coroutine::spawn(move || {
                    let word = words[0].as_ptr() as usize;
                    let args = [word, 1, u32::MAX as usize, PRIVATE_WORD, 0, 1];
                    call(SYS_FUTEX_WAIT, args).map(drop)
                })
            })
            .collect();
        // One is woken and two move, as soon as all of them wait.
        let mut found = 0;
        while found < 3 {
            let pair = words.each_ref().map(Word::new);
            let wakes = usize::from(found == 0);
            let args = [pair.as_ptr() as usize, 0, wakes, 3, 0, 0];
            found += call(SYS_FUTEX_REQUEUE, args).unwrap();
            open_coroutine::yield_now();
        }
        let all = i32::MAX as usize;
        let args = [
            words[1].as_ptr() as usize,
            u32::MAX as usize,
            all,
            PRIVATE_WORD,
            0,
            0,
        ];
        assert_eq!(2, call(SYS_FUTEX_WAKE, args).unwrap());
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
        let pair = words.each_ref().map(Word::new);
        words[0].store(9, SeqCst);
        let error = call(SYS_FUTEX_REQUEUE, [pair.as_ptr() as usize, 0, 1, 1, 0, 0]).unwrap_err();
        assert_eq!(Some(libc::EAGAIN), error.raw_os_error());
    });
}

#[test]
fn a_close_by_number_ends_waits() {
    on_every_runtime(|| {
        let (reader, _writer) = pipe().unwrap();
        let fd = reader.as_raw_fd();
        std::mem::forget(reader);
        let waiter = open_coroutine::spawn(move || {
            let mut byte = 0u8;
            let start = &raw mut byte as usize;
            call(libc::SYS_read, [fd as usize, start, 1, 0, 0, 0])
        });
        std::thread::sleep(Duration::from_millis(5));
        call(
            libc::SYS_close_range,
            [fd as usize, fd as usize, 0, 0, 0, 0],
        )
        .unwrap();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(Some(libc::EBADF), error.raw_os_error());
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_thread_that_replaces_by_number_ends_waits() {
    on_every_driver(1, || {
        let (reader, _writer) = pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (from, to) = (null.as_raw_fd() as usize, reader.as_raw_fd() as usize);
        ticks_during(
            move || {
                let mut byte = 0_u8;
                let start = (&raw mut byte) as usize;
                let fd = reader.as_raw_fd() as usize;
                let error = call(libc::SYS_read, [fd, start, 1, 0, 0, 0]).unwrap_err();
                assert_eq!(Some(libc::EBADF), error.raw_os_error());
            },
            move || {
                let replace = move || call(libc::SYS_dup2, [from, to, 0, 0, 0, 0]).unwrap();
                assert_eq!(to, std::thread::spawn(replace).join().unwrap());
                drop(null);
            },
        );
    });
}

#[test]
fn a_wait_that_nothing_could_match_is_refused() {
    on_every_driver(1, || {
        let word = AtomicU32::new(0);
        let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
        let start = word.as_ptr() as usize;
        let error = call(libc::SYS_futex, [start, operation as usize, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(Some(libc::EINVAL), error.raw_os_error());
    });
}

#[test]
fn calls_that_nobody_looks_at_pass_through() {
    on_every_driver(1, || {
        let pid = call(libc::SYS_getpid, [0; 6]).unwrap();
        assert_eq!(std::process::id() as usize, pid);
        let mut bytes = [0u8; 16];
        let args = [bytes.as_mut_ptr() as usize, 16, 0, 0, 0, 0];
        assert_eq!(16, call(libc::SYS_getrandom, args).unwrap());
        let pidfd = call(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]).unwrap();
        call(libc::SYS_close, [pidfd, 0, 0, 0, 0, 0]).unwrap();
        let none = ptr::null_mut::<u8>() as usize;
        let error = call(libc::SYS_read, [usize::MAX, none, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(Some(libc::EBADF), error.raw_os_error());
    });
}
