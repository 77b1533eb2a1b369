//! aarch64: the thread pointer is TPIDR_EL0; `struct pthread` lies below it,
//! a header of two words at it, and the variables of the modules above that.

use std::arch::asm;

use crate::sys;

/// Where the header keeps the pointer to the dynamic thread vector.
pub(super) const DTV: isize = 0;

/// Words of the header that hold addresses within the block or are not TLS.
pub(super) const PERSONAL: &[isize] = &[DTV];

/// Size of the header at the thread pointer.
const HEADER_SIZE: isize = 16;
/// `prctl` operation: which shadow stack (GCS) features are on.
const PR_GET_SHADOW_STACK_STATUS: usize = 74;
/// Valgrind client request: does it run this code?
const RUNNING_ON_VALGRIND: usize = 0x1001;

/// The address that thread-local variables are relative to.
#[inline(always)]
pub(super) fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// Replaces the thread-local storage of the calling thread.
///
/// # Safety
///
/// `pointer` is the thread pointer of an initialised block, and invariant 1 of
/// `tls` holds.
#[inline(always)]
pub(super) unsafe fn set_thread_pointer(pointer: *mut u8) {
    // SAFETY: as the caller promises. Without `nomem`, memory accesses stay on
    // their side of the instruction.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) pointer, options(nostack, preserves_flags)) };
}

/// Where `struct pthread` starts, relative to the thread pointer.
pub(super) fn descriptor(size: usize) -> isize {
    -(size as isize)
}

/// Bytes of a block below and above the thread pointer.
pub(super) fn span(static_size: usize, descriptor_size: usize) -> (usize, usize) {
    (descriptor_size, static_size)
}

/// Bytes in use below and above the thread pointer, when variables reach from
/// `low` to `high` relative to it.
pub(super) fn used(_low: isize, high: isize, descriptor_size: usize) -> (usize, usize) {
    (descriptor_size, high.max(HEADER_SIZE) as usize)
}

/// Writes the header words that `_dl_allocate_tls` leaves to its caller.
///
/// # Safety
///
/// `descriptor` is the `struct pthread` of a block that nobody uses.
pub(super) unsafe fn write_header(_block: *mut u8, descriptor: *mut u8) {
    // SAFETY: `multiple_threads` is the first field of `struct pthread`.
    unsafe { descriptor.cast::<u32>().write(1) };
}

/// Whether the calling thread's header looks as `write_header` writes it.
pub(super) fn is_header_as_expected() -> bool {
    true
}

/// Whether user code may write the thread pointer without a system call.
pub(super) fn can_switch() -> bool {
    true
}

/// Whether the processor checks return addresses against a second stack.
pub(super) fn has_shadow_stack() -> bool {
    let mut features = 0u64;
    let arguments = [
        PR_GET_SHADOW_STACK_STATUS,
        &raw mut features as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the operation writes 8 bytes to `features`, or fails.
    let result = unsafe { sys::syscall(libc::SYS_prctl, arguments) };
    result == 0 && features != 0
}

/// Whether valgrind runs the process.
pub(super) fn is_on_valgrind() -> bool {
    let request = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    let mut answer = 0usize;
    // SAFETY: valgrind recognises the sequence and replaces `answer`; to the
    // processor it rotates x12 by 128 bits in all.
    unsafe {
        asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            inout("x3") answer,
            in("x4") request.as_ptr(),
            in("x12") 0usize,
            options(nostack),
        );
    }
    answer != 0
}
