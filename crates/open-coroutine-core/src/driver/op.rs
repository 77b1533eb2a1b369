//! One I/O operation, described once for every driver.
//!
//! An [`Op`] is the system call that a thread would make. There are three ways
//! to perform it: as an io_uring submission ([`Op::to_entry`]), without
//! blocking and, if that fails, after waiting for readiness ([`Op::attempt`],
//! [`Op::readiness`]), or by blocking a thread ([`Op::run`]).
//!
//! Results are those of raw system calls: minus the error number on failure.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use crate::sys;

/// A system call and its arguments. The pointers are the caller's.
#[derive(Clone, Copy, Debug)]
#[expect(
    missing_docs,
    reason = "each field is the man page's argument of that name"
)]
pub enum Op {
    /// `recv(2)`
    Recv {
        fd: RawFd,
        buf: *mut c_void,
        len: usize,
        flags: c_int,
    },
    /// `send(2)`
    Send {
        fd: RawFd,
        buf: *const c_void,
        len: usize,
        flags: c_int,
    },
    /// `recvmsg(2)`
    RecvMsg {
        fd: RawFd,
        msg: *mut libc::msghdr,
        flags: c_int,
    },
    /// `sendmsg(2)`
    SendMsg {
        fd: RawFd,
        msg: *const libc::msghdr,
        flags: c_int,
    },
    /// `read(2)`, or `pread(2)` with an offset
    Read {
        fd: RawFd,
        buf: *mut c_void,
        len: usize,
        offset: Option<u64>,
    },
    /// `write(2)`, or `pwrite(2)` with an offset
    Write {
        fd: RawFd,
        buf: *const c_void,
        len: usize,
        offset: Option<u64>,
    },
    /// `readv(2)`, or `preadv2(2)` with an offset
    ReadV {
        fd: RawFd,
        iov: *const libc::iovec,
        count: c_int,
        offset: Option<u64>,
        flags: c_int,
    },
    /// `writev(2)`, or `pwritev2(2)` with an offset
    WriteV {
        fd: RawFd,
        iov: *const libc::iovec,
        count: c_int,
        offset: Option<u64>,
        flags: c_int,
    },
    /// `accept4(2)`
    Accept {
        fd: RawFd,
        addr: *mut libc::sockaddr,
        len: *mut libc::socklen_t,
        flags: c_int,
    },
    /// `connect(2)`
    Connect {
        fd: RawFd,
        addr: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    /// `poll(2)` of one descriptor; the result is `revents`
    Poll { fd: RawFd, events: u32 },
    /// `fsync(2)` or `fdatasync(2)`
    Fsync { fd: RawFd, data_only: bool },
    /// `fallocate(2)`
    Fallocate {
        fd: RawFd,
        mode: c_int,
        offset: u64,
        len: u64,
    },
    /// `openat(2)`
    OpenAt {
        dir: RawFd,
        path: *const c_char,
        flags: c_int,
        mode: libc::mode_t,
    },
    /// `statx(2)`
    Statx {
        dir: RawFd,
        path: *const c_char,
        flags: c_int,
        mask: u32,
        buf: *mut libc::statx,
    },
    /// Any other call, by number.
    Syscall {
        number: libc::c_long,
        args: [usize; 6],
    },
}

// SAFETY: an `Op` is a description; whoever performs it promises what its
// system call requires of the pointers.
unsafe impl Send for Op {}

/// The offset that means "the current position" to the kernel.
const CURRENT: u64 = u64::MAX;

impl Op {
    /// The descriptor that the operation waits on.
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
            | Self::Fsync { fd, .. }
            | Self::Fallocate { fd, .. } => Some(fd),
            Self::OpenAt { .. } | Self::Statx { .. } | Self::Syscall { .. } => None,
        }
    }

    /// Performs it by blocking the calling thread.
    ///
    /// # Safety
    ///
    /// The contract of the system call.
    pub unsafe fn run(&self) -> isize {
        let (number, args) = self.call();
        // SAFETY: the caller's promise.
        unsafe { sys::syscall(number, args) }
    }

    fn call(&self) -> (libc::c_long, [usize; 6]) {
        match *self {
            Self::Recv {
                fd,
                buf,
                len,
                flags,
            } => (
                libc::SYS_recvfrom,
                [fd as usize, buf as usize, len, flags as usize, 0, 0],
            ),
            Self::Send {
                fd,
                buf,
                len,
                flags,
            } => (
                libc::SYS_sendto,
                [fd as usize, buf as usize, len, flags as usize, 0, 0],
            ),
            Self::RecvMsg { fd, msg, flags } => (
                libc::SYS_recvmsg,
                [fd as usize, msg as usize, flags as usize, 0, 0, 0],
            ),
            Self::SendMsg { fd, msg, flags } => (
                libc::SYS_sendmsg,
                [fd as usize, msg as usize, flags as usize, 0, 0, 0],
            ),
            Self::Read {
                fd,
                buf,
                len,
                offset: None,
            } => (libc::SYS_read, [fd as usize, buf as usize, len, 0, 0, 0]),
            Self::Read {
                fd,
                buf,
                len,
                offset: Some(at),
            } => (
                libc::SYS_pread64,
                [fd as usize, buf as usize, len, at as usize, 0, 0],
            ),
            Self::Write {
                fd,
                buf,
                len,
                offset: None,
            } => (libc::SYS_write, [fd as usize, buf as usize, len, 0, 0, 0]),
            Self::Write {
                fd,
                buf,
                len,
                offset: Some(at),
            } => (
                libc::SYS_pwrite64,
                [fd as usize, buf as usize, len, at as usize, 0, 0],
            ),
            Self::ReadV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => (libc::SYS_preadv2, vectored(fd, iov, count, offset, flags)),
            Self::WriteV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => (libc::SYS_pwritev2, vectored(fd, iov, count, offset, flags)),
            Self::Accept {
                fd,
                addr,
                len,
                flags,
            } => (
                libc::SYS_accept4,
                [
                    fd as usize,
                    addr as usize,
                    len as usize,
                    flags as usize,
                    0,
                    0,
                ],
            ),
            Self::Connect { fd, addr, len } => (
                libc::SYS_connect,
                [fd as usize, addr as usize, len as usize, 0, 0, 0],
            ),
            Self::Poll { .. } => unreachable!("every driver can poll"),
            Self::Fsync {
                fd,
                data_only: false,
            } => (libc::SYS_fsync, [fd as usize, 0, 0, 0, 0, 0]),
            Self::Fsync {
                fd,
                data_only: true,
            } => (libc::SYS_fdatasync, [fd as usize, 0, 0, 0, 0, 0]),
            Self::Fallocate {
                fd,
                mode,
                offset,
                len,
            } => (
                libc::SYS_fallocate,
                [
                    fd as usize,
                    mode as usize,
                    offset as usize,
                    len as usize,
                    0,
                    0,
                ],
            ),
            Self::OpenAt {
                dir,
                path,
                flags,
                mode,
            } => (
                libc::SYS_openat,
                [
                    dir as usize,
                    path as usize,
                    flags as usize,
                    mode as usize,
                    0,
                    0,
                ],
            ),
            Self::Statx {
                dir,
                path,
                flags,
                mask,
                buf,
            } => {
                let args = [
                    dir as usize,
                    path as usize,
                    flags as usize,
                    mask as usize,
                    buf as usize,
                    0,
                ];
                (libc::SYS_statx, args)
            }
            Self::Syscall { number, args } => (number, args),
        }
    }

    /// Performs it if that needs no waiting; `-EAGAIN` if it would. `None` if
    /// the kernel offers no way to try.
    ///
    /// # Safety
    ///
    /// The contract of the system call.
    pub unsafe fn attempt(&self) -> Option<isize> {
        let (number, mut args) = self.call();
        match *self {
            Self::Recv { flags, .. } | Self::Send { flags, .. } => {
                args[3] = (flags | libc::MSG_DONTWAIT) as usize;
            }
            Self::RecvMsg { flags, .. } | Self::SendMsg { flags, .. } => {
                args[2] = (flags | libc::MSG_DONTWAIT) as usize;
            }
            Self::ReadV { flags, .. } | Self::WriteV { flags, .. } => {
                args[5] = (flags | libc::RWF_NOWAIT) as usize;
            }
            Self::Read {
                fd,
                buf,
                len,
                offset,
            } => {
                // SAFETY: the caller's promise.
                return unsafe { attempt_vectored(libc::SYS_preadv2, fd, buf, len, offset) };
            }
            Self::Write {
                fd,
                buf,
                len,
                offset,
            } => {
                let buf = buf.cast_mut();
                // SAFETY: the caller's promise; the kernel only reads `buf`.
                return unsafe { attempt_vectored(libc::SYS_pwritev2, fd, buf, len, offset) };
            }
            _ => return None,
        }
        // SAFETY: the caller's promise; the flags only forbid waiting.
        Some(unsafe { sys::syscall(number, args) }).filter(|&result| is_supported(result))
    }

    /// The `poll(2)` events to wait for before the next attempt; `None` if
    /// readiness says nothing about it.
    pub fn readiness(&self) -> Option<u32> {
        const IN: u32 = libc::POLLIN as u32;
        const OUT: u32 = libc::POLLOUT as u32;
        match self {
            Self::Recv { .. } | Self::RecvMsg { .. } | Self::Accept { .. } => Some(IN),
            Self::Read { offset: None, .. } | Self::ReadV { offset: None, .. } => Some(IN),
            Self::Send { .. } | Self::SendMsg { .. } | Self::Connect { .. } => Some(OUT),
            Self::Write { offset: None, .. } | Self::WriteV { offset: None, .. } => Some(OUT),
            _ => None,
        }
    }

    /// The code of its io_uring operation, if there is one.
    pub(super) fn code(&self) -> Option<u8> {
        Some(match self {
            Self::Recv { .. } => opcode::Recv::CODE,
            Self::Send { .. } => opcode::Send::CODE,
            Self::RecvMsg { .. } => opcode::RecvMsg::CODE,
            Self::SendMsg { .. } => opcode::SendMsg::CODE,
            Self::Read { .. } => opcode::Read::CODE,
            Self::Write { .. } => opcode::Write::CODE,
            Self::ReadV { .. } => opcode::Readv::CODE,
            Self::WriteV { .. } => opcode::Writev::CODE,
            Self::Accept { .. } => opcode::Accept::CODE,
            Self::Connect { .. } => opcode::Connect::CODE,
            Self::Poll { .. } => opcode::PollAdd::CODE,
            Self::Fsync { .. } => opcode::Fsync::CODE,
            Self::Fallocate { .. } => opcode::Fallocate::CODE,
            Self::OpenAt { .. } => opcode::OpenAt::CODE,
            Self::Statx { .. } => opcode::Statx::CODE,
            Self::Syscall { .. } => return None,
        })
    }

    /// As an io_uring submission. A send is complete when all is sent, as it is
    /// for a thread.
    pub(super) fn to_entry(self) -> Option<squeue::Entry> {
        let at = |offset: Option<u64>| offset.unwrap_or(CURRENT);
        Some(match self {
            Self::Recv {
                fd,
                buf,
                len,
                flags,
            } => opcode::Recv::new(types::Fd(fd), buf.cast::<u8>(), length(len))
                .flags(flags)
                .build(),
            Self::Send {
                fd,
                buf,
                len,
                flags,
            } => {
                let flags = flags | libc::MSG_WAITALL;
                opcode::Send::new(types::Fd(fd), buf.cast::<u8>(), length(len))
                    .flags(flags)
                    .build()
            }
            Self::RecvMsg { fd, msg, flags } => opcode::RecvMsg::new(types::Fd(fd), msg)
                .flags(flags as u32)
                .build(),
            Self::SendMsg { fd, msg, flags } => {
                let flags = (flags | libc::MSG_WAITALL) as u32;
                opcode::SendMsg::new(types::Fd(fd), msg)
                    .flags(flags)
                    .build()
            }
            Self::Read {
                fd,
                buf,
                len,
                offset,
            } => {
                let read = opcode::Read::new(types::Fd(fd), buf.cast::<u8>(), length(len));
                read.offset(at(offset)).build()
            }
            Self::Write {
                fd,
                buf,
                len,
                offset,
            } => {
                let write = opcode::Write::new(types::Fd(fd), buf.cast::<u8>(), length(len));
                write.offset(at(offset)).build()
            }
            Self::ReadV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => {
                let read = opcode::Readv::new(types::Fd(fd), iov, count as u32);
                read.offset(at(offset)).rw_flags(flags).build()
            }
            Self::WriteV {
                fd,
                iov,
                count,
                offset,
                flags,
            } => {
                let write = opcode::Writev::new(types::Fd(fd), iov, count as u32);
                write.offset(at(offset)).rw_flags(flags).build()
            }
            Self::Accept {
                fd,
                addr,
                len,
                flags,
            } => opcode::Accept::new(types::Fd(fd), addr, len)
                .flags(flags)
                .build(),
            Self::Connect { fd, addr, len } => {
                opcode::Connect::new(types::Fd(fd), addr, len).build()
            }
            Self::Poll { fd, events } => opcode::PollAdd::new(types::Fd(fd), events).build(),
            Self::Fsync { fd, data_only } => {
                let flags = if data_only {
                    types::FsyncFlags::DATASYNC
                } else {
                    types::FsyncFlags::empty()
                };
                opcode::Fsync::new(types::Fd(fd)).flags(flags).build()
            }
            Self::Fallocate {
                fd,
                mode,
                offset,
                len,
            } => opcode::Fallocate::new(types::Fd(fd), len)
                .offset(offset)
                .mode(mode)
                .build(),
            Self::OpenAt {
                dir,
                path,
                flags,
                mode,
            } => opcode::OpenAt::new(types::Fd(dir), path)
                .flags(flags)
                .mode(mode)
                .build(),
            Self::Statx {
                dir,
                path,
                flags,
                mask,
                buf,
            } => {
                let buf = buf.cast::<types::statx>();
                opcode::Statx::new(types::Fd(dir), path, buf)
                    .flags(flags)
                    .mask(mask)
                    .build()
            }
            Self::Syscall { .. } => return None,
        })
    }
}

