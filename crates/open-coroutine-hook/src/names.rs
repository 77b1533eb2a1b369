//! `getaddrinfo(3)`, `gethostbyname(3)`, `resolver(3)`, `getpwnam(3)` and their
//! kin: libc asks name servers and directories with sockets and files of its
//! own, so a thread of the pool waits for them.

use std::ffi::{c_char, c_int, c_uchar, c_ulong, c_void};

use libc::{addrinfo, gid_t, group, hostent, passwd, size_t, sockaddr, socklen_t, uid_t};
use open_coroutine_core::io::Awaits;

use crate::convert::offload;
use crate::real;

unsafe extern "C" {
    fn __h_errno_location() -> *mut c_int;
    fn __res_state() -> *mut Resolver;
    fn __res_ninit(state: *mut Resolver) -> c_int;
}

/// The start of `struct __res_state` of `resolv.h`.
#[repr(C)]
pub struct Resolver {
    retransmit: c_int,
    retry: c_int,
    options: c_ulong,
}

/// Of [`Resolver`]'s options: it has been initialised.
const RES_INIT: c_ulong = 1;

/// [`offload`], and `h_errno` comes back too.
fn look_up<R>(call: impl FnOnce() -> R) -> R {
    let (result, error) = offload(Awaits::System, move || {
        let result = call();
        // SAFETY: it is a thread's own variable.
        (result, unsafe { *__h_errno_location() })
    });
    // SAFETY: as above, the coroutine's.
    unsafe { *__h_errno_location() = error };
    result
}

/// [`look_up`] with the calling coroutine's state of the resolver, whose options
/// the program may have changed.
///
/// # Safety
///
/// `call` has the contract of a function that takes an initialised state.
unsafe fn query(call: impl FnOnce(*mut Resolver) -> c_int) -> c_int {
    // SAFETY: it is a thread's own variable, which lives as long as the task.
    let state = unsafe { __res_state() };
    look_up(move || {
        // SAFETY: the calling coroutine, whose state it is, waits.
        let is_ready = unsafe { (*state).options & RES_INIT != 0 || __res_ninit(state) == 0 };
        if is_ready { call(state) } else { -1 }
    })
}

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
    /// `getpwnam(3)`
    fn getpwnam(name: *const c_char) -> *mut passwd;
    /// `getpwuid(3)`
    fn getpwuid(uid: uid_t) -> *mut passwd;
    /// `getpwnam_r(3)`
    fn getpwnam_r(
        name: *const c_char,
        entry: *mut passwd,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut passwd
    ) -> c_int;
    /// `getpwuid_r(3)`
    fn getpwuid_r(
        uid: uid_t,
        entry: *mut passwd,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut passwd
    ) -> c_int;
    /// `getgrnam(3)`
    fn getgrnam(name: *const c_char) -> *mut group;
    /// `getgrgid(3)`
    fn getgrgid(gid: gid_t) -> *mut group;
    /// `getgrnam_r(3)`
    fn getgrnam_r(
        name: *const c_char,
        entry: *mut group,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut group
    ) -> c_int;
    /// `getgrgid_r(3)`
    fn getgrgid_r(
        gid: gid_t,
        entry: *mut group,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut group
    ) -> c_int;
    /// `getgrouplist(3)`
    fn getgrouplist(
        user: *const c_char,
        group: gid_t,
        groups: *mut gid_t,
        count: *mut c_int
    ) -> c_int;
}

shims! { NAMES:
    /// `gethostbyname(3)`
    fn gethostbyname(name: *const c_char) -> *mut hostent => {
        look_up(move || real::gethostbyname.get()(name))
    };
    /// `gethostbyname2(3)`
    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent => {
        look_up(move || real::gethostbyname2.get()(name, family))
    };
    /// `gethostbyaddr(3)`
    fn gethostbyaddr(addr: *const c_void, len: socklen_t, family: c_int) -> *mut hostent => {
        look_up(move || real::gethostbyaddr.get()(addr, len, family))
    };
    /// `gethostbyname_r(3)`
    fn gethostbyname_r(
        name: *const c_char,
        entry: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int
    ) -> c_int => look_up(move || {
        real::gethostbyname_r.get()(name, entry, buf, len, result, error)
    });
    /// `gethostbyname2_r(3)`
    fn gethostbyname2_r(
        name: *const c_char,
        family: c_int,
        entry: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int
    ) -> c_int => look_up(move || {
        real::gethostbyname2_r.get()(name, family, entry, buf, len, result, error)
    });
    /// `gethostbyaddr_r(3)`
    fn gethostbyaddr_r(
        addr: *const c_void,
        addr_len: socklen_t,
        family: c_int,
        entry: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int
    ) -> c_int => look_up(move || {
        real::gethostbyaddr_r.get()(addr, addr_len, family, entry, buf, len, result, error)
    });
    /// `res_query(3)`
    fn res_query(
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => query(move |state| {
        real::res_nquery.get()(state, name, class, kind, answer, len)
    });
    /// `res_search(3)`
    fn res_search(
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => query(move |state| {
        real::res_nsearch.get()(state, name, class, kind, answer, len)
    });
    /// `res_querydomain(3)`
    fn res_querydomain(
        name: *const c_char,
        domain: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => query(move |state| {
        real::res_nquerydomain.get()(state, name, domain, class, kind, answer, len)
    });
    /// `res_send(3)`
    fn res_send(
        question: *const c_uchar,
        question_len: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => query(move |state| {
        real::res_nsend.get()(state, question, question_len, answer, len)
    });
    /// `res_nquery(3)`
    fn res_nquery(
        state: *mut Resolver,
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => look_up(move || {
        real::res_nquery.get()(state, name, class, kind, answer, len)
    });
    /// `res_nsearch(3)`
    fn res_nsearch(
        state: *mut Resolver,
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => look_up(move || {
        real::res_nsearch.get()(state, name, class, kind, answer, len)
    });
    /// `res_nquerydomain(3)`
    fn res_nquerydomain(
        state: *mut Resolver,
        name: *const c_char,
        domain: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => look_up(move || {
        real::res_nquerydomain.get()(state, name, domain, class, kind, answer, len)
    });
    /// `res_nsend(3)`
    fn res_nsend(
        state: *mut Resolver,
        question: *const c_uchar,
        question_len: c_int,
        answer: *mut c_uchar,
        len: c_int
    ) -> c_int => look_up(move || {
        real::res_nsend.get()(state, question, question_len, answer, len)
    });
}
