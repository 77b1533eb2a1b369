//! Unix sockets: by pair, by path, by abstract name.

mod runtimes;

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use runtimes::on_every_runtime;

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "open-coroutine-{}-{}",
        process::id(),
        NEXT.fetch_add(1, Relaxed)
    )
}

/// Answers each connection with what it sends, reversed.
fn serve(listener: &UnixListener, connections: usize) {
    for stream in listener.incoming().take(connections) {
        let mut stream = stream.unwrap();
        open_coroutine::spawn(move || {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            request.reverse();
            stream.write_all(&request).unwrap();
        });
    }
}

fn ask(mut stream: UnixStream) {
    stream.write_all(b"drawer").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!("reward", answer);
}

#[test]
fn a_listener_at_a_path_serves_many() {
    on_every_runtime(|| {
        let path = std::env::temp_dir().join(unique_name());
        let listener = UnixListener::bind(&path).unwrap();
        let server = open_coroutine::spawn(move || serve(&listener, 500));
        // More than the listener's queue takes: connecting waits.
        let clients: Vec<_> = (0..500)
            .map(|_| {
                let path = path.clone();
                open_coroutine::spawn(move || ask(UnixStream::connect(path).unwrap()))
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_listener_with_an_abstract_name_serves_many() {
    on_every_runtime(|| {
        let address = SocketAddr::from_abstract_name(unique_name()).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let server = open_coroutine::spawn(move || serve(&listener, 20));
        for _ in 0..20 {
            ask(UnixStream::connect_addr(&address).unwrap());
        }
        server.join().unwrap();
    });
}

#[test]
fn a_megabyte_goes_through_a_pair() {
    on_every_runtime(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let writer = open_coroutine::spawn(move || one.write_all(&vec![7; 1 << 20]).unwrap());
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        assert_eq!(vec![7; 1 << 20], all);
        writer.join().unwrap();
    });
}

#[test]
fn datagrams_reach_a_path() {
    on_every_runtime(|| {
        let path = std::env::temp_dir().join(unique_name());
        let receiver = UnixDatagram::bind(&path).unwrap();
        let task = open_coroutine::spawn(move || {
            let mut buffer = [0; 16];
            let (count, from) = receiver.recv_from(&mut buffer).unwrap();
            assert!(from.is_unnamed());
            assert_eq!(b"hello", &buffer[..count]);
        });
        open_coroutine::yield_now();
        let sender = UnixDatagram::unbound().unwrap();
        assert_eq!(5, sender.send_to(b"hello", &path).unwrap());
        task.join().unwrap();
        fs::remove_file(path).unwrap();
    });
}
