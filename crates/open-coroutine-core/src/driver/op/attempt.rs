//! Performing an operation without waiting.
//!
//! Sockets take `MSG_DONTWAIT` and files take `RWF_NOWAIT`, per call. `accept`
//! has no such flag and `connect` needs `O_NONBLOCK`; see [`Op::attempt`].

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::{iovec, pollfd, sockaddr, socklen_t};

use super::{MAX_TRANSFER, Op, vectored, word};
use crate::sys;

impl Op {
    /// Performs the operation now, if that needs no waiting: `-EAGAIN` says
    /// that it would. `None` if there is no way to try.
    ///
    /// * A short count from a regular file says that the rest is not in
    ///   memory, not that the file ends there. `-EAGAIN` from a file that
    ///   cannot be polled (`EPERM`) means: use the pool.
    /// * `Accept` asks `poll` first. Another thread or process may take the
    ///   connection in between, and then the call blocks: the caller lets only
    ///   one accept at a time through per listener, and across processes the
    ///   race is that of any blocking `accept` after `poll`.
    /// * `Connect` sets `O_NONBLOCK` for the duration of the call: the socket
    ///   is not connected, so nobody else can be reading from it. After
    ///   `-EINPROGRESS` wait for [`Op::readiness`], then ask
    ///   [`Op::connect_result`]. `-EAGAIN` comes from a Unix socket whose
    ///   listener's backlog is full, which cannot be waited for: use the pool.
    /// * `Recv` and `RecvMsg` with `MSG_ERRQUEUE` never wait anyway.
    ///
    /// # Safety
    ///
    /// The pointers are valid for the duration of the call.
    pub unsafe fn attempt(&self) -> Option<isize> {
        let without_waiting = match *self {
            Self::Recv {
                fd,
                buf,
                len,
                flags,
            } => Self::Recv {
                fd,
                buf,
                len,
                flags: flags | libc::MSG_DONTWAIT,
            },
            Self::Send {
                fd,
                buf,
                len,
                flags,
            } => Self::Send {
                fd,
                buf,
                len,
                flags: flags | libc::MSG_DONTWAIT,
            },
            Self::RecvMsg { fd, msg, flags } => Self::RecvMsg {
                fd,
                msg,
                flags: flags | libc::MSG_DONTWAIT,
            },
            Self::SendMsg { fd, msg, flags } => Self::SendMsg {
                fd,
                msg,
                flags: flags | libc::MSG_DONTWAIT,
            },
            Self::Accept { fd, .. } => match poll(fd, libc::POLLIN as u32, Some(Duration::ZERO)) {
                0 => return Some(-libc::EAGAIN as isize),
                error if error < 0 => return Some(error),
                _ => *self,
            },
            Self::Poll { fd, events, .. } => {
                let revents = poll(fd, events, Some(Duration::ZERO));
                return Some(if revents == 0 {
                    -libc::EAGAIN as isize
                } else {
                    revents
                });
            }
            // SAFETY: `addr` is valid by the caller's contract.
            Self::Connect { fd, addr, len } => return Some(unsafe { connect(fd, addr, len) }),
            // SAFETY: the caller's contract, passed on.
            _ => return unsafe { self.attempt_transfer() },
        };
        // SAFETY: the same operation with the same pointers.
        Some(unsafe { without_waiting.run() })
    }

