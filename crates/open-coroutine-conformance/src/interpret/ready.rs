//! Whether a call would wait for another actor, by asking the kernel, with calls
//! that do not wait.

use std::mem;

use libc::{POLLHUP, POLLIN, POLLOUT, POLLRDHUP, pollfd, timespec};

use super::world::World;
use crate::script::{Call, Flags, Moves, Via};

/// Whether `call` would wait, if nobody else does anything.
pub(super) fn would_wait(world: &World, call: &Call) -> bool {
    match *call {
        Call::Read {
            slot,
            ref pieces,
            via,
        } => {
            let at_least = match via.flags() {
                Some(flags) if flags.0 & libc::MSG_WAITALL != 0 => pieces.iter().sum(),
                _ => 1,
            };
            !is_at_once(via) && reads_wait(world.fd(slot), at_least)
        }
        Call::Write { slot, via, .. } => !is_at_once(via) && writes_wait(world.fd(slot)),
        Call::PassFd { slot, .. } => writes_wait(world.fd(slot)),
        Call::TakeFd { slot, flags, .. } => !says_at_once(flags) && reads_wait(world.fd(slot), 1),
        Call::Accept { slot, .. } => is_listener(world.fd(slot)) && reads_wait(world.fd(slot), 1),
        Call::Move { from, to, by, .. } => match by {
            // Between files.
            Moves::CopyRange(..) => false,
            _ => poll(world.fd(from), POLLIN) == 0 || !has_room(world.fd(to)),
        },
        Call::AddEvents { slot, .. } => writes_wait(world.fd(slot)),
        Call::WaitSignal { limit, .. } => limit.is_none() && !is_signal_pending(),
        Call::SendTo { slot, waits, .. } => waits && writes_wait(world.fd(slot)),
        Call::VmSplice { slot, .. } => !has_room(world.fd(slot)),
        _ => false,
    }
}

fn is_listener(fd: i32) -> bool {
    let mut value = 0_i32;
    let mut len = size_of_val(&value) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    let (value_at, len_at) = (&raw mut value, &raw mut len);
    // SAFETY: value and length live across the call.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, value_at, len_at) };
    value == 1
}

/// Whether `SIGUSR1` is pending.
fn is_signal_pending() -> bool {
    // SAFETY: all-zero bytes are an empty set, which lives across the calls.
    unsafe {
        let mut pending: libc::sigset_t = mem::zeroed();
        libc::sigpending(&raw mut pending);
        libc::sigismember(&raw const pending, libc::SIGUSR1) == 1
    }
}

fn is_at_once(via: Via) -> bool {
    via.flags().is_some_and(says_at_once)
}

/// The other flags that mean so are ignored by some sockets.
fn says_at_once(flags: Flags) -> bool {
    flags.0 & libc::MSG_DONTWAIT != 0
}

fn reads_wait(fd: i32, at_least: usize) -> bool {
    if is_nonblocking(fd) {
        return false;
    }
    let events = poll(fd, POLLIN | POLLRDHUP);
    let is_ended = events & (POLLHUP | POLLRDHUP) != 0;
    events == 0 || at_least > 1 && !is_ended && pending(fd) < at_least
}

fn writes_wait(fd: i32) -> bool {
    if is_nonblocking(fd) {
        return false;
    }
    // An event counter that is not 0 may be too full for what is to be added.
    let may_overflow = is_anonymous(fd) && poll(fd, POLLIN) != 0;
    !has_room(fd) || may_overflow
}

/// Whether something can be written. What TCP has on its way may still need the
/// room that poll sees.
fn has_room(fd: i32) -> bool {
    const MOST: i32 = 1 << 16;
    let mut queued = 0_i32;
    // SAFETY: the number lives across the call, of sockets and terminals.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCOUTQ, &raw mut queued) };
    poll(fd, POLLOUT) != 0 && queued <= MOST
}

/// Whether `fd` is an event counter, a timer or the like, whose files have no
/// kind.
fn is_anonymous(fd: i32) -> bool {
    // SAFETY: all-zero bytes are a status to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the status lives across the call.
    let result = unsafe { libc::syscall(libc::SYS_fstat, fd, &raw mut stat) };
    result == 0 && stat.st_mode & libc::S_IFMT == 0
}

fn is_nonblocking(fd: i32) -> bool {
    // SAFETY: only asks.
    let flags = unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFL) };
    flags >= 0 && flags as i32 & libc::O_NONBLOCK != 0
}

fn pending(fd: i32) -> usize {
    let mut bytes = 0_i32;
    // SAFETY: the number lives across the call.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::FIONREAD, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

/// What `fd` has of `events`; a number that is no descriptor has an error.
fn poll(fd: i32, events: i16) -> i16 {
    let mut entry = pollfd {
        fd: fd.max(0),
        events,
        revents: 0,
    };
    let now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if fd < 0 {
        return libc::POLLNVAL;
    }
    // SAFETY: the entry and the time live across the call.
    unsafe { libc::syscall(libc::SYS_ppoll, &raw mut entry, 1, &raw const now, 0, 0) };
    entry.revents
}
