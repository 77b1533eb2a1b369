//! Whatever a coroutine transfers between sockets, pipes, queues and terminals,
//! and whichever function it uses for it, the others of its worker go on.

mod runtimes;
mod waits;

use std::ffi::{c_int, c_uint};
use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use libc::{c_void, iovec, mmsghdr, msghdr};
use runtimes::on_every_driver;
use waits::ticks_during;

/// What `libc`'s function returned, or the error.
fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn buffer(bytes: &mut [u8]) -> iovec {
    iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// A message of these buffers, which must live as long as it is used.
fn message(buffers: &mut [iovec]) -> msghdr {
    // SAFETY: all-zero bytes are an empty message.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = buffers.as_mut_ptr();
    message.msg_iovlen = buffers.len();
    message
}

fn unique(name: &str) -> std::path::PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let id = NEXT.fetch_add(1, Relaxed);
    std::env::temp_dir().join(format!("open-coroutine-{name}-{}-{id}", std::process::id()))
}

/// Runs `receive`, which waits for the 6 bytes "abcdef" of a socket.
fn receives(receive: fn(RawFd, &mut [u8])) {
    let (receiver, mut sender) = UnixStream::pair().unwrap();
    ticks_during(
        move || {
            let mut bytes = [0; 8];
            receive(receiver.as_raw_fd(), &mut bytes);
            assert_eq!(b"abcdef\0\0", &bytes);
        },
        move || sender.write_all(b"abcdef").unwrap(),
    );
}

#[test]
fn during_receives_of_every_kind() {
    on_every_driver(1, || {
        receives(|fd, bytes| {
            let (start, none) = (bytes.as_mut_ptr().cast(), ptr::null_mut());
            // SAFETY: the bytes of the slice; no address.
            let count = unsafe { libc::recvfrom(fd, start, 8, 0, none, ptr::null_mut()) };
            assert_eq!(6, check(count).unwrap());
        });
        receives(|fd, bytes| {
            let (one, other) = bytes.split_at_mut(2);
            let mut buffers = [buffer(one), buffer(other)];
            let mut message = message(&mut buffers);
            // SAFETY: two buffers within the slice.
            let count = unsafe { libc::recvmsg(fd, &raw mut message, 0) };
            assert_eq!(6, check(count).unwrap());
        });
        receives(|fd, bytes| {
            let (one, other) = bytes.split_at_mut(5);
            let buffers = [buffer(one), buffer(other)];
            // SAFETY: two buffers within the slice.
            let count = unsafe { libc::readv(fd, buffers.as_ptr(), 2) };
            assert_eq!(6, check(count).unwrap());
        });
        receives(|fd, bytes| {
            let start = bytes.as_mut_ptr().cast();
            // SAFETY: 6 bytes of the slice.
            let count = unsafe { libc::recv(fd, start, 6, libc::MSG_WAITALL) };
            assert_eq!(6, check(count).unwrap());
        });
    });
}

#[test]
fn a_receive_of_all_waits_for_the_last_part() {
    on_every_driver(1, || {
        let (receiver, mut sender) = UnixStream::pair().unwrap();
        sender.write_all(b"abc").unwrap();
        ticks_during(
            move || {
                let mut bytes = [0; 6];
                let (one, other) = bytes.split_at_mut(2);
                let mut buffers = [buffer(one), buffer(other)];
                let mut message = message(&mut buffers);
                let fd = receiver.as_raw_fd();
                // SAFETY: two buffers within the array.
                let count = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_WAITALL) };
                assert_eq!(6, check(count).unwrap());
                assert_eq!(b"abcdef", &bytes);
            },
            move || sender.write_all(b"def").unwrap(),
        );
    });
}

/// Has `send` send a message that is larger than the buffers of a socket, and
/// checks that all of it comes.
fn sends(send: fn(RawFd, &mut [u8]) -> usize) {
    const SIZE: usize = 2 << 20;
    let (mut receiver, sender) = UnixStream::pair().unwrap();
    ticks_during(
        move || {
            let mut bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
            assert_eq!(SIZE, send(sender.as_raw_fd(), &mut bytes));
        },
        move || {
            let mut all = Vec::new();
            receiver.read_to_end(&mut all).unwrap();
            assert_eq!(SIZE, all.len());
            assert!(
                all.iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == (at / 7) as u8)
            );
        },
    );
}

