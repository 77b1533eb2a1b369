//! Servers and clients written for threads work as coroutines.

mod runtimes;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use runtimes::on_every_runtime;

const CONNECTIONS: usize = 300;
const LINES: usize = 20;

/// Answers each line with the same line, and says goodbye at the end.
fn serve(stream: TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    for line in reader.lines() {
        writeln!(writer, "{}", line.unwrap()).unwrap();
    }
    writer.write_all(b"bye").unwrap();
    writer.shutdown(Shutdown::Both).unwrap();
}

fn talk(port: u16, id: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut answer = String::new();
    for line in 0..LINES {
        writeln!(stream, "{id}:{line}").unwrap();
        answer.clear();
        reader.read_line(&mut answer).unwrap();
        assert_eq!(format!("{id}:{line}\n"), answer);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    answer.clear();
    reader.read_to_string(&mut answer).unwrap();
    assert_eq!("bye", answer);
}

#[test]
fn connections_and_their_clients_share_a_worker() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Room for all clients: beyond that Linux answers with SYN cookies, and
        // may take a later segment for the first one (seen: 3 bytes missing).
        // SAFETY: takes integers.
        let listening = unsafe { libc::listen(listener.as_raw_fd(), CONNECTIONS as i32) };
        assert_eq!(0, listening);
        let acceptor = open_coroutine::spawn(move || {
            (0..CONNECTIONS)
                .map(|_| {
                    let (stream, _) = listener.accept().unwrap();
                    open_coroutine::spawn(move || serve(stream))
                })
                .collect::<Vec<_>>()
        });
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|id| open_coroutine::spawn(move || talk(port, id)))
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        for server in acceptor.join().unwrap() {
            server.join().unwrap();
        }
    });
}
