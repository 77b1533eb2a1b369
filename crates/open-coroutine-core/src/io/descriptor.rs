//! What is known of a descriptor: whether a thread would block on it, whether it
//! is a pipe or a socket, whether it goes to the disk each time, and which of the files
//! it is that its number has stood for.
//!
//! io_uring waits also on a file that is `O_NONBLOCK`, and does not lock the
//! position of a file that has one, so somebody has to look before it is asked.
//! The kernel waits for the disk, also for who asks it not to, where the page cache is
//! passed by (`O_DIRECT`, and `O_DSYNC` for writes).
//! Looking costs a system call, so "it blocks" and what it is are kept per
//! descriptor. What is kept is only a hint that must never outlive the fact:
//!
//! 1. An entry counts only if it carries the current generation. Whatever may
//!    set `O_NONBLOCK` or `O_DIRECT` (fcntl, ioctl) starts a new one, because the flag belongs
//!    to the open file, which other descriptors share.
//! 2. Closing, replacing or creating a descriptor clears its entry, and makes it
//!    another one: its upper half counts how often that was done.
//! 3. Generation and entry are read before the kernel is asked. An answer that was
//!    overtaken by a change of the mode is kept under the old generation and does
//!    not count; one that was overtaken by a close is not kept, because the entry
//!    is another one.
//!
//! A change by another process, or by a raw system call, goes unseen; so does
//! the close and re-creation of a number when both are raw.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use crate::driver::Op;
use crate::sys;

/// Descriptors with an entry; larger numbers are asked about each time.
const ENTRIES: usize = 1 << 20;
const BYTES: usize = ENTRIES * size_of::<Entry>();

/// The count of rule 2, and in the lower half what was seen.
type Entry = AtomicU64;
/// What the count goes up by.
const CLEARED: u64 = 1 << 32;

/// The descriptor was seen to block.
const BLOCKS: u32 = 1;
/// What the descriptor was seen to be; none of these if it was not looked at.
const KINDS: u32 = 14;
const PIPE: u32 = 2;
const STREAM: u32 = 4;
const MESSAGES: u32 = 6;
const FILE: u32 = 8;
const TCP: u32 = 10;
/// Its flags were looked at; none of the next two if they were not.
const LOOKED_AT: u32 = 16;
/// Reads and writes pass the page cache by.
const DIRECT: u32 = 32;
/// Writes go through the page cache to the disk.
const SYNCHRONOUS: u32 = 64;
/// What was said is not to be kept.
const UNSURE: u32 = 1 << 31;
/// Generations are multiples of this, which leaves room for what was seen.
const STEP: u32 = 128;

/// Current generation; 0 is no generation. Static because descriptors are the
/// process's.
static GENERATION: AtomicU32 = AtomicU32::new(STEP);

/// Per descriptor what was seen of it, and in which generation. Mapped at the
/// first use, and never unmapped; a page costs memory once it is written to.
static TABLE: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Whether `fd` is one that a thread would not block on.
#[inline]
pub(super) fn is_nonblocking(fd: RawFd) -> bool {
    has(fd, BLOCKS, look_at_flags) == 0
}

/// Whether `fd` was one that a thread would not block on when it was looked at, and may
/// be one still.
#[inline]
pub(super) fn was_nonblocking(fd: RawFd) -> bool {
    has(fd, LOOKED_AT | BLOCKS, look_at_flags) == LOOKED_AT
}

/// Whether `fd` is a pipe or a socket, which have no position.
#[inline]
pub(super) fn is_stream(fd: RawFd) -> bool {
    matches!(has(fd, KINDS, look), PIPE | STREAM | TCP | MESSAGES)
}

/// Whether `fd` is a socket.
#[inline]
pub(super) fn is_socket(fd: RawFd) -> bool {
    matches!(has(fd, KINDS, look), STREAM | TCP | MESSAGES)
}

/// Whether `fd` is a socket that keeps messages apart.
#[inline]
pub(super) fn is_message_socket(fd: RawFd) -> bool {
    has(fd, KINDS, look) == MESSAGES
}

/// Whether `fd` is a socket of TCP.
#[inline]
pub(super) fn is_tcp(fd: RawFd) -> bool {
    has(fd, KINDS, look) == TCP
}

/// Which of the files it is that the number `fd` has stood for. `None` as long as no
/// close and no creation of it was seen, so that it is not known whether they are.
#[inline]
pub(super) fn incarnation(fd: RawFd) -> Option<u32> {
    let entry = table()?.get(fd as usize)?;
    let cleared = (entry.load(Relaxed) / CLEARED) as u32;
    (cleared != 0).then_some(cleared)
}

/// Whether `fd` is a file that has a position.
#[inline]
pub(super) fn is_file(fd: RawFd) -> bool {
    has(fd, KINDS, look) == FILE
}

/// Whether `op` reads or writes a file, and waits for the disk even if it is asked not
/// to wait.
#[inline]
pub(super) fn waits_for_disk(op: &Op) -> bool {
    let (fd, reasons) = match *op {
        Op::Read { fd, .. } | Op::ReadV { fd, .. } => (fd, DIRECT),
        Op::Write { fd, .. } | Op::WriteV { fd, .. } => (fd, DIRECT | SYNCHRONOUS),
        _ => return false,
    };
    // A pipe can be `O_DIRECT` too.
    has(fd, LOOKED_AT | reasons, look_at_flags) & reasons != 0 && is_file(fd)
}

