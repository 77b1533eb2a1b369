//! What only the epoll driver has to get right.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::thread;

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

/// A wait of `owner`, who reads from the file that the number of `socket` has stood for
/// since `incarnation`.
fn reading(socket: &UnixStream, incarnation: u32, has_emptied: bool, owner: usize) -> Request {
    let reader = Reader {
        incarnation,
        has_emptied,
    };
    let op = Op::Poll {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN as u32,
        reader: Some(reader),
    };
    Request::new(op, ptr::without_provenance(owner))
}

fn epoll(driver: &mut Driver) -> &mut Epoll {
    match driver {
        Driver::Epoll(driver) => driver,
        Driver::IoUring(_) => unreachable!("not asked for"),
    }
}

/// Whether `socket`'s only waiter relies on what was armed before.
fn relies(driver: &mut Driver, socket: &UnixStream) -> bool {
    let lasting = epoll(driver).lasting(socket.as_raw_fd());
    lasting.is_some_and(|lasting| lasting.relied.is_some())
}

/// A driver and a pair, the left of which owner 1 has read from after a first wait.
fn after_a_wait() -> (Driver, UnixStream, UnixStream) {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let (mut left, mut right) = UnixStream::pair().unwrap();
    let first = reading(&left, 1, true, 1);
    submit(&mut driver, &first);
    assert!(!relies(&mut driver, &left), "nothing is armed yet");
    right.write_all(b"x").unwrap();
    assert_eq!(i32::from(libc::POLLIN), result(&mut driver, &first));
    left.read_exact(&mut [0]).unwrap();
    (driver, left, right)
}

/// Waits for `request` without the patience of those who rely.
fn is_done_at_once(driver: &mut Driver, request: &Request) -> bool {
    driver.poll(&mut |_| {});
    !request.is_submitted()
}

#[test]
fn who_has_emptied_a_socket_waits_again_without_arming_it() {
    let (mut driver, mut left, mut right) = after_a_wait();
    for _ in 0..10 {
        let again = reading(&left, 1, true, 1);
        submit(&mut driver, &again);
        assert!(relies(&mut driver, &left));
        assert!(!is_done_at_once(&mut driver, &again));
        right.write_all(b"x").unwrap();
        assert!(is_done_at_once(&mut driver, &again));
        assert_eq!(i32::from(libc::POLLIN), again.result());
        left.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn whoever_cannot_rely_on_it_has_it_armed() {
    for (incarnation, has_emptied, owner) in [(2, true, 1), (1, false, 1), (1, true, 2)] {
        let (mut driver, left, mut right) = after_a_wait();
        right.write_all(b"x").unwrap();
        // Told once, while nobody waits.
        epoll(&mut driver).take_events(Some(Duration::ZERO));
        let wait = reading(&left, incarnation, has_emptied, owner);
        submit(&mut driver, &wait);
        assert!(!relies(&mut driver, &left));
        assert!(is_done_at_once(&mut driver, &wait));
    }
}

#[test]
fn what_came_while_nobody_waited_ends_the_next_wait() {
    let (mut driver, left, mut right) = after_a_wait();
    right.write_all(b"x").unwrap();
    epoll(&mut driver).take_events(Some(Duration::ZERO));
    let wait = reading(&left, 1, true, 1);
    submit(&mut driver, &wait);
    assert!(is_done_at_once(&mut driver, &wait));
    assert_eq!(i32::from(libc::POLLIN), wait.result());
}

#[test]
fn a_reader_that_has_gone_is_told_of_two_events() {
    let (mut driver, left, mut right) = after_a_wait();
    for expected in [1, 1, 0, 0] {
        right.write_all(b"x").unwrap();
        let count = epoll(&mut driver).take_events(Some(Duration::ZERO));
        assert_eq!(expected, count);
    }
    let wait = reading(&left, 1, true, 1);
    submit(&mut driver, &wait);
    assert!(is_done_at_once(&mut driver, &wait));
}

#[test]
fn the_end_of_a_stream_is_told_each_time() {
    let (mut driver, left, mut right) = after_a_wait();
    right.write_all(b"x").unwrap();
    drop(right);
    for _ in 0..3 {
        let wait = reading(&left, 1, true, 1);
        submit(&mut driver, &wait);
        assert!(is_done_at_once(&mut driver, &wait));
    }
}

#[test]
fn a_wrong_belief_delays_a_wait_and_no_more() {
    for sleeps in [true, false] {
        let (mut driver, left, _right) = after_a_wait();
        let (new, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"x").unwrap();
        // SAFETY: takes integers; the test owns both.
        assert!(unsafe { libc::dup2(new.as_raw_fd(), left.as_raw_fd()) } >= 0);
        let wait = reading(&left, 1, true, 1);
        submit(&mut driver, &wait);
        assert!(relies(&mut driver, &left));
        if sleeps {
            assert_eq!(i32::from(libc::POLLIN), result(&mut driver, &wait));
        } else {
            let looks = (0..1000).take_while(|_| !is_done_at_once(&mut driver, &wait));
            assert!((10..100).contains(&looks.count()));
        }
    }
}

#[test]
fn a_closed_file_that_lives_on_wakes_only_for_a_while() {
    let (mut driver, left, mut right) = after_a_wait();
    let fd = epoll(&mut driver).fd;
    let _duplicate = left.try_clone().unwrap();
    let (other, mut peer) = UnixStream::pair().unwrap();
    let waiting = reading(&other, 1, true, 2);
    submit(&mut driver, &waiting);
    drop(left);
    let mut edge = || {
        right.write_all(b"x").unwrap();
        epoll(&mut driver).take_events(Some(Duration::ZERO))
    };
    let heard = (0..1000).take_while(|_| edge() == 1).count();
    assert!((1..100).contains(&heard), "{heard}");
    assert!((0..100).all(|_| edge() == 0));
    assert_eq!(fd, epoll(&mut driver).fd);
    // The others are in the new set.
    peer.write_all(b"x").unwrap();
    assert!(is_done_at_once(&mut driver, &waiting));
    // And the waker is.
    let waker = driver.waker().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        driver.wait(None, &mut |_| {});
    });
}

