//! What goes into one end of a TCP connection comes out of the other.

mod resets;
mod runtimes;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use resets::reset;
use runtimes::on_every_runtime;

const MEGABYTE: usize = 1 << 20;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(client.local_addr().unwrap(), peer);
    (client, server)
}

/// The byte at `position` of the stream called `seed`.
fn pattern(seed: u8, position: usize) -> u8 {
    (position.wrapping_mul(0x9E37_79B9) >> 13) as u8 ^ seed
}

fn send_pattern(mut stream: &TcpStream, seed: u8, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| pattern(seed, at)).collect();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end, with pauses.
fn receive_pattern(mut stream: &TcpStream, seed: u8, len: usize) {
    let mut buffer = vec![0; 100_000];
    let mut position = 0;
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        for (offset, &byte) in buffer[..count].iter().enumerate() {
            assert_eq!(
                pattern(seed, position + offset),
                byte,
                "at {position}+{offset}"
            );
        }
        position += count;
        if position / MEGABYTE != (position - count) / MEGABYTE {
            open_coroutine::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(len, position);
}

#[test]
fn ten_megabytes_each_way_arrive_at_slow_readers() {
    on_every_runtime(|| {
        let ends: [TcpStream; 2] = pair().into();
        let tasks: Vec<_> = (0..2)
            .flat_map(|end| {
                let writer = ends[end].try_clone().unwrap();
                let reader = ends[end].try_clone().unwrap();
                let (own, other) = (end as u8, 1 - end as u8);
                [
                    open_coroutine::spawn(move || send_pattern(&writer, own, 10 * MEGABYTE)),
                    open_coroutine::spawn(move || receive_pattern(&reader, other, 10 * MEGABYTE)),
                ]
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn vectored_transfers_keep_the_order() {
    on_every_runtime(|| {
        let (mut client, mut server) = pair();
        let reader = open_coroutine::spawn(move || {
            let (mut head, mut tail) = ([0; 3], [0; 100]);
            let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
            assert_eq!(11, server.read_vectored(&mut buffers).unwrap());
            assert_eq!(
                (b"hel", b"lo world"),
                (&head, tail[..8].try_into().unwrap())
            );
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).unwrap();
            rest
        });
        // The reader waits first, if there is one worker.
        open_coroutine::yield_now();
        let parts = [
            IoSlice::new(b"hello"),
            IoSlice::new(b""),
            IoSlice::new(b" world"),
        ];
        assert_eq!(11, client.write_vectored(&parts).unwrap());
        open_coroutine::sleep(Duration::from_millis(20));
        let large: Vec<Vec<u8>> = (0..40).map(|n| vec![n; MEGABYTE / 8]).collect();
        let slices: Vec<_> = large.iter().map(|part| IoSlice::new(part)).collect();
        // A blocking socket takes all of it.
        assert_eq!(5 * MEGABYTE, client.write_vectored(&slices).unwrap());
        drop(client);
        assert_eq!(large.concat(), reader.join().unwrap());
    });
}

#[test]
fn peek_waits_for_bytes_and_leaves_them() {
    on_every_runtime(|| {
        let (mut client, mut server) = pair();
        let reader = open_coroutine::spawn(move || {
            let mut buffer = [0; 16];
            for _ in 0..3 {
                assert_eq!(5, server.peek(&mut buffer).unwrap());
                assert_eq!(b"first", &buffer[..5]);
            }
            assert_eq!(5, server.read(&mut buffer).unwrap());
            assert_eq!(0, server.peek(&mut buffer).unwrap());
            assert_eq!(0, server.read(&mut buffer).unwrap());
        });
        open_coroutine::yield_now();
        client.write_all(b"first").unwrap();
        open_coroutine::sleep(Duration::from_millis(10));
        drop(client);
        reader.join().unwrap();
    });
}

#[test]
fn end_of_stream_is_seen_again_and_again() {
    on_every_runtime(|| {
        let (client, mut server) = pair();
        let reader = open_coroutine::spawn(move || {
            for _ in 0..3 {
                assert_eq!(0, server.read(&mut [0; 8]).unwrap());
            }
        });
        open_coroutine::yield_now();
        drop(client);
        reader.join().unwrap();
    });
}

#[test]
fn a_reset_wakes_the_reader_with_connection_reset() {
    on_every_runtime(|| {
        let (client, mut server) = pair();
        let reader = open_coroutine::spawn(move || {
            let error = server.read(&mut [0; 8]).unwrap_err();
            assert_eq!(ErrorKind::ConnectionReset, error.kind());
        });
        open_coroutine::yield_now();
        reset(client);
        reader.join().unwrap();
    });
}

#[test]
fn a_reset_wakes_the_writer_with_an_error() {
    on_every_runtime(|| {
        let (client, mut server) = pair();
        let writer = open_coroutine::spawn(move || {
            let block = vec![0; MEGABYTE];
            // More than any socket buffer takes.
            let error = (0..1000)
                .find_map(|_| server.write_all(&block).err())
                .unwrap();
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&error.kind()), "{error}");
            // And no signal kills the process.
            assert_eq!(
                ErrorKind::BrokenPipe,
                server.write(&block).unwrap_err().kind()
            );
        });
        open_coroutine::sleep(Duration::from_millis(20));
        reset(client);
        writer.join().unwrap();
    });
}

#[test]
fn options_are_kept() {
    on_every_runtime(|| {
        let (client, server) = pair();
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap() && !server.nodelay().unwrap());
        client.set_ttl(42).unwrap();
        assert_eq!(42, client.ttl().unwrap());
        client
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        assert_eq!(Some(Duration::from_secs(3)), client.read_timeout().unwrap());
        assert_eq!(None, client.write_timeout().unwrap());
        client.set_read_timeout(None).unwrap();
        assert_eq!(None, client.read_timeout().unwrap());
        assert!(client.take_error().unwrap().is_none());
    });
}
