//! Shutting down, closing or replacing a descriptor ends the waits on it.

mod runtimes;

use std::any::Any;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use runtimes::on_every_runtime;

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// `read(2)` by number, of which the caller says that it may be closed.
fn read_raw(fd: RawFd) -> Result<usize, i32> {
    let mut buffer = [0_u8; 8];
    // SAFETY: the buffer is writable and lives across the call.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

/// Runs `wait` as a coroutine and returns when it surely waits.
fn start_waiting<R: Send + 'static>(
    wait: impl FnOnce() -> R + Send + 'static,
) -> open_coroutine::JoinHandle<R> {
    let (begun, begins) = channel();
    let waiter = open_coroutine::spawn(move || {
        begun.send(()).unwrap();
        wait()
    });
    begins.recv().unwrap();
    // It has begun, and nobody else can tell when it waits.
    open_coroutine::sleep(Duration::from_millis(5));
    assert!(!waiter.is_finished());
    waiter
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn shutdown_wakes_readers_with_the_end_of_the_stream() {
    on_every_runtime(|| {
        let (stream, _peer) = tcp_pair();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = stream.try_clone().unwrap();
                start_waiting(move || reader.read(&mut [0; 8]).unwrap())
            })
            .collect();
        stream.shutdown(Shutdown::Both).unwrap();
        for reader in readers {
            assert_eq!(0, reader.join().unwrap());
        }
        let (stream, _peer) = UnixStream::pair().unwrap();
        let mut reader = stream.try_clone().unwrap();
        let reader = start_waiting(move || reader.read(&mut [0; 8]).unwrap());
        stream.shutdown(Shutdown::Both).unwrap();
        assert_eq!(0, reader.join().unwrap());
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn shutdown_wakes_a_writer_with_an_error() {
    on_every_runtime(|| {
        let (stream, _peer) = tcp_pair();
        let mut writer = stream.try_clone().unwrap();
        let writer = start_waiting(move || writer.write_all(&vec![0; 64 << 20]).unwrap_err());
        stream.shutdown(Shutdown::Both).unwrap();
        assert_eq!(
            std::io::ErrorKind::BrokenPipe,
            writer.join().unwrap().kind()
        );
    });
}

/// A descriptor that nobody owns, and what keeps its other end open.
type Waited = (RawFd, Box<dyn Any>);

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn close_wakes_readers_with_ebadf() {
    on_every_runtime(|| {
        let sockets: [fn() -> Waited; 4] = [
            || {
                let (stream, peer) = tcp_pair();
                (stream.into_raw_fd(), Box::new(peer))
            },
            || {
                let (stream, peer) = UnixStream::pair().unwrap();
                (stream.into_raw_fd(), Box::new(peer))
            },
            || {
                (
                    UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd(),
                    Box::new(()),
                )
            },
            || {
                let (reader, writer) = std::io::pipe().unwrap();
                (reader.into_raw_fd(), Box::new(writer))
            },
        ];
        for make in sockets {
            let (fd, _peer) = make();
            let readers: Vec<_> = (0..2)
                .map(|_| start_waiting(move || read_raw(fd)))
                .collect();
            // SAFETY: the number was taken out of its owner.
            assert_eq!(0, unsafe { libc::close(fd) });
            for reader in readers {
                assert_eq!(Err(libc::EBADF), reader.join().unwrap());
            }
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn close_wakes_an_accept_with_ebadf() {
    on_every_runtime(|| {
        let fd = TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd();
        let acceptor = start_waiting(move || {
            let none = std::ptr::null_mut();
            // SAFETY: null pointers ask for no address.
            let result = unsafe { libc::accept(fd, none, none.cast()) };
            (result, std::io::Error::last_os_error().raw_os_error())
        });
        // SAFETY: the number was taken out of its owner.
        assert_eq!(0, unsafe { libc::close(fd) });
        assert_eq!((-1, Some(libc::EBADF)), acceptor.join().unwrap());
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn close_wakes_a_poll_which_reports_an_invalid_descriptor() {
    on_every_runtime(|| {
        let (stream, _peer) = UnixStream::pair().unwrap();
        let fd = stream.into_raw_fd();
        let poll = start_waiting(move || {
            let mut entry = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry lives across the call.
            let ready = unsafe { libc::poll(&raw mut entry, 1, -1) };
            (ready, entry.revents)
        });
        // SAFETY: the number was taken out of its owner.
        assert_eq!(0, unsafe { libc::close(fd) });
        assert_eq!((1, libc::POLLNVAL), poll.join().unwrap());
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn dup2_over_a_descriptor_wakes_its_readers_and_serves_the_new_file() {
    on_every_runtime(|| {
        let (stream, _peer) = UnixStream::pair().unwrap();
        let (other, mut other_peer) = UnixStream::pair().unwrap();
        let fd = stream.into_raw_fd();
        let reader = start_waiting(move || read_raw(fd));
        // SAFETY: `fd` was taken out of its owner and is nobody's.
        assert_eq!(fd, unsafe { libc::dup2(other.as_raw_fd(), fd) });
        assert_eq!(Err(libc::EBADF), reader.join().unwrap());
        let reader = start_waiting(move || read_raw(fd));
        other_peer.write_all(b"new").unwrap();
        assert_eq!(Ok(3), reader.join().unwrap());
        // SAFETY: this is the number's only owner.
        drop(unsafe { UnixStream::from_raw_fd(fd) });
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_reader_of_a_duplicate_survives_the_close() {
    on_every_runtime(|| {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        let mut copy = stream.try_clone().unwrap();
        let reader = start_waiting(move || copy.read(&mut [0; 8]).unwrap());
        let fd = stream.into_raw_fd();
        let on_number = start_waiting(move || read_raw(fd));
        // SAFETY: the number was taken out of its owner.
        assert_eq!(0, unsafe { libc::close(fd) });
        assert_eq!(Err(libc::EBADF), on_number.join().unwrap());
        assert!(!reader.is_finished());
        peer.write_all(b"kept").unwrap();
        assert_eq!(4, reader.join().unwrap());
    });
}
