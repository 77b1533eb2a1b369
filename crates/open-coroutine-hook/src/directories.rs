//! Names of files: directories, links, renaming, attributes by path. They wait
//! for the disk on a thread of the pool.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libc::{DIR, dev_t, gid_t, mode_t, size_t, ssize_t, timespec, timeval, uid_t, utimbuf};

offloaded! { FILES, System:
    /// `mkdir(2)`
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int;
    /// `mkdirat(2)`
    fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int;
    /// `mkfifo(3)`
    fn mkfifo(path: *const c_char, mode: mode_t) -> c_int;
    /// `mkfifoat(3)`
    fn mkfifoat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int;
    /// `mknod(2)`
    fn mknod(path: *const c_char, mode: mode_t, device: dev_t) -> c_int;
    /// `mknodat(2)`
    fn mknodat(dir: c_int, path: *const c_char, mode: mode_t, device: dev_t) -> c_int;
    /// `rmdir(2)`
    fn rmdir(path: *const c_char) -> c_int;
    /// `unlink(2)`
    fn unlink(path: *const c_char) -> c_int;
    /// `unlinkat(2)`
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
    /// `remove(3)`
    fn remove(path: *const c_char) -> c_int;
    /// `rename(2)`
    fn rename(from: *const c_char, to: *const c_char) -> c_int;
    /// `renameat(2)`
    fn renameat(from_dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char) -> c_int;
    /// `renameat2(2)`
    fn renameat2(
        from_dir: c_int,
        from: *const c_char,
        to_dir: c_int,
        to: *const c_char,
        flags: c_uint
    ) -> c_int;
    /// `link(2)`
    fn link(from: *const c_char, to: *const c_char) -> c_int;
    /// `linkat(2)`
    fn linkat(
        from_dir: c_int,
        from: *const c_char,
        to_dir: c_int,
        to: *const c_char,
        flags: c_int
    ) -> c_int;
    /// `symlink(2)`
    fn symlink(from: *const c_char, to: *const c_char) -> c_int;
    /// `symlinkat(2)`
    fn symlinkat(from: *const c_char, dir: c_int, to: *const c_char) -> c_int;
    /// `readlink(2)`
    fn readlink(path: *const c_char, buf: *mut c_char, len: size_t) -> ssize_t;
    /// `readlinkat(2)`
    fn readlinkat(dir: c_int, path: *const c_char, buf: *mut c_char, len: size_t) -> ssize_t;
    /// `realpath(3)`
    fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char;
    /// `readlink(2)`, as programs call it that are compiled with
    /// `_FORTIFY_SOURCE`: `size` is that of the buffer.
    fn __readlink_chk(
        path: *const c_char,
        buf: *mut c_char,
        len: size_t,
        size: size_t
    ) -> ssize_t;
    /// `readlinkat(2)`, with the size of the buffer too
    fn __readlinkat_chk(
        dir: c_int,
        path: *const c_char,
        buf: *mut c_char,
        len: size_t,
        size: size_t
    ) -> ssize_t;
    /// `realpath(3)`, with the size of the buffer too
    fn __realpath_chk(
        path: *const c_char,
        resolved: *mut c_char,
        size: size_t
    ) -> *mut c_char;
    /// `opendir(3)`
    fn opendir(path: *const c_char) -> *mut DIR;
    /// `access(2)`
    fn access(path: *const c_char, mode: c_int) -> c_int;
    /// `faccessat(2)`
    fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int;
    /// `chdir(2)`
    fn chdir(path: *const c_char) -> c_int;
    /// `chmod(2)`
    fn chmod(path: *const c_char, mode: mode_t) -> c_int;
    /// `fchmodat(2)`
    fn fchmodat(dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int;
    /// `chown(2)`
    fn chown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int;
    /// `lchown(2)`
    fn lchown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int;
    /// `fchownat(2)`
    fn fchownat(
        dir: c_int,
        path: *const c_char,
        owner: uid_t,
        group: gid_t,
        flags: c_int
    ) -> c_int;
    /// `utime(2)`
    fn utime(path: *const c_char, times: *const utimbuf) -> c_int;
    /// `utimes(2)`
    fn utimes(path: *const c_char, times: *const timeval) -> c_int;
    /// `utimensat(2)`
    fn utimensat(dir: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int;
    /// `truncate(2)`
    fn truncate(path: *const c_char, length: libc::off_t) -> c_int;
    /// `truncate(2)`
    fn truncate64(path: *const c_char, length: libc::off64_t) -> c_int;
    /// `getxattr(2)`
    fn getxattr(
        path: *const c_char,
        name: *const c_char,
        value: *mut c_void,
        size: size_t
    ) -> ssize_t;
    /// `setxattr(2)`
    fn setxattr(
        path: *const c_char,
        name: *const c_char,
        value: *const c_void,
        size: size_t,
        flags: c_int
    ) -> c_int;
    /// `listxattr(2)`
    fn listxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t;
    /// `removexattr(2)`
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int;
    /// `statfs(2)`
    fn statfs(path: *const c_char, buf: *mut libc::statfs) -> c_int;
    /// `statfs(2)`
    fn statfs64(path: *const c_char, buf: *mut libc::statfs64) -> c_int;
    /// `statvfs(3)`
    fn statvfs(path: *const c_char, buf: *mut libc::statvfs) -> c_int;
    /// `statvfs(3)`
    fn statvfs64(path: *const c_char, buf: *mut libc::statvfs64) -> c_int;
    /// `mkdtemp(3)`
    fn mkdtemp(template: *mut c_char) -> *mut c_char;
    /// `mkstemp(3)`
    fn mkstemp(template: *mut c_char) -> c_int;
    /// `mkstemp(3)`
    fn mkstemp64(template: *mut c_char) -> c_int;
    /// `mkostemp(3)`
    fn mkostemp(template: *mut c_char, flags: c_int) -> c_int;
    /// `mkstemps(3)`
    fn mkstemps(template: *mut c_char, suffix_len: c_int) -> c_int;
}
