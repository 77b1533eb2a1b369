//! `fork(2)`, `wait(2)`, `posix_spawn(3)`, `system(3)`, `exit(3)`, `setuid(2)`
//! and its kin, `dlopen(3)`, `dlclose(3)`.
//!
//! Some of these depend on which thread calls them: they run on the OS thread's
//! own thread-local storage.

use std::ffi::{c_char, c_int, c_void};

use libc::{
    FILE, Lmid_t, gid_t, id_t, idtype_t, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t,
    rusage, siginfo_t, size_t, termios, uid_t, winsize,
};
use open_coroutine_core::io::Awaits;
use open_coroutine_core::runtime;
use open_coroutine_core::sched::{self, Hooks};

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
    forked(pid)
}

/// What `fork` has returned: in the child nothing of the runtime is left.
fn forked(pid: pid_t) -> pid_t {
    if pid == 0 {
        // SAFETY: in the child only the calling thread exists.
        unsafe { runtime::abandon() };
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

/// Makes a call that waits for a child unless its options say otherwise.
fn for_child<R>(options: c_int, call: impl FnOnce() -> R) -> R {
    if divert(Hooks::PROCESSES) && options & libc::WNOHANG == 0 {
        offload(Awaits::Others, call)
    } else {
        call()
    }
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
    for_child(options, call)
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
    for_child(options, call)
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
    for_child(options, call)
}

/// `wait(2)`
///
/// # Safety
///
/// The contract of `wait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: the caller's contract.
    unsafe { waitpid(-1, status, 0) }
}

/// `wait3(2)`
///
/// # Safety
///
/// The contract of `wait3(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    // SAFETY: the caller's contract.
    unsafe { wait4(-1, status, options, usage) }
}

offloaded! { PROCESSES, Others:
    /// `system(3)`
    fn system(command: *const c_char) -> c_int;
    /// `pclose(3)`
    fn pclose(stream: *mut FILE) -> c_int;
}

// The caller waits until the child has begun its program.
offloaded! { PROCESSES, System:
    /// `popen(3)`
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE;
    /// `posix_spawn(3)`
    fn posix_spawn(
        pid: *mut pid_t,
        path: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int;
    /// `posix_spawnp(3)`
    fn posix_spawnp(
        pid: *mut pid_t,
        file: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int;
}

/// `daemon(3)`: libc's own would fork without the hook.
///
/// # Safety
///
/// The contract of `daemon(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daemon(keeps_directory: c_int, keeps_streams: c_int) -> c_int {
    // SAFETY: the caller's contract; in the child, libc's functions with valid
    // arguments.
    unsafe {
        if !sched::on_coroutine() {
            let real = || real::daemon.get()(keeps_directory, keeps_streams);
            // It returns in the child alone.
            return forked(sched::on_thread_storage(real));
        }
        match fork() {
            -1 => return -1,
            0 => {}
            _ => libc::_exit(0),
        }
        if libc::setsid() == -1 || (keeps_directory == 0 && libc::chdir(c"/".as_ptr()) == -1) {
            return -1;
        }
        if keeps_streams == 0 {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            if null == -1 {
                return -1;
            }
            for stream in 0..3 {
                libc::dup2(null, stream);
            }
            if null > 2 {
                libc::close(null);
            }
        }
        0
    }
}

/// `forkpty(3)`: libc's own would fork without the hook.
///
/// # Safety
///
/// The contract of `forkpty(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forkpty(
    leader: *mut c_int,
    name: *mut c_char,
    terminal: *const termios,
    size: *const winsize,
) -> pid_t {
    // SAFETY: the caller's contract; in the child, libc's functions with valid
    // arguments.
    unsafe {
        if !sched::on_coroutine() {
            let real = || real::forkpty.get()(leader, name, terminal, size);
            return forked(sched::on_thread_storage(real));
        }
        let mut follower = -1;
        if libc::openpty(leader, &raw mut follower, name, terminal, size) == -1 {
            return -1;
        }
        let pid = fork();
        match pid {
            -1 => {
                libc::close(*leader);
                libc::close(follower);
            }
            0 => {
                libc::close(*leader);
                if libc::login_tty(follower) == -1 {
                    libc::_exit(1);
                }
            }
            _ => {
                libc::close(follower);
            }
        }
        pid
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
