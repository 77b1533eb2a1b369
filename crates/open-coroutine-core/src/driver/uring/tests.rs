//! What only the io_uring driver has to get right.

use std::cell::Cell;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::super::tests::{cancel, perform, poll_in, recv, request, result, send, submit};
use super::super::{Driver, Kind};
use super::*;

thread_local! {
    /// Makes the kernel seem to take no submissions.
    static IS_KERNEL_BUSY: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn is_kernel_busy() -> bool {
    IS_KERNEL_BUSY.get()
}

/// The driver, unless this machine refuses it.
fn driver() -> Option<Driver> {
    match probe() {
        Ok(()) => Some(Driver::new(Kind::IoUring).unwrap()),
        Err(error) => {
            eprintln!("not tested: {error}");
            None
        }
    }
}

#[test]
fn no_byte_is_lost_when_a_cancellation_races_with_data() {
    let Some(mut driver) = driver() else { return };
    let (left, mut right) = UnixStream::pair().unwrap();
    let (mut received, mut cancelled) = (0, 0);
    let sender = std::thread::spawn(move || {
        for byte in 0..5_000u32 {
            right.write_all(&[byte as u8]).unwrap();
            if byte % 8 == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut buf = [0; 1];
    while received < 5_000 {
        let request = request(recv(&left, &mut buf));
        submit(&mut driver, &request);
        driver.poll(&mut |_| {});
        if request.is_submitted() {
            cancel(&mut driver, &request, libc::ETIMEDOUT);
        }
        match result(&mut driver, &request) {
            1 => {
                assert_eq!(received as u8, buf[0]);
                received += 1;
            }
            error => {
                assert_eq!(-libc::ETIMEDOUT, error);
                cancelled += 1;
            }
        }
    }
    sender.join().unwrap();
    println!("{cancelled} receives were cancelled");
}

#[test]
fn completions_beyond_the_queue_all_arrive() {
    let Some(mut driver) = driver() else { return };
    let (left, mut right) = UnixStream::pair().unwrap();
    let requests: Vec<Request> = (0..40_000).map(|_| request(poll_in(&left))).collect();
    for request in &requests {
        submit(&mut driver, request);
    }
    right.write_all(b"x").unwrap();
    let mut handed_out = 0;
    while driver.in_flight() > 0 {
        driver.wait(None, &mut |_| handed_out += 1);
    }
    assert_eq!(requests.len(), handed_out);
    // The poll of the eventfd, which an overflow ends, is armed again.
    let waker = driver.waker().clone();
    for _ in 0..2 {
        let waker = waker.clone();
        let other = std::thread::spawn(move || waker.wake());
        driver.wait(None, &mut |_| {});
        other.join().unwrap();
    }
}

#[test]
fn what_the_kernel_does_not_take_now_it_gets_later() {
    let Some(mut driver) = driver() else { return };
    let (left, mut right) = UnixStream::pair().unwrap();
    let early = request(poll_in(&left));
    submit(&mut driver, &early);
    driver.poll(&mut |_| {});
    IS_KERNEL_BUSY.set(true);
    let requests: Vec<Request> = (0..3_000).map(|_| request(poll_in(&left))).collect();
    for request in &requests {
        submit(&mut driver, request);
    }
    // One that the kernel knows, but the cancellation finds no room; one in
    // the ring; one in the backlog.
    let cancelled = [&early, &requests[0], &requests[2_999]];
    for request in cancelled {
        cancel(&mut driver, request, libc::ETIMEDOUT);
    }
    driver.wait(None, &mut |_| panic!("the kernel is busy"));
    IS_KERNEL_BUSY.set(false);
    for request in cancelled {
        assert_eq!(-libc::ETIMEDOUT, result(&mut driver, request));
    }
    right.write_all(b"x").unwrap();
    for request in &requests[1..2_999] {
        assert_eq!(i32::from(libc::POLLIN), result(&mut driver, request));
    }
}

#[test]
fn dropping_the_driver_ends_what_is_in_flight() {
    let Some(mut driver) = driver() else { return };
    let (left, mut right) = UnixStream::pair().unwrap();
    let mut buf = [0; 4];
    let request = request(recv(&left, &mut buf));
    submit(&mut driver, &request);
    drop(driver);
    assert!(!request.is_submitted());
    right.write_all(b"late").unwrap();
    assert_eq!([0; 4], buf);
}

#[test]
fn dropped_drivers_give_their_registration_back() {
    // A thread can register 16 rings.
    for _ in 0..40 {
        let Some(driver) = driver() else { return };
        if let Driver::IoUring(driver) = &driver {
            assert!(driver.ring.is_registered());
        }
    }
}

#[test]
fn regular_files_are_opened_written_synced_read_and_removed() {
    let Some(mut driver) = driver() else { return };
    let driver = &mut driver;
    let path = std::env::temp_dir().join(format!("open-coroutine-{}", std::process::id()));
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (dir, path) = (libc::AT_FDCWD, path.as_ptr());
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let fd = perform(
        driver,
        Op::OpenAt {
            dir,
            path,
            flags,
            mode: 0o600,
        },
    );
    assert!(fd >= 0, "open says {fd}");
    let text = b"hello world";
    let (buf, len) = (text.as_ptr(), text.len());
    assert_eq!(
        11,
        perform(
            driver,
            Op::Write {
                fd,
                buf,
                len,
                offset: None
            }
        )
    );
    assert_eq!(
        11,
        perform(
            driver,
            Op::Write {
                fd,
                buf,
                len,
                offset: None
            }
        )
    );
    assert_eq!(
        0,
        perform(
            driver,
            Op::Fsync {
                fd,
                data_only: true
            }
        )
    );
    // SAFETY: zero bytes are a `statx`.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let (mask, buf) = (libc::STATX_SIZE, &raw mut stat);
    assert_eq!(
        0,
        perform(
            driver,
            Op::StatX {
                dir,
                path,
                flags: 0,
                mask,
                buf
            }
        )
    );
    assert_eq!(22, stat.stx_size);
    let mut read = [0; 16];
    let (buf, len) = (read.as_mut_ptr(), read.len());
    assert_eq!(
        5,
        perform(
            driver,
            Op::Read {
                fd,
                buf,
                len: 5,
                offset: Some(6)
            }
        )
    );
    assert_eq!(b"world", &read[..5]);
    assert_eq!(
        0,
        perform(
            driver,
            Op::Read {
                fd,
                buf,
                len,
                offset: None
            }
        )
    );
    // SAFETY: the buffers are alive.
    let attempt = unsafe {
        Op::Read {
            fd,
            buf,
            len: 5,
            offset: Some(0),
        }
        .attempt()
    };
    assert!(attempt.is_none_or(|count| count == 5 || count == -libc::EAGAIN as isize));
    let truncate = Op::FTruncate { fd, len: 3 };
    if driver.supports(&truncate) {
        assert_eq!(0, perform(driver, truncate));
        assert_eq!(
            3,
            perform(
                driver,
                Op::Read {
                    fd,
                    buf,
                    len,
                    offset: Some(0)
                }
            )
        );
    }
    assert_eq!(0, perform(driver, Op::Close { fd }));
    assert_eq!(
        0,
        perform(
            driver,
            Op::UnlinkAt {
                dir,
                path,
                flags: 0
            }
        )
    );
    assert_eq!(
        -libc::ENOENT,
        perform(
            driver,
            Op::StatX {
                dir,
                path,
                flags: 0,
                mask,
                buf: &raw mut stat
            }
        )
    );
}

#[test]
fn a_blocked_read_of_a_pipe_can_be_cancelled() {
    let Some(mut driver) = driver() else { return };
    let mut pipe = [0; 2];
    // SAFETY: writes two descriptors.
    assert_eq!(0, unsafe {
        libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC)
    });
    let mut buf = [0u8; 4];
    let request = request(Op::Read {
        fd: pipe[0],
        buf: buf.as_mut_ptr(),
        len: 4,
        offset: None,
    });
    submit(&mut driver, &request);
    driver.poll(&mut |_| panic!("the pipe is empty"));
    cancel(&mut driver, &request, libc::EINTR);
    assert_eq!(-libc::EINTR, result(&mut driver, &request));
    for fd in pipe {
        // SAFETY: the test owns both.
        unsafe { crate::sys::close(fd) };
    }
}

/// A descriptor's own `O_NONBLOCK` does not have this effect.
#[test]
fn an_operation_that_must_not_wait_says_so_per_call() {
    let Some(mut driver) = driver() else { return };
    let (left, _right) = UnixStream::pair().unwrap();
    let mut buf = [0u8; 4];
    let fd = left.as_raw_fd();
    let iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 4,
    };
    for op in [
        Op::Recv {
            fd,
            buf: buf.as_mut_ptr(),
            len: 4,
            flags: libc::MSG_DONTWAIT,
        },
        Op::ReadV {
            fd,
            iov: &iov,
            count: 1,
            offset: None,
            flags: libc::RWF_NOWAIT,
        },
    ] {
        assert_eq!(-libc::EAGAIN, perform(&mut driver, op));
    }
}

/// Prints what an operation costs (`cargo test --release batches -- --nocapture`).
#[test]
fn batches_of_all_sizes_complete() {
    let Some(mut driver) = driver() else { return };
    let operations = if cfg!(debug_assertions) {
        1_000
    } else {
        400_000
    };
    for batch in [1, 8, 64] {
        let pairs: Vec<_> = (0..batch).map(|_| UnixStream::pair().unwrap()).collect();
        let (mut buf, text) = ([0; 8], [1; 8]);
        let rounds = operations / batch / 2;
        let start = Instant::now();
        for _ in 0..rounds {
            let requests: Vec<[Request; 2]> = pairs
                .iter()
                .map(|(left, right)| [recv(left, &mut buf), send(right, &text)].map(request))
                .collect();
            for request in requests.iter().flatten() {
                submit(&mut driver, request);
            }
            while driver.in_flight() > 0 {
                driver.wait(None, &mut |_| {});
            }
            assert!(requests.iter().flatten().all(|done| done.result() == 8));
        }
        let cost = start.elapsed() / (rounds * batch * 2) as u32;
        println!("io_uring, {batch} pairs: {cost:?} per operation");
        let start = Instant::now();
        for _ in 0..rounds {
            for (left, right) in &pairs {
                // SAFETY: the buffers are alive.
                unsafe {
                    assert_eq!(8, send(right, &text).run());
                    assert_eq!(8, recv(left, &mut buf).run());
                }
            }
        }
        let cost = start.elapsed() / (rounds * batch * 2) as u32;
        println!("blocking calls, {batch} pairs: {cost:?} per operation");
    }
}
