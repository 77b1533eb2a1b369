//! A connection that is reset: in each of its states a coroutine sees what a thread
//! sees.

mod resets;
mod runtimes;

use std::ffi::c_int;
use std::io::{self, Write};
use std::mem;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use resets::reset;
use runtimes::on_every_runtime;

/// What a call returned, or the error number.
type Seen = Result<isize, c_int>;

fn seen(result: isize) -> Seen {
    match result {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        result => Ok(result),
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Performs a scene on a thread of its own, or on a coroutine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Performer {
    Thread,
    Coroutine,
}

impl Performer {
    /// Has `wait` wait, then calls `act`. What `wait` returns.
    fn during<R: Send + 'static>(
        self,
        wait: impl FnOnce() -> R + Send + 'static,
        act: impl FnOnce(),
    ) -> R {
        // Nobody can tell when it waits; if it does not yet, the scene is another one,
        // but right all the same.
        let begin = || thread::sleep(Duration::from_millis(10));
        match self {
            Self::Thread => {
                let thread = thread::spawn(wait);
                begin();
                act();
                thread.join().unwrap()
            }
            Self::Coroutine => {
                let task = open_coroutine::spawn(wait);
                begin();
                act();
                task.join().unwrap()
            }
        }
    }
}

fn receive(fd: RawFd) -> Seen {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer lives across the call.
    seen(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) })
}

fn send(fd: RawFd) -> Seen {
    // SAFETY: the bytes live across the call.
    seen(unsafe { libc::send(fd, b"bytes".as_ptr().cast(), 5, libc::MSG_NOSIGNAL) })
}

/// The pending error of a socket.
fn pending(fd: RawFd) -> Seen {
    let mut error: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value lives across the call and has this size.
    seen(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        ) as isize
    })
    .map(|_| error as isize)
}

/// What is to be seen of a connection after it was reset.
fn afterwards(fd: RawFd) -> Vec<Seen> {
    vec![receive(fd), send(fd), pending(fd), receive(fd)]
}

/// A wait for a connection that ends by a reset.
type Wait = fn(RawFd) -> Vec<Seen>;
/// What is done to the connection before.
type Preparation = fn(RawFd);

/// Waits on one connection, which its peer resets.
fn reset_during(performer: Performer, prepare: Preparation, wait: Wait) -> Vec<Seen> {
    let (stream, peer) = tcp_pair();
    prepare(stream.as_raw_fd());
    let fd = stream.as_raw_fd();
    let waits = move || {
        let mut all = wait(fd);
        all.extend(afterwards(fd));
        all
    };
    let all = performer.during(waits, || reset(peer));
    drop(stream);
    all
}

fn nothing(_: RawFd) {}

fn shut_down_writing(fd: RawFd) {
    // SAFETY: takes integers.
    assert_eq!(0, unsafe { libc::shutdown(fd, libc::SHUT_WR) });
}

/// Fills all buffers, so that the next one who writes waits.
fn fill(fd: RawFd) {
    let bytes = [0u8; 1 << 16];
    // SAFETY: the bytes live across the call.
    while unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) } > 0 {}
}

fn message(fd: RawFd) -> Vec<Seen> {
    let mut bytes = [0u8; 8];
    let mut piece = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are an empty message header; all lives across the call.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        vec![seen(libc::recvmsg(fd, &raw mut message, libc::MSG_WAITALL))]
    }
}

fn vectored(fd: RawFd) -> Vec<Seen> {
    let mut bytes = [0u8; 8];
    let piece = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the piece and its bytes live across the call.
    vec![seen(unsafe { libc::readv(fd, &raw const piece, 1) })]
}

fn peek(fd: RawFd) -> Vec<Seen> {
    let mut bytes = [0u8; 8];
    let start = bytes.as_mut_ptr().cast();
    // SAFETY: the buffer lives across the call.
    vec![seen(unsafe {
        libc::recv(fd, start, bytes.len(), libc::MSG_PEEK)
    })]
}

