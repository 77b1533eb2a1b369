//! What is asked of a thread by its `pthread_t`: stack, processors, scheduling,
//! name, signals, end.
//!
//! On a coroutine with thread-local storage of its own `pthread_self` is the
//! coroutine's, and the kernel knows no such thread: libc would crash, wait for
//! ever or give wrong answers. So there are three rules:
//!
//! * On the caller's own coroutine a function acts on the OS thread below it,
//!   as long as it runs there; stack and name are the coroutine's.
//! * Another coroutine is not found: `ESRCH`.
//! * What cannot work on a coroutine is refused, or ends the process with a
//!   message.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr;

use libc::{
    clockid_t, cpu_set_t, pthread_attr_t, pthread_mutexattr_t, pthread_t, sched_param, sigval,
    size_t,
};
use open_coroutine_core::{sched, sys, tls};

use crate::real;

/// Bytes of a thread's name, with the zero at the end.
const NAME_SIZE: usize = 16;

thread_local! {
    /// The name that `pthread_setname_np` gave this coroutine; empty is none.
    static NAME: Cell<[u8; NAME_SIZE]> = const { Cell::new([0; NAME_SIZE]) };
}

/// Whom a `pthread_t` means.
enum Target {
    /// A thread, or whatever libc makes of it.
    Thread,
    /// The coroutine that the caller runs on.
    Own,
    /// Another coroutine.
    Coroutine,
}

impl Target {
    /// # Safety
    ///
    /// `thread` is the id of a thread or coroutine that has not ended.
    unsafe fn of(thread: pthread_t) -> Self {
        // SAFETY: the caller's promise.
        if !unsafe { tls::is_block(thread as usize) } {
            Self::Thread
        // SAFETY: pthread_self has no requirements.
        } else if thread == unsafe { libc::pthread_self() } {
            Self::Own
        } else {
            Self::Coroutine
        }
    }
}

/// The thread that `call` is about, see the rules above.
///
/// # Safety
///
/// As for [`Target::of`]; `call` does not suspend.
unsafe fn with_thread(thread: pthread_t, call: impl FnOnce(pthread_t) -> c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { Target::of(thread) } {
        Target::Thread => call(thread),
        // SAFETY: pthread_self neither suspends nor unwinds.
        Target::Own => call(unsafe { sched::on_thread_storage(|| libc::pthread_self()) }),
        Target::Coroutine => libc::ESRCH,
    }
}

/// Whether `thread` can be joined as a thread: an error number if it is a
/// coroutine.
///
/// # Safety
///
/// As for [`Target::of`].
pub(crate) unsafe fn check_thread(thread: pthread_t) -> Result<(), c_int> {
    // SAFETY: the caller's promise.
    match unsafe { Target::of(thread) } {
        Target::Thread => Ok(()),
        Target::Own => Err(libc::EDEADLK),
        Target::Coroutine => Err(libc::ESRCH),
    }
}

/// `pthread_getattr_np(3)`: the stack is the coroutine's.
///
/// # Safety
///
/// The contract of `pthread_getattr_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getattr_np(
    thread: pthread_t,
    attributes: *mut pthread_attr_t,
) -> c_int {
    let get = |thread| {
        // SAFETY: the caller's contract, passed on unchanged.
        unsafe { real::pthread_getattr_np.get()(thread, attributes) }
    };
    // SAFETY: the caller's contract; pthread_self has no requirements.
    let result = unsafe { with_thread(thread, get) };
    // SAFETY: pthread_self has no requirements.
    let is_own = thread == unsafe { libc::pthread_self() };
    let Some(stack) = sched::current_stack().filter(|_| is_own && result == 0) else {
        return result;
    };
    // SAFETY: `get` has initialised the attributes.
    unsafe {
        libc::pthread_attr_setguardsize(attributes, sys::page_size());
        let start = ptr::with_exposed_provenance_mut(stack.start);
        libc::pthread_attr_setstack(attributes, start, stack.len())
    }
}

