//! `syscall(2)`: calls by number, of which those that have a function here go
//! there.

use std::ffi::{c_int, c_long, c_uint};
use std::ptr;

use libc::{mode_t, nfds_t, sigset_t, size_t, socklen_t};
use open_coroutine_core::sched;

use crate::convert::to_c;
use crate::futexes::{self, Futex};
use crate::{
    descriptors, files, masks, processes, real, signals, sockets, streams, threads, times, waiting,
};

/// `syscall(2)`. The variadic arguments are passed like any others on the
/// supported architectures.
///
/// # Safety
///
/// The contract of the system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let args = [a, b, c, d, e, f];
    // SAFETY: the caller's contract, in each call.
    unsafe {
        if let Some(result) = futex(number, args) {
            return to_c(result as isize) as c_long;
        }
        if let Some(result) = closing(number, args) {
            return result;
        }
        if sched::on_coroutine()
            && let Some(result) = waiting(number, args)
        {
            return result;
        }
        real::syscall.get()(number, a, b, c, d, e, f)
    }
}

/// The result of a futex call, if it concerns coroutines. Threads wake them, so
/// it may be made on any.
///
/// # Safety
///
/// The contract of the system call.
#[inline]
unsafe fn futex(number: c_long, args: [usize; 6]) -> Option<c_int> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller's contract, in each call.
    unsafe {
        match number {
            libc::SYS_futex => {
                let call = Futex {
                    word: a as *const u32,
                    operation: b as c_int,
                    value: c as u32,
                    d,
                    e,
                    f,
                };
                call.perform()
            }
            libc::SYS_futex_waitv => futexes::wait_for_any(args),
            futexes::SYS_FUTEX_WAIT => futexes::wait(args),
            futexes::SYS_FUTEX_WAKE => futexes::wake(args),
            futexes::SYS_FUTEX_REQUEUE => futexes::requeue(args),
            _ => None,
        }
    }
}

/// The result of a call that ends descriptors, of which those who wait on them
/// must learn from any thread.
///
/// # Safety
///
/// The contract of the system call.
unsafe fn closing(number: c_long, [a, b, c, ..]: [usize; 6]) -> Option<c_long> {
    // SAFETY: the caller's contract, in each call.
    let result = unsafe {
        match number {
            libc::SYS_close => descriptors::close(a as c_int),
            libc::SYS_close_range => descriptors::close_range(a as c_uint, b as c_uint, c as c_int),
            libc::SYS_dup3 => descriptors::dup3(a as c_int, b as c_int, c as c_int),
            libc::SYS_fcntl => descriptors::fcntl(a as c_int, b as c_int, c),
            libc::SYS_ioctl => descriptors::ioctl(a as c_int, b as _, c),
            _ => return closing_by_old_number(number, [a, b]),
        }
    };
    Some(result.into())
}

/// The result of a call that may wait, on a coroutine.
///
/// # Safety
///
/// The contract of the system call.
unsafe fn waiting(number: c_long, args: [usize; 6]) -> Option<c_long> {
    let [a, b, c, d, e, f] = args;
    let int = |value: usize| value as c_int;
    // SAFETY: the caller's contract, in each call.
    unsafe {
        let count = match number {
            libc::SYS_read => streams::read(int(a), b as _, c),
            libc::SYS_write => streams::write(int(a), b as _, c),
            libc::SYS_readv => streams::readv(int(a), b as _, int(c)),
            libc::SYS_writev => streams::writev(int(a), b as _, int(c)),
            libc::SYS_pread64 => streams::pread64(int(a), b as _, c, d as i64),
            libc::SYS_pwrite64 => streams::pwrite64(int(a), b as _, c, d as i64),
            libc::SYS_preadv => streams::preadv(int(a), b as _, int(c), d as i64),
            libc::SYS_pwritev => streams::pwritev(int(a), b as _, int(c), d as i64),
            // The fifth argument is the upper half of the offset on 32 bits.
            libc::SYS_preadv2 => streams::preadv2(int(a), b as _, int(c), d as i64, int(f)),
            libc::SYS_pwritev2 => streams::pwritev2(int(a), b as _, int(c), d as i64, int(f)),
            libc::SYS_recvfrom => {
                sockets::recvfrom(int(a), b as _, c as size_t, int(d), e as _, f as _)
            }
            libc::SYS_sendto => {
                sockets::sendto(int(a), b as _, c as size_t, int(d), e as _, f as socklen_t)
            }
            libc::SYS_recvmsg => sockets::recvmsg(int(a), b as _, int(c)),
            libc::SYS_sendmsg => sockets::sendmsg(int(a), b as _, int(c)),
            libc::SYS_copy_file_range => {
                files::copy_file_range(int(a), b as _, int(c), d as _, e, f as c_uint)
            }
            libc::SYS_splice => files::splice(int(a), b as _, int(c), d as _, e, f as c_uint),
            libc::SYS_sendfile => files::sendfile(int(a), int(b), c as _, d),
            libc::SYS_tee => files::tee(int(a), int(b), c, d as c_uint),
            libc::SYS_vmsplice => files::vmsplice(int(a), b as _, c, d as c_uint),
            _ => return waiting_for_status(number, args),
        };
        Some(count as c_long)
    }
}