/// What `fd` has of `properties`: by the table, or else by asking.
#[inline]
fn has(fd: RawFd, properties: u32, ask: impl FnOnce(RawFd) -> u32) -> u32 {
    // Acquire: pairs with `modes_changed`.
    let generation = GENERATION.load(Acquire);
    let entry = table().and_then(|table| table.get(fd as usize));
    // Acquire: stays before the question (rule 3).
    let before = entry.map_or(0, |entry| entry.load(Acquire));
    let seen = before as u32;
    let seen = if seen & !(STEP - 1) == generation {
        seen
    } else {
        generation
    };
    if seen & properties != 0 {
        return seen & properties;
    }
    let found = ask(fd);
    if found != 0
        && found & UNSURE == 0
        && let Some(entry) = entry
    {
        let after = before & !(CLEARED - 1) | u64::from(seen | found);
        // If it fails, what was found is asked for again.
        let _ = entry.compare_exchange(before, after, Relaxed, Relaxed);
    }
    found & properties
}

fn look(fd: RawFd) -> u32 {
    match sys::file_kind(fd) {
        libc::S_IFIFO => PIPE,
        libc::S_IFSOCK => match socket_option(fd, libc::SO_PROTOCOL, 0) {
            Some(libc::IPPROTO_TCP) => TCP,
            _ => match socket_option(fd, libc::SO_TYPE, 0) {
                Some(libc::SOCK_STREAM) => STREAM,
                Some(_) => MESSAGES,
                None => 0,
            },
        },
        libc::S_IFREG | libc::S_IFBLK => FILE,
        // A terminal, an event counter and the like; or it is invalid, which
        // the call itself reports.
        _ => 0,
    }
}

fn look_at_flags(fd: RawFd) -> u32 {
    let args = [fd as usize, libc::F_GETFL as usize, 0, 0, 0, 0];
    // SAFETY: only asks.
    let flags = sys::insist(|| unsafe { sys::syscall(libc::SYS_fcntl, args) });
    if flags < 0 {
        // It is invalid, or the kernel does not say. Who waits for it does no
        // harm, and the call itself reports what is wrong.
        return BLOCKS | UNSURE;
    }
    let has = |flag: c_int| flags as c_int & flag != 0;
    let mut found = LOOKED_AT;
    for (is_so, property) in [
        (!has(libc::O_NONBLOCK), BLOCKS),
        (has(libc::O_DIRECT), DIRECT),
        (has(libc::O_DSYNC), SYNCHRONOUS),
    ] {
        if is_so {
            found |= property;
        }
    }
    found
}

/// An option of a socket, whose value is read over `value`; `None` if `fd` is no
/// socket.
pub(super) fn socket_option<T: Copy>(fd: RawFd, option: c_int, mut value: T) -> Option<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let args = [
        fd as usize,
        libc::SOL_SOCKET as usize,
        option as usize,
        &raw mut value as usize,
        &raw mut len as usize,
        0,
    ];
    // SAFETY: `value` and `len` live across the call; the options that are asked
    // for are integers, or structures of them, of this size.
    let result = sys::insist(|| unsafe { sys::syscall(libc::SYS_getsockopt, args) });
    (result == 0).then_some(value)
}

/// To be called after a file may have become `O_NONBLOCK` or `O_DIRECT`.
pub fn modes_changed() {
    // Release: pairs with `is_nonblocking`. Skips 0 when it wraps around.
    if GENERATION.fetch_add(STEP, Release) == u32::MAX - (STEP - 1) {
        GENERATION.fetch_add(STEP, Release);
    }
}

/// To be called when `fd` is closed, replaced or new.
#[inline]
pub fn forget(fd: RawFd) {
    // Acquire: pairs with the release half in `map`.
    let table = TABLE.load(Acquire);
    if !table.is_null() && (0..ENTRIES as RawFd).contains(&fd) {
        // SAFETY: a published table is mapped for good and has `ENTRIES`.
        let entry = unsafe { &*table.add(fd as usize) };
        // Nobody else clears it at the same time: the number is closed after this,
        // or was handed out before it. An answer that is stored in between is
        // overwritten.
        let before = entry.load(Relaxed);
        entry.store((before & !(CLEARED - 1)).wrapping_add(CLEARED), Relaxed);
    }
}

/// Whether anything is known of any descriptor, so that new ones must be
/// [forgotten](forget). The first one is asked about by a coroutine.
#[inline]
pub fn remembers() -> bool {
    !TABLE.load(Relaxed).is_null()
}

fn table() -> Option<&'static [Entry]> {
    // Acquire: pairs with the release half in `map`.
    let mut table = TABLE.load(Acquire);
    if table.is_null() {
        table = map()?;
    }
    // SAFETY: a published table is mapped for good, has `ENTRIES`, and zero
    // bytes are a counter.
    Some(unsafe { std::slice::from_raw_parts(table, ENTRIES) })
}

#[cold]
fn map() -> Option<*mut Entry> {
    let address = sys::map(BYTES, 0).ok()?;
    let table = ptr::with_exposed_provenance_mut::<Entry>(address);
    // AcqRel: publishes the mapping, or sees another thread's.
    match TABLE.compare_exchange(ptr::null_mut(), table, AcqRel, Acquire) {
        Ok(_) => Some(table),
        Err(other) => {
            // SAFETY: nobody else has seen this mapping.
            let _ = unsafe { sys::unmap(address, BYTES) };
            Some(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_overtaken_by_a_close_is_not_kept() {
        const FD: RawFd = ENTRIES as RawFd - 1;
        let answer = has(FD, KINDS, |fd| {
            // Another thread closes it, and opens something else there.
            forget(fd);
            PIPE
        });
        assert_eq!(PIPE, answer);
        assert_eq!(FILE, has(FD, KINDS, |_| FILE));
        assert_eq!(FILE, has(FD, KINDS, |_| PIPE), "this one is kept");
        forget(FD);
        assert_eq!(STREAM, has(FD, KINDS, |_| STREAM));
    }
}
