//! Whatever a coroutine waits for with `poll` and its kin, or by reading what
//! tells of events, the others of its worker go on.

mod runtimes;
mod waits;

use std::ffi::{CString, c_int};
use std::fs;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{POLLIN, POLLOUT, epoll_event, pollfd, sigset_t, timespec, timeval};
use runtimes::on_every_driver;
use waits::ticks_during;

fn entry(fd: RawFd, events: i16) -> pollfd {
    pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Two pipes; a wait for the first to be readable is ended by the closure.
fn pipes() -> ((PipeReader, PipeWriter), (PipeReader, PipeWriter)) {
    (pipe().unwrap(), pipe().unwrap())
}

/// Runs `wait`, which waits until one of two pipes has something to read and
/// returns how many have, while the other coroutines go on.
fn waits_for_pipes(wait: fn(RawFd, RawFd) -> c_int) {
    let ((one, mut writer), (other, kept)) = pipes();
    ticks_during(
        move || {
            assert_eq!(1, wait(one.as_raw_fd(), other.as_raw_fd()));
            drop((one, other, kept));
        },
        move || writer.write_all(b"x").unwrap(),
    );
}

#[test]
fn during_poll_of_several() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let mut fds = [entry(one, POLLIN), entry(-1, POLLIN), entry(other, POLLIN)];
            // SAFETY: three entries.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) };
            assert_eq!([POLLIN, 0, 0], fds.map(|entry| entry.revents & POLLIN));
            ready
        });
    });
}

#[test]
fn during_ppoll() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let mut fds = [entry(one, POLLIN), entry(other, POLLIN)];
            let limit = timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            // SAFETY: two entries, a time, no mask.
            unsafe { libc::ppoll(fds.as_mut_ptr(), 2, &raw const limit, ptr::null()) }
        });
    });
}

#[test]
fn during_ppoll_with_a_mask() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let mut fds = [entry(one, POLLIN), entry(other, POLLIN)];
            // SAFETY: two entries, no time, an empty mask.
            unsafe {
                let mut mask: sigset_t = mem::zeroed();
                libc::sigemptyset(&raw mut mask);
                libc::ppoll(fds.as_mut_ptr(), 2, ptr::null(), &raw const mask)
            }
        });
    });
}

/// The set of these descriptors.
fn set_of(fds: &[RawFd]) -> libc::fd_set {
    // SAFETY: FD_ZERO makes any bytes a set; the numbers are small.
    unsafe {
        let mut set = mem::zeroed();
        libc::FD_ZERO(&raw mut set);
        fds.iter().for_each(|fd| libc::FD_SET(*fd, &raw mut set));
        set
    }
}

fn is_in(fd: RawFd, set: &libc::fd_set) -> bool {
    // SAFETY: a small number.
    unsafe { libc::FD_ISSET(fd, set) }
}

#[test]
fn during_select() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let mut read = set_of(&[one, other]);
            let mut limit = timeval {
                tv_sec: 60,
                tv_usec: 0,
            };
            let count = one.max(other) + 1;
            let (read_set, limit_pointer) = (&raw mut read, &raw mut limit);
            let none = ptr::null_mut();
            // SAFETY: a set, and a time.
            let ready = unsafe { libc::select(count, read_set, none, none, limit_pointer) };
            assert!(is_in(one, &read) && !is_in(other, &read));
            // As Linux does it, what is left of the time is stored there.
            assert!((30..60).contains(&limit.tv_sec), "{}", limit.tv_sec);
            ready
        });
    });
}

#[test]
fn during_pselect() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let mut read = set_of(&[one, other]);
            let count = one.max(other) + 1;
            let none = ptr::null_mut();
            // SAFETY: a set, no time and no mask.
            unsafe { libc::pselect(count, &raw mut read, none, none, ptr::null(), ptr::null()) }
        });
    });
}

#[test]
fn a_select_of_nothing_sleeps_for_its_time() {
    on_every_driver(1, || {
        ticks_until(|| {
            let mut limit = timeval {
                tv_sec: 0,
                tv_usec: 20_000,
            };
            let none = ptr::null_mut();
            // SAFETY: no sets, and a time.
            assert_eq!(0, unsafe {
                libc::select(0, none, none, none, &raw mut limit)
            });
            assert_eq!((0, 0), (limit.tv_sec, limit.tv_usec));
        });
    });
}

