//! What holds for every driver.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::sys;

/// Runs `test` on every driver that this machine has, each on a thread of its
/// own: after a ring has been dropped, the kernel interrupts its thread once.
fn on_every_driver(test: impl Fn(Kind, &mut Driver) + Sync) {
    for kind in [Kind::IoUring, Kind::Epoll] {
        match kind.probe() {
            Ok(()) => thread::scope(|scope| {
                scope.spawn(|| test(kind, &mut Driver::new(kind).unwrap()));
            }),
            Err(error) => eprintln!("not tested: {kind:?}: {error}"),
        }
    }
}

pub(super) fn request(op: Op) -> Request {
    Request::new(op, ptr::null())
}

pub(super) fn submit(driver: &mut Driver, request: &Request) {
    // SAFETY: every test keeps its requests until they are handed out, or
    // fails and drops the driver first or leaks it.
    unsafe { driver.submit(NonNull::from(request)) };
}

pub(super) fn cancel(driver: &mut Driver, request: &Request, error: c_int) {
    // SAFETY: every test cancels what it has submitted to this driver.
    unsafe { driver.cancel(NonNull::from(request), error) };
}

/// Waits until `request` has been handed out, and returns its result.
pub(super) fn result(driver: &mut Driver, request: &Request) -> i32 {
    while request.is_submitted() {
        driver.wait(None, &mut |_| {});
    }
    request.result()
}

/// Performs `op` as the layer above would: by the driver, or by attempts.
pub(super) fn perform(driver: &mut Driver, op: Op) -> i32 {
    if driver.supports(&op) {
        let request = request(op);
        submit(driver, &request);
        return result(driver, &request);
    }
    loop {
        // SAFETY: the tests pass valid pointers.
        let attempt = unsafe { op.attempt() }.expect("the op can be attempted");
        if attempt != -libc::EAGAIN as isize {
            return attempt as i32;
        }
        let (fd, events) = (op.fd().unwrap(), op.readiness().unwrap());
        let events = perform(driver, Op::poll(fd, events));
        assert!(events > 0, "poll says {events}");
    }
}

pub(super) fn poll_in(socket: &impl AsRawFd) -> Op {
    Op::poll(socket.as_raw_fd(), libc::POLLIN as u32)
}

fn poll_out(socket: &impl AsRawFd) -> Op {
    Op::poll(socket.as_raw_fd(), libc::POLLOUT as u32)
}

pub(super) fn recv(socket: &impl AsRawFd, buf: &mut [u8]) -> Op {
    Op::Recv {
        fd: socket.as_raw_fd(),
        buf: buf.as_mut_ptr(),
        len: buf.len(),
        flags: 0,
    }
}

pub(super) fn send(socket: &impl AsRawFd, buf: &[u8]) -> Op {
    Op::Send {
        fd: socket.as_raw_fd(),
        buf: buf.as_ptr(),
        len: buf.len(),
        flags: 0,
    }
}

#[test]
fn what_is_sent_is_received() {
    on_every_driver(|_, driver| {
        let (left, right) = UnixStream::pair().unwrap();
        let mut buf = [0; 8];
        assert_eq!(5, perform(driver, send(&left, b"hello")));
        assert_eq!(5, perform(driver, recv(&right, &mut buf)));
        assert_eq!(b"hello", &buf[..5]);
        drop(left);
        assert_eq!(0, perform(driver, recv(&right, &mut buf)));
        assert_eq!(0, driver.in_flight());
    });
}

#[test]
fn a_receive_waits_for_the_sender() {
    on_every_driver(|_, driver| {
        let (mut left, right) = UnixStream::pair().unwrap();
        let waker = driver.waker().clone();
        let sender = thread::spawn(move || {
            waker.wake();
            left.write_all(b"late").unwrap();
            left
        });
        let mut buf = [0; 8];
        assert_eq!(4, perform(driver, recv(&right, &mut buf)));
        sender.join().unwrap();
    });
}

