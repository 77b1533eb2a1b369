//! What interrupts a thread, and the code that it interrupts.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::ptr;

use super::{SignalSet, getpid, set_signal_mask, syscall};

/// A `siginfo_t` as `sigqueue(3)` fills it in.
#[repr(C)]
struct Queued {
    signal: c_int,
    error: c_int,
    code: c_int,
    padding: c_int,
    process: i32,
    user: u32,
    value: usize,
    rest: [u8; 96],
}

const _: () = assert!(mem::size_of::<Queued>() == mem::size_of::<libc::siginfo_t>());

/// Sends `signal` to a thread of this process, with a value.
pub fn queue_signal(thread: i32, signal: c_int, value: usize) {
    let process = getpid();
    let info = Queued {
        signal,
        error: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        process,
        user: 0,
        value,
        rest: [0; 96],
    };
    let args = [
        process as usize,
        thread as usize,
        signal as usize,
        &raw const info as usize,
        0,
        0,
    ];
    // SAFETY: reads a `siginfo_t`.
    unsafe { syscall(libc::SYS_rt_tgsigqueueinfo, args) };
}

/// Whether `info` is that of a signal which [`queue_signal`] sent with `value`.
pub fn is_queued_signal(info: &libc::siginfo_t, value: usize) -> bool {
    // SAFETY: the type has the size and, with this code, the layout.
    let queued = unsafe { &*ptr::from_ref(info).cast::<Queued>() };
    queued.code == libc::SI_QUEUE && queued.value == value
}

/// Sets the action of `signal`, which no hook sees. Returns the one before; `None`
/// if it failed.
///
/// # Safety
///
/// The handler only does what a signal handler may.
pub unsafe fn replace_action(signal: c_int, new: &libc::sigaction) -> Option<libc::sigaction> {
    type Sigaction =
        unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
    // SAFETY: the name is a C string.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"sigaction".as_ptr()) };
    let sigaction: Sigaction = if next.is_null() {
        libc::sigaction
    } else {
        // SAFETY: libc's function has this type.
        unsafe { mem::transmute::<*mut c_void, Sigaction>(next) }
    };
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut before = unsafe { mem::zeroed() };
    // SAFETY: both are valid; the caller's promise for the handler.
    (unsafe { sigaction(signal, new, &raw mut before) } == 0).then_some(before)
}

/// Where the code of the executable, or library, lies that this function is in.
pub fn executable_text() -> Range<usize> {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        text: *mut c_void,
    ) -> c_int {
        let here = executable_text as *const () as usize;
        // SAFETY: `dl_iterate_phdr` passes a valid description of an object, and
        // what we gave it.
        let (info, text) = unsafe { (&*info, &mut *text.cast::<Range<usize>>()) };
        for index in 0..info.dlpi_phnum {
            // SAFETY: there are that many headers.
            let header = unsafe { &*info.dlpi_phdr.add(index.into()) };
            let start = (info.dlpi_addr + header.p_vaddr) as usize;
            let segment = start..start + header.p_memsz as usize;
            if header.p_type == libc::PT_LOAD && segment.contains(&here) {
                *text = segment;
                return 1;
            }
        }
        0
    }
    let mut text = 0..0;
    // SAFETY: `look` is called with `text`.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut text).cast()) };
    text
}

/// Where the interrupted code was.
pub fn program_counter(context: &libc::ucontext_t) -> usize {
    cfg_select! {
        target_arch = "x86_64" => {
            context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
        }
        target_arch = "aarch64" => {
            context.uc_mcontext.pc as usize
        }
        _ => { compile_error!("no signal context for this architecture"); }
    }
}

/// The signals that were blocked in the interrupted code.
pub fn context_mask(context: &libc::ucontext_t) -> SignalSet {
    // SAFETY: the kernel's set is the first word of libc's.
    unsafe { ptr::from_ref(&context.uc_sigmask).cast::<SignalSet>().read() }
}

/// Makes a signal handler's return restore what is the calling thread's: its signal
/// mask and its alternate stack. The frame may be that of another thread. Until
/// then all signals are blocked.
pub fn refresh_context(context: &mut libc::ucontext_t) {
    let mask = set_signal_mask(SignalSet::MAX);
    // SAFETY: the kernel's set is the first word of libc's; without a new stack
    // the call only writes to `uc_stack`.
    unsafe {
        ptr::from_mut(&mut context.uc_sigmask)
            .cast::<SignalSet>()
            .write(mask);
        let stack = &raw mut context.uc_stack;
        syscall(libc::SYS_sigaltstack, [0, stack as usize, 0, 0, 0, 0]);
    }
}
