//! While a coroutine waits for a name server, the others of its worker go on.

mod runtimes;
mod waits;

use std::ffi::{c_char, c_int, c_uchar, c_ulong, c_void};
use std::net::{SocketAddr, UdpSocket};

use runtimes::on_every_driver;
use waits::ticks_during;

/// The start of `struct __res_state` of `resolv.h`.
#[repr(C)]
struct Resolver {
    retransmit: c_int,
    retry: c_int,
    options: c_ulong,
    servers: c_int,
    addresses: [libc::sockaddr_in; 3],
}

unsafe extern "C" {
    fn __res_state() -> *mut Resolver;
    fn __res_ninit(state: *mut Resolver) -> c_int;
    fn res_query(
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut c_uchar,
        len: c_int,
    ) -> c_int;
    fn gethostbyname(name: *const c_char) -> *mut c_void;
    fn __h_errno_location() -> *mut c_int;
}

const CLASS_IN: c_int = 1;
const TYPE_A: c_int = 1;
const HOST_NOT_FOUND: c_int = 1;

/// Answers one question with one address, or with "no such name".
fn answer(server: &UdpSocket, exists: bool) {
    let mut message = [0u8; 512];
    let (length, client) = server.recv_from(&mut message).unwrap();
    let mut reply = message[..length].to_vec();
    // A response; recursion is available; and whether the name exists.
    reply[2] |= 0x80;
    reply[3] = 0x80 | if exists { 0 } else { 3 };
    // One question; and no further records, but for the answer.
    reply[6..12].copy_from_slice(&[0, u8::from(exists), 0, 0, 0, 0]);
    // Drop what EDNS may have added after the question.
    let question = reply[12..].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
    reply.truncate(question);
    if exists {
        // The name of the question, type A, class IN, a minute, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    server.send_to(&reply, client).unwrap();
}

/// Has the calling coroutine's resolver ask `server`, which takes its time.
fn ask(server: SocketAddr) {
    let SocketAddr::V4(server) = server else {
        panic!("it is bound to an address of version 4")
    };
    // SAFETY: the state is the coroutine's own, and begins as `resolv.h` says.
    unsafe {
        let state = __res_state();
        assert_eq!(0, __res_ninit(state));
        (*state).servers = 1;
        (*state).retransmit = 60;
        (*state).addresses[0].sin_family = libc::AF_INET as u16;
        (*state).addresses[0].sin_port = server.port().to_be();
        (*state).addresses[0].sin_addr.s_addr = u32::from(*server.ip()).to_be();
    }
}

/// What a query for an address of `name` returns.
fn query() -> c_int {
    let mut reply = [0u8; 512];
    // SAFETY: a C string, and a buffer of this size.
    let length = unsafe {
        res_query(
            c"host.example".as_ptr(),
            CLASS_IN,
            TYPE_A,
            reply.as_mut_ptr(),
            512,
        )
    };
    if length > 0 {
        assert_eq!([192, 0, 2, 7], reply[length as usize - 4..length as usize]);
    }
    length
}

/// Has a coroutine ask a server that answers only when others have had their ticks, and
/// `check` what the query returns.
fn ticks_during_query(is_known: bool, check: fn(c_int)) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    ticks_during(
        move || {
            ask(address);
            check(query());
        },
        move || answer(&server, is_known),
    );
}

#[test]
fn during_a_query_by_the_coroutines_own_settings() {
    on_every_driver(1, || ticks_during_query(true, |length| assert!(length > 0)));
}

#[test]
fn an_error_of_a_query_is_the_coroutines() {
    on_every_driver(1, || {
        ticks_during_query(false, |result| {
            assert_eq!(-1, result);
            // SAFETY: the coroutine's own variable.
            assert_eq!(HOST_NOT_FOUND, unsafe { *__h_errno_location() });
        });
    });
}

#[test]
fn local_names_are_found_by_the_old_functions() {
    on_every_driver(1, || {
        // SAFETY: C strings; the results are not kept.
        unsafe {
            assert!(!gethostbyname(c"localhost".as_ptr()).is_null());
            assert!(!libc::getpwuid(0).is_null());
            assert!(libc::getpwnam(c"no such user".as_ptr()).is_null());
        }
    });
}
