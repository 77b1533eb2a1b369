//! Sockets and pipes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Outcome, Patient, beside, check, is_late, pattern, tried};

/// More than the buffers of a socket hold, so that writers wait.
const LEN: usize = 3 << 20;

fn echo<S: Read + Write + Send + 'static>(ours: S, theirs: S) -> Outcome {
    let (mut ours, mut theirs) = (Patient(ours), Patient(theirs));
    let sent = pattern(LEN);
    let expected = sent.clone();
    let body = move || {
        let mut received = vec![0; LEN];
        theirs.read_exact(&mut received)?;
        theirs.write_all(&received[..1000])?;
        theirs.flush()?;
        Ok(received == expected)
    };
    let is_same = beside(body, || {
        ours.write_all(&sent)?;
        let mut answer = vec![0; 1000];
        ours.read_exact(&mut answer)?;
        check(answer == sent[..1000], "other bytes came back")
    })?;
    check(is_same, "other bytes came")?;
    let end = ours.read(&mut [0])?;
    check(end == 0, "there were more bytes")
}

pub(super) fn streams() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    for index in 0..2 {
        let accept = |listener: &TcpListener| tried("accept", || listener.accept());
        let waiting = listener.try_clone()?;
        let mut client = None;
        let mut server = beside(
            move || Ok(accept(&waiting)?.0),
            || {
                client = Some(if index == 0 {
                    tried("connect", || TcpStream::connect(address))?
                } else {
                    let limit = Duration::from_secs(5);
                    tried("connect_timeout", || {
                        TcpStream::connect_timeout(&address, limit)
                    })?
                });
                Ok(())
            },
        )?;
        let client = client.expect("it has connected");
        // A connect that has failed may have got so far that it is accepted.
        while server.peer_addr().ok() != client.local_addr().ok() {
            server = accept(&listener)?.0;
        }
        echo(client, server)?;
    }
    let (one, other) = UnixStream::pair()?;
    echo(one, other)
}

pub(super) fn datagrams() -> Outcome {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = receiver.local_addr()?;
    let received = beside(
        move || {
            let mut buffer = [0; 16];
            let (len, _) = tried("recv_from", || receiver.recv_from(&mut buffer))?;
            Ok(buffer[..len].to_vec())
        },
        || {
            tried("send_to", || sender.send_to(b"datagram", address))?;
            Ok(())
        },
    )?;
    check(received == b"datagram", "another datagram came")
}

fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written to `ends`.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    let [read, write] = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok((read, write))
}

pub(super) fn pipes() -> Outcome {
    let (read, write) = pipe()?;
    let (mut read, mut write) = (Patient(read), Patient(write));
    let received = beside(
        move || {
            let mut bytes = vec![0; LEN / 8];
            read.read_exact(&mut bytes)?;
            Ok(bytes)
        },
        || Ok(write.write_all(&pattern(LEN / 8))?),
    )?;
    check(received == pattern(LEN / 8), "other bytes came")
}

/// `poll` of one descriptor and of several, and `select`.
pub(super) fn readiness() -> Outcome {
    for count in [1, 2] {
        let (one, mut other) = UnixStream::pair()?;
        let (third, _fourth) = UnixStream::pair()?;
        let body = move || {
            let fds = [one.as_raw_fd(), third.as_raw_fd()];
            let mut entries = fds.map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            // SAFETY: there are so many entries.
            let ready = tried("poll", || unsafe {
                match libc::poll(entries.as_mut_ptr(), count, 10_000) {
                    -1 => Err(io::Error::last_os_error()),
                    ready => Ok(ready),
                }
            })?;
            check(
                (ready, entries[0].revents) == (1, libc::POLLIN),
                "another descriptor is ready",
            )
        };
        beside(body, || Ok(tried("write", || other.write_all(b"x"))?))?;
    }
    let (one, mut other) = UnixStream::pair()?;
    let body = move || {
        let fd = one.as_raw_fd();
        // SAFETY: all-zero bytes are an empty set, with room for a small number.
        let ready = tried("select", || unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd, &raw mut set);
            let none = std::ptr::null_mut();
            match libc::select(fd + 1, &raw mut set, none, none, none.cast()) {
                -1 => Err(io::Error::last_os_error()),
                ready => Ok(ready),
            }
        })?;
        check(ready == 1, "not one descriptor is ready")
    };
    beside(body, || Ok(tried("write", || other.write_all(b"x"))?))
}

pub(super) fn timeouts() -> Outcome {
    let (mut one, _other) = UnixStream::pair()?;
    one.set_read_timeout(Some(Duration::from_millis(1)))?;
    let late = tried("read", || match one.read(&mut [0]) {
        Err(error) if is_late(&error) => Ok(true),
        result => result.map(|_| false),
    })?;
    check(late, "a read has not timed out")
}