    /// [`Op::attempt`] of reads and writes; `None` of all others.
    ///
    /// # Safety
    ///
    /// That of [`Op::attempt`].
    unsafe fn attempt_transfer(&self) -> Option<isize> {
        let one = |buf: *mut u8, len: usize| iovec {
            iov_base: buf.cast(),
            iov_len: len.min(MAX_TRANSFER),
        };
        let single;
        let (number, args) = match *self {
            Self::Read {
                fd,
                buf,
                len,
                offset,
            } => {
                single = one(buf, len);
                (
                    libc::SYS_preadv2,
                    vectored(fd, &single, 1, offset, libc::RWF_NOWAIT),
                )
            }
            Self::Write {
                fd,
                buf,
                len,
                offset,
            } => {
                single = one(buf.cast_mut(), len);
                (
                    libc::SYS_pwritev2,
                    vectored(fd, &single, 1, offset, libc::RWF_NOWAIT),
                )
            }
            Self::ReadV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => {
                let flags = flags | libc::RWF_NOWAIT;
                (libc::SYS_preadv2, vectored(fd, iov, count, offset, flags))
            }
            Self::WriteV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => {
                let flags = flags | libc::RWF_NOWAIT;
                (libc::SYS_pwritev2, vectored(fd, iov, count, offset, flags))
            }
            _ => return None,
        };
        // SAFETY: `single` is alive, and the other pointers are the caller's.
        let result = unsafe { sys::syscall(number, args) };
        // EOPNOTSUPP: this kind of file (a terminal, say) knows no RWF_NOWAIT.
        (result != -libc::EOPNOTSUPP as isize).then_some(result)
    }

    /// How the connection attempt of socket `fd` ended: 0 or minus an error
    /// number. To be asked when the socket is writable.
    pub fn connect_result(fd: RawFd) -> isize {
        let mut error: c_int = 0;
        let mut len = size_of::<c_int>() as socklen_t;
        let args = [
            word(fd),
            word(libc::SOL_SOCKET),
            word(libc::SO_ERROR),
            &raw mut error as usize,
            &raw mut len as usize,
            0,
        ];
        // SAFETY: both pointers are alive, and `len` is the size of `error`.
        match sys::insist(|| unsafe { sys::syscall(libc::SYS_getsockopt, args) }) {
            0 => -(error as isize),
            failure => failure,
        }
    }
}

/// `poll(2)` of one descriptor: its `revents`, 0 after `timeout`.
pub(super) fn poll(fd: RawFd, events: u32, timeout: Option<Duration>) -> isize {
    // The kernel would ignore the entry.
    if fd < 0 {
        return libc::POLLNVAL as isize;
    }
    let mut entry = pollfd {
        fd,
        events: events as i16,
        revents: 0,
    };
    let mut timespec = timeout.map(sys::to_timespec);
    let timespec = timespec.as_mut().map_or(0, |t| &raw mut *t as usize);
    let args = [&raw mut entry as usize, 1, timespec, 0, 0, 0];
    // SAFETY: one entry and the time are alive for the whole call.
    let poll = || unsafe { sys::syscall(libc::SYS_ppoll, args) };
    let result = match timeout {
        // A signal ends also a look that waits for nothing.
        Some(Duration::ZERO) => sys::insist(poll),
        _ => poll(),
    };
    match result {
        1.. => entry.revents as u16 as isize,
        result => result,
    }
}

/// `connect(2)` that does not wait, whatever the socket's mode.
///
/// # Safety
///
/// `len` bytes at `addr` are readable.
unsafe fn connect(fd: RawFd, addr: *const sockaddr, len: socklen_t) -> isize {
    let mode = |command: c_int, flags: usize| {
        let args = [word(fd), word(command), flags, 0, 0, 0];
        // SAFETY: reads or sets the status flags, without pointers.
        sys::insist(|| unsafe { sys::syscall(libc::SYS_fcntl, args) })
    };
    let flags = mode(libc::F_GETFL, 0);
    if flags < 0 {
        return flags;
    }
    let flags = flags as usize;
    let blocks = flags & libc::O_NONBLOCK as usize == 0;
    if blocks {
        let refusal = mode(libc::F_SETFL, flags | libc::O_NONBLOCK as usize);
        if refusal < 0 {
            return refusal;
        }
    }
    let op = Op::Connect { fd, addr, len };
    // SAFETY: the caller's contract.
    let result = unsafe { op.run() };
    if blocks {
        mode(libc::F_SETFL, flags);
    }
    result
}