#[test]
fn during_sends_of_every_kind_which_send_everything() {
    on_every_driver(1, || {
        sends(|fd, bytes| {
            let (start, len) = (bytes.as_ptr().cast(), bytes.len());
            // SAFETY: the bytes of the slice; no address.
            check(unsafe { libc::sendto(fd, start, len, 0, ptr::null(), 0) }).unwrap()
        });
        sends(|fd, bytes| {
            let (one, other) = bytes.split_at_mut(1000);
            let mut buffers = [buffer(one), buffer(other)];
            let message = message(&mut buffers);
            // SAFETY: two buffers within the slice.
            check(unsafe { libc::sendmsg(fd, &raw const message, 0) }).unwrap()
        });
        sends(|fd, bytes| {
            let (one, other) = bytes.split_at_mut(1 << 20);
            let buffers = [buffer(one), buffer(&mut []), buffer(other)];
            // SAFETY: three buffers within the slice.
            check(unsafe { libc::writev(fd, buffers.as_ptr(), 3) }).unwrap()
        });
        sends(|fd, bytes| {
            let (one, other) = bytes.split_at_mut(1 << 20);
            let (mut one, mut other) = ([buffer(one)], [buffer(other)]);
            let mut messages = [&mut one, &mut other].map(|buffers| mmsghdr {
                msg_hdr: message(buffers),
                msg_len: 0,
            });
            // SAFETY: two messages of buffers within the slice.
            assert_eq!(2, unsafe {
                libc::sendmmsg(fd, messages.as_mut_ptr(), 2, 0)
            });
            messages
                .iter()
                .map(|message| message.msg_len as usize)
                .sum()
        });
    });
}

/// Receives up to three datagrams at once; returns their lengths.
fn receive_three(fd: RawFd, flags: c_int, limit: Option<Duration>) -> Result<Vec<c_uint>, i32> {
    let mut bytes = [[0u8; 16]; 3];
    let mut buffers = bytes.each_mut().map(|bytes| [buffer(bytes)]);
    let mut messages = buffers.each_mut().map(|buffers| mmsghdr {
        msg_hdr: message(buffers),
        msg_len: 0,
    });
    let mut time = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let time = time.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: three messages, each with a buffer; a time or null.
    let count = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), 3, flags, time) };
    if count < 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap());
    }
    let lengths = messages.iter().map(|message| message.msg_len);
    Ok(lengths.take(count as usize).collect())
}

#[test]
fn during_receives_of_several_datagrams() {
    on_every_driver(1, || {
        let (receiver, sender) = UnixDatagram::pair().unwrap();
        sender.send(b"1").unwrap();
        let other = sender.try_clone().unwrap();
        ticks_during(
            move || {
                assert_eq!(
                    Ok(vec![1, 2, 0]),
                    receive_three(receiver.as_raw_fd(), 0, None)
                )
            },
            move || {
                sender.send(b"22").unwrap();
                sender.send(b"").unwrap();
            },
        );
        drop(other);
    });
}

#[test]
fn a_receive_for_one_returns_with_what_there_is() {
    on_every_driver(1, || {
        let (receiver, sender) = UnixDatagram::pair().unwrap();
        let fd = receiver.as_raw_fd();
        sender.send(b"1").unwrap();
        sender.send(b"22").unwrap();
        assert_eq!(
            Ok(vec![1, 2]),
            receive_three(fd, libc::MSG_WAITFORONE, None)
        );
        assert_eq!(
            Err(libc::EAGAIN),
            receive_three(fd, libc::MSG_DONTWAIT, None)
        );
        receiver
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        assert_eq!(Err(libc::EAGAIN), receive_three(fd, 0, None));
        sender.send(b"333").unwrap();
        assert_eq!(Ok(vec![3]), receive_three(fd, 0, None));
        // The limit is looked at after each message, as in the kernel.
        receiver.set_read_timeout(None).unwrap();
        sender.send(b"4444").unwrap();
        assert_eq!(Ok(vec![4]), receive_three(fd, 0, Some(Duration::ZERO)));
    });
}

#[test]
fn datagrams_are_sent_in_one_call() {
    on_every_driver(1, || {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let mut bytes = [[b'x'; 5]; 3];
        let mut buffers = bytes.each_mut().map(|bytes| [buffer(bytes)]);
        let mut messages = buffers.each_mut().map(|buffers| mmsghdr {
            msg_hdr: message(buffers),
            msg_len: 0,
        });
        let fd = sender.as_raw_fd();
        // SAFETY: three messages, each with a buffer.
        assert_eq!(3, unsafe {
            libc::sendmmsg(fd, messages.as_mut_ptr(), 3, 0)
        });
        for message in &messages {
            assert_eq!(5, message.msg_len);
            assert_eq!(5, receiver.recv(&mut [0; 16]).unwrap());
        }
    });
}

