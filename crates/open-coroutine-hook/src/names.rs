//! `getaddrinfo(3)`, `getnameinfo(3)`: libc asks name servers with sockets of
//! its own, so a thread of the pool waits for them.

use std::ffi::{c_char, c_int};

use libc::{addrinfo, sockaddr, socklen_t};

offloaded! { NAMES, System:
    /// `getaddrinfo(3)`
    fn getaddrinfo(
        node: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        result: *mut *mut addrinfo
    ) -> c_int;
    /// `getnameinfo(3)`
    fn getnameinfo(
        addr: *const sockaddr,
        addr_len: socklen_t,
        host: *mut c_char,
        host_len: socklen_t,
        service: *mut c_char,
        service_len: socklen_t,
        flags: c_int
    ) -> c_int;
}