#[test]
fn connect_and_accept_meet() {
    on_every_driver(|_, driver| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // SAFETY: takes integers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0);
        let addr = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
            },
            sin_zero: [0; 8],
        };
        let op = Op::Connect {
            fd,
            addr: (&raw const addr).cast(),
            len: size_of_val(&addr) as u32,
        };
        let mut connected = if driver.supports(&op) {
            perform(driver, op) as isize
        } else {
            // SAFETY: the address is alive.
            unsafe { op.attempt() }.unwrap()
        };
        if connected == -libc::EINPROGRESS as isize {
            perform(driver, Op::poll(fd, op.readiness().unwrap()));
            connected = Op::connect_result(fd);
        }
        assert_eq!(0, connected);
        // SAFETY: takes integers.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        assert_eq!(0, flags & libc::O_NONBLOCK);

        let accepted = perform(
            driver,
            Op::Accept {
                fd: listener.as_raw_fd(),
                addr: ptr::null_mut(),
                len: ptr::null_mut(),
                flags: libc::SOCK_CLOEXEC,
            },
        );
        assert!(accepted >= 0);
        for fd in [fd, accepted] {
            // SAFETY: the test owns both.
            unsafe { sys::close(fd) };
        }
    });
}

#[test]
fn a_wait_without_events_takes_its_timeout_and_no_more() {
    on_every_driver(|kind, driver| {
        driver.poll(&mut |_| {});
        for timeout in [Duration::from_micros(300), Duration::from_millis(20)] {
            let switches = voluntary_switches();
            let start = Instant::now();
            driver.wait(Some(timeout), &mut |_| panic!("nothing is in flight"));
            let elapsed = start.elapsed();
            assert!(elapsed >= timeout, "{kind:?}: {elapsed:?} of {timeout:?}");
            let switches = voluntary_switches() - switches;
            assert!(switches <= 2, "it went to sleep {switches} times");
        }
    });
}

/// How often the calling thread went to sleep.
fn voluntary_switches() -> i64 {
    // SAFETY: zero bytes are a `rusage`, and the call fills it in.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nvcsw
    }
}

#[test]
fn a_wake_up_before_a_wait_ends_it_at_once() {
    on_every_driver(|_, driver| {
        driver.waker().wake();
        driver.waker().wake();
        driver.wait(None, &mut |_| {});
        // Both have been taken together.
        let start = Instant::now();
        driver.wait(Some(Duration::from_millis(5)), &mut |_| {});
        assert!(start.elapsed() >= Duration::from_millis(5));
    });
}

#[test]
fn no_wake_up_from_another_thread_is_lost() {
    on_every_driver(|_, driver| {
        let (waker, turn) = (driver.waker().clone(), Arc::new(AtomicBool::new(false)));
        let signal = turn.clone();
        let other = thread::spawn(move || {
            for round in 0..10_000 {
                while signal.load(Acquire) {
                    if round % 2 == 0 {
                        thread::yield_now();
                    }
                }
                signal.store(true, Release);
                waker.wake();
            }
        });
        for round in 0..10_000 {
            while !turn.load(Acquire) {
                if round % 7 == 0 {
                    driver.poll(&mut |_| {});
                }
                driver.wait(None, &mut |_| {});
            }
            turn.store(false, Release);
        }
        other.join().unwrap();
    });
}

