//! The choice of the path, and results as libc functions return them.

use open_coroutine_core::{sched, sys};

/// Whether the calling function must suspend the coroutine that it runs on.
#[inline(always)]
pub(crate) fn divert() -> bool {
    sched::may_divert()
}

/// A raw result as a libc function returns it: -1 and `errno` on failure.
#[inline]
pub(crate) fn to_c(result: isize) -> isize {
    if result < 0 {
        sys::set_errno(-result as i32);
        return -1;
    }
    result
}

/// [`to_c`], for functions that return an `int`.
#[inline]
pub(crate) fn to_int(result: isize) -> libc::c_int {
    to_c(result) as libc::c_int
}

/// Runs a libc function on a thread of the pool; its `errno` comes back with it.
/// A pointer that `call` captures is the caller's, who waits.
pub(crate) fn offload<R: Send>(call: impl FnOnce() -> R) -> R {
    struct Carry<F>(F);
    // SAFETY: the calling coroutine waits while the pool's thread runs the
    // call, so whatever it refers to is used by one of them at a time; and a
    // libc function may be called on any thread.
    unsafe impl<F> Send for Carry<F> {}
    impl<F> Carry<F> {
        fn call<R>(self) -> R
        where
            F: FnOnce() -> R,
        {
            (self.0)()
        }
    }
    let carried = Carry(call);
    let (result, errno) = open_coroutine_core::io::offload(move || {
        let before = sys::errno();
        sys::set_errno(0);
        let result = carried.call();
        let errno = sys::errno();
        sys::set_errno(before);
        (result, errno)
    });
    if errno != 0 {
        sys::set_errno(errno);
    }
    result
}
