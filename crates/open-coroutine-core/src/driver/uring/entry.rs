//! From an [`Op`] to a submission queue entry.

use std::ffi::c_int;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};

use crate::driver::op::{CURRENT_POSITION, INTERESTS, MAX_TRANSFER, Op};

/// `FUTEX2_SIZE_U32`.
const FUTEX_U32: u32 = 2;
/// `FUTEX2_PRIVATE`.
const FUTEX_PRIVATE: u32 = 128;

/// The entry that makes the kernel perform `op`; `None` if it knows none.
#[rustfmt::skip]
pub(super) fn entry(op: &Op) -> Option<Entry> {
    Some(match *op {
        Op::Recv { fd, buf, len, flags } =>
            opcode::Recv::new(Fd(fd), buf, cap(len)).flags(flags).build(),
        Op::Send { fd, buf, len, flags } =>
            opcode::Send::new(Fd(fd), buf, cap(len)).flags(flags).build(),
        Op::RecvMsg { fd, msg, flags } =>
            opcode::RecvMsg::new(Fd(fd), msg).flags(flags as u32).build(),
        Op::SendMsg { fd, msg, flags } =>
            opcode::SendMsg::new(Fd(fd), msg).flags(flags as u32).build(),
        Op::Read { fd, buf, len, offset } =>
            opcode::Read::new(Fd(fd), buf, cap(len)).offset(position(offset)).build(),
        Op::Write { fd, buf, len, offset } =>
            opcode::Write::new(Fd(fd), buf, cap(len)).offset(position(offset)).build(),
        Op::ReadV { fd, iov, count, offset, flags } =>
            opcode::Readv::new(Fd(fd), iov, count as u32).offset(position(offset)).rw_flags(accepted(flags)).build(),
        Op::WriteV { fd, iov, count, offset, flags } =>
            opcode::Writev::new(Fd(fd), iov, count as u32).offset(position(offset)).rw_flags(accepted(flags)).build(),
        Op::Accept { fd, addr, len, flags } =>
            opcode::Accept::new(Fd(fd), addr, len).flags(flags).build(),
        Op::Connect { fd, addr, len } => opcode::Connect::new(Fd(fd), addr, len).build(),
        Op::Poll { fd, events, .. } => opcode::PollAdd::new(Fd(fd), poll_events(events)).build(),
        _ => return file_entry(op),
    })
}

/// [`entry`] for operations on files and processes.
#[rustfmt::skip]
fn file_entry(op: &Op) -> Option<Entry> {
    Some(match *op {
        Op::OpenAt { dir, path, flags, mode } =>
            opcode::OpenAt::new(Fd(dir), path).flags(flags).mode(mode).build(),
        Op::Close { fd } => opcode::Close::new(Fd(fd)).build(),
        Op::StatX { dir, path, flags, mask, buf } =>
            opcode::Statx::new(Fd(dir), path, buf.cast()).flags(flags).mask(mask).build(),
        Op::Fsync { fd, data_only } => {
            let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(Fd(fd)).flags(flags).build()
        }
        Op::FAllocate { fd, mode, offset, len } =>
            opcode::Fallocate::new(Fd(fd), len).mode(mode).offset(offset).build(),
        Op::FTruncate { fd, len } => opcode::Ftruncate::new(Fd(fd), len).build(),
        Op::UnlinkAt { dir, path, flags } => opcode::UnlinkAt::new(Fd(dir), path).flags(flags).build(),
        Op::RenameAt { from_dir, from, to_dir, to, flags } =>
            opcode::RenameAt::new(Fd(from_dir), from, Fd(to_dir), to).flags(flags).build(),
        Op::MkDirAt { dir, path, mode } => opcode::MkDirAt::new(Fd(dir), path).mode(mode).build(),
        Op::SymlinkAt { target, dir, path } => opcode::SymlinkAt::new(Fd(dir), target, path).build(),
        Op::LinkAt { from_dir, from, to_dir, to, flags } =>
            opcode::LinkAt::new(Fd(from_dir), from, Fd(to_dir), to).flags(flags).build(),
        Op::Splice { from, from_offset, to, to_offset, len, flags } =>
            opcode::Splice::new(Fd(from), from_offset, Fd(to), to_offset, cap(len)).flags(flags).build(),
        Op::FutexWait { word, value, mask, is_private } => {
            let flags = if is_private { FUTEX_U32 | FUTEX_PRIVATE } else { FUTEX_U32 };
            opcode::FutexWait::new(word, value.into(), mask.into(), flags).build()
        }
        Op::WaitId { kind, id, info, options } =>
            opcode::WaitId::new(kind, id, options).infop(info).build(),
        _ => return None,
    })
}

/// The events to poll for. When a socket wakes its waiters, io_uring overlooks
/// those that want nothing but urgent data, so they want the band that comes
/// with it too; an early end is for the waiter to find out.
fn poll_events(events: u32) -> u32 {
    let band = if events & libc::POLLPRI as u32 == 0 {
        0
    } else {
        libc::POLLRDBAND as u32
    };
    events & INTERESTS | band
}

fn cap(len: usize) -> u32 {
    len.min(MAX_TRANSFER) as u32
}

/// Without `RWF_HIPRI`, which io_uring refuses on an ordinary ring. It is a wish
/// for speed, without any other effect.
fn accepted(flags: c_int) -> c_int {
    flags & !libc::RWF_HIPRI
}

fn position(offset: Option<u64>) -> u64 {
    offset.unwrap_or(CURRENT_POSITION)
}
