//! What cancellation does to every kind of wait: `docs/cancellation.md` as tests.

mod child;
mod runtimes;
mod victims;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use open_coroutine::{Config, JoinError, park, park_timeout, sleep, spawn, yield_now};
use runtimes::on_every_runtime;
use victims::{begun, cancels_itself};

const LONG: Duration = Duration::from_secs(3600);

/// Starts `body` and cancels it: at once, when others have run, and when it has had
/// time to wait. Returns what each of them gave.
fn cancelled<R: Send + 'static>(body: fn() -> R) -> Vec<Result<R, JoinError>> {
    let results = (0..3).map(|pause| {
        let task = begun(body);
        match pause {
            0 => {}
            1 => yield_now(),
            _ => sleep(Duration::from_millis(2)),
        }
        assert!(!task.is_cancelled());
        assert!(task.cancel());
        assert!(task.is_cancelled());
        task.join()
    });
    results.collect()
}

/// Checks that a cancelled `body` has `ECANCELED` as its error.
fn ends_with_error<R: Send + 'static>(body: fn() -> io::Result<R>) {
    on_every_runtime_with(body, |body| {
        for result in cancelled(body) {
            let error = result.unwrap().err().expect("it waits for ever");
            assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
        }
    });
}

/// Checks that a cancelled `body` unwinds.
fn unwinds(body: fn()) {
    on_every_runtime_with(body, |body| {
        for result in cancelled(body) {
            assert!(result.unwrap_err().is_cancelled());
        }
    });
}

/// Checks that a cancelled `body` returns.
fn returns(body: fn()) {
    on_every_runtime_with(body, |body| {
        for result in cancelled(body) {
            result.unwrap();
        }
    });
}

fn on_every_runtime_with<T: Copy + Send + 'static>(body: T, check: fn(T)) {
    for workers in [1, 2] {
        runtimes::on_every_driver(workers, move || check(body));
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[test]
fn a_recv_ends() {
    ends_with_error(|| {
        let (mut one, _other) = UnixStream::pair()?;
        one.read(&mut [0; 8])
    });
}

#[test]
fn a_recv_with_a_time_limit_ends() {
    ends_with_error(|| {
        let (mut one, _other) = UnixStream::pair()?;
        one.set_read_timeout(Some(LONG))?;
        one.read(&mut [0; 8])
    });
}

#[test]
fn a_datagram_is_not_waited_for() {
    ends_with_error(|| UdpSocket::bind("127.0.0.1:0")?.recv_from(&mut [0; 8]));
}

#[test]
fn a_send_ends() {
    ends_with_error(|| {
        let (mut one, _other) = UnixStream::pair()?;
        loop {
            one.write_all(&[0; 1 << 16])?;
        }
        #[allow(unreachable_code)]
        Ok(())
    });
}

#[test]
fn an_accept_ends() {
    ends_with_error(|| TcpListener::bind("127.0.0.1:0")?.accept());
}

#[test]
fn a_connect_ends() {
    ends_with_error(|| {
        // A listener whose queue is full: the next connection hangs.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // SAFETY: takes integers.
        unsafe { libc::listen(listener.as_raw_fd(), 0) };
        let address = listener.local_addr()?;
        let mut queued = Vec::new();
        loop {
            queued.push(TcpStream::connect(address)?);
        }
        #[allow(unreachable_code)]
        Ok(())
    });
}

#[test]
fn pipes_end() {
    ends_with_error(|| {
        let (mut reader, _writer) = io::pipe()?;
        reader.read(&mut [0; 8])
    });
    ends_with_error(|| {
        let (_reader, mut writer) = io::pipe()?;
        loop {
            writer.write_all(&[0; 1 << 16])?;
        }
        #[allow(unreachable_code)]
        Ok(())
    });
}

/// Polls `fds` for as long as `milliseconds` say.
fn poll(fds: &[RawFd], milliseconds: i32) -> io::Result<usize> {
    let mut entries: Vec<_> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let count = entries.len() as libc::nfds_t;
    // SAFETY: the entries live across the call.
    check(unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) } as isize)
}

#[test]
fn polls_of_one_and_of_many_end() {
    ends_with_error(|| {
        let (one, _other) = UnixStream::pair()?;
        poll(&[one.as_raw_fd()], -1)
    });
    ends_with_error(|| {
        let pairs: Vec<_> = (0..10).map(|_| UnixStream::pair().unwrap()).collect();
        let fds: Vec<_> = pairs.iter().map(|(one, _)| one.as_raw_fd()).collect();
        poll(&fds, 3_600_000)
    });
    // It waits for ever and for nothing.
    ends_with_error(|| poll(&[], -1));
}

