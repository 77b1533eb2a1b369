//! `set_read_timeout` and `set_write_timeout` hold, and lose nothing.

mod runtimes;
mod timing;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use runtimes::on_every_runtime;
use timing::assert_takes;

#[test]
fn a_read_ends_after_its_time_not_before_and_not_much_later() {
    on_every_runtime(|| {
        let (mut one, _other) = UnixStream::pair().unwrap();
        for milliseconds in [1, 30, 100, 30] {
            let limit = Duration::from_millis(milliseconds);
            one.set_read_timeout(Some(limit)).unwrap();
            assert_takes(limit, || {
                let error = one.read(&mut [0; 8]).unwrap_err();
                assert_eq!(ErrorKind::WouldBlock, error.kind());
            });
        }
    });
}

#[test]
fn reads_of_many_coroutines_end_in_their_own_time() {
    on_every_runtime(|| {
        let readers: Vec<_> = (1..=50)
            .map(|n| {
                open_coroutine::spawn(move || {
                    let (mut one, _other) = UnixStream::pair().unwrap();
                    let limit = Duration::from_millis(n * 3);
                    one.set_read_timeout(Some(limit)).unwrap();
                    assert_takes(limit, || {
                        let error = one.read(&mut [0; 8]).unwrap_err();
                        assert_eq!(ErrorKind::WouldBlock, error.kind());
                    });
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn vectored_transfers_end_after_their_time() {
    on_every_runtime(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let limit = Duration::from_millis(50);
        one.set_read_timeout(Some(limit)).unwrap();
        one.set_write_timeout(Some(limit)).unwrap();
        assert_takes(limit, || {
            let mut byte = [0];
            let mut buffers = [IoSliceMut::new(&mut byte)];
            let error = one.read_vectored(&mut buffers).unwrap_err();
            assert_eq!(ErrorKind::WouldBlock, error.kind());
        });
        let block = vec![0; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match one.write_vectored(&[IoSlice::new(&block)]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(ErrorKind::WouldBlock, error.kind());
        drop(one);
        assert_eq!(sent, other.read_to_end(&mut Vec::new()).unwrap());
    });
}

#[test]
fn accept_ends_after_its_time() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: 40_000,
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        // SAFETY: the option's value lives across the call and has its type's size.
        let result = unsafe {
            let len = size_of_val(&time) as libc::socklen_t;
            let value = (&raw const time).cast();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, len)
        };
        assert_eq!(0, result);
        assert_takes(Duration::from_millis(40), || {
            let error = listener.accept().unwrap_err();
            assert_eq!(ErrorKind::WouldBlock, error.kind());
        });
    });
}

#[test]
fn a_write_that_times_out_says_how_much_it_wrote() {
    on_every_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let limit = Duration::from_millis(50);
        client.set_write_timeout(Some(limit)).unwrap();
        let block = vec![1; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match client.write(&block) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_takes(limit, || {
            let error = client.write(&block).unwrap_err();
            assert_eq!(ErrorKind::WouldBlock, error.kind());
        });
        assert_eq!(ErrorKind::WouldBlock, error.kind());
        drop(client);
        let mut all = Vec::new();
        assert_eq!(sent, server.read_to_end(&mut all).unwrap());
    });
}

/// Sends numbered bytes about when the reader's time is up.
fn send_at_the_last_moment(mut stream: UnixStream, rounds: u32) {
    for round in 0..rounds {
        let jitter = round.wrapping_mul(0x9E37_79B9) >> 22;
        open_coroutine::sleep(Duration::from_micros(500 + u64::from(jitter)));
        stream.write_all(&round.to_ne_bytes()).unwrap();
    }
}

#[test]
fn bytes_that_come_as_the_time_is_up_are_not_lost() {
    const ROUNDS: u32 = 300;
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                open_coroutine::spawn(|| {
                    let (mut reader, writer) = UnixStream::pair().unwrap();
                    reader
                        .set_read_timeout(Some(Duration::from_millis(1)))
                        .unwrap();
                    let sender =
                        open_coroutine::spawn(move || send_at_the_last_moment(writer, ROUNDS));
                    let mut all = Vec::new();
                    let mut buffer = [0; 64];
                    loop {
                        match reader.read(&mut buffer) {
                            Ok(0) => break,
                            Ok(count) => all.extend_from_slice(&buffer[..count]),
                            Err(error) => assert_eq!(ErrorKind::WouldBlock, error.kind()),
                        }
                    }
                    sender.join().unwrap();
                    let expected: Vec<u8> = (0..ROUNDS).flat_map(u32::to_ne_bytes).collect();
                    assert_eq!(expected, all);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}
