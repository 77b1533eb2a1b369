//! Bytes whose order is checked, sent and received by every call that does so.

use std::env;
use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// A number from 1 on, mostly a small one, and at most `end`.
    fn length(&mut self, end: usize) -> usize {
        let end = [8, 1000, end][self.below(3)].min(end);
        1 + self.below(end)
    }

    /// Lets others run, mostly for a short time.
    pub(crate) fn pause(&mut self) {
        match self.below(16) {
            0 => open_coroutine::sleep(Duration::from_micros(self.below(1500) as u64)),
            few => (0..few % 4).for_each(|_| open_coroutine::yield_now()),
        }
    }
}

#[allow(dead_code, reason = "not every test file uses every function")]
fn variable(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs rounds for a fraction of a second, or for as many milliseconds as
/// `OPEN_COROUTINE_RACES_MS` says. Each gets a number of its own, which
/// `OPEN_COROUTINE_RACES_SEED` is added to.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn rounds(mut round: impl FnMut(u64)) {
    let limit = Duration::from_millis(variable("OPEN_COROUTINE_RACES_MS").unwrap_or(100));
    let seed = variable("OPEN_COROUTINE_RACES_SEED").unwrap_or(0) << 32;
    let begin = Instant::now();
    for number in 0.. {
        round(seed + number);
        if begin.elapsed() >= limit {
            eprintln!("{} rounds", number + 1);
            return;
        }
    }
}

/// What a call returned, or the error number.
pub(crate) fn check(result: isize) -> Result<usize, c_int> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

/// The byte at a position of every flow.
fn byte_at(position: usize) -> u8 {
    (position.wrapping_mul(0x9E37_79B9) >> 16) as u8
}

fn pieces(bytes: &mut [u8], random: &mut Random) -> [libc::iovec; 2] {
    let middle = random.below(bytes.len());
    let (first, second) = bytes.split_at_mut(middle);
    [first, second].map(|piece| libc::iovec {
        iov_base: piece.as_mut_ptr().cast(),
        iov_len: piece.len(),
    })
}

fn message(pieces: &mut [libc::iovec; 2]) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid, empty message header.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = 2;
    message
}

/// Receives some bytes from a socket, in one of several ways.
fn receive_some(fd: RawFd, bytes: &mut [u8], random: &mut Random) -> Result<usize, c_int> {
    let (start, len) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: the buffer and what describes it live across the call.
    check(unsafe {
        match random.below(7) {
            0 => libc::read(fd, start, len),
            1 => libc::recv(fd, start, len, 0),
            2 => libc::recv(fd, start, len, libc::MSG_WAITALL),
            3 => libc::readv(fd, pieces(bytes, random).as_ptr(), 2),
            4 => libc::recvmsg(fd, &mut message(&mut pieces(bytes, random)), 0),
            5 => {
                let mut pieces = pieces(bytes, random);
                libc::recvmsg(fd, &mut message(&mut pieces), libc::MSG_WAITALL)
            }
            _ => {
                let mut entry = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                libc::poll(&raw mut entry, 1, random.below(3) as c_int);
                libc::recv(fd, start, len, libc::MSG_DONTWAIT)
            }
        }
    })
}

/// Receives a flow to its end, and returns its length. It may be told to try again
/// at any time.
pub(crate) fn receive(fd: RawFd, mut random: Random) -> usize {
    let mut buffer = vec![0; 1 << 16];
    let mut position = 0;
    loop {
        let len = random.length(buffer.len());
        let bytes = &mut buffer[..len];
        match receive_some(fd, bytes, &mut random) {
            Ok(0) => return position,
            Ok(count) => {
                for (index, &byte) in bytes[..count].iter().enumerate() {
                    let place = position + index;
                    assert_eq!(byte_at(place), byte, "at {place}");
                }
                position += count;
            }
            Err(error) => assert_eq!(libc::EAGAIN, error),
        }
        random.pause();
    }
}

/// Sends some bytes to a socket, in one of several ways.
fn send_some(fd: RawFd, bytes: &mut [u8], random: &mut Random) -> Result<usize, c_int> {
    let (start, len) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: the buffer and what describes it live across the call.
    check(unsafe {
        match random.below(5) {
            0 => libc::write(fd, start, len),
            1 => libc::send(fd, start, len, 0),
            2 => libc::writev(fd, pieces(bytes, random).as_ptr(), 2),
            3 => libc::send(fd, start, len, libc::MSG_DONTWAIT),
            _ => libc::sendmsg(fd, &message(&mut pieces(bytes, random)), 0),
        }
    })
}

/// Sends a flow of `total` bytes and ends it.
pub(crate) fn send(fd: RawFd, total: usize, mut random: Random) {
    let mut position = 0;
    while position < total {
        let len = random.length(total - position);
        let mut bytes: Vec<_> = (position..position + len).map(byte_at).collect();
        match send_some(fd, &mut bytes, &mut random) {
            Ok(count) => position += count,
            Err(error) => assert_eq!(libc::EAGAIN, error),
        }
        random.pause();
    }
    // SAFETY: takes integers.
    assert_eq!(0, unsafe { libc::shutdown(fd, libc::SHUT_WR) });
}