fn poll_for(fd: RawFd, events: i16) -> Vec<Seen> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: the entry lives across the call.
    let count = seen(unsafe { libc::poll(&raw mut entry, 1, -1) } as isize);
    vec![count, Ok(entry.revents.into())]
}

/// Two descriptors, of which the other one never becomes ready.
fn poll_two(fd: RawFd) -> Vec<Seen> {
    let (other, _peer) = tcp_pair();
    let mut entries = [fd, other.as_raw_fd()].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the entries live across the call.
    let count = seen(unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) } as isize);
    vec![
        count,
        Ok(entries[0].revents.into()),
        Ok(entries[1].revents.into()),
    ]
}

fn select(fd: RawFd) -> Vec<Seen> {
    // SAFETY: all-zero bytes are empty sets, which live across the call.
    unsafe {
        let mut sets: [libc::fd_set; 3] = mem::zeroed();
        for set in &mut sets[..] {
            libc::FD_SET(fd, set);
        }
        // Else it can be written to at once.
        libc::FD_ZERO(&raw mut sets[1]);
        let [read, write, except] = &mut sets;
        let count = libc::select(fd + 1, read, write, except, ptr::null_mut());
        let is_set = |set: &libc::fd_set| Ok(libc::FD_ISSET(fd, set) as isize);
        vec![seen(count as isize), is_set(read), is_set(except)]
    }
}

fn epoll(fd: RawFd) -> Vec<Seen> {
    // SAFETY: the event lives across the calls.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLRDHUP) as u32,
            u64: 7,
        };
        assert_eq!(
            0,
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event)
        );
        let count = libc::epoll_wait(epoll, &raw mut event, 1, -1);
        libc::close(epoll);
        let events = event.events;
        vec![seen(count as isize), Ok(events as isize)]
    }
}

fn pipe() -> [OwnedFd; 2] {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written, which are nobody else's.
    unsafe {
        assert_eq!(0, libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC));
        ends.map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

fn splice(fd: RawFd) -> Vec<Seen> {
    let [_reader, writer] = pipe();
    let (none, to) = (ptr::null_mut(), writer.as_raw_fd());
    // SAFETY: no offsets.
    vec![seen(unsafe { libc::splice(fd, none, to, none, 100, 0) })]
}

/// From a file of zeroes, to a connection whose buffers are full.
fn send_file(fd: RawFd) -> Vec<Seen> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        // SAFETY: the name is a C string; the descriptor is nobody else's.
        unsafe {
            let fd = libc::memfd_create(c"zeroes".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(0, libc::ftruncate(fd, 1 << 20));
            OwnedFd::from_raw_fd(fd)
        }
    });
    let mut offset = 0;
    // SAFETY: the offset lives across the call.
    vec![seen(unsafe {
        libc::sendfile(fd, file.as_raw_fd(), &raw mut offset, 1 << 20)
    })]
}

/// Waits, after some preparation, in which a reset is seen.
const WAITS: [(&str, Preparation, Wait); 14] = [
    ("recv", nothing, |fd| vec![receive(fd)]),
    ("recv after shutdown", shut_down_writing, |fd| {
        vec![receive(fd)]
    }),
    ("recvmsg", nothing, message),
    ("readv", nothing, vectored),
    ("peek", nothing, peek),
    ("send", fill, |fd| vec![send(fd)]),
    ("poll", nothing, |fd| {
        poll_for(fd, libc::POLLIN | libc::POLLRDHUP)
    }),
    ("poll for writing", fill, |fd| poll_for(fd, libc::POLLOUT)),
    ("poll for nothing", nothing, |fd| poll_for(fd, 0)),
    ("poll of two", nothing, poll_two),
    ("select", nothing, select),
    ("epoll", nothing, epoll),
    ("splice", nothing, splice),
    ("sendfile", fill, send_file),
];

/// The peer resets before this side does anything.
fn reset_before(_: Performer) -> Vec<Seen> {
    let (stream, peer) = tcp_pair();
    reset(peer);
    // The reset is there when the descriptor is ready.
    let mut all = poll_for(stream.as_raw_fd(), libc::POLLIN);
    all.extend(afterwards(stream.as_raw_fd()));
    all
}

