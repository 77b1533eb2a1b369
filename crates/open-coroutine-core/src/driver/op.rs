//! One I/O operation, described once for every driver.
//!
//! An [`Op`] is plain data: a copy of the arguments of a system call, pointers
//! included. It can be performed in three ways, and the layer above chooses:
//!
//! * a driver that [supports](super::Driver::supports) it does it
//!   asynchronously;
//! * [`Op::attempt`] does it now, if that needs no waiting, and
//!   [`Op::readiness`] says what to wait for before the next attempt;
//! * [`Op::run`] blocks the calling thread, which is then one of the
//!   [pool's](crate::pool::Pool).
//!
//! Results are those of system calls: a count, or minus an error number.
//! `recvfrom` and `sendto` are [`Op::RecvMsg`] and [`Op::SendMsg`] with a
//! `msghdr` that the caller builds on its frame.
//!
//! No descriptor is ever switched to `O_NONBLOCK`, because that flag belongs
//! to the open file description, which other processes may share. The one
//! exception is an [attempt](Op::attempt) of `connect`.

mod attempt;

use std::ffi::{c_char, c_int, c_long};
use std::os::fd::RawFd;
use std::ptr;

use libc::{iovec, mode_t, msghdr, siginfo_t, sockaddr, socklen_t};

use crate::sys;

/// The arguments of one system call.
///
/// The pointers must be valid, as the call's manual says, from the time the
/// operation is started until its result is known.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments in the manual")]
pub enum Op {
    /// `recv(2)`.
    Recv {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        flags: c_int,
    },
    /// `send(2)`.
    Send {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        flags: c_int,
    },
    /// `recvmsg(2)`.
    RecvMsg {
        fd: RawFd,
        msg: *mut msghdr,
        flags: c_int,
    },
    /// `sendmsg(2)`.
    SendMsg {
        fd: RawFd,
        msg: *const msghdr,
        flags: c_int,
    },
    /// `read(2)`, or `pread(2)` with an offset.
    Read {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        offset: Option<u64>,
    },
    /// `write(2)`, or `pwrite(2)` with an offset.
    Write {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        offset: Option<u64>,
    },
    /// `preadv2(2)`.
    ReadV {
        fd: RawFd,
        iov: *const iovec,
        count: c_int,
        offset: Option<u64>,
        flags: c_int,
    },
    /// `pwritev2(2)`.
    WriteV {
        fd: RawFd,
        iov: *const iovec,
        count: c_int,
        offset: Option<u64>,
        flags: c_int,
    },
    /// `accept4(2)`.
    Accept {
        fd: RawFd,
        addr: *mut sockaddr,
        len: *mut socklen_t,
        flags: c_int,
    },
    /// `connect(2)`.
    Connect {
        fd: RawFd,
        addr: *const sockaddr,
        len: socklen_t,
    },
    /// `poll(2)` of one descriptor. The result is its `revents`.
    Poll {
        fd: RawFd,
        events: u32,
        reader: Option<Reader>,
    },
    /// `openat(2)`.
    OpenAt {
        dir: RawFd,
        path: *const c_char,
        flags: c_int,
        mode: mode_t,
    },
    /// `close(2)`.
    Close { fd: RawFd },
    /// `statx(2)`.
    StatX {
        dir: RawFd,
        path: *const c_char,
        flags: c_int,
        mask: u32,
        buf: *mut libc::statx,
    },
    /// `fsync(2)`, or `fdatasync(2)` if `data_only`.
    Fsync { fd: RawFd, data_only: bool },
    /// `fallocate(2)`.
    FAllocate {
        fd: RawFd,
        mode: c_int,
        offset: u64,
        len: u64,
    },
    /// `ftruncate(2)`.
    FTruncate { fd: RawFd, len: u64 },
    /// `unlinkat(2)`.
    UnlinkAt {
        dir: RawFd,
        path: *const c_char,
        flags: c_int,
    },
    /// `renameat2(2)`.
    RenameAt {
        from_dir: RawFd,
        from: *const c_char,
        to_dir: RawFd,
        to: *const c_char,
        flags: u32,
    },
    /// `mkdirat(2)`.
    MkDirAt {
        dir: RawFd,
        path: *const c_char,
        mode: mode_t,
    },
    /// `symlinkat(2)`.
    SymlinkAt {
        target: *const c_char,
        dir: RawFd,
        path: *const c_char,
    },
    /// `linkat(2)`.
    LinkAt {
        from_dir: RawFd,
        from: *const c_char,
        to_dir: RawFd,
        to: *const c_char,
        flags: c_int,
    },
    /// `splice(2)`. An offset of -1 means the current position; the caller
    /// advances an explicit offset by the result.
    Splice {
        from: RawFd,
        from_offset: i64,
        to: RawFd,
        to_offset: i64,
        len: usize,
        flags: u32,
    },
    /// `FUTEX_WAIT_BITSET`, without a time limit; `is_private` if no other
    /// process uses the futex.
    FutexWait {
        word: *const u32,
        value: u32,
        mask: u32,
        is_private: bool,
    },
    /// `waitid(2)`.
    WaitId {
        kind: libc::idtype_t,
        id: libc::id_t,
        info: *mut siginfo_t,
        options: c_int,
    },
    /// Any other system call, for the pool only.
    Syscall {
        number: c_long,
        args: *const [usize; 6],
    },
}

