//! Files, names, copies within the kernel, locks of files.

use std::ffi::{CStr, c_char};
use std::mem;
use std::ptr;

use super::outcome::{Outcome, observe, observe_size};
use super::transfer::pattern;
use super::world::World;
use crate::script::{Moves, Named, Slot};

pub(super) fn seek(world: &World, slot: Slot, offset: i64, whence: i32) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::lseek(world.fd(slot), offset, whence) })
}

pub(super) fn truncate(world: &World, slot: Slot, len: i64) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::ftruncate(world.fd(slot), len) })
}

pub(super) fn allocate(world: &World, slot: Slot, mode: i32, offset: i64, len: i64) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::fallocate(world.fd(slot), mode, offset, len) })
}

/// What is the same in every run: not inodes and times.
fn with_stat(outcome: Outcome, stat: &libc::stat) -> Outcome {
    if !outcome.is_ok() {
        return outcome;
    }
    let is_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    outcome
        .note(stat.st_mode)
        .note(if is_file { stat.st_size } else { 0 })
        .note(stat.st_nlink as i64)
}

fn with_statx(outcome: Outcome, stat: &libc::statx) -> Outcome {
    if !outcome.is_ok() {
        return outcome;
    }
    let mode = u32::from(stat.stx_mode);
    let is_file = mode & libc::S_IFMT == libc::S_IFREG;
    outcome
        .note(mode)
        .note(if is_file { stat.stx_size as i64 } else { 0 })
        .note(stat.stx_nlink)
}

pub(super) fn file_stat(world: &World, slot: Slot, by_statx: bool) -> Outcome {
    let fd = world.fd(slot);
    if by_statx {
        // SAFETY: all-zero bytes are a status to be filled in.
        let mut stat: libc::statx = unsafe { mem::zeroed() };
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS);
        // SAFETY: path and status live across the call.
        let outcome =
            observe(|| unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut stat) });
        return with_statx(outcome, &stat);
    }
    // SAFETY: all-zero bytes are a status to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the status lives across the call.
    let outcome = observe(|| unsafe { libc::fstat(fd, &raw mut stat) });
    with_stat(outcome, &stat)
}

pub(super) fn sync(world: &World, slot: Slot, data_only: bool) -> Outcome {
    let fd = world.fd(slot);
    // SAFETY: takes an integer.
    observe(|| unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    })
}

pub(super) fn flock(world: &World, slot: Slot, operation: i32) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::flock(world.fd(slot), operation) })
}

pub(super) fn lock(world: &World, slot: Slot, command: i32, kind: i32, range: [i64; 2]) -> Outcome {
    // SAFETY: all-zero bytes are a lock, of all of a file.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    [lock.l_start, lock.l_len] = range;
    // SAFETY: the lock lives across the call.
    let outcome = observe(|| unsafe { libc::fcntl(world.fd(slot), command, &raw mut lock) });
    outcome
        .note(lock.l_type)
        .note(lock.l_start)
        .note(lock.l_len)
}

/// A copy within the kernel.
pub(super) fn move_bytes(world: &World, from: Slot, to: Slot, len: usize, by: Moves) -> Outcome {
    let (from, to) = (world.fd(from), world.fd(to));
    let at = |offset: &mut i64| {
        if *offset < 0 {
            ptr::null_mut()
        } else {
            ptr::from_mut(offset)
        }
    };
    // SAFETY: offsets live across the calls, or are null.
    unsafe {
        match by {
            Moves::Splice(flags) => observe_size(|| {
                libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, flags)
            }),
            Moves::SpliceNumber(flags) => observe_size(|| {
                let none = ptr::null_mut::<i64>();
                libc::syscall(libc::SYS_splice, from, none, to, none, len, flags) as isize
            }),
            Moves::TeeNumber(flags) => {
                observe_size(|| libc::syscall(libc::SYS_tee, from, to, len, flags) as isize)
            }
            Moves::SendFileNumber => observe_size(|| {
                let none = ptr::null_mut::<i64>();
                libc::syscall(libc::SYS_sendfile, to, from, none, len) as isize
            }),
            Moves::Tee(flags) => observe_size(|| libc::tee(from, to, len, flags)),
            Moves::SendFile(mut offset) => {
                let at = at(&mut offset);
                observe_size(|| libc::sendfile(to, from, at, len)).note(offset)
            }
            Moves::CopyRange(mut first, mut second) => {
                let (first_at, second_at) = (at(&mut first), at(&mut second));
                observe_size(|| libc::copy_file_range(from, first_at, to, second_at, len, 0))
                    .note(first)
                    .note(second)
            }
        }
    }
}

