//! Small things that a program sees of sockets, pipes and terminals, and which
//! were not as on threads: what the comparison of random scripts has found.

mod runtimes;

use std::ffi::c_int;
use std::io;
use std::mem;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use runtimes::{on_every_driver, on_every_runtime};

fn errno() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}

fn socket_pair(kind: c_int) -> [OwnedFd; 2] {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for two descriptors, which are then ours alone.
    unsafe {
        assert_eq!(
            0,
            libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr())
        );
        fds.map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

fn write(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: the bytes live across the call.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }
}

#[test]
fn one_signal_per_write_to_a_broken_stream() {
    static SIGNALS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn count(_: c_int) {
        SIGNALS.fetch_add(1, SeqCst);
    }
    on_every_runtime(|| {
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGPIPE, count as extern "C" fn(c_int) as usize) };
        let signals_of = |kind| {
            let [ours, theirs] = socket_pair(kind);
            drop(theirs);
            assert_eq!(-1, write(ours.as_raw_fd(), b"lost"));
            assert_eq!(Some(libc::EPIPE), errno());
            SIGNALS.swap(0, SeqCst)
        };
        assert_eq!(1, signals_of(libc::SOCK_STREAM));
        assert_eq!(0, signals_of(libc::SOCK_SEQPACKET));
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(-1, write(writer.as_raw_fd(), b"lost"));
        assert_eq!(1, SIGNALS.swap(0, SeqCst));
    });
}

#[test]
fn messages_to_a_full_queue_arrive_whole() {
    on_every_runtime(|| {
        let path = std::env::temp_dir().join(format!("oc-full-{}", std::process::id()));
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = open_coroutine::spawn({
            let path = path.clone();
            move || {
                let sender = UnixDatagram::unbound().unwrap();
                for number in 0..60_u8 {
                    assert_eq!(3, sender.send_to(&[number; 3], &path).unwrap());
                }
            }
        });
        for number in 0..60_u8 {
            let mut buf = [0; 8];
            assert_eq!(3, receiver.recv(&mut buf).unwrap());
            assert_eq!([number; 3], buf[..3]);
        }
        sender.join().unwrap();
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn pipes_have_no_offsets() {
    on_every_runtime(|| {
        let (_reader, writer) = io::pipe().unwrap();
        // SAFETY: the bytes live across the call.
        let result = unsafe { libc::pwrite(writer.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) };
        assert_eq!((-1, Some(libc::ESPIPE)), (result as i32, errno()));
    });
}

#[test]
fn negative_offsets_are_invalid() {
    on_every_runtime(|| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut buf = [0_u8; 4];
        // SAFETY: the buffer lives across the call.
        let result = unsafe { libc::pread(file.as_raw_fd(), buf.as_mut_ptr().cast(), 4, -1) };
        assert_eq!((-1, Some(libc::EINVAL)), (result as i32, errno()));
    });
}

#[test]
fn refused_socket_can_be_connected_again() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        // SAFETY: all-zero bytes are an address to be filled in; the address
        // lives across the calls, and the descriptor is ours alone.
        unsafe {
            let mut address: libc::sockaddr_in = mem::zeroed();
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_port = port.to_be();
            address.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            let _owner = OwnedFd::from_raw_fd(socket);
            let len = size_of_val(&address) as libc::socklen_t;
            for _ in 0..2 {
                let result = libc::connect(socket, (&raw const address).cast(), len);
                assert_eq!((-1, Some(libc::ECONNREFUSED)), (result, errno()));
                let result = libc::recv(socket, ptr::null_mut(), 0, 0);
                assert_eq!((-1, Some(libc::ENOTCONN)), (result as i32, errno()));
            }
        }
    });
}

#[test]
fn accept_on_what_does_not_listen_fails() {
    on_every_runtime(|| {
        let [ours, _theirs] = socket_pair(libc::SOCK_STREAM);
        let accept = |fd, flags| {
            // SAFETY: no address is asked for.
            let result = unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), flags) };
            assert_eq!(-1, result);
            errno()
        };
        assert_eq!(Some(libc::EINVAL), accept(ours.as_raw_fd(), 0));
        assert_eq!(Some(libc::EBADF), accept(-1, 0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(Some(libc::EINVAL), accept(listener.as_raw_fd(), 0x40));
    });
}