/// Somebody who may wait for the same descriptor again and again, to read what has
/// come; what a driver can make use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Which of the files it is that the number has stood for. Never the same for two
    /// of them, unless both the close and what made the other one went unseen.
    pub incarnation: u32,
    /// Since its last wait for it, the reader has seen that there was nothing left.
    /// Where that is not so its wait may end late.
    pub has_emptied: bool,
}

/// What the kernel transfers at most in one call, and what fits the 32-bit
/// length of a submission queue entry.
pub(super) const MAX_TRANSFER: usize = 0x7fff_f000;

/// What a poll may ask for; the kernel's bits beyond these are modes.
pub(super) const INTERESTS: u32 = 0xffff & !(libc::POLLNVAL as u32);

/// The offset that stands for the current position.
pub(super) const CURRENT_POSITION: u64 = u64::MAX;

impl Op {
    /// [`Op::Poll`] for whoever it is.
    pub fn poll(fd: RawFd, events: u32) -> Self {
        Self::Poll {
            fd,
            events,
            reader: None,
        }
    }

    /// The descriptor that is operated on. `None` for operations on paths, on
    /// memory or on two descriptors.
    pub fn fd(&self) -> Option<RawFd> {
        match *self {
            Self::Recv { fd, .. }
            | Self::Send { fd, .. }
            | Self::RecvMsg { fd, .. }
            | Self::SendMsg { fd, .. }
            | Self::Read { fd, .. }
            | Self::Write { fd, .. }
            | Self::ReadV { fd, .. }
            | Self::WriteV { fd, .. }
            | Self::Accept { fd, .. }
            | Self::Connect { fd, .. }
            | Self::Poll { fd, .. }
            | Self::Close { fd }
            | Self::Fsync { fd, .. }
            | Self::FAllocate { fd, .. }
            | Self::FTruncate { fd, .. } => Some(fd),
            _ => None,
        }
    }

    /// The `poll(2)` events after which another [`Op::attempt`] makes sense.
    /// `None` if readiness does not tell when the operation can be done.
    pub fn readiness(&self) -> Option<u32> {
        let events = match *self {
            Self::Recv { flags, .. } | Self::RecvMsg { flags, .. }
                if flags & libc::MSG_OOB != 0 =>
            {
                libc::POLLPRI
            }
            Self::Recv { .. }
            | Self::RecvMsg { .. }
            | Self::Read { .. }
            | Self::ReadV { .. }
            | Self::Accept { .. } => libc::POLLIN,
            Self::Send { .. }
            | Self::SendMsg { .. }
            | Self::Write { .. }
            | Self::WriteV { .. }
            | Self::Connect { .. } => libc::POLLOUT,
            Self::Poll { events, .. } => return Some(events),
            _ => return None,
        };
        Some(events as u32)
    }

    /// The descriptor whose closing ends the operation: that of operations
    /// which may wait for a peer.
    pub(super) fn waits_on(&self) -> Option<RawFd> {
        self.readiness().and(self.fd())
    }

    /// Performs the operation; the calling thread blocks as long as it takes.
    ///
    /// # Safety
    ///
    /// The pointers are valid for the duration of the call.
    pub unsafe fn run(&self) -> isize {
        match *self {
            // SAFETY: `poll` has no pointers.
            Self::Poll { fd, events, .. } => attempt::poll(fd, events, None),
            Self::Splice {
                from,
                from_offset,
                to,
                to_offset,
                len,
                flags,
            } => {
                let (mut from_offset, mut to_offset) = (from_offset, to_offset);
                let args = [
                    from as usize,
                    explicit(&mut from_offset) as usize,
                    to as usize,
                    explicit(&mut to_offset) as usize,
                    len,
                    flags as usize,
                ];
                // SAFETY: the offsets are alive for the whole call.
                unsafe { sys::syscall(libc::SYS_splice, args) }
            }
            // SAFETY: the caller passes a pointer to six arguments, and they
            // are valid for that call.
            Self::Syscall { number, args } => unsafe { sys::syscall(number, *args) },
            _ => {
                let (number, args) = self.call();
                // SAFETY: `call` arranges the arguments as the manual of the
                // system call says; their pointers are the caller's contract.
                unsafe { sys::syscall(number, args) }
            }
        }
    }