pub(super) fn vm_splice(world: &World, slot: Slot, sizes: &[usize]) -> Outcome {
    // Leaked, because the pipe refers to these pages until they are read.
    let data = Vec::leak(pattern(5, sizes.iter().sum()));
    let mut at = data.as_mut_ptr();
    let mut vector = Vec::new();
    for &size in sizes {
        vector.push(libc::iovec {
            iov_base: at.cast(),
            iov_len: size,
        });
        // Within the data, whose length is the sum of the sizes.
        at = at.wrapping_add(size);
    }
    let fd = world.fd(slot);
    // SAFETY: the vector lives across the call, and the data for ever.
    observe_size(|| unsafe { libc::vmsplice(fd, vector.as_ptr(), vector.len(), 0) })
}

/// A call with one or two names.
pub(super) fn names(world: &World, what: Named, name: u8, other: u8) -> Outcome {
    let (one, two) = (world.path(name), world.path(other));
    let (path, second) = (one.as_ptr(), two.as_ptr());
    match what {
        Named::Stat | Named::LinkStat | Named::StatX => stat_name(path, what),
        Named::List => list(path),
        Named::ReadLink => read_link(world, path),
        Named::RealPath => real_path(world, path),
        // SAFETY: the paths live across the calls.
        _ => observe(|| unsafe {
            match what {
                Named::MakeDir => libc::mkdir(path, 0o755),
                Named::MakeFifo => libc::mkfifo(path, 0o600),
                Named::RemoveDir => libc::rmdir(path),
                Named::UnlinkAt(flags) => libc::unlinkat(libc::AT_FDCWD, path, flags),
                Named::Rename => libc::rename(path, second),
                Named::RenameAt(flags) => {
                    libc::renameat2(libc::AT_FDCWD, path, libc::AT_FDCWD, second, flags)
                }
                Named::Link => libc::link(path, second),
                Named::Symlink => libc::symlink(path, second),
                Named::ChangeMode(mode) => libc::chmod(path, mode),
                Named::Access(mode) => libc::access(path, mode),
                Named::Truncate(len) => libc::truncate(path, len),
                _ => libc::unlink(path),
            }
        }),
    }
}

fn stat_name(path: *const c_char, what: Named) -> Outcome {
    // SAFETY: all-zero bytes are a status to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut statx: libc::statx = unsafe { mem::zeroed() };
    // SAFETY: the caller's path and the status live across the call.
    let outcome = observe(|| unsafe {
        match what {
            Named::Stat => libc::stat(path, &raw mut stat),
            Named::LinkStat => libc::lstat(path, &raw mut stat),
            _ => libc::statx(
                libc::AT_FDCWD,
                path,
                0,
                libc::STATX_BASIC_STATS,
                &raw mut statx,
            ),
        }
    });
    match what {
        Named::StatX => with_statx(outcome, &statx),
        _ => with_stat(outcome, &stat),
    }
}

/// Paths are those of a run: only what is below its directory is compared.
pub(super) fn below(world: &World, path: &[u8]) -> Vec<u8> {
    let dir = world.path(5);
    let dir = dir.as_bytes().strip_suffix(b"/.").unwrap_or_default();
    path.strip_prefix(dir).unwrap_or(path).to_vec()
}

fn read_link(world: &World, path: *const c_char) -> Outcome {
    let mut buf = [0_u8; 256];
    // SAFETY: path and buffer live across the call.
    let outcome =
        observe_size(|| unsafe { libc::readlink(path, buf.as_mut_ptr().cast(), buf.len()) });
    let len = usize::try_from(outcome.result).unwrap_or(0);
    outcome
        .without_result()
        .with_bytes(below(world, &buf[..len]))
}

fn real_path(world: &World, path: *const c_char) -> Outcome {
    let mut resolved = [0; libc::PATH_MAX as usize];
    let outcome = observe(|| {
        // SAFETY: the buffer has the size that the call wants.
        let result = unsafe { libc::realpath(path, resolved.as_mut_ptr()) };
        if result.is_null() { -1 } else { 0 }
    });
    // glibc's own calls may fail on the way.
    let outcome = Outcome {
        changes_errno: false,
        ..outcome
    };
    if !outcome.is_ok() {
        return outcome;
    }
    // SAFETY: the call has ended the path with a zero.
    let text = unsafe { CStr::from_ptr(resolved.as_ptr()) };
    outcome.with_bytes(below(world, text.to_bytes()))
}

