//! What only the epoll driver has to get right.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::super::tests::{cancel, poll_in, request, result, submit};
use super::super::{Driver, Kind, begin_close};
use super::*;

#[test]
fn an_event_of_a_cancelled_wait_is_dropped() {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let (left, mut right) = UnixStream::pair().unwrap();
    let cancelled = request(poll_in(&left));
    submit(&mut driver, &cancelled);
    cancel(&mut driver, &cancelled, libc::ETIMEDOUT);
    assert_eq!(-libc::ETIMEDOUT, result(&mut driver, &cancelled));
    right.write_all(b"x").unwrap();
    driver.wait(None, &mut |_| panic!("nothing is in flight"));
}

#[test]
fn an_event_of_a_duplicate_of_the_closed_file_reaches_nobody() {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let (left, mut right) = UnixStream::pair().unwrap();
    let (new, _peer) = UnixStream::pair().unwrap();
    let duplicate = left.try_clone().unwrap();
    let old = request(poll_in(&left));
    submit(&mut driver, &old);
    cancel(&mut driver, &old, libc::EBADF);
    result(&mut driver, &old);
    // `left` is closed and its number means another file, but the registration
    // of the old file lives on with `duplicate`.
    // SAFETY: takes integers; the test owns both.
    assert!(unsafe { libc::dup2(new.as_raw_fd(), left.as_raw_fd()) } >= 0);
    let newer = request(poll_in(&left));
    submit(&mut driver, &newer);
    right.write_all(b"x").unwrap();
    driver.wait(Some(Duration::from_millis(5)), &mut |_| {
        panic!("the new file is not ready")
    });
    assert!(newer.is_submitted());
    cancel(&mut driver, &newer, libc::ECANCELED);
    result(&mut driver, &newer);
    drop(duplicate);
}

#[test]
fn a_wait_that_joined_the_watch_of_a_closed_file_is_freed_from_its_events() {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let (left, mut right) = UnixStream::pair().unwrap();
    let (new, mut peer) = UnixStream::pair().unwrap();
    let _duplicate = left.try_clone().unwrap();
    let old = request(poll_in(&left));
    submit(&mut driver, &old);
    let epoch = begin_close();
    // SAFETY: takes integers; the test owns both.
    assert!(unsafe { libc::dup2(new.as_raw_fd(), left.as_raw_fd()) } >= 0);
    let newer = request(poll_in(&left));
    submit(&mut driver, &newer);
    driver.close_notice(left.as_raw_fd(), epoch);
    assert_eq!(-libc::EBADF, result(&mut driver, &old));
    right.write_all(b"x").unwrap();
    driver.wait(Some(Duration::from_millis(5)), &mut |_| {
        panic!("the new file is not ready")
    });
    peer.write_all(b"x").unwrap();
    assert_eq!(i32::from(libc::POLLIN), result(&mut driver, &newer));
}

#[test]
fn the_millisecond_fallback_does_not_return_early() {
    let mut driver = Epoll::new().unwrap();
    driver.waits_in_milliseconds = true;
    let start = std::time::Instant::now();
    driver.wait(Some(Duration::from_micros(1_500)), &mut |_| {});
    assert!(start.elapsed() >= Duration::from_micros(1_500));
    assert_eq!(c_int::MAX, milliseconds(Some(Duration::MAX)));
    assert_eq!(-1, milliseconds(None));
}
