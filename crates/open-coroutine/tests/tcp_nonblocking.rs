//! Who made a socket non-blocking gets `WouldBlock` at once.

mod runtimes;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use runtimes::on_every_runtime;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn reads_of_a_non_blocking_stream_return_at_once() {
    on_every_runtime(|| {
        let (mut client, mut server) = pair();
        // Seen to block once, and changed since.
        client.write_all(b"a").unwrap();
        assert_eq!(1, server.read(&mut [0; 8]).unwrap());
        server.set_nonblocking(true).unwrap();
        let kind = |server: &mut TcpStream| server.read(&mut [0; 8]).unwrap_err().kind();
        assert_eq!(ErrorKind::WouldBlock, kind(&mut server));
        assert_eq!(
            ErrorKind::WouldBlock,
            server.peek(&mut [0; 8]).unwrap_err().kind()
        );
        // The flag belongs to the open file: a duplicate has it too.
        let mut other = server.try_clone().unwrap();
        assert_eq!(ErrorKind::WouldBlock, kind(&mut other));
        other.set_nonblocking(false).unwrap();
        let reader = open_coroutine::spawn(move || server.read(&mut [0; 8]).unwrap());
        open_coroutine::sleep(Duration::from_millis(5));
        client.write_all(b"bc").unwrap();
        assert_eq!(2, reader.join().unwrap());
    });
}

#[test]
fn writes_of_a_non_blocking_stream_return_when_the_buffer_is_full() {
    on_every_runtime(|| {
        let (mut client, mut server) = pair();
        client.set_nonblocking(true).unwrap();
        let block = vec![7; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match client.write(&block) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(ErrorKind::WouldBlock, error.kind());
        drop(client);
        let mut all = Vec::new();
        assert_eq!(sent, server.read_to_end(&mut all).unwrap());
    });
}

#[test]
fn accept_of_a_non_blocking_listener_returns_at_once() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(ErrorKind::WouldBlock, listener.accept().unwrap_err().kind());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // What is accepted does not inherit the mode.
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(ErrorKind::WouldBlock, listener.accept().unwrap_err().kind());
        server
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let begin = Instant::now();
        assert_eq!(
            ErrorKind::WouldBlock,
            server.read(&mut [0; 8]).unwrap_err().kind()
        );
        assert!(begin.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn datagrams_and_local_streams_return_at_once() {
    on_every_runtime(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        assert_eq!(
            ErrorKind::WouldBlock,
            socket.recv(&mut [0; 8]).unwrap_err().kind()
        );
        assert_eq!(
            ErrorKind::WouldBlock,
            socket.recv_from(&mut [0; 8]).unwrap_err().kind()
        );
        let (mut one, _other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert_eq!(
            ErrorKind::WouldBlock,
            one.read(&mut [0; 8]).unwrap_err().kind()
        );
    });
}
