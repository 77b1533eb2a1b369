//! Sockets: streams that carry more than fits, and datagrams.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::Round;
use crate::lines::sum;

pub(super) fn streams(round: &mut Round) {
    let length = 1000 + round.below(30_000) as usize;
    let (near, far) = UnixStream::pair().expect("there are descriptors");
    let shut = |stream: &UnixStream| stream.shutdown(Shutdown::Write);
    echo(near, far, length, shut);
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let address = listener.local_addr().expect("it is bound");
    let connects = open_coroutine::spawn(move || TcpStream::connect(address));
    let (near, _) = listener.accept().expect("somebody connects");
    let far = connects
        .join()
        .expect("it only connects")
        .expect("somebody listens");
    echo(near, far, length, |stream| stream.shutdown(Shutdown::Write));
}

/// Sends while it receives what comes back.
fn echo<S>(
    near: S,
    mut far: S,
    length: usize,
    shut: impl Fn(&S) -> io::Result<()> + Send + Copy + 'static,
) where
    S: Read + Write + Send + Sync + 'static,
    for<'a> &'a S: Read + Write,
{
    let bytes: Vec<u8> = (0..length).map(|index| (index % 253) as u8).collect();
    let expected = sum(&bytes);
    let echoes = open_coroutine::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match far.read(&mut buffer).expect("the connection stands") {
                0 => break shut(&far).expect("it is open"),
                count => far
                    .write_all(&buffer[..count])
                    .expect("the connection stands"),
            }
        }
    });
    let near = Arc::new(near);
    let writer = near.clone();
    let writes = open_coroutine::spawn(move || {
        (&*writer).write_all(&bytes).expect("the connection stands");
        shut(&writer).expect("it is open");
    });
    let mut back = Vec::new();
    (&*near)
        .read_to_end(&mut back)
        .expect("the connection stands");
    assert_eq!((length, expected), (back.len(), sum(&back)));
    writes.join().expect("it only writes");
    echoes.join().expect("it only echoes");
}

pub(super) fn datagrams(round: &mut Round) {
    let near = UdpSocket::bind("127.0.0.1:0").expect("there are ports");
    let far = UdpSocket::bind("127.0.0.1:0").expect("there are ports");
    near.connect(far.local_addr().expect("it is bound"))
        .expect("it can be named");
    near.set_read_timeout(Some(Duration::from_millis(2)))
        .expect("the time is not zero");
    let error = near.recv(&mut [0]).expect_err("nobody sends");
    assert_eq!(io::ErrorKind::WouldBlock, error.kind());
    near.set_read_timeout(None).expect("it is allowed");
    let answers = open_coroutine::spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..10 {
            let (count, from) = far.recv_from(&mut buffer).expect("it is bound");
            buffer[..count].reverse();
            far.send_to(&buffer[..count], from).expect("it is bound");
        }
    });
    let number = round.number;
    for index in 0..10 {
        let mut text = format!("{index} of {number}").into_bytes();
        near.send(&text).expect("it is connected");
        let mut buffer = [0; 64];
        let count = near.recv(&mut buffer).expect("it is answered");
        text.reverse();
        assert_eq!(text, &buffer[..count]);
    }
    answers.join().expect("it only answers");
}
