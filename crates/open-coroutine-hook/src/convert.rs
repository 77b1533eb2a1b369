//! The choice of the path, and results as libc functions return them.

use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::sys;

/// Whether the calling function, one of `family`, must suspend the coroutine
/// that it runs on.
#[inline(always)]
pub(crate) fn divert(family: Hooks) -> bool {
    sched::may_divert(family)
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

/// Runs a libc function on a thread of a pool; its `errno` comes back with it.
/// A pointer that `call` captures is the caller's, who waits.
pub(crate) fn offload<R>(awaits: Awaits, call: impl FnOnce() -> R) -> R {
    struct Carry<T>(T);
    // SAFETY: the calling coroutine waits while the pool's thread runs the
    // call, so whatever it and its result refer to is used by one of them at a
    // time; and a libc function may be called on any thread.
    unsafe impl<T> Send for Carry<T> {}
    impl<T> Carry<T> {
        fn take(self) -> T {
            self.0
        }
    }
    let call = Carry(call);
    let (result, errno) = io::offload(awaits, move || {
        let before = sys::errno();
        sys::set_errno(0);
        let result = call.take()();
        let errno = sys::errno();
        sys::set_errno(before);
        (Carry(result), errno)
    });
    if errno != 0 {
        sys::set_errno(errno);
    }
    result.take()
}

/// Declares functions with libc's names that are `$diverted` on a coroutine, and
/// libc's own elsewhere.
macro_rules! shims {
    ($family:ident: $(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty => $diverted:expr;
    )*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The contract of the man page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            if !$crate::convert::divert(open_coroutine_core::sched::Hooks::$family) {
                // SAFETY: the caller's contract, passed on unchanged.
                return unsafe { $crate::real::$name.get()($($argument),*) };
            }
            // SAFETY: the caller keeps what it passes valid until we return,
            // and is a coroutine.
            unsafe { $diverted }
        }
    )* };
}

/// Declares functions with libc's names that block a thread of a pool for a
/// coroutine, and are libc's own elsewhere.
macro_rules! offloaded {
    ($family:ident, $awaits:ident: $(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;
    )*) => { $(
        shims! { $family:
            $(#[$doc])*
            fn $name($($argument: $kind),*) -> $result => $crate::convert::offload(
                open_coroutine_core::io::Awaits::$awaits,
                move || $crate::real::$name.get()($($argument),*)
            );
        }
    )* };
}
