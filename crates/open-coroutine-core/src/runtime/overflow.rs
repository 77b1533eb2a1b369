//! The report of a stack overflow.
//!
//! An access to a coroutine's guard page raises SIGSEGV. The handler here names
//! the coroutine and its stack size and aborts, as std does for threads. Any
//! other fault goes to whoever handled the signal before: std's own handler, a
//! crash reporter, or the default action.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::coroutine::Segment;
use crate::sched;
use crate::sys;

const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The handlers that were there before. Static because signal dispositions
/// belong to the process.
static PREVIOUS: Previous = Previous {
    is_set: AtomicBool::new(false),
    actions: UnsafeCell::new([const { None }; SIGNALS.len()]),
};

struct Previous {
    is_set: AtomicBool,
    actions: UnsafeCell<[Option<libc::sigaction>; SIGNALS.len()]>,
}

// SAFETY: `actions` is written once, before `is_set` is, and only read later.
unsafe impl Sync for Previous {}

/// Installs the handler, once per process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (index, &signal) in SIGNALS.iter().enumerate() {
            // SAFETY: all-zero bytes are a valid `sigaction`.
            let mut previous: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: as above.
            let mut action: libc::sigaction = unsafe { mem::zeroed() };
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: `handle` only does what a signal handler may.
            let result = unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) };
            if result == 0 {
                // SAFETY: only this closure writes, before `is_set`.
                unsafe { (*PREVIOUS.actions.get())[index] = Some(previous) };
            }
        }
        // Release: pairs with the Acquire in `pass_on`.
        PREVIOUS.is_set.store(true, Release);
    });
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo for these signals.
    let address = unsafe { (*info).si_addr() } as usize;
    match Segment::overflow_at(address) {
        Some(overflow) => report(overflow.stack_size),
        // SAFETY: the arguments of this very handler.
        None => unsafe { pass_on(signal, info, context) },
    }
}

fn report(stack_size: usize) -> ! {
    write_error(b"\ncoroutine '");
    let mut named = false;
    sched::with_current_name(|name| {
        named = true;
        write_error(name.as_bytes());
    });
    if !named {
        write_error(b"<not scheduled>");
    }
    write_error(b"' has overflowed its stack (");
    write_error(decimal(stack_size, &mut [0; 20]));
    write_error(b" bytes)\nfatal runtime error: stack overflow, aborting\n");
    // SAFETY: abort does not return and is async-signal-safe.
    unsafe { libc::abort() }
}

fn write_error(bytes: &[u8]) {
    // SAFETY: reads `bytes`. A failure leaves the report incomplete.
    unsafe {
        let arguments = [2, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
        sys::syscall(libc::SYS_write, arguments)
    };
}

/// `value` in decimal, without allocating.
fn decimal(mut value: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[first..];
        }
    }
}

/// # Safety
///
/// The arguments of a signal handler.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let index = SIGNALS.iter().position(|&known| known == signal);
    // Acquire: pairs with the Release in `install`.
    let previous = index
        .filter(|_| PREVIOUS.is_set.load(Acquire))
        .and_then(|index| {
            // SAFETY: not written any more.
            unsafe { (*PREVIOUS.actions.get())[index] }
        });
    let Some(previous) = previous else {
        return restore_default(signal);
    };
    match previous.sa_sigaction {
        libc::SIG_DFL => restore_default(signal),
        libc::SIG_IGN => {}
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Action = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: with SA_SIGINFO the handler has this signature.
            unsafe { mem::transmute::<usize, Action>(handler)(signal, info, context) }
        }
        handler => {
            // SAFETY: without SA_SIGINFO the handler has this signature.
            unsafe { mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal) }
        }
    }
}

/// The default action; the faulting instruction is then repeated and ends the
/// process.
fn restore_default(signal: c_int) {
    // SAFETY: all-zero bytes are a valid `sigaction`, and mean SIG_DFL.
    let action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: async-signal-safe; no handler is installed.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

/// Calls `body` with a stack for the handler.
pub(super) fn with_alternate_stack(body: &mut dyn FnMut()) {
    let _stack = AlternateStack::ensure();
    body();
}

/// A stack for the handler, for threads that have none: std makes one for its own
/// threads only, if its handler is installed.
struct AlternateStack(Vec<u8>);

impl AlternateStack {
    fn ensure() -> Self {
        // Room for the largest signal frames, the handler and those it calls.
        const SIZE: usize = 64 * 1024;
        // SAFETY: all-zero bytes are a valid `stack_t`.
        let mut current: libc::stack_t = unsafe { mem::zeroed() };
        // SAFETY: only asks.
        unsafe { libc::sigaltstack(ptr::null(), &raw mut current) };
        if current.ss_flags & libc::SS_DISABLE == 0 {
            return Self(Vec::new());
        }
        let mut memory = Vec::new();
        if memory.try_reserve_exact(SIZE).is_err() {
            // An overflow ends the process all the same, but without a report.
            return Self(memory);
        }
        let stack = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast::<c_void>(),
            ss_flags: 0,
            ss_size: SIZE,
        };
        // SAFETY: the memory stays until `drop` has disabled the stack.
        unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
        Self(memory)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        if self.0.capacity() != 0 {
            let disable = libc::stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: 0,
            };
            // SAFETY: the calling thread is the one that `ensure` was called on.
            unsafe { libc::sigaltstack(&raw const disable, ptr::null_mut()) };
        }
    }
}