#[test]
fn during_splice_tee_and_vmsplice() {
    on_every_driver(1, || {
        let ((from, mut source), (mut to, sink)) = (pipe().unwrap(), pipe().unwrap());
        ticks_during(
            move || {
                let (from, sink) = (from.as_raw_fd(), sink.as_raw_fd());
                let none = ptr::null_mut();
                // SAFETY: no offsets.
                let copied = unsafe { libc::tee(from, sink, 16, 0) };
                assert_eq!(3, check(copied).unwrap());
                // SAFETY: no offsets.
                let moved = unsafe { libc::splice(from, none, sink, none, 16, 0) };
                assert_eq!(3, check(moved).unwrap());
            },
            move || source.write_all(b"abc").unwrap(),
        );
        let mut all = String::new();
        to.read_to_string(&mut all).unwrap();
        assert_eq!("abcabc", all);

        let (reader, writer) = pipe().unwrap();
        ticks_during(
            move || {
                let mut bytes = vec![7; 1 << 20];
                let buffers = [buffer(&mut bytes)];
                let mut left = bytes.len();
                while left > 0 {
                    let rest = iovec {
                        iov_base: buffers[0].iov_base.wrapping_byte_add(bytes.len() - left),
                        iov_len: left,
                    };
                    // SAFETY: a buffer within the vector.
                    let count =
                        unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const rest, 1, 0) };
                    left -= check(count).unwrap();
                }
            },
            move || {
                let mut reader = reader;
                assert_eq!(1 << 20, reader.read_to_end(&mut Vec::new()).unwrap());
            },
        );
    });
}

#[test]
fn during_sendfile() {
    on_every_driver(1, || {
        let path = unique("sendfile");
        fs::write(&path, vec![9; 2 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        let (mut receiver, sender) = UnixStream::pair().unwrap();
        ticks_during(
            move || {
                let mut left = 2 << 20;
                while left > 0 {
                    let (to, from) = (sender.as_raw_fd(), file.as_raw_fd());
                    // SAFETY: no offset.
                    let count = unsafe { libc::sendfile(to, from, ptr::null_mut(), left) };
                    left -= check(count).unwrap();
                }
            },
            move || assert_eq!(2 << 20, receiver.read_to_end(&mut Vec::new()).unwrap()),
        );
        fs::remove_file(path).unwrap();
    });
}

/// A lock of the whole file for writing.
fn lock_of(kind: c_int) -> libc::flock {
    // SAFETY: all-zero bytes are a lock from the start to the end.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as i16;
    lock
}

#[test]
fn during_locks_of_open_files() {
    on_every_driver(1, || {
        let path = unique("lock");
        let open = || {
            File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .open(&path)
        };
        let (held, other) = (open().unwrap(), open().unwrap());
        let lock = |file: &File, command, kind| {
            let lock = lock_of(kind);
            // SAFETY: a lock.
            check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } as isize)
        };
        lock(&held, libc::F_OFD_SETLK, libc::F_WRLCK).unwrap();
        ticks_during(
            move || assert_eq!(0, lock(&other, libc::F_OFD_SETLKW, libc::F_WRLCK).unwrap()),
            move || assert_eq!(0, lock(&held, libc::F_OFD_SETLK, libc::F_UNLCK).unwrap()),
        );
        fs::remove_file(path).unwrap();
    });
}

/// Has another process hold a record lock until its standard input ends.
fn locked_by_another_process(path: &std::path::Path) -> std::process::Child {
    let program = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); sys.stdin.read()";
    let mut child = std::process::Command::new("python3")
        .args(["-c", program])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    child
}

