//! Reading and writing.

use std::mem;
use std::ptr;
use std::time::{Duration, Instant};

use libc::iovec;

use super::entries::{self, Buffer};
use super::outcome::{Outcome, observe_size};
use super::world::World;
use crate::script::{Slot, Via};

/// What a buffer holds before it is read into.
const BLANK: u8 = 0xee;

/// A buffer in pieces. The pieces point into the buffer, which is not moved.
struct Pieces {
    buf: Vec<u8>,
    vector: Vec<iovec>,
}

impl Pieces {
    fn new(mut buf: Vec<u8>, sizes: &[usize]) -> Self {
        let mut at = buf.as_mut_ptr();
        let mut vector = Vec::new();
        for &size in sizes {
            vector.push(iovec {
                iov_base: at.cast(),
                iov_len: size,
            });
            // Within the buffer, whose length is the sum of the sizes.
            at = at.wrapping_add(size);
        }
        Self { buf, vector }
    }

    fn blank(sizes: &[usize]) -> Self {
        Self::new(vec![BLANK; sizes.iter().sum()], sizes)
    }

    /// One of the buffers of an array of messages, `len` bytes after `at`.
    fn message(&mut self, index: usize) -> libc::msghdr {
        // SAFETY: all-zero bytes are a valid, empty header.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut self.vector[index];
        message.msg_iovlen = 1;
        message
    }

    fn messages(&mut self, count: usize) -> Vec<libc::mmsghdr> {
        (0..count.min(self.vector.len()))
            .map(|index| libc::mmsghdr {
                msg_hdr: self.message(index),
                msg_len: 0,
            })
            .collect()
    }

    /// All of it, in each form that a call may want; `message` is to be its header.
    fn buffer(&mut self, message: &mut libc::msghdr) -> Buffer {
        *message = self.whole();
        Buffer {
            at: self.buf.as_mut_ptr().cast(),
            len: self.buf.len(),
            vector: self.vector.as_ptr(),
            count: self.vector.len() as i32,
            message,
        }
    }

    /// A header with all pieces.
    fn whole(&mut self) -> libc::msghdr {
        // SAFETY: all-zero bytes are a valid, empty header.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = self.vector.as_mut_ptr();
        message.msg_iovlen = self.vector.len();
        message
    }
}

/// What is written: it tells which write and which position a byte is from.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    /// A prime: blocks of the sizes that kernels like differ.
    const PERIOD: usize = 4093;
    let byte = |at: usize| (at as u8).wrapping_mul(7).wrapping_add((at >> 8) as u8) ^ seed;
    let period: Vec<u8> = (0..len.min(PERIOD)).map(byte).collect();
    let mut pattern = period.repeat(len.div_ceil(PERIOD));
    pattern.truncate(len);
    pattern
}

/// One call that reads.
pub(super) fn read(world: &World, slot: Slot, sizes: &[usize], via: Via) -> Outcome {
    let fd = world.fd(slot);
    let mut pieces = Pieces::blank(sizes);
    let outcome = match via {
        Via::Messages(flags, count) => read_messages(fd, &mut pieces, count, flags.0),
        Via::Message(flags) => read_message(fd, &mut pieces, flags.0),
        Via::Address(flags) => read_address(fd, &mut pieces, flags.0),
        _ => observe_size(|| read_plain(fd, &mut pieces, via)),
    };
    outcome.with_bytes(pieces.buf)
}

fn read_plain(fd: i32, pieces: &mut Pieces, via: Via) -> isize {
    let mut message = pieces.whole();
    let buffer = pieces.buffer(&mut message);
    let (buf, len) = (buffer.at, buffer.len);
    let (vector, count) = (buffer.vector, buffer.count);
    // SAFETY: `buf` has `len` bytes, `vector` has `count` pieces of it, and the
    // header has them too; all live as long as `pieces`.
    unsafe {
        match via {
            Via::Plain => libc::read(fd, buf, len),
            Via::Vector => libc::readv(fd, vector, count),
            Via::At(offset) => libc::pread(fd, buf, len, offset),
            Via::VectorAt(offset) => libc::preadv(fd, vector, count, offset),
            Via::VectorAtFlags(offset, flags) => libc::preadv2(fd, vector, count, offset, flags),
            Via::Socket(flags)
            | Via::Address(flags)
            | Via::Message(flags)
            | Via::Messages(flags, _) => libc::recv(fd, buf, len, flags.0),
            Via::Number(by) => entries::read_by_number(fd, &buffer, by),
            Via::Checked(by) => entries::read_checked(fd, &buffer, by),
        }
    }
}

