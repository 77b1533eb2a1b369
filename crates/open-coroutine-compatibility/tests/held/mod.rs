//! The server behind nginx's `/held`: a test that answers when it wants to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use open_coroutine_compatibility::COROUTINES;

/// A request with its body, not answered yet.
pub(crate) struct Request {
    stream: TcpStream,
    body: Vec<u8>,
}

/// Waits for a request of each of the crowd.
pub(crate) fn accept_all(listener: &TcpListener) -> Vec<Request> {
    (0..COROUTINES)
        .map(|_| Request::read(listener.accept().unwrap().0))
        .collect()
}

impl Request {
    fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let stream = reader.into_inner();
        Self { stream, body }
    }

    /// Sends the body back.
    pub(crate) fn answer(mut self) {
        let length = self.body.len();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.write_all(&self.body).unwrap();
    }
}