#[test]
fn a_select_ends() {
    ends_with_error(|| {
        let (one, _other) = UnixStream::pair()?;
        let fd = one.as_raw_fd();
        // SAFETY: all-zero bytes are an empty set; the set lives across the call.
        check(unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd, &mut set);
            let (null, none) = (std::ptr::null_mut(), std::ptr::null_mut());
            libc::select(fd + 1, &mut set, null, none, std::ptr::null_mut())
        } as isize)
    });
}

#[test]
fn an_epoll_wait_ends() {
    ends_with_error(|| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the event lives across the call.
        unsafe {
            let set = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
            check(libc::epoll_wait(set.as_raw_fd(), &raw mut event, 1, -1) as isize)
        }
    });
}

#[test]
fn what_comes_later_ends_too_and_what_is_ready_does_not() {
    on_every_runtime(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let (refused, was_refused) = mpsc::channel();
        let (sent, was_sent) = mpsc::channel();
        let task = begun(move || {
            let is_cancelled = |error: io::Error| error.raw_os_error() == Some(libc::ECANCELED);
            let mut bytes = [0; 4];
            assert!(is_cancelled(one.read(&mut bytes).unwrap_err()));
            assert!(is_cancelled(one.read(&mut bytes).unwrap_err()));
            refused.send(()).unwrap();
            was_sent.recv().unwrap();
            assert_eq!(4, one.write(b"pong").unwrap());
            assert_eq!(4, one.read(&mut bytes).unwrap());
            assert!(is_cancelled(one.read(&mut bytes).unwrap_err()));
            bytes
        });
        assert!(task.cancel());
        was_refused.recv().unwrap();
        other.write_all(b"ping").unwrap();
        sent.send(()).unwrap();
        assert_eq!(b"ping", &task.join().unwrap());
        let mut answer = [0; 4];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(b"pong", &answer);
    });
}

#[test]
fn a_part_that_was_transferred_counts() {
    on_every_runtime(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let task = begun(move || {
            let sent = one.write(&vec![7; 1 << 24]).unwrap();
            let error = one.write(&vec![7; 1 << 24]).unwrap_err();
            assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
            sent
        });
        sleep(Duration::from_millis(2));
        task.cancel();
        let sent = task.join().unwrap();
        assert!((1..1 << 24).contains(&sent));
        let mut received = Vec::new();
        other.read_to_end(&mut received).unwrap();
        assert_eq!(sent, received.len());
    });
}

#[test]
fn a_part_that_was_received_counts() {
    on_every_runtime(|| {
        let (one, mut other) = UnixStream::pair().unwrap();
        let (begins, began) = mpsc::channel();
        let task = spawn(move || {
            let mut bytes = [0u8; 8];
            let mut receive = || {
                let (fd, start) = (one.as_raw_fd(), bytes.as_mut_ptr().cast());
                // SAFETY: the buffer lives across the call.
                check(unsafe { libc::recv(fd, start, 8, libc::MSG_WAITALL) })
            };
            begins.send(()).unwrap();
            (receive().unwrap(), receive().unwrap_err().raw_os_error())
        });
        began.recv().unwrap();
        other.write_all(b"half").unwrap();
        sleep(Duration::from_millis(2));
        task.cancel();
        assert_eq!((4, Some(libc::ECANCELED)), task.join().unwrap());
    });
}

#[test]
fn messages_that_came_before_count() {
    on_every_runtime(|| {
        let (one, other) = UnixDatagram::pair().unwrap();
        let task = begun(move || {
            let mut bytes = [[0u8; 8]; 2];
            let mut pieces = bytes.each_mut().map(|bytes| libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: 8,
            });
            let mut receive = || {
                // SAFETY: all-zero bytes are empty messages; what they point to lives
                // across the call.
                check(unsafe {
                    let mut messages: [libc::mmsghdr; 2] = std::mem::zeroed();
                    for (message, piece) in messages.iter_mut().zip(&mut pieces) {
                        message.msg_hdr.msg_iov = piece;
                        message.msg_hdr.msg_iovlen = 1;
                    }
                    let (fd, start) = (one.as_raw_fd(), messages.as_mut_ptr());
                    libc::recvmmsg(fd, start, 2, 0, std::ptr::null_mut()) as isize
                })
            };
            (receive().unwrap(), receive().unwrap_err().raw_os_error())
        });
        other.send(b"one").unwrap();
        sleep(Duration::from_millis(2));
        task.cancel();
        assert_eq!((1, Some(libc::ECANCELED)), task.join().unwrap());
    });
}