/// [`waiting`], for calls that return an `int`.
///
/// # Safety
///
/// The contract of the system call.
unsafe fn waiting_for_status(number: c_long, args: [usize; 6]) -> Option<c_long> {
    let [a, b, c, d, e, _] = args;
    let int = |value: usize| value as c_int;
    // SAFETY: the caller's contract, in each call.
    let result = unsafe {
        match number {
            libc::SYS_accept => sockets::accept(int(a), b as _, c as _),
            libc::SYS_accept4 => sockets::accept4(int(a), b as _, c as _, int(d)),
            libc::SYS_connect => sockets::connect(int(a), b as _, c as socklen_t),
            libc::SYS_recvmmsg => sockets::recvmmsg(int(a), b as _, c as c_uint, int(d), e as _),
            libc::SYS_sendmmsg => sockets::sendmmsg(int(a), b as _, c as c_uint, int(d)),
            libc::SYS_ppoll => waiting::ppoll(a as _, b as nfds_t, c as _, d as _),
            libc::SYS_pselect6 => {
                let mask = mask_behind(args[5] as *const *const sigset_t);
                waiting::pselect(int(a), b as _, c as _, d as _, e as _, mask)
            }
            libc::SYS_epoll_pwait => waiting::epoll_pwait(int(a), b as _, int(c), int(d), e as _),
            libc::SYS_epoll_pwait2 => waiting::epoll_pwait2(int(a), b as _, int(c), d as _, e as _),
            libc::SYS_nanosleep => times::nanosleep(a as _, b as _),
            libc::SYS_clock_nanosleep => {
                match times::clock_nanosleep(int(a), int(b), c as _, d as _) {
                    0 => 0,
                    // The function returns what the call puts into `errno`.
                    error => to_c(-(error as isize)) as c_int,
                }
            }
            libc::SYS_openat => files::openat(int(a), b as _, int(c), d as mode_t),
            libc::SYS_statx => files::statx(int(a), b as _, int(c), d as c_uint, e as _),
            libc::SYS_fsync => files::fsync(int(a)),
            libc::SYS_fdatasync => files::fdatasync(int(a)),
            libc::SYS_flock => files::flock(int(a), int(b)),
            libc::SYS_wait4 => processes::wait4(int(a), b as _, int(c), d as _),
            libc::SYS_waitid if e == 0 => processes::waitid(a as _, b as _, c as _, int(d)),
            libc::SYS_sched_yield => threads::sched_yield(),
            _ => return of_signals(number, args).or_else(|| waiting_by_old_number(number, args)),
        }
    };
    Some(result.into())
}

/// The size of the kernel's sets of signals, with which glibc's begin. Calls with
/// another one fail.
const SET_SIZE: usize = 8;

/// [`waiting`], for calls about the caller's own signals.
///
/// # Safety
///
/// The contract of the system call.
unsafe fn of_signals(number: c_long, [a, b, c, d, ..]: [usize; 6]) -> Option<c_long> {
    // SAFETY: the caller's contract, in each call; of the sets only what the
    // kernel has of them is read and written.
    let result = unsafe {
        match number {
            libc::SYS_rt_sigprocmask if d == SET_SIZE => {
                masks::sigprocmask(a as c_int, b as _, c as _)
            }
            libc::SYS_rt_sigtimedwait if d == SET_SIZE => {
                signals::sigtimedwait(a as _, b as _, c as _)
            }
            libc::SYS_rt_sigsuspend if b == SET_SIZE => signals::sigsuspend(a as _),
            _ => return None,
        }
    };
    Some(result.into())
}

/// The mask of `pselect6`, which has no register left for its size: both are in
/// memory.
///
/// # Safety
///
/// `pair` is null or points to them.
unsafe fn mask_behind(pair: *const *const sigset_t) -> *const sigset_t {
    if pair.is_null() {
        return ptr::null();
    }
    // SAFETY: the caller's promise.
    unsafe { *pair }
}

cfg_select! {
    target_arch = "x86_64" => {
        /// [`closing`], for calls that newer architectures do without.
        ///
        /// # Safety
        ///
        /// The contract of the system call.
        unsafe fn closing_by_old_number(number: c_long, [a, b]: [usize; 2]) -> Option<c_long> {
            // SAFETY: the caller's contract.
            let replace = || unsafe { descriptors::dup2(a as c_int, b as c_int) };
            (number == libc::SYS_dup2).then(|| replace().into())
        }

        /// [`waiting`], for calls that newer architectures do without.
        ///
        /// # Safety
        ///
        /// The contract of the system call.
        unsafe fn waiting_by_old_number(number: c_long, args: [usize; 6]) -> Option<c_long> {
            let [a, b, c, d, e, _] = args;
            let int = |value: usize| value as c_int;
            // SAFETY: the caller's contract, in each call.
            let result = unsafe {
                match number {
                    libc::SYS_poll => waiting::poll(a as _, b as nfds_t, int(c)),
                    libc::SYS_select => waiting::select(int(a), b as _, c as _, d as _, e as _),
                    libc::SYS_epoll_wait => waiting::epoll_wait(int(a), b as _, int(c), int(d)),
                    libc::SYS_open => files::open(a as _, int(b), c as mode_t),
                    _ => return None,
                }
            };
            Some(result.into())
        }
    }
    _ => {
        /// There are none on this architecture.
        unsafe fn closing_by_old_number(_number: c_long, _args: [usize; 2]) -> Option<c_long> {
            None
        }

        /// There are none on this architecture.
        unsafe fn waiting_by_old_number(_number: c_long, _args: [usize; 6]) -> Option<c_long> {
            None
        }
    }
}