#[test]
fn during_record_locks_against_another_process() {
    on_every_driver(1, || {
        let path = unique("record");
        let file = File::create(&path).unwrap();
        for wait in [
            (|file| {
                let lock = lock_of(libc::F_WRLCK);
                // SAFETY: a lock.
                unsafe { libc::fcntl(file, libc::F_SETLKW, &raw const lock) }
            }) as fn(RawFd) -> c_int,
            // SAFETY: takes integers.
            |file| unsafe { libc::lockf(file, libc::F_LOCK, 0) },
        ] {
            let mut holder = locked_by_another_process(&path);
            let own = file.try_clone().unwrap();
            let input = holder.stdin.take();
            ticks_during(
                move || assert_eq!(0, wait(own.as_raw_fd())),
                move || {
                    drop(input);
                    holder.wait().unwrap();
                },
            );
        }
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn during_message_queues() {
    on_every_driver(1, || {
        let name =
            std::ffi::CString::new(format!("/open-coroutine-{}", std::process::id())).unwrap();
        // SAFETY: all-zero bytes are attributes.
        let mut attributes: libc::mq_attr = unsafe { mem::zeroed() };
        attributes.mq_maxmsg = 1;
        attributes.mq_msgsize = 8;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: a C string, a mode and attributes, which is what it takes.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &raw const attributes) };
        if queue < 0 {
            eprintln!("skipped: no message queues: {}", io::Error::last_os_error());
            return;
        }
        // SAFETY: a C string.
        unsafe { libc::mq_unlink(name.as_ptr()) };
        ticks_during(
            move || {
                let mut bytes = [0u8; 8];
                let start = bytes.as_mut_ptr().cast();
                // SAFETY: the bytes of the array; no priority.
                let count = unsafe { libc::mq_receive(queue, start, 8, ptr::null_mut()) };
                assert_eq!(2, check(count).unwrap());
            },
            // SAFETY: two bytes.
            move || assert_eq!(0, unsafe { libc::mq_send(queue, c"hi".as_ptr(), 2, 0) }),
        );
        // SAFETY: the queue is not used any more.
        unsafe { libc::mq_close(queue) };
    });
}

#[test]
fn during_queues_and_semaphores_of_system_v() {
    on_every_driver(1, || {
        // SAFETY: takes integers.
        let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        assert!(queue >= 0, "{}", io::Error::last_os_error());
        ticks_during(
            move || {
                let mut message = [0u64; 2];
                // SAFETY: a type and 8 bytes.
                let count = unsafe { libc::msgrcv(queue, message.as_mut_ptr().cast(), 8, 0, 0) };
                assert_eq!(8, check(count).unwrap());
                assert_eq!([5, 42], message);
            },
            move || {
                let message = [5u64, 42];
                // SAFETY: a type and 8 bytes.
                assert_eq!(0, unsafe {
                    libc::msgsnd(queue, message.as_ptr().cast::<c_void>(), 8, 0)
                });
            },
        );
        // SAFETY: takes integers.
        unsafe { libc::msgctl(queue, libc::IPC_RMID, ptr::null_mut()) };

        // SAFETY: takes integers.
        let set = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
        assert!(set >= 0, "{}", io::Error::last_os_error());
        let change = |set: c_int, by: i16| {
            let mut operation = libc::sembuf {
                sem_num: 0,
                sem_op: by,
                sem_flg: 0,
            };
            // SAFETY: one operation.
            unsafe { libc::semop(set, &raw mut operation, 1) }
        };
        ticks_during(
            move || assert_eq!(0, change(set, -1)),
            move || assert_eq!(0, change(set, 1)),
        );
        // SAFETY: takes integers.
        unsafe { libc::semctl(set, 0, libc::IPC_RMID) };
    });
}

#[test]
fn during_a_close_that_lingers() {
    on_every_driver(1, || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 60,
        };
        let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
        let size = size_of_val(&linger) as u32;
        // SAFETY: the option's value.
        let set = unsafe {
            libc::setsockopt(
                client.as_raw_fd(),
                level,
                name,
                (&raw const linger).cast(),
                size,
            )
        };
        assert_eq!(0, set);
        client.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(count) = (&client).write(&[1; 1 << 16]) {
            sent += count;
        }
        client.set_nonblocking(false).unwrap();
        ticks_during(
            move || drop(client),
            move || assert_eq!(sent, server.read_to_end(&mut Vec::new()).unwrap()),
        );
    });
}

#[test]
fn the_draining_of_a_terminal_ends() {
    on_every_driver(1, || {
        let (mut leader, mut follower) = (-1, -1);
        let none = ptr::null_mut();
        // SAFETY: two numbers to write to.
        let opened = unsafe {
            libc::openpty(
                &raw mut leader,
                &raw mut follower,
                none,
                ptr::null(),
                ptr::null(),
            )
        };
        assert_eq!(0, opened);
        // SAFETY: opened just now.
        let (leader, follower) =
            unsafe { (OwnedFd::from_raw_fd(leader), OwnedFd::from_raw_fd(follower)) };
        let (mut reader, mut writer) = (File::from(leader), File::from(follower));
        writer.write_all(b"out").unwrap();
        // SAFETY: takes an integer.
        assert_eq!(0, unsafe { libc::tcdrain(writer.as_raw_fd()) });
        let mut out = [0; 3];
        reader.read_exact(&mut out).unwrap();
        assert_eq!(b"out", &out);
    });
}
