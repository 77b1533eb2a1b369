//! Connecting: refused, unanswered, and in time.

mod runtimes;
mod timing;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use runtimes::on_every_runtime;
use timing::assert_takes;

/// An address at which nobody listens.
fn closed_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A listener whose queue is full, and what fills it: the next connection gets
/// no answer.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: takes integers.
    assert_eq!(0, unsafe { libc::listen(listener.as_raw_fd(), 0) });
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(100);
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, limit) {
        clients.push(client);
        assert!(clients.len() < 100, "the queue has no end");
    }
    (listener, clients)
}

#[test]
fn a_refusing_port_is_an_error() {
    on_every_runtime(|| {
        let address = closed_address();
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(ErrorKind::ConnectionRefused, error.kind());
        let error = TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap_err();
        assert_eq!(ErrorKind::ConnectionRefused, error.kind());
    });
}

#[test]
fn a_time_limit_does_not_hinder_a_connection() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        let (server, peer) = listener.accept().unwrap();
        assert_eq!(client.local_addr().unwrap(), peer);
        assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    });
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_in_time() {
    on_every_runtime(|| {
        let (listener, _clients) = full_listener();
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_millis(150);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                open_coroutine::spawn(move || {
                    assert_takes(limit, || {
                        let error = TcpStream::connect_timeout(&address, limit).unwrap_err();
                        assert_eq!(ErrorKind::TimedOut, error.kind());
                    });
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn a_connection_waits_until_the_listener_has_room() {
    on_every_runtime(|| {
        let (listener, clients) = full_listener();
        let address = listener.local_addr().unwrap();
        let late = open_coroutine::spawn(move || TcpStream::connect(address).unwrap());
        open_coroutine::sleep(Duration::from_millis(20));
        assert!(!late.is_finished());
        for _ in &clients {
            listener.accept().unwrap();
        }
        let late = late.join().unwrap();
        assert_eq!(late.local_addr().unwrap(), listener.accept().unwrap().1);
    });
}