    /// The system call of an operation whose arguments it takes as they are.
    #[rustfmt::skip]
    fn call(&self) -> (c_long, [usize; 6]) {
        match *self {
            Self::Recv { fd, buf, len, flags } =>
                (libc::SYS_recvfrom, [word(fd), buf as usize, len, word(flags), 0, 0]),
            Self::Send { fd, buf, len, flags } =>
                (libc::SYS_sendto, [word(fd), buf as usize, len, word(flags), 0, 0]),
            Self::RecvMsg { fd, msg, flags } =>
                (libc::SYS_recvmsg, [word(fd), msg as usize, word(flags), 0, 0, 0]),
            Self::SendMsg { fd, msg, flags } =>
                (libc::SYS_sendmsg, [word(fd), msg as usize, word(flags), 0, 0, 0]),
            Self::Read { fd, buf, len, offset: None } =>
                (libc::SYS_read, [word(fd), buf as usize, len, 0, 0, 0]),
            Self::Read { fd, buf, len, offset: Some(offset) } =>
                (libc::SYS_pread64, [word(fd), buf as usize, len, offset as usize, 0, 0]),
            Self::Write { fd, buf, len, offset: None } =>
                (libc::SYS_write, [word(fd), buf as usize, len, 0, 0, 0]),
            Self::Write { fd, buf, len, offset: Some(offset) } =>
                (libc::SYS_pwrite64, [word(fd), buf as usize, len, offset as usize, 0, 0]),
            Self::ReadV { fd, iov, count, offset, flags } =>
                (libc::SYS_preadv2, vectored(fd, iov, count, offset, flags)),
            Self::WriteV { fd, iov, count, offset, flags } =>
                (libc::SYS_pwritev2, vectored(fd, iov, count, offset, flags)),
            Self::Accept { fd, addr, len, flags } =>
                (libc::SYS_accept4, [word(fd), addr as usize, len as usize, word(flags), 0, 0]),
            Self::Connect { fd, addr, len } =>
                (libc::SYS_connect, [word(fd), addr as usize, len as usize, 0, 0, 0]),
            Self::OpenAt { dir, path, flags, mode } =>
                (libc::SYS_openat, [word(dir), path as usize, word(flags), mode as usize, 0, 0]),
            Self::Close { fd } => (libc::SYS_close, [word(fd), 0, 0, 0, 0, 0]),
            Self::StatX { dir, path, flags, mask, buf } =>
                (libc::SYS_statx, [word(dir), path as usize, word(flags), mask as usize, buf as usize, 0]),
            Self::Fsync { fd, data_only: false } => (libc::SYS_fsync, [word(fd), 0, 0, 0, 0, 0]),
            Self::Fsync { fd, data_only: true } => (libc::SYS_fdatasync, [word(fd), 0, 0, 0, 0, 0]),
            Self::FAllocate { fd, mode, offset, len } =>
                (libc::SYS_fallocate, [word(fd), word(mode), offset as usize, len as usize, 0, 0]),
            Self::FTruncate { fd, len } => (libc::SYS_ftruncate, [word(fd), len as usize, 0, 0, 0, 0]),
            Self::UnlinkAt { dir, path, flags } =>
                (libc::SYS_unlinkat, [word(dir), path as usize, word(flags), 0, 0, 0]),
            Self::RenameAt { from_dir, from, to_dir, to, flags } =>
                (libc::SYS_renameat2, [word(from_dir), from as usize, word(to_dir), to as usize, flags as usize, 0]),
            Self::MkDirAt { dir, path, mode } =>
                (libc::SYS_mkdirat, [word(dir), path as usize, mode as usize, 0, 0, 0]),
            Self::SymlinkAt { target, dir, path } =>
                (libc::SYS_symlinkat, [target as usize, word(dir), path as usize, 0, 0, 0]),
            Self::LinkAt { from_dir, from, to_dir, to, flags } =>
                (libc::SYS_linkat, [word(from_dir), from as usize, word(to_dir), to as usize, word(flags), 0]),
            Self::FutexWait { word, value, mask, is_private } => {
                let operation = if is_private { libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG } else { libc::FUTEX_WAIT_BITSET };
                (libc::SYS_futex, [word as usize, operation as usize, value as usize, 0, 0, mask as usize])
            }
            Self::WaitId { kind, id, info, options } =>
                (libc::SYS_waitid, [kind as usize, id as usize, info as usize, word(options), 0, 0]),
            Self::Poll { .. } | Self::Splice { .. } | Self::Syscall { .. } =>
                unreachable!("performed by `run` itself"),
        }
    }
}

/// A C `int` as the kernel takes it.
fn word(value: c_int) -> usize {
    value as usize
}

/// The arguments of `preadv2(2)` and `pwritev2(2)` on a 64-bit kernel, which
/// takes the whole offset in the fourth argument and ignores the fifth.
pub(super) fn vectored(
    fd: RawFd,
    iov: *const iovec,
    count: c_int,
    offset: Option<u64>,
    flags: c_int,
) -> [usize; 6] {
    let offset = offset.unwrap_or(CURRENT_POSITION) as usize;
    [word(fd), iov as usize, word(count), offset, 0, word(flags)]
}

/// A pointer to `offset`, unless it means the current position.
fn explicit(offset: &mut i64) -> *mut i64 {
    if *offset == -1 {
        ptr::null_mut()
    } else {
        offset
    }
}