fn read_address(fd: i32, pieces: &mut Pieces, flags: i32) -> Outcome {
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    address.ss_family = 99;
    let mut len = size_of_val(&address) as libc::socklen_t;
    let outcome = observe_size(|| {
        // SAFETY: the buffer, the address and its length live across the call.
        unsafe {
            libc::recvfrom(
                fd,
                pieces.buf.as_mut_ptr().cast(),
                pieces.buf.len(),
                flags,
                (&raw mut address).cast(),
                &raw mut len,
            )
        }
    });
    outcome.note(len).note(address.ss_family)
}

fn read_message(fd: i32, pieces: &mut Pieces, flags: i32) -> Outcome {
    let mut message = pieces.whole();
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    address.ss_family = 99;
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the header and what it points to live across the call.
    let outcome = observe_size(|| unsafe { libc::recvmsg(fd, &raw mut message, flags) });
    outcome
        .note(message.msg_namelen)
        .note(address.ss_family)
        .note(message.msg_flags)
        .note(message.msg_controllen as i64)
}

fn read_messages(fd: i32, pieces: &mut Pieces, count: u8, flags: i32) -> Outcome {
    let mut messages = pieces.messages(count.into());
    // SAFETY: the headers and what they point to live across the call.
    let outcome = observe_size(|| unsafe {
        let count = messages.len() as u32;
        libc::recvmmsg(fd, messages.as_mut_ptr(), count, flags, ptr::null_mut()) as isize
    });
    messages.iter().fold(outcome, |outcome, message| {
        outcome
            .note(message.msg_len)
            .note(message.msg_hdr.msg_flags)
            .note(message.msg_hdr.msg_namelen)
    })
}

/// One call that writes.
pub(super) fn write(world: &World, slot: Slot, sizes: &[usize], seed: u8, via: Via) -> Outcome {
    let mut pieces = Pieces::new(pattern(seed, sizes.iter().sum()), sizes);
    write_pieces(world.fd(slot), &mut pieces, via)
}

fn write_pieces(fd: i32, pieces: &mut Pieces, via: Via) -> Outcome {
    if let Via::Messages(flags, count) = via {
        let mut messages = pieces.messages(count.into());
        // SAFETY: the headers and what they point to live across the call.
        let outcome = observe_size(|| unsafe {
            let count = messages.len() as u32;
            libc::sendmmsg(fd, messages.as_mut_ptr(), count, flags.0) as isize
        });
        return messages
            .iter()
            .fold(outcome, |outcome, message| outcome.note(message.msg_len));
    }
    let mut message = pieces.whole();
    let buffer = pieces.buffer(&mut message);
    let (buf, len) = (buffer.at.cast_const(), buffer.len);
    let (vector, count) = (buffer.vector, buffer.count);
    // SAFETY: `buf` has `len` bytes, `vector` has `count` pieces of it, and
    // `message` has them too; all live as long as `pieces`.
    observe_size(|| unsafe {
        match via {
            Via::Plain | Via::Checked(_) => libc::write(fd, buf, len),
            Via::Number(by) => entries::write_by_number(fd, &buffer, by),
            Via::Vector => libc::writev(fd, vector, count),
            Via::At(offset) => libc::pwrite(fd, buf, len, offset),
            Via::VectorAt(offset) => libc::pwritev(fd, vector, count, offset),
            Via::VectorAtFlags(offset, flags) => libc::pwritev2(fd, vector, count, offset, flags),
            Via::Socket(flags) | Via::Messages(flags, _) => libc::send(fd, buf, len, flags.0),
            Via::Address(flags) => libc::sendto(fd, buf, len, flags.0, ptr::null(), 0),
            Via::Message(flags) => libc::sendmsg(fd, buffer.message, flags.0),
        }
    })
}

/// Reads until `total` bytes have come, or the end, or an error that `ends` it.
pub(super) fn read_all(
    world: &World,
    slot: Slot,
    (total, piece): (usize, usize),
    via: Via,
    ends: impl Fn(i32) -> bool,
) -> Outcome {
    let fd = world.fd(slot);
    let mut got = Vec::new();
    let mut last = Outcome::default();
    while got.len() < total {
        let size = piece.clamp(1, total - got.len());
        let mut pieces = Pieces::blank(&[size - size / 3, size / 3]);
        last = observe_size(|| read_plain(fd, &mut pieces, via));
        match last.result {
            0 => break,
            len @ 1.. => got.extend_from_slice(&pieces.buf[..len as usize]),
            _ if ends(last.errno) => break,
            _ => {}
        }
    }
    last.result = got.len() as i64;
    last.with_bytes(got)
}