#[test]
fn sleeps_return_early() {
    returns(|| thread::sleep(LONG));
    returns(|| {
        // SAFETY: takes an integer.
        assert_eq!(0, unsafe { libc::sleep(3600) });
    });
    returns(|| {
        let mut entry = libc::timespec {
            tv_sec: 1 << 40,
            tv_nsec: 0,
        };
        let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
        // SAFETY: the time lives across the call.
        let result = unsafe { libc::clock_nanosleep(clock, flags, &entry, &mut entry) };
        assert_eq!(0, result);
    });
    returns(|| assert_eq!(0, poll(&[], 3_600_000).unwrap()));
}

#[test]
fn points_of_the_own_interface_unwind() {
    unwinds(|| {
        loop {
            yield_now();
        }
    });
    unwinds(|| sleep(LONG));
    unwinds(park);
    unwinds(|| park_timeout(LONG));
}

#[test]
fn locks_channels_joins_files_and_children_do_not_show_it() {
    on_every_runtime(|| {
        let lock = Arc::new((Mutex::new(false), Condvar::new()));
        let (sender, receiver) = mpsc::channel();
        let own = lock.clone();
        let task = cancels_itself(move || {
            let (locked, changed) = &*own;
            let guard = locked.lock().unwrap();
            let guard = changed.wait_while(guard, |is_set| !*is_set).unwrap();
            drop(guard);
            assert_eq!(7, receiver.recv().unwrap());
            assert_eq!(
                8,
                spawn(|| {
                    yield_now();
                    8
                })
                .join()
                .unwrap()
            );
            let thread = thread::spawn(|| thread::sleep(Duration::from_millis(1)));
            thread.join().unwrap();
            let text = std::fs::read_to_string("/proc/self/stat").unwrap();
            assert!(!text.is_empty());
            let path = std::env::temp_dir().join(format!("cancelled-{}", std::process::id()));
            std::fs::write(&path, "text").unwrap();
            assert_eq!("text", std::fs::read_to_string(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
            assert!(
                std::process::Command::new("true")
                    .status()
                    .unwrap()
                    .success()
            );
            let limit = Duration::from_millis(1);
            let none = receiver.recv_timeout(limit);
            assert!(none.is_err());
        });
        sleep(Duration::from_millis(1));
        *lock.0.lock().unwrap() = true;
        lock.1.notify_all();
        sleep(Duration::from_millis(1));
        sender.send(7).unwrap();
        task.join().unwrap();
    });
}

#[test]
fn standard_input_does_not_show_it() {
    child::succeeds("standard_input_does_not_show_it", || {
        on_every_runtime(|| {
            let (reader, writer) = io::pipe().unwrap();
            // SAFETY: takes integers.
            assert_eq!(0, unsafe { libc::dup2(reader.as_raw_fd(), 0) });
            let task = begun(|| {
                let mut byte = [0];
                io::stdin().read_exact(&mut byte).unwrap();
                byte[0]
            });
            sleep(Duration::from_millis(1));
            assert!(task.cancel());
            sleep(Duration::from_millis(1));
            (&writer).write_all(&[5]).unwrap();
            assert_eq!(5, task.join().unwrap());
        });
    });
}

#[test]
fn waits_that_a_stuck_thread_has_left_behind_end() {
    let config = Config::default().event_loop_size(1);
    runtimes::on_every_driver_as(&config, || {
        let reader = begun(|| {
            let (mut one, _other) = UnixStream::pair()?;
            one.read(&mut [0; 8])
        });
        let sleeper = begun(|| thread::sleep(LONG));
        let (release, released) = mpsc::channel();
        // Blocks the only thread, until another one has taken its place.
        let blocker = spawn(move || open_coroutine::without_hooks(|| released.recv().unwrap()));
        sleep(Duration::from_millis(2));
        assert!(reader.cancel() && sleeper.cancel());
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
        sleeper.join().unwrap();
        assert!(!blocker.is_finished());
        release.send(()).unwrap();
        blocker.join().unwrap();
    });
}