/// A length as a submission holds it. No call transfers more at once.
fn length(len: usize) -> u32 {
    const MAX: usize = 0x7fff_f000;
    len.min(MAX) as u32
}

/// The arguments of `preadv2(2)` and `pwritev2(2)`.
fn vectored(
    fd: RawFd,
    iov: *const libc::iovec,
    count: c_int,
    offset: Option<u64>,
    flags: c_int,
) -> [usize; 6] {
    let at = offset.unwrap_or(CURRENT) as usize;
    // The high half of the offset is only looked at by 32-bit kernels.
    [
        fd as usize,
        iov as usize,
        count as usize,
        at,
        0,
        flags as usize,
    ]
}

/// # Safety
///
/// `buf` is valid for `len` bytes, as `number`'s call uses it.
unsafe fn attempt_vectored(
    number: libc::c_long,
    fd: RawFd,
    buf: *mut c_void,
    len: usize,
    offset: Option<u64>,
) -> Option<isize> {
    let iov = libc::iovec {
        iov_base: buf,
        iov_len: len,
    };
    let args = vectored(fd, &raw const iov, 1, offset, libc::RWF_NOWAIT);
    // SAFETY: the caller's promise; `iov` lives across the call.
    Some(unsafe { sys::syscall(number, args) }).filter(|&result| is_supported(result))
}

/// Whether the kernel knew how to try without waiting.
fn is_supported(result: isize) -> bool {
    result != -(libc::EOPNOTSUPP as isize) && result != -(libc::ENOSYS as isize)
}
