//! `fopencookie(3)`: stdio holds a stream's lock around the program's functions,
//! so in them hooked functions pass through.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use libc::{FILE, off64_t, size_t, ssize_t};
use open_coroutine_core::sched;

use crate::real;

/// `cookie_io_functions_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CookieFunctions {
    /// As `read(2)`.
    pub read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t>,
    /// As `write(2)`, but 0 on failure.
    pub write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t>,
    /// As `lseek(2)`.
    pub seek: Option<unsafe extern "C" fn(*mut c_void, *mut off64_t, c_int) -> c_int>,
    /// As `close(2)`.
    pub close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

/// The program's stream; our cookie, freed by [`close`].
struct Cookie {
    cookie: *mut c_void,
    functions: CookieFunctions,
}

impl Cookie {
    /// # Safety
    ///
    /// `cookie` is what `fopencookie` below made, not closed yet.
    unsafe fn of(cookie: *mut c_void) -> Self {
        // SAFETY: the caller's promise.
        let this = unsafe { &*cookie.cast::<Self>() };
        Self { ..*this }
    }
}

unsafe extern "C" fn read(cookie: *mut c_void, buf: *mut c_char, size: size_t) -> ssize_t {
    // SAFETY: stdio passes the cookie of an open stream.
    let this = unsafe { Cookie::of(cookie) };
    let Some(call) = this.functions.read else {
        return 0;
    };
    // SAFETY: as above; stdio's arguments.
    sched::without_diversion(|| unsafe { call(this.cookie, buf, size) })
}

unsafe extern "C" fn write(cookie: *mut c_void, buf: *const c_char, size: size_t) -> ssize_t {
    // SAFETY: as in `read`.
    let this = unsafe { Cookie::of(cookie) };
    let Some(call) = this.functions.write else {
        return 0;
    };
    // SAFETY: as in `read`.
    sched::without_diversion(|| unsafe { call(this.cookie, buf, size) })
}

unsafe extern "C" fn seek(cookie: *mut c_void, offset: *mut off64_t, whence: c_int) -> c_int {
    // SAFETY: as in `read`.
    let this = unsafe { Cookie::of(cookie) };
    let Some(call) = this.functions.seek else {
        return -1;
    };
    // SAFETY: as in `read`.
    sched::without_diversion(|| unsafe { call(this.cookie, offset, whence) })
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: as in `read`; stdio closes a stream once, so it is freed once.
    let this = unsafe { Box::from_raw(cookie.cast::<Cookie>()) };
    let Some(call) = this.functions.close else {
        return 0;
    };
    // SAFETY: as in `read`.
    sched::without_diversion(|| unsafe { call(this.cookie) })
}

/// `fopencookie(3)`
///
/// # Safety
///
/// The contract of `fopencookie(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopencookie(
    cookie: *mut c_void,
    mode: *const c_char,
    functions: CookieFunctions,
) -> *mut FILE {
    // What is missing stays missing: stdio knows what to do without.
    let enclosed = CookieFunctions {
        read: functions.read.map(|_| read as _),
        write: functions.write.map(|_| write as _),
        seek: functions.seek.map(|_| seek as _),
        close: Some(close),
    };
    let own = Box::into_raw(Box::new(Cookie { cookie, functions }));
    // SAFETY: the caller's contract; our functions expect our cookie.
    let file = unsafe { real::fopencookie.get()(own.cast::<c_void>(), mode, enclosed) };
    if ptr::eq(file, ptr::null()) {
        // SAFETY: made above; no stream has it.
        drop(unsafe { Box::from_raw(own) });
    }
    file
}
