//! libc's own functions, behind the replacements.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use libc::*;

use open_coroutine_core::sys;

use crate::callbacks::CookieFunctions;
use crate::names::Resolver;

/// One function of libc, looked up at its first use.
pub(crate) struct Real<F> {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
    kind: PhantomData<F>,
}

impl<F: Copy> Real<F> {
    const fn new(name: &'static CStr) -> Self {
        assert!(mem::size_of::<F>() == mem::size_of::<*mut c_void>());
        Self {
            name,
            address: AtomicPtr::new(ptr::null_mut()),
            kind: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> F {
        let mut address = self.address.load(Relaxed);
        if address.is_null() {
            address = self.find();
        }
        // SAFETY: `F` is the type of the function of this name: `real!` checks
        // it against the declaration in the libc crate.
        unsafe { mem::transmute_copy(&address) }
    }

    #[cold]
    fn find(&self) -> *mut c_void {
        // SAFETY: `name` is a C string; dlsym finds the next definition after
        // this object's, without allocating.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        let address = if address.is_null() {
            unavailable as *mut c_void
        } else {
            address
        };
        self.address.store(address, Relaxed);
        address
    }
}

/// Stands for a function that this libc is too old to have, and that a program
/// got from here all the same: it fails with `ENOSYS`. Its arguments are in
/// registers, which it leaves alone, and all such functions return numbers.
extern "C" fn unavailable() -> c_long {
    sys::set_errno(libc::ENOSYS);
    -1
}

/// A function of libc by name, and what replaces it here.
pub(crate) struct Replaced {
    pub(crate) name: &'static CStr,
    pub(crate) own: unsafe extern "C" fn(),
}

/// Declares libc functions as `real::name`, and lists them in `$list`.
macro_rules! real_with_abi {
    ($abi:literal $list:ident: $(fn $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        $(
            #[allow(non_upper_case_globals, reason = "named as in libc")]
            pub(crate) static $name: Real<unsafe extern $abi fn($($argument),*) -> $result> =
                Real::new(c_name(concat!(stringify!($name), "\0")));
        )*
        pub(crate) const $list: &[Replaced] = {
            mod own {
                // The functions of this crate, wherever they are; only for their
                // addresses.
                unsafe extern "C" {
                    $(pub(super) fn $name();)*
                }
            }
            &[$(Replaced {
                name: c_name(concat!(stringify!($name), "\0")),
                own: own::$name,
            }),*]
        };
    };
}

/// Functions that do not unwind.
macro_rules! real {
    ($list:ident: $($functions:tt)*) => { real_with_abi! { "C" $list: $($functions)* } };
}

/// Functions that `pthread_cancel` may end by unwinding.
macro_rules! real_unwinding {
    ($list:ident: $($functions:tt)*) => { real_with_abi! { "C-unwind" $list: $($functions)* } };
}

/// [`real!`], checked against the declarations of the libc crate.
macro_rules! real_checked {
    ($list:ident: $(fn $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        real! { $list: $(fn $name($($argument),*) -> $result;)* }
        $(const _: unsafe extern "C" fn($($argument),*) -> $result = libc::$name;)*
    };
}

const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("the macro appends the only zero"),
    }
}

type Callback = unsafe extern "C" fn(*mut dl_phdr_info, size_t, *mut c_void) -> c_int;
pub(crate) type Destructor = unsafe extern "C" fn(*mut c_void);
type Action = libc::sigaction;
type Stat = libc::stat;
type Stat64 = libc::stat64;
type Statx = libc::statx;
type Dirent = libc::dirent;
type Dirent64 = libc::dirent64;
type Statfs = libc::statfs;
type Statfs64 = libc::statfs64;
type Statvfs = libc::statvfs;
type Statvfs64 = libc::statvfs64;

real_checked! { CHECKED:
    fn recv(c_int, *mut c_void, size_t, c_int) -> ssize_t;
    fn send(c_int, *const c_void, size_t, c_int) -> ssize_t;
    fn recvfrom(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    fn sendto(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
    fn recvmsg(c_int, *mut msghdr, c_int) -> ssize_t;
    fn sendmsg(c_int, *const msghdr, c_int) -> ssize_t;
    fn socket(c_int, c_int, c_int) -> c_int;
    fn accept(c_int, *mut sockaddr, *mut socklen_t) -> c_int;
    fn accept4(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int;
    fn connect(c_int, *const sockaddr, socklen_t) -> c_int;
    fn setsockopt(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;
    fn read(c_int, *mut c_void, size_t) -> ssize_t;
    fn write(c_int, *const c_void, size_t) -> ssize_t;
    fn readv(c_int, *const iovec, c_int) -> ssize_t;
    fn writev(c_int, *const iovec, c_int) -> ssize_t;
    fn pread(c_int, *mut c_void, size_t, off_t) -> ssize_t;
    fn pread64(c_int, *mut c_void, size_t, off64_t) -> ssize_t;
    fn pwrite(c_int, *const c_void, size_t, off_t) -> ssize_t;
    fn pwrite64(c_int, *const c_void, size_t, off64_t) -> ssize_t;
    fn preadv(c_int, *const iovec, c_int, off_t) -> ssize_t;
    fn preadv64(c_int, *const iovec, c_int, off64_t) -> ssize_t;
    fn pwritev(c_int, *const iovec, c_int, off_t) -> ssize_t;
    fn pwritev64(c_int, *const iovec, c_int, off64_t) -> ssize_t;
    fn close(c_int) -> c_int;
    fn fclose(*mut FILE) -> c_int;
    fn dup(c_int) -> c_int;
    fn pipe(*mut c_int) -> c_int;
    fn pipe2(*mut c_int, c_int) -> c_int;
    fn socketpair(c_int, c_int, c_int, *mut c_int) -> c_int;
    fn eventfd(c_uint, c_int) -> c_int;
    fn timerfd_create(c_int, c_int) -> c_int;
    fn dup2(c_int, c_int) -> c_int;
    fn dup3(c_int, c_int, c_int) -> c_int;
    fn stat(*const c_char, *mut Stat) -> c_int;
    fn stat64(*const c_char, *mut Stat64) -> c_int;
    fn lstat(*const c_char, *mut Stat) -> c_int;
    fn lstat64(*const c_char, *mut Stat64) -> c_int;
    fn fstatat(c_int, *const c_char, *mut Stat, c_int) -> c_int;
    fn statx(c_int, *const c_char, c_int, c_uint, *mut Statx) -> c_int;
    fn fsync(c_int) -> c_int;
    fn fdatasync(c_int) -> c_int;
    fn ftruncate(c_int, off_t) -> c_int;
    fn ftruncate64(c_int, off64_t) -> c_int;
    fn fallocate(c_int, c_int, off_t, off_t) -> c_int;
    fn fallocate64(c_int, c_int, off64_t, off64_t) -> c_int;
    fn posix_fallocate(c_int, off_t, off_t) -> c_int;
    fn posix_fallocate64(c_int, off64_t, off64_t) -> c_int;
    fn sync_file_range(c_int, off64_t, off64_t, c_uint) -> c_int;
    fn syncfs(c_int) -> c_int;
    fn sync() -> ();
    fn msync(*mut c_void, size_t, c_int) -> c_int;
    fn flock(c_int, c_int) -> c_int;
    fn lockf(c_int, c_int, off_t) -> c_int;
    fn mkdir(*const c_char, mode_t) -> c_int;
    fn mkdirat(c_int, *const c_char, mode_t) -> c_int;
    fn mkfifo(*const c_char, mode_t) -> c_int;
    fn mkfifoat(c_int, *const c_char, mode_t) -> c_int;
    fn mknod(*const c_char, mode_t, dev_t) -> c_int;
    fn mknodat(c_int, *const c_char, mode_t, dev_t) -> c_int;
    fn rmdir(*const c_char) -> c_int;
    fn unlink(*const c_char) -> c_int;
    fn unlinkat(c_int, *const c_char, c_int) -> c_int;
    fn remove(*const c_char) -> c_int;
    fn rename(*const c_char, *const c_char) -> c_int;
    fn renameat(c_int, *const c_char, c_int, *const c_char) -> c_int;
    fn renameat2(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int;
    fn link(*const c_char, *const c_char) -> c_int;
    fn linkat(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int;
    fn symlink(*const c_char, *const c_char) -> c_int;
    fn symlinkat(*const c_char, c_int, *const c_char) -> c_int;
    fn readlink(*const c_char, *mut c_char, size_t) -> ssize_t;
    fn readlinkat(c_int, *const c_char, *mut c_char, size_t) -> ssize_t;
    fn access(*const c_char, c_int) -> c_int;
    fn faccessat(c_int, *const c_char, c_int, c_int) -> c_int;
    fn chdir(*const c_char) -> c_int;
    fn chmod(*const c_char, mode_t) -> c_int;
    fn fchmodat(c_int, *const c_char, mode_t, c_int) -> c_int;
    fn chown(*const c_char, uid_t, gid_t) -> c_int;
    fn lchown(*const c_char, uid_t, gid_t) -> c_int;
    fn fchownat(c_int, *const c_char, uid_t, gid_t, c_int) -> c_int;
    fn utime(*const c_char, *const utimbuf) -> c_int;
    fn utimes(*const c_char, *const timeval) -> c_int;
    fn utimensat(c_int, *const c_char, *const timespec, c_int) -> c_int;
    fn truncate(*const c_char, off_t) -> c_int;
    fn truncate64(*const c_char, off64_t) -> c_int;
    fn getxattr(*const c_char, *const c_char, *mut c_void, size_t) -> ssize_t;
    fn setxattr(*const c_char, *const c_char, *const c_void, size_t, c_int) -> c_int;
    fn listxattr(*const c_char, *mut c_char, size_t) -> ssize_t;
    fn removexattr(*const c_char, *const c_char) -> c_int;
    fn statfs(*const c_char, *mut Statfs) -> c_int;
    fn statfs64(*const c_char, *mut Statfs64) -> c_int;
    fn statvfs(*const c_char, *mut Statvfs) -> c_int;
    fn statvfs64(*const c_char, *mut Statvfs64) -> c_int;
    fn mkdtemp(*mut c_char) -> *mut c_char;
    fn mkstemp(*mut c_char) -> c_int;
    fn mkstemps(*mut c_char, c_int) -> c_int;
    fn mkostemp(*mut c_char, c_int) -> c_int;
    fn realpath(*const c_char, *mut c_char) -> *mut c_char;
    fn opendir(*const c_char) -> *mut DIR;
    fn readdir(*mut DIR) -> *mut Dirent;
    fn readdir64(*mut DIR) -> *mut Dirent64;
    fn readdir_r(*mut DIR, *mut Dirent, *mut *mut Dirent) -> c_int;
    fn readdir64_r(*mut DIR, *mut Dirent64, *mut *mut Dirent64) -> c_int;
    fn tee(c_int, c_int, size_t, c_uint) -> ssize_t;
    fn vmsplice(c_int, *const iovec, size_t, c_uint) -> ssize_t;
    fn copy_file_range(c_int, *mut off64_t, c_int, *mut off64_t, size_t, c_uint) -> ssize_t;
    fn sendfile(c_int, c_int, *mut off_t, size_t) -> ssize_t;
    fn sendfile64(c_int, c_int, *mut off64_t, size_t) -> ssize_t;
    fn splice(c_int, *mut off64_t, c_int, *mut off64_t, size_t, c_uint) -> ssize_t;
    fn preadv2(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    fn preadv64v2(c_int, *const iovec, c_int, off64_t, c_int) -> ssize_t;
    fn pwritev2(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    fn pwritev64v2(c_int, *const iovec, c_int, off64_t, c_int) -> ssize_t;
    fn recvmmsg(c_int, *mut mmsghdr, c_uint, c_int, *mut timespec) -> c_int;
    fn sendmmsg(c_int, *mut mmsghdr, c_uint, c_int) -> c_int;
    fn poll(*mut pollfd, nfds_t, c_int) -> c_int;
    fn ppoll(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;
    fn select(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *mut timeval) -> c_int;
    fn pselect(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *const timespec, *const sigset_t) -> c_int;
    fn epoll_pwait2(c_int, *mut epoll_event, c_int, *const timespec, *const sigset_t) -> c_int;
    fn epoll_wait(c_int, *mut epoll_event, c_int, c_int) -> c_int;
    fn epoll_pwait(c_int, *mut epoll_event, c_int, c_int, *const sigset_t) -> c_int;
    fn nanosleep(*const timespec, *mut timespec) -> c_int;
    fn clock_nanosleep(clockid_t, c_int, *const timespec, *mut timespec) -> c_int;
    fn usleep(c_uint) -> c_int;
    fn sleep(c_uint) -> c_uint;
    fn sched_yield() -> c_int;
    fn pthread_join(pthread_t, *mut *mut c_void) -> c_int;
    fn pthread_getattr_np(pthread_t, *mut pthread_attr_t) -> c_int;
    fn pthread_getaffinity_np(pthread_t, size_t, *mut cpu_set_t) -> c_int;
    fn pthread_setaffinity_np(pthread_t, size_t, *const cpu_set_t) -> c_int;
    fn pthread_getschedparam(pthread_t, *mut c_int, *mut sched_param) -> c_int;
    fn pthread_setschedparam(pthread_t, c_int, *const sched_param) -> c_int;
    fn pthread_setschedprio(pthread_t, c_int) -> c_int;
    fn pthread_getcpuclockid(pthread_t, *mut clockid_t) -> c_int;
    fn pthread_getname_np(pthread_t, *mut c_char, size_t) -> c_int;
    fn pthread_setname_np(pthread_t, *const c_char) -> c_int;
    fn pthread_kill(pthread_t, c_int) -> c_int;
    fn pthread_sigqueue(pthread_t, c_int, sigval) -> c_int;
    fn pthread_cancel(pthread_t) -> c_int;
    fn pthread_mutexattr_setprotocol(*mut pthread_mutexattr_t, c_int) -> c_int;
    fn pthread_mutexattr_setrobust(*mut pthread_mutexattr_t, c_int) -> c_int;
    fn pthread_key_create(*mut pthread_key_t, Option<Destructor>) -> c_int;
    fn pthread_key_delete(pthread_key_t) -> c_int;
    fn dl_iterate_phdr(Option<Callback>, *mut c_void) -> c_int;
    fn dlopen(*const c_char, c_int) -> *mut c_void;
    fn fork() -> pid_t;
    fn waitpid(pid_t, *mut c_int, c_int) -> pid_t;
    fn wait4(pid_t, *mut c_int, c_int, *mut rusage) -> pid_t;
    fn waitid(idtype_t, id_t, *mut siginfo_t, c_int) -> c_int;
    fn system(*const c_char) -> c_int;
    fn popen(*const c_char, *const c_char) -> *mut FILE;
    fn pclose(*mut FILE) -> c_int;
    fn posix_spawn(*mut pid_t, *const c_char, *const posix_spawn_file_actions_t, *const posix_spawnattr_t, *const *mut c_char, *const *mut c_char) -> c_int;
    fn posix_spawnp(*mut pid_t, *const c_char, *const posix_spawn_file_actions_t, *const posix_spawnattr_t, *const *mut c_char, *const *mut c_char) -> c_int;
    fn daemon(c_int, c_int) -> c_int;
    fn forkpty(*mut c_int, *mut c_char, *const termios, *const winsize) -> pid_t;
    fn exit(c_int) -> !;
    fn setuid(uid_t) -> c_int;
    fn setgid(gid_t) -> c_int;
    fn seteuid(uid_t) -> c_int;
    fn setegid(gid_t) -> c_int;
    fn setreuid(uid_t, uid_t) -> c_int;
    fn setregid(gid_t, gid_t) -> c_int;
    fn setresuid(uid_t, uid_t, uid_t) -> c_int;
    fn setresgid(gid_t, gid_t, gid_t) -> c_int;
    fn setgroups(size_t, *const gid_t) -> c_int;
    fn getaddrinfo(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;
    fn getpwnam(*const c_char) -> *mut passwd;
    fn getpwuid(uid_t) -> *mut passwd;
    fn getpwnam_r(*const c_char, *mut passwd, *mut c_char, size_t, *mut *mut passwd) -> c_int;
    fn getpwuid_r(uid_t, *mut passwd, *mut c_char, size_t, *mut *mut passwd) -> c_int;
    fn getgrnam(*const c_char) -> *mut group;
    fn getgrgid(gid_t) -> *mut group;
    fn getgrnam_r(*const c_char, *mut group, *mut c_char, size_t, *mut *mut group) -> c_int;
    fn getgrgid_r(gid_t, *mut group, *mut c_char, size_t, *mut *mut group) -> c_int;
    fn getgrouplist(*const c_char, gid_t, *mut gid_t, *mut c_int) -> c_int;
    fn mq_receive(mqd_t, *mut c_char, size_t, *mut c_uint) -> ssize_t;
    fn mq_send(mqd_t, *const c_char, size_t, c_uint) -> c_int;
    fn mq_timedreceive(mqd_t, *mut c_char, size_t, *mut c_uint, *const timespec) -> ssize_t;
    fn mq_timedsend(mqd_t, *const c_char, size_t, c_uint, *const timespec) -> c_int;
    fn msgrcv(c_int, *mut c_void, size_t, c_long, c_int) -> ssize_t;
    fn msgsnd(c_int, *const c_void, size_t, c_int) -> c_int;
    fn semop(c_int, *mut sembuf, size_t) -> c_int;
    fn aio_suspend(*const *const aiocb, c_int, *const timespec) -> c_int;
    fn lio_listio(c_int, *const *mut aiocb, c_int, *mut sigevent) -> c_int;
    fn getnameinfo(*const sockaddr, socklen_t, *mut c_char, socklen_t, *mut c_char, socklen_t, c_int) -> c_int;
}

// Variadic in C, and declared here with the arguments that they are called with;
// or declared in the libc crate without the null pointer that C allows; or
// unwinding, which the caller adds to the type; or not declared there at all.
real! { UNCHECKED:
    fn tcdrain(c_int) -> c_int;
    fn semtimedop(c_int, *mut sembuf, size_t, *const timespec) -> c_int;
    fn gethostbyname(*const c_char) -> *mut hostent;
    fn gethostbyname2(*const c_char, c_int) -> *mut hostent;
    fn gethostbyaddr(*const c_void, socklen_t, c_int) -> *mut hostent;
    fn gethostbyname_r(*const c_char, *mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int;
    fn gethostbyname2_r(*const c_char, c_int, *mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int;
    fn gethostbyaddr_r(*const c_void, socklen_t, c_int, *mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int;
    fn res_query(*const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_search(*const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_querydomain(*const c_char, *const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_send(*const c_uchar, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_nquery(*mut Resolver, *const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_nsearch(*mut Resolver, *const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_nquerydomain(*mut Resolver, *const c_char, *const c_char, c_int, c_int, *mut c_uchar, c_int) -> c_int;
    fn res_nsend(*mut Resolver, *const c_uchar, c_int, *mut c_uchar, c_int) -> c_int;
    fn closefrom(c_int) -> ();
    fn close_range(c_uint, c_uint, c_int) -> c_int;
    fn __read_chk(c_int, *mut c_void, size_t, size_t) -> ssize_t;
    fn __pread_chk(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t;
    fn __pread64_chk(c_int, *mut c_void, size_t, off64_t, size_t) -> ssize_t;
    fn __recv_chk(c_int, *mut c_void, size_t, size_t, c_int) -> ssize_t;
    fn __recvfrom_chk(c_int, *mut c_void, size_t, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    fn __readlink_chk(*const c_char, *mut c_char, size_t, size_t) -> ssize_t;
    fn __readlinkat_chk(c_int, *const c_char, *mut c_char, size_t, size_t) -> ssize_t;
    fn __realpath_chk(*const c_char, *mut c_char, size_t) -> *mut c_char;
    fn __poll_chk(*mut pollfd, nfds_t, c_int, size_t) -> c_int;
    fn __ppoll_chk(*mut pollfd, nfds_t, *const timespec, *const sigset_t, size_t) -> c_int;
    fn lockf64(c_int, c_int, off64_t) -> c_int;
    fn mkstemp64(*mut c_char) -> c_int;
    fn fcntl(c_int, c_int, usize) -> c_int;
    fn fcntl64(c_int, c_int, usize) -> c_int;
    fn ioctl(c_int, c_ulong, usize) -> c_int;
    fn pthread_exit(*mut c_void) -> !;
    fn pthread_once(*mut pthread_once_t, Option<unsafe extern "C" fn()>) -> c_int;
    fn open(*const c_char, c_int, mode_t) -> c_int;
    fn open64(*const c_char, c_int, mode_t) -> c_int;
    fn openat(c_int, *const c_char, c_int, mode_t) -> c_int;
    fn openat64(c_int, *const c_char, c_int, mode_t) -> c_int;
    fn __open_2(*const c_char, c_int) -> c_int;
    fn __open64_2(*const c_char, c_int) -> c_int;
    fn __openat_2(c_int, *const c_char, c_int) -> c_int;
    fn __openat64_2(c_int, *const c_char, c_int) -> c_int;
    fn syscall(c_long, usize, usize, usize, usize, usize, usize) -> c_long;
}

real_checked! { LOCKS:
    fn pthread_mutex_lock(*mut pthread_mutex_t) -> c_int;
    fn pthread_mutex_trylock(*mut pthread_mutex_t) -> c_int;
    fn pthread_mutex_timedlock(*mut pthread_mutex_t, *const timespec) -> c_int;
    fn pthread_mutex_unlock(*mut pthread_mutex_t) -> c_int;
    fn pthread_cond_signal(*mut pthread_cond_t) -> c_int;
    fn pthread_cond_broadcast(*mut pthread_cond_t) -> c_int;
    fn pthread_rwlock_rdlock(*mut pthread_rwlock_t) -> c_int;
    fn pthread_rwlock_wrlock(*mut pthread_rwlock_t) -> c_int;
    fn pthread_rwlock_unlock(*mut pthread_rwlock_t) -> c_int;
    fn pthread_barrier_wait(*mut pthread_barrier_t) -> c_int;
    fn pthread_spin_lock(*mut pthread_spinlock_t) -> c_int;
    fn pthread_tryjoin_np(pthread_t, *mut *mut c_void) -> c_int;
    fn sem_post(*mut sem_t) -> c_int;
}

// Not in the libc crate. C11's types are pthread's in glibc.
real! { LOCKS_UNCHECKED:
    fn pthread_mutex_clocklock(*mut pthread_mutex_t, clockid_t, *const timespec) -> c_int;
    fn pthread_rwlock_timedrdlock(*mut pthread_rwlock_t, *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(*mut pthread_rwlock_t, *const timespec) -> c_int;
    fn pthread_rwlock_clockrdlock(*mut pthread_rwlock_t, clockid_t, *const timespec) -> c_int;
    fn pthread_rwlock_clockwrlock(*mut pthread_rwlock_t, clockid_t, *const timespec) -> c_int;
    fn mtx_lock(*mut pthread_mutex_t) -> c_int;
    fn mtx_timedlock(*mut pthread_mutex_t, *const timespec) -> c_int;
    fn mtx_unlock(*mut pthread_mutex_t) -> c_int;
    fn cnd_signal(*mut pthread_cond_t) -> c_int;
    fn cnd_broadcast(*mut pthread_cond_t) -> c_int;
    fn thrd_yield() -> ();
    fn call_once(*mut pthread_once_t, Option<unsafe extern "C" fn()>) -> ();
    fn tss_create(*mut pthread_key_t, Option<Destructor>) -> c_int;
    fn tss_delete(pthread_key_t) -> ();
}

real_unwinding! { LOCKS_UNWINDING:
    fn pthread_cond_wait(*mut pthread_cond_t, *mut pthread_mutex_t) -> c_int;
    fn pthread_cond_timedwait(*mut pthread_cond_t, *mut pthread_mutex_t, *const timespec) -> c_int;
    fn pthread_cond_clockwait(*mut pthread_cond_t, *mut pthread_mutex_t, clockid_t, *const timespec) -> c_int;
    fn pthread_timedjoin_np(pthread_t, *mut *mut c_void, *const timespec) -> c_int;
    fn pthread_clockjoin_np(pthread_t, *mut *mut c_void, clockid_t, *const timespec) -> c_int;
    fn sem_wait(*mut sem_t) -> c_int;
    fn sem_timedwait(*mut sem_t, *const timespec) -> c_int;
    fn sem_clockwait(*mut sem_t, clockid_t, *const timespec) -> c_int;
    fn cnd_wait(*mut pthread_cond_t, *mut pthread_mutex_t) -> c_int;
    fn cnd_timedwait(*mut pthread_cond_t, *mut pthread_mutex_t, *const timespec) -> c_int;
    fn thrd_join(pthread_t, *mut c_int) -> c_int;
    fn thrd_sleep(*const timespec, *mut timespec) -> c_int;
}

real_checked! { SIGNALS:
    fn sigaction(c_int, *const Action, *mut Action) -> c_int;
    fn signal(c_int, sighandler_t) -> sighandler_t;
    fn pthread_sigmask(c_int, *const sigset_t, *mut sigset_t) -> c_int;
    fn sigprocmask(c_int, *const sigset_t, *mut sigset_t) -> c_int;
    fn sigwait(*const sigset_t, *mut c_int) -> c_int;
    fn sigwaitinfo(*const sigset_t, *mut siginfo_t) -> c_int;
    fn sigtimedwait(*const sigset_t, *mut siginfo_t, *const timespec) -> c_int;
    fn sigsuspend(*const sigset_t) -> c_int;
    fn pause() -> c_int;
    fn raise(c_int) -> c_int;
    fn dlmopen(Lmid_t, *const c_char, c_int) -> *mut c_void;
    fn dlclose(*mut c_void) -> c_int;
}

// Not in the libc crate.
real! { SIGNALS_UNCHECKED:
    fn quick_exit(c_int) -> !;
    fn fopencookie(*mut c_void, *const c_char, CookieFunctions) -> *mut FILE;
}
