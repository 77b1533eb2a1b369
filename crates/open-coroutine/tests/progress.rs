//! Whatever one coroutine waits for, the others of its worker go on.

mod runtimes;
mod waits;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc};
use std::thread;

use runtimes::on_every_driver;
use waits::ticks_during;

#[test]
fn during_socket_reads() {
    on_every_driver(1, || {
        let (mut reader, mut writer) = UnixStream::pair().unwrap();
        ticks_during(
            move || assert_eq!(1, reader.read(&mut [0; 8]).unwrap()),
            move || writer.write_all(b"x").unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        ticks_during(
            move || assert_eq!(1, server.peek(&mut [0; 8]).unwrap()),
            move || client.write_all(b"x").unwrap(),
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        ticks_during(
            move || assert_eq!(1, socket.recv_from(&mut [0; 8]).unwrap().0),
            move || {
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                assert_eq!(1, sender.send_to(b"x", address).unwrap());
            },
        );
        let (one, other) = UnixDatagram::pair().unwrap();
        ticks_during(
            move || assert_eq!(1, one.recv(&mut [0; 8]).unwrap()),
            move || assert_eq!(1, other.send(b"x").unwrap()),
        );
    });
}

#[test]
fn during_socket_writes() {
    on_every_driver(1, || {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        ticks_during(
            move || writer.write_all(&vec![0; 1 << 20]).unwrap(),
            move || assert_eq!(1 << 20, reader.read_to_end(&mut Vec::new()).unwrap()),
        );
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        ticks_during(
            move || (0..2000).for_each(|_| assert_eq!(4, sender.send(b"four").unwrap())),
            move || (0..2000).for_each(|_| assert_eq!(4, receiver.recv(&mut [0; 8]).unwrap())),
        );
    });
}

#[test]
fn during_accept_and_connect() {
    on_every_driver(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ticks_during(
            move || drop(listener.accept().unwrap()),
            move || drop(TcpStream::connect(address).unwrap()),
        );
        let path = unique_path();
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: takes integers.
        assert_eq!(0, unsafe { libc::listen(listener.as_raw_fd(), 0) });
        let _first = UnixStream::connect(&path).unwrap();
        let to = path.clone();
        ticks_during(
            move || drop(UnixStream::connect(to).unwrap()),
            move || drop((listener.accept().unwrap(), listener.accept().unwrap())),
        );
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn during_pipe_reads_and_writes() {
    on_every_driver(1, || {
        let (mut reader, mut writer) = pipe().unwrap();
        ticks_during(
            move || assert_eq!(1, reader.read(&mut [0; 8]).unwrap()),
            move || writer.write_all(b"x").unwrap(),
        );
        let (mut reader, mut writer) = pipe().unwrap();
        ticks_during(
            move || writer.write_all(&vec![0; 1 << 20]).unwrap(),
            move || assert_eq!(1 << 20, reader.read_to_end(&mut Vec::new()).unwrap()),
        );
    });
}

fn unique_path() -> std::path::PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let id = NEXT.fetch_add(1, Relaxed);
    let name = format!("open-coroutine-progress-{}-{id}", std::process::id());
    std::env::temp_dir().join(name)
}

#[test]
fn during_the_opening_of_a_fifo() {
    on_every_driver(1, || {
        let path = unique_path();
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(0, unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) });
        let (reader, writer) = (path.clone(), path.clone());
        ticks_during(
            move || drop(File::open(reader).unwrap()),
            move || drop(File::options().write(true).open(writer).unwrap()),
        );
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn during_a_file_lock() {
    on_every_driver(1, || {
        let path = unique_path();
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let other = File::open(&path).unwrap();
        ticks_during(
            move || other.lock().unwrap(),
            move || held.unlock().unwrap(),
        );
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn during_child_processes() {
    on_every_driver(1, || {
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        ticks_during(
            move || assert!(child.wait().unwrap().success()),
            move || drop(input),
        );
    });
}

#[test]
fn during_locks_channels_and_threads() {
    on_every_driver(1, || {
        let mutex = Arc::new(Mutex::new(()));
        let (other, held) = (mutex.clone(), mutex.lock().unwrap());
        ticks_during(move || drop(other.lock().unwrap()), move || drop(held));

        let lock = Arc::new(RwLock::new(()));
        let (other, held) = (lock.clone(), lock.read().unwrap());
        ticks_during(move || drop(other.write().unwrap()), move || drop(held));

        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let other = pair.clone();
        ticks_during(
            move || {
                drop(
                    other
                        .1
                        .wait_while(other.0.lock().unwrap(), |set| !*set)
                        .unwrap(),
                )
            },
            move || {
                *pair.0.lock().unwrap() = true;
                pair.1.notify_one();
            },
        );

        let (sender, receiver) = mpsc::channel();
        ticks_during(
            move || receiver.recv().unwrap(),
            move || sender.send(()).unwrap(),
        );

        let barrier = Arc::new(Barrier::new(2));
        let other = barrier.clone();
        ticks_during(
            move || assert!(!other.wait().is_leader()),
            move || assert!(barrier.wait().is_leader()),
        );

        let (sender, receiver) = mpsc::channel::<()>();
        let thread = thread::spawn(move || receiver.recv().unwrap());
        ticks_during(
            move || thread.join().unwrap(),
            move || sender.send(()).unwrap(),
        );
    });
}