#[test]
fn urgent_data_ends_a_poll() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = listener.accept().unwrap().0;
        let fd = receiver.as_raw_fd();
        let poller = open_coroutine::spawn(move || {
            let events = libc::POLLPRI;
            let mut entry = libc::pollfd {
                fd,
                events,
                revents: 0,
            };
            // SAFETY: the entry lives across the call.
            let result = unsafe { libc::poll(&raw mut entry, 1, -1) };
            (result, entry.revents)
        });
        thread::sleep(Duration::from_millis(5));
        // SAFETY: the bytes live across the call.
        let sent = unsafe {
            let flags = libc::MSG_OOB;
            libc::send(sender.as_raw_fd(), b"abc".as_ptr().cast(), 3, flags)
        };
        assert_eq!(3, sent);
        assert_eq!((1, libc::POLLPRI), poller.join().unwrap());
    });
}

#[test]
fn error_queue_is_not_waited_for() {
    on_every_runtime(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_ERRQUEUE);
        // SAFETY: a buffer of no bytes.
        let result = unsafe { libc::recv(fd, ptr::null_mut(), 0, flags) };
        assert_eq!((-1, Some(libc::EAGAIN)), (result as i32, errno()));
    });
}

#[test]
fn datagram_socket_that_is_shut_down_reads_nothing() {
    on_every_runtime(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        // SAFETY: takes a descriptor.
        assert_eq!(0, unsafe {
            libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD)
        });
        assert_eq!(0, socket.recv(&mut [0; 8]).unwrap());
    });
}

#[test]
fn terminal_that_does_not_wait_returns_nothing() {
    on_every_runtime(|| {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: all-zero bytes are settings to be filled in; what is pointed to
        // lives across the calls, and the descriptors are ours alone.
        let result = unsafe {
            let mut settings: libc::termios = mem::zeroed();
            libc::cfmakeraw(&raw mut settings);
            settings.c_cc[libc::VMIN] = 0;
            let none = ptr::null_mut();
            libc::openpty(
                &mut master,
                &mut slave,
                none,
                &raw const settings,
                ptr::null(),
            );
            let _owners = [OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)];
            libc::read(slave, [0_u8; 8].as_mut_ptr().cast(), 8)
        };
        assert_eq!(0, result);
    });
}

/// Calls `call` with the headers of messages of a byte each.
fn with_messages<R>(bytes: &mut [u8; 3], call: impl FnOnce(*mut libc::mmsghdr) -> R) -> R {
    let mut vectors = bytes.each_mut().map(|byte| libc::iovec {
        iov_base: ptr::from_mut(byte).cast(),
        iov_len: 1,
    });
    let mut messages = vectors.each_mut().map(|vector| {
        // SAFETY: all-zero bytes are a valid, empty header.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        message
    });
    call(messages.as_mut_ptr())
}

#[test]
fn who_waits_for_one_message_gets_all_that_are_there() {
    // With one worker the reader waits first, and sees both at once.
    on_every_driver(1, || {
        let [ours, theirs] = socket_pair(libc::SOCK_DGRAM);
        let reader = open_coroutine::spawn(move || {
            with_messages(&mut [0; 3], |messages| {
                let flags = libc::MSG_WAITFORONE;
                // SAFETY: the headers and what they point to live across the call.
                unsafe { libc::recvmmsg(ours.as_raw_fd(), messages, 3, flags, ptr::null_mut()) }
            })
        });
        open_coroutine::yield_now();
        with_messages(&mut [1; 3], |messages| {
            // SAFETY: as above.
            assert_eq!(2, unsafe {
                libc::sendmmsg(theirs.as_raw_fd(), messages, 2, 0)
            });
        });
        assert_eq!(2, reader.join().unwrap());
    });
}

