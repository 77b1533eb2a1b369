//! x86_64: the thread pointer is FS base; `struct pthread` lies at it, and the
//! variables of the loaded modules below it.

use std::arch::asm;
use std::ffi::c_long;

use crate::sys;

/// Where the header keeps the pointer to the dynamic thread vector.
pub(super) const DTV: isize = 8;

/// Words of the header that hold addresses within the block or are not TLS.
pub(super) const PERSONAL: &[isize] = &[TCB, DTV, SELF];

const TCB: isize = 0;
const SELF: isize = 0x10;
const MULTIPLE_THREADS: isize = 0x18;
/// Stack guard, pointer guard and `feature_1`: the same in every thread.
const GUARDS: [isize; 3] = [0x28, 0x30, 0x48];

/// Bit of `AT_HWCAP2`: the kernel lets user code write FS base.
const HWCAP2_FSGSBASE: u64 = 1 << 1;
/// `arch_prctl` operation: which shadow stack features are on.
const ARCH_SHSTK_STATUS: usize = 0x5005;
/// Valgrind client request: does it run this code?
const RUNNING_ON_VALGRIND: usize = 0x1001;

/// The address that thread-local variables are relative to.
#[inline(always)]
pub(super) fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: the ABI puts the thread pointer's own value at fs:0.
    unsafe { asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// Replaces the thread-local storage of the calling thread.
///
/// # Safety
///
/// `pointer` is the thread pointer of an initialised block, the processor has
/// FSGSBASE, and invariant 1 of `tls` holds.
#[inline(always)]
pub(super) unsafe fn set_thread_pointer(pointer: *mut u8) {
    // SAFETY: as the caller promises. Without `nomem`, memory accesses stay on
    // their side of the instruction.
    unsafe { asm!("wrfsbase {}", in(reg) pointer, options(nostack, preserves_flags)) };
}

/// Where `struct pthread` starts, relative to the thread pointer.
pub(super) fn descriptor(_size: usize) -> isize {
    0
}

/// Bytes of a block below and above the thread pointer.
pub(super) fn span(static_size: usize, descriptor_size: usize) -> (usize, usize) {
    (
        static_size.saturating_sub(descriptor_size),
        descriptor_size,
    )
}

/// Bytes in use below and above the thread pointer, when variables reach from
/// `low` to `high` relative to it.
pub(super) fn used(low: isize, _high: isize, descriptor_size: usize) -> (usize, usize) {
    (low.min(0).unsigned_abs(), descriptor_size)
}

/// Writes the header words that `_dl_allocate_tls` leaves to its caller.
///
/// # Safety
///
/// `block` is the thread pointer of a block that nobody uses.
pub(super) unsafe fn write_header(block: *mut u8, _descriptor: *mut u8) {
    let own = thread_pointer();
    // SAFETY: all offsets lie in the header of `struct pthread`, which starts
    // at the thread pointer, of the given block and of the calling thread.
    unsafe {
        block.offset(TCB).cast::<*mut u8>().write(block);
        block.offset(SELF).cast::<*mut u8>().write(block);
        block.offset(MULTIPLE_THREADS).cast::<u32>().write(1);
        for offset in GUARDS {
            let guard = own.offset(offset).cast::<u64>().read();
            block.offset(offset).cast::<u64>().write(guard);
        }
    }
}

/// Whether the calling thread's header looks as `write_header` writes it.
pub(super) fn is_header_as_expected() -> bool {
    let own = thread_pointer();
    // SAFETY: reads the calling thread's header.
    unsafe {
        own.offset(TCB).cast::<*mut u8>().read() == own
            && own.offset(SELF).cast::<*mut u8>().read() == own
    }
}

/// Whether user code may write the thread pointer without a system call.
pub(super) fn can_switch() -> bool {
    // SAFETY: getauxval only reads.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

/// Whether the processor checks return addresses against a second stack.
pub(super) fn has_shadow_stack() -> bool {
    let mut features = 0u64;
    let number: c_long = libc::SYS_arch_prctl;
    let arguments = [ARCH_SHSTK_STATUS, &raw mut features as usize, 0, 0, 0, 0];
    // SAFETY: the operation writes 8 bytes to `features`, or fails.
    let result = unsafe { sys::syscall(number, arguments) };
    result == 0 && features != 0
}

/// Whether valgrind runs the process.
pub(super) fn is_on_valgrind() -> bool {
    let request = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    let mut answer = 0usize;
    // SAFETY: valgrind recognises the sequence and replaces `answer`; to the
    // processor it rotates rdi by 128 bits in all, and exchanges rbx with itself.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") answer,
            in("rdi") 0usize,
            options(nostack),
        );
    }
    answer != 0
}
