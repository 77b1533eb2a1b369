//! `setuid(2)` and its kin on plain threads, while coroutines run.
//!
//! Credentials are per thread in Linux and per process in POSIX. So libc signals
//! every thread, and waits until the handler has cleared a flag in the storage of
//! each. On a worker that runs a coroutine the handler would clear it in the
//! coroutine's storage, and the caller would wait, and signal again, for as long
//! as the coroutine runs. So the handler is wrapped by one that runs it on the
//! storage of the OS thread.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::sched;
use crate::sys;

/// The signal that glibc keeps for this; its `sigaction` refuses it.
const SIGSETXID: usize = 33;

/// libc's handler. Static because signal dispositions belong to the process.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// `struct sigaction` of the kernel.
#[repr(C)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Wraps libc's handler, once per process. To be called after the first thread
/// was started, which is when libc installs it.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut action = Action {
            handler: 0,
            flags: 0,
            restorer: 0,
            mask: 0,
        };
        let call = |new: *const Action, old: *mut Action| {
            let size = mem::size_of::<u64>();
            let args = [SIGSETXID, new as usize, old as usize, size, 0, 0];
            // SAFETY: both are null or alive for the call.
            unsafe { sys::syscall(libc::SYS_rt_sigaction, args) }
        };
        if call(ptr::null(), &raw mut action) < 0 || action.handler <= libc::SIG_IGN {
            return;
        }
        // Release: pairs with the Acquire in `handle`.
        HANDLER.store(action.handler, Release);
        action.handler = handle as *const () as usize;
        call(&raw const action, ptr::null_mut());
    });
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // Acquire: pairs with the Release in `install`.
    let handler = HANDLER.load(Acquire);
    // The interrupted code may be about to read it, and the way back from the
    // thread's storage brings along the errno that is there.
    let errno = sys::errno();
    // SAFETY: libc's handler has this signature, and these are its arguments. It
    // makes a system call and clears a flag: it neither suspends nor unwinds.
    unsafe {
        let handler = mem::transmute::<usize, Handler>(handler);
        sched::on_thread_storage(|| handler(signal, info, context));
    }
    sys::set_errno(errno);
}
