//! `fork(2)`, `wait(2)`, `exit(3)`, `setuid(2)` and its kin, `dlopen(3)`,
//! `dlclose(3)`.
//!
//! Some of these depend on which thread calls them: they run on the OS thread's
//! own thread-local storage.

use std::ffi::{c_char, c_int, c_void};

use libc::{Lmid_t, gid_t, id_t, idtype_t, pid_t, rusage, siginfo_t, size_t, uid_t};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::sync::futex;

use crate::convert::{divert, offload};
use crate::real;

/// `fork(2)`: the child's only thread goes on as the calling coroutine, and its
/// calls block.
///
/// # Safety
///
/// The contract of `fork(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> pid_t {
    // SAFETY: the caller's contract; libc looks at the thread's storage, and
    // its handlers for forks must not suspend.
    let pid =
        unsafe { sched::without_diversion(|| sched::on_thread_storage(|| real::fork.get()())) };
    if pid == 0 {
        sched::stop_diverting();
        futex::abandon();
    }
    pid
}

/// `vfork(2)`, as a [`fork`]: a child that shares the parent's memory would
/// change the coroutine's stack and the runtime's state.
///
/// # Safety
///
/// The contract of `vfork(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfork() -> pid_t {
    // SAFETY: the caller's contract.
    unsafe { fork() }
}

/// `waitpid(2)`
///
/// # Safety
///
/// The contract of `waitpid(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: the caller keeps what it passes valid until we return.
    let call = move || unsafe { real::waitpid.get()(pid, status, options) };
    if divert(Hooks::PROCESSES) && options & libc::WNOHANG == 0 {
        offload(Awaits::Others, call)
    } else {
        call()
    }
}

/// `wait4(2)`
///
/// # Safety
///
/// The contract of `wait4(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait4(
    pid: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: the caller keeps what it passes valid until we return.
    let call = move || unsafe { real::wait4.get()(pid, status, options, usage) };
    if divert(Hooks::PROCESSES) && options & libc::WNOHANG == 0 {
        offload(Awaits::Others, call)
    } else {
        call()
    }
}

/// `waitid(2)`
///
/// # Safety
///
/// The contract of `waitid(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> c_int {
    // SAFETY: the caller keeps what it passes valid until we return.
    let call = move || unsafe { real::waitid.get()(kind, id, info, options) };
    if divert(Hooks::PROCESSES) && options & libc::WNOHANG == 0 {
        offload(Awaits::Others, call)
    } else {
        call()
    }
}

/// `exit(3)`: what runs at exit is not suspended, because others would go on
/// while the process is taken down.
///
/// # Safety
///
/// The contract of `exit(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exit(status: c_int) -> ! {
    sched::stop_diverting();
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::exit.get()(status) }
}

/// `quick_exit(3)`, as `exit`.
///
/// # Safety
///
/// The contract of `quick_exit(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn quick_exit(status: c_int) -> ! {
    sched::stop_diverting();
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::quick_exit.get()(status) }
}

/// `dlopen(3)`: the library's thread-local variables get their initial values
/// in every coroutine.
///
/// # Safety
///
/// The contract of `dlopen(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's contract.
    open_library(|| unsafe { real::dlopen.get()(path, flags) })
}

/// `dlmopen(3)`, as `dlopen`.
///
/// # Safety
///
/// The contract of `dlmopen(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlmopen(
    namespace: Lmid_t,
    path: *const c_char,
    flags: c_int,
) -> *mut c_void {
    // SAFETY: the caller's contract.
    open_library(|| unsafe { real::dlmopen.get()(namespace, path, flags) })
}

fn open_library(open: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let Some(isolation) = sched::isolation() else {
        return open();
    };
    // SAFETY: libc looks at the thread's storage, and initialisers of the
    // library must not suspend while libc's lock is held.
    sched::without_diversion(|| unsafe {
        sched::on_thread_storage(|| isolation.around_dlopen(open))
    })
}

/// `dlclose(3)`: finalisers of the library must not suspend while libc's lock is
/// held.
///
/// # Safety
///
/// The contract of `dlclose(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlclose(library: *mut c_void) -> c_int {
    // SAFETY: the caller's contract; as for `dlopen`.
    sched::without_diversion(|| unsafe {
        sched::on_thread_storage(|| real::dlclose.get()(library))
    })
}

/// Declares functions that change the credentials of all threads: libc signals
/// every thread and waits for its answer, so it must see the calling thread's
/// own storage.
macro_rules! credentials {
    ($($name:ident($($argument:ident: $kind:ty),*) $man:literal;)*) => { $(
        #[doc = concat!("`", $man, "`")]
        ///
        /// # Safety
        ///
        /// The contract of the man page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> c_int {
            // SAFETY: the caller's contract; libc's function does not suspend.
            unsafe { sched::on_thread_storage(|| real::$name.get()($($argument),*)) }
        }
    )* };
}

credentials! {
    setuid(uid: uid_t) "setuid(2)";
    setgid(gid: gid_t) "setgid(2)";
    seteuid(uid: uid_t) "seteuid(2)";
    setegid(gid: gid_t) "setegid(2)";
    setreuid(real: uid_t, effective: uid_t) "setreuid(2)";
    setregid(real: gid_t, effective: gid_t) "setregid(2)";
    setresuid(real: uid_t, effective: uid_t, saved: uid_t) "setresuid(2)";
    setresgid(real: gid_t, effective: gid_t, saved: gid_t) "setresgid(2)";
    setgroups(count: size_t, groups: *const gid_t) "setgroups(2)";
}