/// What came before the reset is still to be read.
fn reset_after_bytes(_: Performer) -> Vec<Seen> {
    let (stream, mut peer) = tcp_pair();
    peer.write_all(b"kept").unwrap();
    poll_for(stream.as_raw_fd(), libc::POLLIN);
    reset(peer);
    poll_for(stream.as_raw_fd(), libc::POLLRDHUP);
    afterwards(stream.as_raw_fd())
}

/// In the queue of a listener, before it is accepted.
fn reset_in_queue(_: Performer) -> Vec<Seen> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    reset(client);
    let accepted = listener.accept().unwrap().0;
    afterwards(accepted.as_raw_fd())
}

/// To nobody, by a socket that waits.
fn refused(_: Performer) -> Vec<Seen> {
    let address = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let refusal = |result: io::Result<TcpStream>| Err(result.unwrap_err().raw_os_error().unwrap());
    vec![
        refusal(TcpStream::connect(address)),
        refusal(TcpStream::connect_timeout(&address, Duration::from_secs(5))),
    ]
}

/// While the attempt waits for an answer: the listener, whose queue is full, goes.
fn reset_while_connecting(performer: Performer) -> Vec<Seen> {
    // SAFETY: takes integers; the socket is nobody else's.
    let listener = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert_eq!(0, libc::listen(fd, 0));
        TcpListener::from_raw_fd(fd)
    };
    let mut address = listener.local_addr().unwrap();
    address.set_ip(Ipv4Addr::LOCALHOST.into());
    let _queued = TcpStream::connect(address).unwrap();
    let connects = move || match TcpStream::connect(address) {
        Ok(_) => Ok(0),
        Err(error) => Err(error.raw_os_error().unwrap()),
    };
    vec![performer.during(connects, || drop(listener))]
}

/// Both ends of a connection that waits for both directions.
fn reset_of_reader_and_writer(performer: Performer) -> Vec<Seen> {
    let (stream, peer) = tcp_pair();
    let stream = Arc::new(stream);
    fill(stream.as_raw_fd());
    let writer = stream.clone();
    let writes = move || send(writer.as_raw_fd());
    let reader = stream.clone();
    let mut results = Vec::new();
    let written = performer.during(writes, || {
        let reads = move || receive(reader.as_raw_fd());
        results.push(performer.during(reads, || reset(peer)));
    });
    results.push(written);
    // One of them has the error, and the other one what comes after it.
    let after = [Ok(0), Err(libc::EPIPE)];
    results.retain(|result| !after.contains(result));
    results
}

type Scene = fn(Performer) -> Vec<Seen>;

const SCENES: [(&str, Scene); 6] = [
    ("before anything", reset_before),
    ("after bytes", reset_after_bytes),
    ("in the queue", reset_in_queue),
    ("refused", refused),
    ("while connecting", reset_while_connecting),
    ("reader and writer", reset_of_reader_and_writer),
];

/// What threads see of everything.
fn on_threads() -> &'static Vec<Vec<Seen>> {
    static SEEN: OnceLock<Vec<Vec<Seen>>> = OnceLock::new();
    SEEN.get_or_init(|| all(Performer::Thread))
}

fn all(performer: Performer) -> Vec<Vec<Seen>> {
    // SAFETY: a write to a connection that is no more is to be an error only.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let waits = WAITS
        .iter()
        .map(|(_, prepare, wait)| reset_during(performer, *prepare, *wait));
    let scenes = SCENES.iter().map(|(_, scene)| scene(performer));
    waits.chain(scenes).collect()
}

#[test]
fn a_reset_is_seen_in_each_state_as_on_a_thread() {
    on_threads();
    on_every_runtime(|| {
        let names = WAITS.iter().map(|(name, ..)| name);
        let names = names.chain(SCENES.iter().map(|(name, _)| name));
        for ((name, right), seen) in names.zip(on_threads()).zip(all(Performer::Coroutine)) {
            assert_eq!(*right, seen, "{name}");
        }
    });
}
