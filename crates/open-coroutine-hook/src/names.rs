//! `getaddrinfo(3)`, `getnameinfo(3)`: libc asks name servers with sockets of
//! its own, so a thread of the pool waits for them.

use std::ffi::{c_char, c_int};

use libc::{addrinfo, sockaddr, socklen_t};

use crate::convert::{divert, offload};
use crate::real;

/// `getaddrinfo(3)`
///
/// # Safety
///
/// The contract of `getaddrinfo(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    if !divert() {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::getaddrinfo.get()(node, service, hints, result) };
    }
    // SAFETY: the caller keeps what it passes valid until we return.
    offload(move || unsafe { real::getaddrinfo.get()(node, service, hints, result) })
}

/// `getnameinfo(3)`
///
/// # Safety
///
/// The contract of `getnameinfo(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getnameinfo(
    addr: *const sockaddr,
    addr_len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    let call = move || {
        let real = real::getnameinfo.get();
        // SAFETY: the caller's contract, passed on unchanged.
        unsafe { real(addr, addr_len, host, host_len, service, service_len, flags) }
    };
    if divert() { offload(call) } else { call() }
}