#[test]
fn one_signal_for_several_messages_to_a_broken_stream() {
    static SIGNALS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn count(_: c_int) {
        SIGNALS.fetch_add(1, SeqCst);
    }
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        // SAFETY: the handler only counts.
        let before = unsafe { libc::signal(libc::SIGPIPE, count as extern "C" fn(c_int) as usize) };
        assert_ne!(libc::SIG_ERR, before);
        with_messages(&mut [1; 3], |messages| {
            // The first is answered with a reset, which the others meet.
            // SAFETY: the headers and what they point to live across the call.
            let sent = unsafe { libc::sendmmsg(ours.as_raw_fd(), messages, 3, libc::MSG_DONTWAIT) };
            assert_eq!(1, sent);
        });
        assert_eq!(1, SIGNALS.swap(0, SeqCst));
    });
}

#[test]
fn select_does_not_end_for_what_only_a_poll_reports() {
    on_every_runtime(|| {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let (broken, _other) = io::pipe().unwrap();
        for numbers in [
            vec![reader.as_raw_fd()],
            vec![reader.as_raw_fd(), broken.as_raw_fd()],
        ] {
            // SAFETY: all-zero bytes are an empty set.
            let mut set: libc::fd_set = unsafe { mem::zeroed() };
            for &fd in &numbers {
                // SAFETY: a new process has small numbers.
                unsafe { libc::FD_SET(fd, &raw mut set) };
            }
            let mut limit = libc::timeval {
                tv_sec: 0,
                tv_usec: 3000,
            };
            let (none, count) = (ptr::null_mut(), numbers.iter().max().unwrap() + 1);
            // SAFETY: the set and the time live across the call.
            let found = unsafe { libc::select(count, none, &raw mut set, none, &raw mut limit) };
            assert_eq!(0, found, "nothing can be written to what is for reading");
        }
    });
}

#[test]
fn a_descriptor_may_be_polled_twice() {
    on_every_runtime(|| {
        let [ours, _theirs] = socket_pair(libc::SOCK_STREAM);
        let entry = |events| libc::pollfd {
            fd: ours.as_raw_fd(),
            events,
            revents: 0,
        };
        let mut entries = [entry(libc::POLLIN), entry(libc::POLLPRI)];
        // SAFETY: the entries live across the call.
        let found = unsafe { libc::poll(entries.as_mut_ptr(), 2, 3) };
        assert_eq!(0, found, "only POLLOUT, which nobody asked for");
    });
}

#[test]
fn high_priority_is_no_error() {
    on_every_runtime(|| {
        let [ours, _theirs] = socket_pair(libc::SOCK_STREAM);
        let vector = libc::iovec {
            iov_base: ptr::dangling_mut::<u8>().cast(),
            iov_len: 0,
        };
        // SAFETY: the vector lives across the call, and its buffer is empty.
        let read =
            unsafe { libc::preadv2(ours.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_HIPRI) };
        assert_eq!(0, read);
    });
}

#[test]
fn flags_of_files_mean_nothing_to_sockets() {
    on_every_runtime(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let vector = libc::iovec {
            iov_base: ptr::dangling_mut::<u8>().cast(),
            iov_len: 0,
        };
        // SAFETY: the vector lives across the call, and its buffer is empty.
        let written = unsafe {
            libc::pwritev2(
                socket.as_raw_fd(),
                &raw const vector,
                1,
                -1,
                libc::RWF_APPEND,
            )
        };
        assert_eq!(0, written, "nothing is sent, so no address is needed");
    });
}

#[test]
fn a_poll_for_nothing_lasts_for_its_time() {
    on_every_runtime(|| {
        let [half_closed, other] = socket_pair(libc::SOCK_STREAM);
        // SAFETY: takes integers.
        unsafe { libc::shutdown(other.as_raw_fd(), libc::SHUT_WR) };
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        for (fd, events) in [
            (half_closed.as_raw_fd(), 0),
            (file.as_raw_fd(), libc::POLLPRI),
        ] {
            let mut entry = libc::pollfd {
                fd,
                events,
                revents: 0,
            };
            let begin = Instant::now();
            // SAFETY: the entry lives across the call.
            let found = unsafe { libc::poll(&raw mut entry, 1, 3) };
            assert_eq!(0, found, "{:?}", errno());
            assert!(begin.elapsed() >= Duration::from_millis(3));
        }
    });
}