/// `pthread_getaffinity_np(3)`
///
/// # Safety
///
/// The contract of `pthread_getaffinity_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getaffinity_np(
    thread: pthread_t,
    size: size_t,
    set: *mut cpu_set_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_getaffinity_np.get()(thread, size, set)
        })
    }
}

/// `pthread_setaffinity_np(3)`: of the worker, whatever it runs next.
///
/// # Safety
///
/// The contract of `pthread_setaffinity_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setaffinity_np(
    thread: pthread_t,
    size: size_t,
    set: *const cpu_set_t,
) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_setaffinity_np.get()(thread, size, set)
        })
    }
}

/// `pthread_getschedparam(3)`
///
/// # Safety
///
/// The contract of `pthread_getschedparam(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getschedparam(
    thread: pthread_t,
    policy: *mut c_int,
    parameters: *mut sched_param,
) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_getschedparam.get()(thread, policy, parameters)
        })
    }
}

/// `pthread_setschedparam(3)`: of the worker, whatever it runs next.
///
/// # Safety
///
/// The contract of `pthread_setschedparam(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setschedparam(
    thread: pthread_t,
    policy: c_int,
    parameters: *const sched_param,
) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_setschedparam.get()(thread, policy, parameters)
        })
    }
}

/// `pthread_setschedprio(3)`: of the worker, whatever it runs next.
///
/// # Safety
///
/// The contract of `pthread_setschedprio(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setschedprio(thread: pthread_t, priority: c_int) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_setschedprio.get()(thread, priority)
        })
    }
}

/// `pthread_getcpuclockid(3)`: the clock of the worker.
///
/// # Safety
///
/// The contract of `pthread_getcpuclockid(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getcpuclockid(thread: pthread_t, clock: *mut clockid_t) -> c_int {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        with_thread(thread, |thread| {
            real::pthread_getcpuclockid.get()(thread, clock)
        })
    }
}

/// `pthread_kill(3)`
///
/// # Safety
///
/// The contract of `pthread_kill(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_kill(thread: pthread_t, signal: c_int) -> c_int {
    // SAFETY: the caller's contract, passed on.
    let result = unsafe { with_thread(thread, |thread| real::pthread_kill.get()(thread, signal)) };
    sent(thread, signal);
    result
}

/// Has a coroutine take along what it sent to itself, if it is blocked.
fn sent(thread: pthread_t, signal: c_int) {
    // SAFETY: pthread_self has no requirements.
    if thread == unsafe { libc::pthread_self() } {
        sched::sent_signal_to_self(signal);
    }
}

/// `pthread_sigqueue(3)`
///
/// # Safety
///
/// The contract of `pthread_sigqueue(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigqueue(
    thread: pthread_t,
    signal: c_int,
    value: sigval,
) -> c_int {
    // SAFETY: the caller's contract, passed on.
    let result = unsafe {
        with_thread(thread, |thread| {
            real::pthread_sigqueue.get()(thread, signal, value)
        })
    };
    sent(thread, signal);
    result
}

/// `pthread_setname_np(3)`: the worker keeps its name.
///
/// # Safety
///
/// The contract of `pthread_setname_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setname_np(thread: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    match unsafe { Target::of(thread) } {
        // SAFETY: the caller's contract, passed on unchanged.
        Target::Thread => unsafe { real::pthread_setname_np.get()(thread, name) },
        Target::Coroutine => libc::ESRCH,
        Target::Own => {
            // SAFETY: the caller passes a C string.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            if name.len() >= NAME_SIZE {
                return libc::ERANGE;
            }
            NAME.set(padded(name));
            0
        }
    }
}

/// `pthread_getname_np(3)`: what `pthread_setname_np` set, else the start of the
/// task's name, else the name of the worker.
///
/// # Safety
///
/// The contract of `pthread_getname_np(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getname_np(
    thread: pthread_t,
    name: *mut c_char,
    size: size_t,
) -> c_int {
    // SAFETY: the caller's contract.
    let own = match unsafe { Target::of(thread) } {
        Target::Own => own_name(),
        Target::Thread | Target::Coroutine => None,
    };
    let Some(own) = own else {
        // SAFETY: the caller's contract, passed on.
        return unsafe {
            with_thread(thread, |thread| {
                real::pthread_getname_np.get()(thread, name, size)
            })
        };
    };
    if size < NAME_SIZE {
        return libc::ERANGE;
    }
    // SAFETY: the caller keeps `size` bytes at `name` writable.
    unsafe { ptr::copy_nonoverlapping(own.as_ptr(), name.cast::<u8>(), NAME_SIZE) };
    0
}