/// Writes a line as typed on a terminal.
pub(super) fn write_line(world: &World, slot: Slot, len: usize) -> Outcome {
    let mut line = vec![b'a'; len];
    line.push(b'\n');
    let size = line.len();
    write_pieces(world.fd(slot), &mut Pieces::new(line, &[size]), Via::Plain)
}

/// Fills what `slot` writes to; a UDP socket takes everything.
pub(super) fn fill(world: &World, slot: Slot) -> Outcome {
    let fd = world.fd(slot);
    /// More than any buffer has room for.
    const BLOCKS: usize = 4096;
    let block = [b'f'; 4096];
    // SAFETY: changes the flags of a descriptor of the script.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    let write = |_| {
        // SAFETY: the block lives across the call.
        observe_size(|| unsafe { libc::write(fd, block.as_ptr().cast(), block.len()) })
    };
    let is_last = |outcome: &Outcome| outcome.result <= 0;
    let outcome = (0..BLOCKS).map(write).find(is_last).unwrap_or_default();
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
    outcome
}

/// A write that cannot end before its time-out.
pub(super) fn write_in_time(world: &World, slot: Slot, len: usize, timeout: Duration) -> Outcome {
    let begin = Instant::now();
    let mut outcome = write(world, slot, &[len], 1, Via::Plain);
    outcome.result = outcome.result.min(1);
    outcome.note(begin.elapsed() >= timeout)
}

/// Adds to an event counter.
pub(super) fn add_events(world: &World, slot: Slot, value: u64) -> Outcome {
    let value = value.to_ne_bytes().to_vec();
    write_pieces(world.fd(slot), &mut Pieces::new(value, &[8]), Via::Plain)
}

/// A datagram to the address of the socket `to`.
pub(super) fn send_to(world: &World, slot: Slot, to: Slot, len: usize, waits: bool) -> Outcome {
    let (address, address_len) = address_of(world.fd(to));
    let data = pattern(3, len);
    // SAFETY: data and address live across the call.
    observe_size(|| unsafe {
        libc::sendto(
            world.fd(slot),
            data.as_ptr().cast(),
            len,
            if waits { 0 } else { libc::MSG_DONTWAIT },
            (&raw const address).cast(),
            address_len,
        )
    })
}

/// The address of a socket; if it has none, one where nobody listens.
pub(super) fn address_of(fd: i32) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: address and length live across the call.
    let result = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) };
    if result == 0 && len > 2 {
        return (address, len);
    }
    let nobody = loopback(1);
    // SAFETY: the storage is larger, and both are plain data.
    unsafe { ptr::copy_nonoverlapping(&raw const nobody, (&raw mut address).cast(), 1) };
    (address, size_of_val(&nobody) as libc::socklen_t)
}

/// 127.0.0.1 with a port.
pub(super) fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// Sends `len` bytes with the descriptor in `passed`.
pub(super) fn pass_fd(world: &World, slot: Slot, passed: Slot, len: usize) -> Outcome {
    let mut pieces = Pieces::new(pattern(9, len), &[len]);
    let mut control = [0_u64; 3];
    let mut message = pieces.whole();
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes sizes; the header is written into `control`, which is
    // aligned and large enough for one with an `int`.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write(world.fd(passed));
    }
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: the header and what it points to live across the call.
    observe_size(|| unsafe { libc::sendmsg(world.fd(slot), &raw const message, flags) })
}

/// Receives `len` bytes, and puts a descriptor that comes along into a slot.
pub(super) fn take_fd(world: &World, slot: Slot, into: Slot, len: usize, flags: i32) -> Outcome {
    let mut pieces = Pieces::blank(&[len]);
    let mut control = [0_u64; 3];
    let mut message = pieces.whole();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the header and what it points to live across the call.
    let mut outcome =
        observe_size(|| unsafe { libc::recvmsg(world.fd(slot), &raw mut message, flags) });
    outcome = outcome
        .note(message.msg_flags)
        .note(message.msg_controllen as i64);
    if outcome.is_ok() {
        // SAFETY: the kernel has filled the control buffer as the header says.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                let fd = libc::CMSG_DATA(header).cast::<i32>().read();
                let flags = libc::fcntl(fd, libc::F_GETFD);
                outcome = outcome.note(flags);
                world.put(into, fd);
            }
        }
    }
    outcome.with_bytes(pieces.buf)
}