/// A call with one or two names below the directory in a slot.
pub(super) fn names_at(world: &World, dir: Slot, what: Named, names: [u8; 2]) -> Outcome {
    let dir = world.fd(dir);
    let [one, two] = names.map(World::name);
    let (path, second) = (one.as_ptr(), two.as_ptr());
    // SAFETY: the paths live across the calls.
    let call = || unsafe {
        match what {
            Named::MakeDir => libc::mkdirat(dir, path, 0o755),
            Named::MakeFifo => libc::mkfifoat(dir, path, 0o600),
            Named::RemoveDir => libc::unlinkat(dir, path, libc::AT_REMOVEDIR),
            Named::UnlinkAt(flags) => libc::unlinkat(dir, path, flags),
            Named::Rename => libc::renameat(dir, path, dir, second),
            Named::RenameAt(flags) => libc::renameat2(dir, path, dir, second, flags),
            Named::Link => libc::linkat(dir, path, dir, second, 0),
            Named::Symlink => libc::symlinkat(path, dir, second),
            Named::ChangeMode(mode) => libc::fchmodat(dir, path, mode, 0),
            Named::Access(mode) => libc::faccessat(dir, path, mode, 0),
            _ => libc::unlinkat(dir, path, 0),
        }
    };
    match what {
        Named::Stat | Named::LinkStat | Named::StatX => stat_at(dir, path, what),
        Named::ReadLink => read_link_at(dir, path),
        _ => observe(call),
    }
}

fn stat_at(dir: i32, path: *const c_char, what: Named) -> Outcome {
    // SAFETY: all-zero bytes are a status to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut statx: libc::statx = unsafe { mem::zeroed() };
    let mask = libc::STATX_BASIC_STATS;
    let no_follow = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the caller's path and the status live across the call.
    let outcome = observe(|| unsafe {
        match what {
            Named::Stat => libc::fstatat(dir, path, &raw mut stat, 0),
            Named::LinkStat => libc::fstatat(dir, path, &raw mut stat, no_follow),
            _ => libc::statx(dir, path, 0, mask, &raw mut statx),
        }
    });
    match what {
        Named::StatX => with_statx(outcome, &statx),
        _ => with_stat(outcome, &stat),
    }
}

/// Its result is not compared: links may have been made with whole paths.
fn read_link_at(dir: i32, path: *const c_char) -> Outcome {
    let mut buf = [0_u8; 256];
    // SAFETY: path and buffer live across the call.
    let outcome =
        observe_size(|| unsafe { libc::readlinkat(dir, path, buf.as_mut_ptr().cast(), buf.len()) });
    outcome.without_result()
}

/// The names in a directory, before and after a change to it.
pub(super) fn list_twice(world: &World, name: u8) -> Outcome {
    const NEW: &CStr = c"new";
    let path = world.path(name);
    let mut seen = Vec::new();
    let outcome = observe(|| {
        // SAFETY: the path lives across the call; the stream is used until it
        // is closed.
        unsafe {
            let dir = libc::opendir(path.as_ptr());
            if dir.is_null() {
                return -1;
            }
            seen.push(entries(dir));
            let fd = libc::openat(libc::dirfd(dir), NEW.as_ptr(), libc::O_CREAT, 0o600);
            libc::close(fd);
            libc::rewinddir(dir);
            seen.push(entries(dir));
            libc::unlinkat(libc::dirfd(dir), NEW.as_ptr(), 0);
            libc::rewinddir(dir);
            seen.push(entries(dir));
            libc::closedir(dir)
        }
    });
    outcome.with_bytes(seen.join(&b'|'))
}

/// The names that a stream still has, in order.
///
/// # Safety
///
/// `dir` is an open stream.
unsafe fn entries(dir: *mut libc::DIR) -> Vec<u8> {
    let mut names = Vec::new();
    // SAFETY: the caller's promise; an entry is used until the next one is read.
    unsafe {
        loop {
            let entry = libc::readdir(dir);
            if entry.is_null() {
                break;
            }
            names.push(CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec());
        }
    }
    names.sort_unstable();
    names.join(&b'/')
}

/// The names in a directory, in order.
fn list(path: *const c_char) -> Outcome {
    let mut names = Vec::new();
    let outcome = observe(|| {
        // SAFETY: the path lives across the call; the stream is used until it
        // is closed, and an entry until the next one is read.
        unsafe {
            let dir = libc::opendir(path);
            if dir.is_null() {
                return -1;
            }
            names = entries(dir);
            libc::closedir(dir)
        }
    });
    outcome.with_bytes(names)
}
