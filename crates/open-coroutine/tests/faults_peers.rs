//! Peers that are slow, that read nothing, or that are stopped: who waits for them
//! goes on waiting, and the others go on.

mod child;
mod runtimes;
mod ticker;

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{sleep, spawn, yield_now};
use runtimes::on_every_runtime;
use ticker::Ticker;

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn pattern(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..251).collect();
    let mut bytes = block.repeat(len.div_ceil(block.len()));
    bytes.truncate(len);
    bytes
}

/// A peer that reads one byte at a time, and a bit of time between them.
fn dawdle(mut stream: impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, byte) in bytes.chunks_mut(1).enumerate() {
        stream.read_exact(byte).unwrap();
        if index.is_multiple_of(64) {
            yield_now();
        }
    }
    bytes
}

#[test]
fn a_peer_that_reads_and_writes_one_byte_at_a_time_loses_none() {
    on_every_runtime(|| {
        const LEN: usize = 20_000;
        let ticker = Ticker::start();
        let (mut one, other) = tcp_pair();
        set_buffer(&one, libc::SO_SNDBUF, 4096);
        set_buffer(&other, libc::SO_RCVBUF, 4096);
        let reads = spawn(move || (dawdle(&other, LEN), other));
        one.write_all(&pattern(LEN)).unwrap();
        let (bytes, mut other) = reads.join().unwrap();
        assert_eq!(pattern(LEN), bytes);
        let writes = spawn(move || {
            for byte in pattern(LEN / 10) {
                other.write_all(&[byte]).unwrap();
                pause_now_and_then(byte);
            }
        });
        let mut bytes = vec![0; LEN / 10];
        one.read_exact(&mut bytes).unwrap();
        assert_eq!(pattern(LEN / 10), bytes);
        writes.join().unwrap();
        ticker.wait();
    });
}

fn pause_now_and_then(byte: u8) {
    if byte.is_multiple_of(32) {
        sleep(Duration::from_micros(300));
    }
}

fn set_buffer(stream: &TcpStream, option: i32, size: i32) {
    // SAFETY: the value lives across the call and has this size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(0, result);
}

/// Writes until the window of the peer and all buffers are full: more than they hold.
fn write_until_late(stream: &mut (impl Write + Send)) -> usize {
    let bytes = vec![7; 1 << 20];
    let mut total = 0;
    loop {
        match stream.write(&bytes) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(io::ErrorKind::WouldBlock, error.kind());
                return total;
            }
        }
    }
}

#[test]
fn a_peer_that_never_reads_holds_only_its_writer() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let limit = Duration::from_millis(20);
        let (mut tcp, mut tcp_peer) = tcp_pair();
        tcp.set_write_timeout(Some(limit)).unwrap();
        let (mut unix, mut unix_peer) = UnixStream::pair().unwrap();
        unix.set_write_timeout(Some(limit)).unwrap();
        let begin = Instant::now();
        let totals = [write_until_late(&mut tcp), write_until_late(&mut unix)];
        assert!(begin.elapsed() >= 2 * limit);
        // Without a limit it waits, and nothing else does.
        tcp.set_write_timeout(None).unwrap();
        let waits = spawn(move || tcp.write_all(&vec![7; 1 << 20]).unwrap());
        for _ in 0..10 {
            ticker.wait();
        }
        assert!(!waits.is_finished());
        // What was counted as written arrives, once it is read.
        let mut bytes = vec![0; totals[0] + (1 << 20)];
        tcp_peer.read_exact(&mut bytes).unwrap();
        waits.join().unwrap();
        assert_eq!(0, tcp_peer.read(&mut [0]).unwrap());
        drop(unix);
        assert_eq!(totals[1], unix_peer.read_to_end(&mut bytes).unwrap());
    });
}

/// Tells the peer's process where to connect.
const VARIABLE: &str = "OPEN_COROUTINE_PEER";

/// The peer's process: sends back what it gets, until that ends.
#[test]
fn peer() {
    let Ok(address) = env::var(VARIABLE) else {
        return;
    };
    let stream = TcpStream::connect(address).unwrap();
    io::copy(&mut &stream, &mut &stream).unwrap();
}

struct Peer(Child);

impl Peer {
    fn connect() -> (Self, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let process = child::command("peer")
            .env(VARIABLE, listener.local_addr().unwrap().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        (Self(process), listener.accept().unwrap().0)
    }

    fn send(&self, signal: i32) {
        // SAFETY: takes integers; the process is our child.
        assert_eq!(0, unsafe { libc::kill(self.0.id() as i32, signal) });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.send(libc::SIGCONT);
        let status = self.0.wait().unwrap();
        assert!(status.success() || thread::panicking(), "{status}");
    }
}

#[test]
fn a_stopped_peer_is_waited_for() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (peer, mut stream) = Peer::connect();
        let mut answer = [0; 5];
        for _ in 0..3 {
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut answer).unwrap();
            peer.send(libc::SIGSTOP);
            stream.write_all(b"again").unwrap();
            // It has the bytes, and does not answer.
            let limit = Duration::from_millis(20);
            stream.set_read_timeout(Some(limit)).unwrap();
            let begin = Instant::now();
            let is_late = match stream.read(&mut answer) {
                Err(error) => {
                    assert_eq!(io::ErrorKind::WouldBlock, error.kind());
                    assert!(begin.elapsed() >= limit);
                    true
                }
                Ok(count) => {
                    assert_eq!(5, count, "it stopped later than we thought");
                    false
                }
            };
            stream.set_read_timeout(None).unwrap();
            let mut waiting = stream.try_clone().unwrap();
            let waits = spawn(move || {
                let mut answer = [0; 5];
                if is_late {
                    waiting.read_exact(&mut answer).unwrap();
                    assert_eq!(b"again", &answer);
                }
            });
            ticker.wait();
            peer.send(libc::SIGCONT);
            waits.join().unwrap();
        }
        drop(stream);
        drop(peer);
    });
}