/// The name of the calling coroutine, if it has one.
fn own_name() -> Option<[u8; NAME_SIZE]> {
    let set = NAME.get();
    if set[0] != 0 {
        return Some(set);
    }
    sched::with_current_task(|task| {
        task.meta()
            .name
            .as_deref()
            .map(|name| padded(name.as_bytes()))
    })
    .flatten()
}

/// As much of `name` as fits, with zeros after it.
fn padded(name: &[u8]) -> [u8; NAME_SIZE] {
    let mut padded = [0; NAME_SIZE];
    let length = name.len().min(NAME_SIZE - 1);
    padded[..length].copy_from_slice(&name[..length]);
    padded
}

/// `pthread_cancel(3)`: a coroutine is not cancelled like a thread; its frames
/// would be unwound as if they were a thread's.
///
/// # Safety
///
/// The contract of `pthread_cancel(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cancel(thread: pthread_t) -> c_int {
    // SAFETY: the caller's contract.
    match unsafe { Target::of(thread) } {
        // SAFETY: the caller's contract, passed on unchanged.
        Target::Thread => unsafe { real::pthread_cancel.get()(thread) },
        Target::Own => libc::ENOTSUP,
        Target::Coroutine => libc::ESRCH,
    }
}

/// `pthread_exit(3)`: ends the process on a coroutine, because libc would
/// unwind it as if it were a thread. (Other functions here let nothing unwind;
/// this one is how a thread's stack is unwound.)
///
/// # Safety
///
/// The contract of `pthread_exit(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    if sched::was_coroutine() {
        refuse_exit();
    }
    type Exit = unsafe extern "C-unwind" fn(*mut c_void) -> !;
    // SAFETY: the same function, whose type now says that it unwinds.
    let exit = unsafe {
        mem::transmute::<unsafe extern "C" fn(*mut c_void) -> !, Exit>(real::pthread_exit.get())
    };
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { exit(value) }
}

fn refuse_exit() -> ! {
    write_error(b"\ncoroutine '");
    sched::with_current_name(|name| write_error(name.as_bytes()));
    write_error(b"' has called pthread_exit, which only a thread can\nfatal runtime error: pthread_exit on a coroutine, aborting\n");
    // SAFETY: abort does not return.
    unsafe { libc::abort() }
}

fn write_error(bytes: &[u8]) {
    let arguments = [2, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: reads `bytes`. A failure leaves the message incomplete.
    unsafe { sys::syscall(libc::SYS_write, arguments) };
}

/// `pthread_mutexattr_setprotocol(3)`: for mutexes that inherit or have a
/// priority the kernel must know their owner.
///
/// # Safety
///
/// The contract of `pthread_mutexattr_setprotocol(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutexattr_setprotocol(
    attributes: *mut pthread_mutexattr_t,
    protocol: c_int,
) -> c_int {
    if protocol != libc::PTHREAD_PRIO_NONE && sched::was_coroutine() {
        return libc::ENOTSUP;
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::pthread_mutexattr_setprotocol.get()(attributes, protocol) }
}

/// `pthread_mutexattr_setrobust(3)`: the kernel gives up robust mutexes when a
/// thread ends, and does not notice the end of a coroutine.
///
/// # Safety
///
/// The contract of `pthread_mutexattr_setrobust(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutexattr_setrobust(
    attributes: *mut pthread_mutexattr_t,
    robustness: c_int,
) -> c_int {
    if robustness != libc::PTHREAD_MUTEX_STALLED && sched::was_coroutine() {
        return libc::ENOTSUP;
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::pthread_mutexattr_setrobust.get()(attributes, robustness) }
}