/// Runs `wait`, which ends by itself after 20 ms, beside a ticker.
fn ticks_until(wait: impl FnOnce() + Send + 'static) {
    let begin = std::time::Instant::now();
    ticks_during(
        move || {
            wait();
            assert!(begin.elapsed() >= Duration::from_millis(20));
            std::thread::sleep(Duration::from_millis(60));
        },
        || {},
    );
}

#[test]
fn a_select_reports_writable_and_exceptional_descriptors_too() {
    on_every_driver(1, || {
        let ((reader, writer), _) = pipes();
        let (mut read, mut write) = (set_of(&[reader.as_raw_fd()]), set_of(&[writer.as_raw_fd()]));
        let mut except = set_of(&[reader.as_raw_fd()]);
        let count = reader.as_raw_fd().max(writer.as_raw_fd()) + 1;
        let sets = (&raw mut read, &raw mut write, &raw mut except);
        // SAFETY: three sets, no time.
        let ready = unsafe { libc::select(count, sets.0, sets.1, sets.2, ptr::null_mut()) };
        assert_eq!(1, ready);
        assert!(is_in(writer.as_raw_fd(), &write));
        assert!(!is_in(reader.as_raw_fd(), &read) && !is_in(reader.as_raw_fd(), &except));
    });
}

#[test]
fn a_select_of_a_closed_descriptor_is_refused() {
    on_every_driver(1, || {
        let ((reader, _writer), _) = pipes();
        let fd = reader.as_raw_fd();
        drop(reader);
        let mut read = set_of(&[fd]);
        let none = ptr::null_mut();
        // SAFETY: a set, no time.
        let ready = unsafe { libc::select(fd + 1, &raw mut read, none, none, ptr::null_mut()) };
        assert_eq!(-1, ready);
        assert_eq!(
            Some(libc::EBADF),
            std::io::Error::last_os_error().raw_os_error()
        );
    });
}

/// An epoll set that waits for `fds` to be readable.
fn epoll_of(fds: &[RawFd]) -> OwnedFd {
    // SAFETY: makes a descriptor, which nobody else owns; the event lives across
    // the call.
    unsafe {
        let set = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        assert!(set >= 0);
        for fd in fds {
            let mut event = epoll_event {
                events: libc::EPOLLIN as u32,
                u64: *fd as u64,
            };
            assert_eq!(
                0,
                libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, *fd, &raw mut event)
            );
        }
        OwnedFd::from_raw_fd(set)
    }
}

#[test]
fn during_epoll_wait() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let set = epoll_of(&[one, other]);
            let mut events = [epoll_event { events: 0, u64: 0 }; 4];
            // SAFETY: four events.
            let ready = unsafe { libc::epoll_wait(set.as_raw_fd(), events.as_mut_ptr(), 4, -1) };
            let data = events[0].u64;
            assert_eq!(one as u64, data);
            ready
        });
    });
}

#[test]
fn during_epoll_pwait_with_and_without_a_mask() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let set = epoll_of(&[one, other]);
            let mut events = [epoll_event { events: 0, u64: 0 }; 4];
            let events = events.as_mut_ptr();
            // SAFETY: four events, no mask.
            unsafe { libc::epoll_pwait(set.as_raw_fd(), events, 4, 60_000, ptr::null()) }
        });
        waits_for_pipes(|one, other| {
            let set = epoll_of(&[one, other]);
            let mut events = [epoll_event { events: 0, u64: 0 }; 4];
            let events = events.as_mut_ptr();
            // SAFETY: four events, an empty mask.
            unsafe {
                let mut mask: sigset_t = mem::zeroed();
                libc::sigemptyset(&raw mut mask);
                libc::epoll_pwait(set.as_raw_fd(), events, 4, 60_000, &raw const mask)
            }
        });
    });
}

#[test]
fn during_epoll_pwait2() {
    on_every_driver(1, || {
        waits_for_pipes(|one, other| {
            let set = epoll_of(&[one, other]);
            let mut events = [epoll_event { events: 0, u64: 0 }; 4];
            let limit = timespec {
                tv_sec: 60,
                tv_nsec: 1,
            };
            let (events, limit) = (events.as_mut_ptr(), &raw const limit);
            // SAFETY: four events, a time, no mask.
            unsafe { libc::epoll_pwait2(set.as_raw_fd(), events, 4, limit, ptr::null()) }
        });
    });
}

