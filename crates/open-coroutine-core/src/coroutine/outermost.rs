//! The outermost frame of a scheduled coroutine.
//!
//! The backtrace of a thread ends where the thread began. That of a coroutine
//! must end at its first frame: what lies beyond is the stack of the worker that
//! resumed it, which changes with every suspension, also with those in the middle
//! of a backtrace, while it is printed. So there is one frame whose unwind table
//! says that it has no caller, as that of a thread's start does. (A generator
//! never leaves its thread; its backtraces go on in its owner.)

use std::ffi::c_void;

type Call = unsafe extern "C" fn(*mut c_void);

cfg_select! {
    all(target_arch = "x86_64", not(windows)) => {
        std::arch::global_asm!(
            ".p2align 4",
            ".hidden open_coroutine_outermost_frame",
            ".globl open_coroutine_outermost_frame",
            ".type open_coroutine_outermost_frame,@function",
            "open_coroutine_outermost_frame:",
            ".cfi_startproc",
            ".cfi_undefined rip",
            // Also keeps the stack aligned to 16 at the call.
            "push rbp",
            "call rsi",
            "pop rbp",
            "ret",
            ".cfi_endproc",
            ".size open_coroutine_outermost_frame, . - open_coroutine_outermost_frame",
        );
    }
    all(target_arch = "aarch64", not(windows)) => {
        std::arch::global_asm!(
            ".p2align 4",
            ".hidden open_coroutine_outermost_frame",
            ".globl open_coroutine_outermost_frame",
            ".type open_coroutine_outermost_frame,@function",
            "open_coroutine_outermost_frame:",
            ".cfi_startproc",
            ".cfi_undefined x30",
            "stp x29, x30, [sp, #-16]!",
            "blr x1",
            "ldp x29, x30, [sp], #16",
            "ret",
            ".cfi_endproc",
            ".size open_coroutine_outermost_frame, . - open_coroutine_outermost_frame",
        );
    }
    _ => { compile_error!("no outermost frame for this platform"); }
}

unsafe extern "C" {
    /// Calls `call(argument)`.
    fn open_coroutine_outermost_frame(argument: *mut c_void, call: Call);
}

/// Runs `body` with this frame as the last one of backtraces. `body` must not
/// unwind: the process would abort.
pub(crate) fn outermost<F: FnOnce()>(body: F) {
    unsafe extern "C" fn call<F: FnOnce()>(body: *mut c_void) {
        // SAFETY: `outermost` passes a pointer to its `Option<F>`.
        let body = unsafe { &mut *body.cast::<Option<F>>() };
        body.take().expect("called once")();
    }
    let mut body = Some(body);
    // SAFETY: `body` lives across the call, and is what `call` expects.
    unsafe { open_coroutine_outermost_frame((&raw mut body).cast(), call::<F>) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::backtrace::Backtrace;

    #[inline(never)]
    fn inside() -> String {
        Backtrace::force_capture().to_string()
    }

    #[test]
    fn a_backtrace_ends_at_the_outermost_frame() {
        let mut trace = String::new();
        outermost(|| trace = inside());
        assert!(trace.contains("inside"), "{trace}");
        let test = "a_backtrace_ends_at_the_outermost_frame";
        let last = trace.lines().rfind(|line| line.contains(": "));
        assert!(last.unwrap().contains("outermost_frame"), "{trace}");
        // Its closure is there, its caller is not.
        assert!(!trace.contains(&format!("{test}\n")), "{trace}");
    }
}
