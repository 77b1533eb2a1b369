//! UDP and Unix datagrams keep their boundaries.

mod runtimes;
mod timing;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use runtimes::on_every_runtime;
use timing::assert_takes;

/// Two sockets that are connected with each other.
fn pair() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    one.connect(other.local_addr().unwrap()).unwrap();
    other.connect(one.local_addr().unwrap()).unwrap();
    (one, other)
}

#[test]
fn a_datagram_carries_its_sender() {
    on_every_runtime(|| {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("[::1]:0").unwrap();
        for receiver in [one, other] {
            let to = receiver.local_addr().unwrap();
            let task = open_coroutine::spawn(move || {
                let mut buffer = [0; 16];
                for _ in 0..2 {
                    let (count, from) = receiver.peek_from(&mut buffer).unwrap();
                    assert_eq!((b"hello".as_slice(), 5), (&buffer[..count], count));
                    assert_eq!((count, from), receiver.recv_from(&mut buffer).unwrap());
                    receiver.send_to(b"world", from).unwrap();
                }
            });
            let sender = UdpSocket::bind((to.ip(), 0)).unwrap();
            for _ in 0..2 {
                assert_eq!(5, sender.send_to(b"hello", to).unwrap());
                let mut buffer = [0; 3];
                // What does not fit is cut off.
                assert_eq!((3, to), sender.recv_from(&mut buffer).unwrap());
                assert_eq!(b"wor", &buffer);
            }
            task.join().unwrap();
        }
    });
}

#[test]
fn a_thousand_datagrams_go_back_and_forth() {
    on_every_runtime(|| {
        let (one, other) = pair();
        let echo = open_coroutine::spawn(move || {
            let mut buffer = [0; 2048];
            for _ in 0..1000 {
                let count = other.recv(&mut buffer).unwrap();
                assert_eq!(count, other.send(&buffer[..count]).unwrap());
            }
        });
        let mut buffer = [0; 2048];
        for n in 0..1000_usize {
            let message = vec![n as u8; n];
            one.send(&message).unwrap();
            let count = one.recv(&mut buffer).unwrap();
            assert_eq!(message, buffer[..count]);
        }
        echo.join().unwrap();
    });
}

#[test]
fn sockets_do_not_mix_their_datagrams() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..50_u32)
            .flat_map(|id| {
                let (one, other) = pair();
                let receiver = open_coroutine::spawn(move || {
                    let mut buffer = [0; 8];
                    for _ in 0..20 {
                        assert_eq!(4, other.recv(&mut buffer).unwrap());
                        assert_eq!(id.to_ne_bytes(), buffer[..4]);
                        other.send(b"next").unwrap();
                    }
                });
                let sender = open_coroutine::spawn(move || {
                    for _ in 0..20 {
                        one.send(&id.to_ne_bytes()).unwrap();
                        one.recv(&mut [0; 8]).unwrap();
                    }
                });
                [receiver, sender]
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn nothing_received_in_time_is_would_block() {
    on_every_runtime(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let limit = Duration::from_millis(50);
        socket.set_read_timeout(Some(limit)).unwrap();
        let calls: [fn(&UdpSocket) -> std::io::Error; 3] = [
            |socket| socket.recv(&mut [0; 8]).unwrap_err(),
            |socket| socket.recv_from(&mut [0; 8]).unwrap_err(),
            |socket| socket.peek_from(&mut [0; 8]).unwrap_err(),
        ];
        for call in calls {
            assert_takes(limit, || {
                assert_eq!(ErrorKind::WouldBlock, call(&socket).kind());
            });
        }
    });
}

#[test]
fn a_refused_datagram_is_reported_to_the_waiting_receiver() {
    on_every_runtime(|| {
        let (one, other) = pair();
        drop(other);
        let waiting = one.try_clone().unwrap();
        let receiver = open_coroutine::spawn(move || waiting.recv(&mut [0; 8]).unwrap_err().kind());
        open_coroutine::yield_now();
        one.send(b"nobody").unwrap();
        assert_eq!(ErrorKind::ConnectionRefused, receiver.join().unwrap());
    });
}

#[test]
fn unix_datagrams_wait_for_a_reader() {
    on_every_runtime(|| {
        let (one, other) = UnixDatagram::pair().unwrap();
        // Far more than the receiver's queue takes.
        let sender = open_coroutine::spawn(move || {
            for n in 0..2000_u32 {
                assert_eq!(4, one.send(&n.to_ne_bytes()).unwrap());
            }
        });
        open_coroutine::sleep(Duration::from_millis(10));
        assert!(!sender.is_finished());
        let mut buffer = [0; 8];
        for n in 0..2000_u32 {
            assert_eq!(4, other.recv(&mut buffer).unwrap());
            assert_eq!(n.to_ne_bytes(), buffer[..4]);
        }
        sender.join().unwrap();
    });
}
