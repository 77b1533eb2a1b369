//! A descriptor's number is used again at once, and nothing is mixed up.

mod runtimes;

use std::ffi::c_int;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use runtimes::on_every_runtime;

const TASKS: u32 = 20;
const ROUNDS: u32 = 500;

/// Closes a descriptor in one of the ways that programs do. Two of them are
/// not seen by replacements of libc's `close`.
fn close(stream: UnixStream, way: u32) {
    match way % 3 {
        0 => drop(stream),
        1 => {
            // SAFETY: the number was taken out of its owner.
            assert_eq!(0, unsafe {
                libc::syscall(libc::SYS_close, stream.into_raw_fd())
            });
        }
        _ => {
            // SAFETY: the number was taken out of its owner, and the file is
            // closed once.
            unsafe {
                let file = libc::fdopen(stream.into_raw_fd(), c"r+".as_ptr());
                assert!(!file.is_null());
                assert_eq!(0, libc::fclose(file));
            }
        }
    }
}

#[test]
fn ten_thousand_local_streams_keep_their_bytes_apart() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                open_coroutine::spawn(move || {
                    for round in 0..ROUNDS {
                        exchange(task << 16 | round);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

/// Sends `id` there and back, by a coroutine that waits at each end.
fn exchange(id: u32) {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let echo = open_coroutine::spawn(move || {
        let mut bytes = [0; 4];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(id, u32::from_ne_bytes(bytes));
        other.write_all(&bytes).unwrap();
        close(other, id);
    });
    one.write_all(&id.to_ne_bytes()).unwrap();
    let mut bytes = [0; 4];
    one.read_exact(&mut bytes).unwrap();
    assert_eq!(id, u32::from_ne_bytes(bytes));
    assert_eq!(0, one.read(&mut bytes).unwrap());
    close(one, id / 3);
    echo.join().unwrap();
}

#[test]
fn thousands_of_connections_keep_their_bytes_apart() {
    const CONNECTIONS: u32 = 2000;
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = open_coroutine::spawn(move || {
            for _ in 0..CONNECTIONS {
                let (mut stream, _) = listener.accept().unwrap();
                open_coroutine::spawn(move || {
                    let mut bytes = [0; 4];
                    stream.read_exact(&mut bytes).unwrap();
                    stream.write_all(&bytes).unwrap();
                });
            }
        });
        let clients: Vec<_> = (0..TASKS)
            .map(|task| {
                open_coroutine::spawn(move || {
                    for round in 0..CONNECTIONS / TASKS {
                        let id = task << 16 | round;
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream.write_all(&id.to_ne_bytes()).unwrap();
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer).unwrap();
                        assert_eq!(id.to_ne_bytes(), *answer);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
    });
}

/// Makes a pair of descriptors that do not block, in one call.
fn nonblocking_pair(way: u32) -> [OwnedFd; 2] {
    let mut fds: [c_int; 2] = [-1; 2];
    // SAFETY: both calls fill in two numbers, which are nobody's yet.
    unsafe {
        let result = if way.is_multiple_of(2) {
            libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC)
        } else {
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr())
        };
        assert_eq!(0, result);
        fds.map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

#[test]
fn the_mode_of_an_earlier_file_is_forgotten() {
    on_every_runtime(|| {
        for way in 0..6 {
            // Its number is known as one that blocks, when it is closed unseen.
            let (mut one, mut other) = UnixStream::pair().unwrap();
            one.write_all(b"x").unwrap();
            other.write_all(b"x").unwrap();
            assert_eq!(1, one.read(&mut [0; 8]).unwrap());
            assert_eq!(1, other.read(&mut [0; 8]).unwrap());
            let reader = open_coroutine::spawn(move || {
                assert_eq!(0, one.read(&mut [0; 8]).unwrap());
                close(one, 1 + way / 2);
            });
            open_coroutine::yield_now();
            close(other, 1 + way / 2);
            reader.join().unwrap();
            let [reader, _writer] = nonblocking_pair(way);
            let error = std::fs::File::from(reader).read(&mut [0; 8]).unwrap_err();
            assert_eq!(ErrorKind::WouldBlock, error.kind());
        }
    });
}
