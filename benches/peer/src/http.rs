//! The plaintext responder: buffers and parsing of one keep-alive connection, without I/O.
//!
//! Response and buffer sizes are those of the other peers, so that the same bytes move.

use httparse::{EMPTY_HEADER, Request, Status};
use std::hint::black_box;
use std::io;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    Server: b\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\nHello, World!";
const BUFFER: usize = 8192;
const MAX_HEADERS: usize = 16;

/// What has been read and not yet parsed, and what is to be written.
pub struct Connection {
    input: Vec<u8>,
    /// How many bytes of `input` are filled.
    filled: usize,
    output: Vec<u8>,
}

impl Connection {
    pub fn new() -> Self {
        Self {
            input: vec![0; BUFFER],
            filled: 0,
            output: Vec::with_capacity(BUFFER),
        }
    }

    /// Where the next bytes go. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.input[self.filled..]
    }

    /// Takes `length` bytes that were put into `space`; returns the responses to write.
    pub fn received(&mut self, length: usize) -> io::Result<&[u8]> {
        self.filled += length;
        self.output.clear();
        let mut parsed = 0;
        while parsed < self.filled {
            match request_length(&self.input[parsed..self.filled])? {
                Some(length) => parsed += length,
                None => break,
            }
            self.output.extend_from_slice(RESPONSE);
        }
        self.input.copy_within(parsed..self.filled, 0);
        self.filled -= parsed;
        if self.filled == self.input.len() {
            return Err(io::Error::other("a request does not fit into the buffer"));
        }
        Ok(&self.output)
    }
}

/// The length of the request that `bytes` begins with; none if it is not all there.
fn request_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) => {
            black_box(request.path);
            Ok(Some(length))
        }
        Ok(Status::Partial) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn feed<'a>(connection: &'a mut Connection, bytes: &[u8]) -> io::Result<&'a [u8]> {
        connection.space()[..bytes.len()].copy_from_slice(bytes);
        connection.received(bytes.len())
    }

    #[test]
    fn pipelined_requests_get_one_response_each() {
        let mut connection = Connection::new();
        let two = [REQUEST, REQUEST].concat();
        assert_eq!(
            [RESPONSE, RESPONSE].concat(),
            feed(&mut connection, &two).unwrap()
        );
    }

    #[test]
    fn a_request_in_two_parts_gets_one_response() {
        let mut connection = Connection::new();
        let (first, second) = REQUEST.split_at(7);
        assert!(feed(&mut connection, first).unwrap().is_empty());
        assert_eq!(RESPONSE, feed(&mut connection, second).unwrap());
    }

    #[test]
    fn an_endless_request_is_refused() {
        let mut connection = Connection::new();
        let head = [REQUEST.strip_suffix(b"\r\n").unwrap(), &[b'a'; BUFFER]].concat();
        assert!(feed(&mut connection, &head[..BUFFER]).is_err());
    }
}