#[test]
fn a_wake_up_by_several_threads_ends_one_wait_each_round() {
    on_every_driver(|_, driver| {
        let woken = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (waker, woken) = (driver.waker().clone(), woken.clone());
                thread::spawn(move || {
                    for _ in 0..1_000 {
                        waker.wake();
                    }
                    woken.store(true, Release);
                    waker.wake();
                })
            })
            .collect();
        while !woken.load(Acquire) {
            driver.wait(None, &mut |_| {});
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_cancelled_wait_ends_with_the_given_error() {
    on_every_driver(|_, driver| {
        let (left, _right) = UnixStream::pair().unwrap();
        for flush in [false, true] {
            let request = request(poll_in(&left));
            submit(driver, &request);
            if flush {
                driver.poll(&mut |_| panic!("nothing is ready"));
            }
            cancel(driver, &request, libc::ETIMEDOUT);
            cancel(driver, &request, libc::ECANCELED);
            assert_eq!(-libc::ETIMEDOUT, result(driver, &request));
            assert_eq!(0, driver.in_flight());
        }
        // The descriptor can be waited for again.
        let request = request(poll_out(&left));
        submit(driver, &request);
        assert_eq!(libc::POLLOUT as i32, result(driver, &request));
    });
}

#[test]
fn a_request_is_handed_out_once_although_it_is_cancelled_when_ready() {
    on_every_driver(|_, driver| {
        let (left, mut right) = UnixStream::pair().unwrap();
        right.write_all(b"x").unwrap();
        let request = request(poll_in(&left));
        submit(driver, &request);
        cancel(driver, &request, libc::ETIMEDOUT);
        let mut handed_out = 0;
        while request.is_submitted() {
            driver.wait(None, &mut |done| {
                assert_eq!(NonNull::from(&request), done);
                handed_out += 1;
            });
        }
        driver.poll(&mut |_| handed_out += 1);
        assert_eq!(1, handed_out);
    });
}

#[test]
fn a_reader_and_a_writer_of_one_descriptor_wait_independently() {
    on_every_driver(|_, driver| {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let reader = request(poll_in(&left));
        let second = request(poll_in(&left));
        let writer = request(poll_out(&left));
        submit(driver, &reader);
        submit(driver, &writer);
        submit(driver, &second);
        assert_eq!(libc::POLLOUT as i32, result(driver, &writer));
        assert!(reader.is_submitted() && second.is_submitted());
        right.write_all(b"x").unwrap();
        assert_eq!(libc::POLLIN as i32, result(driver, &reader));
        assert_eq!(libc::POLLIN as i32, result(driver, &second));
        left.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_hang_up_ends_all_waits() {
    on_every_driver(|_, driver| {
        let (left, right) = UnixStream::pair().unwrap();
        let requests = [
            request(poll_in(&left)),
            request(Op::poll(left.as_raw_fd(), 0)),
        ];
        for request in &requests {
            submit(driver, request);
        }
        driver.poll(&mut |_| panic!("nothing is ready"));
        drop(right);
        for request in &requests {
            assert_ne!(0, result(driver, request) & i32::from(libc::POLLHUP));
        }
    });
}

#[test]
fn five_thousand_requests_complete() {
    on_every_driver(|_, driver| {
        let (left, mut right) = UnixStream::pair().unwrap();
        let requests: Vec<Request> = (0..5_000).map(|_| request(poll_in(&left))).collect();
        for request in &requests {
            submit(driver, request);
        }
        assert_eq!(5_000, driver.in_flight());
        assert_eq!(5_000, driver.waiters().count(left.as_raw_fd()));
        right.write_all(b"x").unwrap();
        let mut handed_out = 0;
        while driver.in_flight() > 0 {
            driver.wait(None, &mut |_| handed_out += 1);
        }
        assert_eq!(5_000, handed_out);
        assert!(
            requests
                .iter()
                .all(|request| request.result() == i32::from(libc::POLLIN))
        );
        assert_eq!(0, driver.waiters().count(left.as_raw_fd()));
    });
}

#[test]
fn closing_a_descriptor_ends_its_waits_with_ebadf() {
    on_every_driver(|_, driver| {
        let (left, _right) = UnixStream::pair().unwrap();
        let (other, _peer) = UnixStream::pair().unwrap();
        let (closed, kept) = (request(poll_in(&left)), request(poll_in(&other)));
        submit(driver, &closed);
        submit(driver, &kept);
        let fd = left.into_raw_fd();
        assert_eq!(1, driver.waiters().count(fd));
        driver.close_notice(fd, begin_close());
        // SAFETY: the test owns it.
        unsafe { sys::close(fd) };
        assert_eq!(-libc::EBADF, result(driver, &closed));
        assert!(kept.is_submitted());
        cancel(driver, &kept, libc::ECANCELED);
        result(driver, &kept);
    });
}

#[test]
fn a_wait_on_a_reused_number_survives_the_notice_for_the_old_file() {
    on_every_driver(|_, driver| {
        let (left, _right) = UnixStream::pair().unwrap();
        let (new, mut peer) = UnixStream::pair().unwrap();
        let old = request(poll_in(&left));
        submit(driver, &old);
        driver.poll(&mut |_| panic!("nothing is ready"));
        let epoch = begin_close();
        // Closes the old file and reuses its number in one step.
        // SAFETY: takes integers; the test owns both.
        assert!(unsafe { libc::dup2(new.as_raw_fd(), left.as_raw_fd()) } >= 0);
        let newer = request(poll_in(&left));
        submit(driver, &newer);
        driver.close_notice(left.as_raw_fd(), epoch);
        assert_eq!(-libc::EBADF, result(driver, &old));
        assert!(newer.is_submitted());
        peer.write_all(b"x").unwrap();
        assert_eq!(i32::from(libc::POLLIN), result(driver, &newer));
    });
}

#[test]
fn a_bad_descriptor_is_an_error_of_the_request() {
    on_every_driver(|_, driver| {
        for fd in [-1, 1_000_000_000] {
            assert_eq!(
                -libc::EBADF,
                perform(driver, Op::poll(fd, libc::POLLIN as u32))
            );
        }
        assert_eq!(0, driver.in_flight());
    });
}

#[test]
fn polling_a_regular_file_does_not_wait() {
    on_every_driver(|kind, driver| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let result = perform(driver, poll_in(&file));
        match kind {
            Kind::IoUring => assert_eq!(i32::from(libc::POLLIN), result),
            Kind::Epoll => assert_eq!(-libc::EPERM, result),
        }
    });
}

#[test]
fn an_operation_for_the_pool_is_refused() {
    on_every_driver(|_, driver| {
        let op = Op::Syscall {
            number: libc::SYS_getpid,
            args: &[0; 6],
        };
        assert!(!driver.supports(&op));
        let request = request(op);
        submit(driver, &request);
        assert_eq!(-libc::EOPNOTSUPP, result(driver, &request));
        // SAFETY: getpid has no arguments.
        assert_eq!(std::process::id() as isize, unsafe { op.run() });
    });
}

#[test]
fn shutting_down_cancels_everything() {
    on_every_driver(|_, driver| {
        let (left, right) = UnixStream::pair().unwrap();
        let requests: Vec<Request> = (0..100)
            .map(|i| request(poll_in(if i % 2 == 0 { &left } else { &right })))
            .collect();
        for request in &requests {
            submit(driver, request);
        }
        driver.cancel_all(libc::ECANCELED);
        for request in &requests {
            assert_eq!(-libc::ECANCELED, result(driver, request));
        }
    });
}

#[test]
fn an_attempt_never_waits() {
    let (left, right) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut buf = [0; 16];
    // SAFETY: the tests pass valid pointers.
    let attempt = |op: Op| unsafe { op.attempt() };
    let would_block = Some(-libc::EAGAIN as isize);
    assert_eq!(would_block, attempt(recv(&left, &mut buf)));
    assert_eq!(would_block, attempt(poll_in(&left)));
    let (fd, len) = (left.as_raw_fd(), buf.len());
    assert_eq!(
        would_block,
        attempt(Op::Read {
            fd,
            buf: buf.as_mut_ptr(),
            len,
            offset: None
        })
    );
    let fd = listener.as_raw_fd();
    let accept = Op::Accept {
        fd,
        addr: ptr::null_mut(),
        len: ptr::null_mut(),
        flags: 0,
    };
    assert_eq!(would_block, attempt(accept));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = attempt(accept).unwrap();
    assert!(accepted >= 0);
    // SAFETY: the test owns it.
    unsafe { sys::close(accepted as RawFd) };
    assert_eq!(Some(3), attempt(send(&right, b"abc")));
    assert_eq!(
        Some(3),
        attempt(Op::Read {
            fd: left.as_raw_fd(),
            buf: buf.as_mut_ptr(),
            len,
            offset: None
        })
    );
    right.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Some(0), attempt(recv(&left, &mut buf)));
    assert_eq!(
        None,
        attempt(Op::Fsync {
            fd,
            data_only: false
        })
    );
}