/// Reads 8 bytes of `fd`.
fn read_number(fd: RawFd) -> u64 {
    let mut number = 0u64;
    // SAFETY: the 8 bytes of `number`.
    let count = unsafe { libc::read(fd, (&raw mut number).cast(), 8) };
    assert_eq!(8, count, "{}", std::io::Error::last_os_error());
    number
}

/// A descriptor that a call has just made.
fn owned(fd: c_int) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the callers pass a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn during_reads_of_an_eventfd() {
    on_every_driver(1, || {
        // SAFETY: takes integers.
        let events = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
        let writer = events.try_clone().unwrap();
        ticks_during(
            move || assert_eq!(7, read_number(events.as_raw_fd())),
            move || {
                let seven = 7u64;
                // SAFETY: the 8 bytes of `seven`.
                let count =
                    unsafe { libc::write(writer.as_raw_fd(), (&raw const seven).cast(), 8) };
                assert_eq!(8, count);
            },
        );
    });
}

#[test]
fn during_reads_of_a_timerfd() {
    on_every_driver(1, || {
        // SAFETY: takes integers.
        let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) });
        let setter = timer.try_clone().unwrap();
        ticks_during(
            move || assert_eq!(1, read_number(timer.as_raw_fd())),
            move || {
                // SAFETY: all-zero bytes are a time; it lives across the call.
                unsafe {
                    let mut time: libc::itimerspec = mem::zeroed();
                    time.it_value.tv_nsec = 1_000_000;
                    let fd = setter.as_raw_fd();
                    let set = libc::timerfd_settime(fd, 0, &raw const time, ptr::null_mut());
                    assert_eq!(0, set);
                }
            },
        );
    });
}

#[test]
fn during_reads_of_inotify() {
    on_every_driver(1, || {
        let directory =
            std::env::temp_dir().join(format!("open-coroutine-inotify-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = CString::new(directory.to_str().unwrap()).unwrap();
        // SAFETY: takes an integer.
        let watcher = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) });
        // SAFETY: a C string.
        let watch =
            unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
        assert!(watch >= 0);
        let file = directory.join("file");
        ticks_during(
            move || {
                let mut events = [0u8; 4096];
                let (fd, start) = (watcher.as_raw_fd(), events.as_mut_ptr().cast());
                // SAFETY: the bytes of `events`.
                let count = unsafe { libc::read(fd, start, events.len()) };
                assert!(count > 0);
            },
            move || fs::write(file, "").unwrap(),
        );
        fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn during_reads_of_a_terminal() {
    on_every_driver(1, || {
        let (mut leader, mut follower) = (-1, -1);
        let none = ptr::null_mut();
        // SAFETY: two numbers to write to.
        let opened = unsafe {
            libc::openpty(
                &raw mut leader,
                &raw mut follower,
                none,
                ptr::null(),
                ptr::null(),
            )
        };
        assert_eq!(0, opened);
        let (leader, follower) = (owned(leader), owned(follower));
        let keyboard = leader.try_clone().unwrap();
        ticks_during(
            move || {
                let mut line = [0u8; 16];
                let (fd, start) = (follower.as_raw_fd(), line.as_mut_ptr().cast());
                // SAFETY: the bytes of `line`.
                assert_eq!(3, unsafe { libc::read(fd, start, line.len()) });
                assert_eq!(b"hi\n", &line[..3]);
            },
            move || {
                let mut keyboard = fs::File::from(keyboard);
                keyboard.write_all(b"hi\n").unwrap();
            },
        );
        drop(leader);
    });
}

fn read_all(mut reader: &PipeReader, size: usize) {
    std::io::Read::read_exact(&mut reader, &mut vec![0; size]).unwrap();
}

#[test]
fn a_poll_for_writing_ends_when_the_pipe_is_drained() {
    on_every_driver(1, || {
        let (reader, mut writer) = pipe().unwrap();
        // SAFETY: an integer argument.
        let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) } as usize;
        writer.write_all(&vec![0; size]).unwrap();
        ticks_during(
            move || {
                let mut fds = [entry(writer.as_raw_fd(), POLLOUT)];
                // SAFETY: one entry.
                assert_eq!(1, unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) });
                assert_eq!(POLLOUT, fds[0].revents);
            },
            || read_all(&reader, size),
        );
    });
}