#[test]
fn forgotten_registrations_wake_once() {
    let (mut driver, left, mut right) = after_a_wait();
    let epoll = epoll(&mut driver);
    epoll.watches.clear();
    for expected in [1, 0] {
        right.write_all(b"x").unwrap();
        assert_eq!(expected, epoll.take_events(Some(Duration::ZERO)));
    }
    drop(left);
}

#[test]
fn watches_that_nobody_waits_for_are_not_kept_for_ever() {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let mut pairs = Vec::new();
    for _ in 0..4 * FEW_WATCHES {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let wait = reading(&left, 1, true, 1);
        submit(&mut driver, &wait);
        right.write_all(b"x").unwrap();
        assert!(is_done_at_once(&mut driver, &wait));
        left.read_exact(&mut [0]).unwrap();
        pairs.push((left, right));
    }
    assert!(epoll(&mut driver).watches.len() <= FEW_WATCHES);
}

/// Two readers of one socket, who do anything in any order but do not lie.
struct Pair {
    left: UnixStream,
    right: UnixStream,
    incarnation: u32,
    readers: [Request; 2],
    has_emptied: [bool; 2],
}

impl Pair {
    fn new(owner: usize) -> Self {
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        let readers = [owner, owner + 1].map(|owner| reading(&left, 0, false, owner));
        Self {
            left,
            right,
            incarnation: 0,
            readers,
            has_emptied: [false; 2],
        }
    }

    fn is_readable(&self) -> bool {
        // SAFETY: a poll touches no memory.
        unsafe { Op::poll(self.left.as_raw_fd(), libc::POLLIN as u32).attempt() }.unwrap() > 0
    }

    /// Another file takes the number of `left`.
    fn replace(&mut self, driver: &mut Driver) {
        let fd = self.left.as_raw_fd();
        if self.readers.iter().any(Request::is_submitted) {
            driver.close_notice(fd, begin_close());
        }
        self.incarnation += 1;
        self.has_emptied = [false; 2];
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        // SAFETY: takes integers; the test owns both.
        assert!(unsafe { libc::dup2(left.as_raw_fd(), fd) } >= 0);
        self.right = right;
    }

    fn act(&mut self, driver: &mut Driver, which: usize, action: u32, size: usize) {
        let reader = &self.readers[which];
        match action {
            0..4 => drop(self.right.write(&[0; 3][..size])),
            4..8 if !reader.is_submitted() => {
                let count = self.left.read(&mut [0; 3][..size]);
                self.has_emptied[which] = count.is_err() || count.is_ok_and(|n| n < size);
            }
            8..13 if !reader.is_submitted() => {
                let has_emptied = self.has_emptied[which];
                self.has_emptied[which] = false;
                let owner = reader.owner.addr();
                self.readers[which] = reading(&self.left, self.incarnation, has_emptied, owner);
                submit(driver, &self.readers[which]);
            }
            13 if reader.is_submitted() => cancel(driver, reader, libc::ECANCELED),
            14 if size == 1 => self.replace(driver),
            _ => driver.poll(&mut |_| {}),
        }
    }
}

#[test]
fn whoever_waits_for_what_is_there_is_told_by_the_next_look() {
    let mut driver = Driver::new(Kind::Epoll).unwrap();
    let mut pairs: Vec<_> = (0..8).map(|index| Pair::new(2 * index + 1)).collect();
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let mut reliant = 0;
    for step in 0..200_000 {
        let index = next(8) as usize;
        let (which, action, size) = (next(2), next(20), next(3) + 1);
        pairs[index].act(&mut driver, which as usize, action as u32, size as usize);
        reliant += u32::from(relies(&mut driver, &pairs[index].left));
        if step % 5 == 0 {
            driver.poll(&mut |_| {});
            for pair in &pairs {
                let waits = pair.readers.iter().any(Request::is_submitted);
                assert!(!(waits && pair.is_readable()), "step {step}");
            }
        }
    }
    assert!(reliant > 1000, "only {reliant} waits have relied");
    driver.cancel_all(libc::ECANCELED);
    driver.poll(&mut |_| {});
}
