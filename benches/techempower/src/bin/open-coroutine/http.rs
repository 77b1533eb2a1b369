//! HTTP/1.1 on a socket that blocks.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use bench_techempower::answer::Answer;
use bench_techempower::route::Route;
use httparse::{EMPTY_HEADER, Request, Status};

/// A request with its body must fit into this.
const BUFFER: usize = 8192;
const MAX_HEADERS: usize = 32;
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// Answers the requests of one connection until the client ends it. All that one read brought
/// are answered with one write.
pub fn serve(
    mut stream: TcpStream,
    answer: impl Fn(Route) -> io::Result<Answer>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; BUFFER];
    let mut filled = 0;
    let mut output = Output::new();
    loop {
        let read = stream.read(&mut input[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut parsed = 0;
        while let Some(request) = parse(&input[parsed..filled])? {
            match request.route.map(&answer) {
                Some(Ok(answer)) => output.push(&answer),
                Some(Err(error)) => {
                    eprintln!("{error}");
                    output.bytes.extend_from_slice(FAILED);
                }
                None => output.bytes.extend_from_slice(NOT_FOUND),
            }
            parsed += request.length;
        }
        stream.write_all(&output.bytes)?;
        output.bytes.clear();
        input.copy_within(parsed..filled, 0);
        filled -= parsed;
        if filled == BUFFER {
            return Err(io::Error::other("a request does not fit into the buffer"));
        }
    }
}

struct Parsed {
    /// Bytes of head and body.
    length: usize,
    route: Option<Route>,
}

/// Parses the request that `bytes` begins with; `None` if it is not all there yet.
fn parse(bytes: &[u8]) -> io::Result<Option<Parsed>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let mut body = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = str::from_utf8(header.value).map_err(io::Error::other)?;
            body = value.parse().map_err(io::Error::other)?;
        }
    }
    let length = head.saturating_add(body);
    Ok((length <= bytes.len()).then(|| Parsed {
        length,
        route: request.path.and_then(Route::of),
    }))
}

/// What is to be written, and the date that is in it.
struct Output {
    bytes: Vec<u8>,
    date: String,
    /// The second of `date`, since the epoch.
    second: u64,
}

impl Output {
    fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(BUFFER),
            date: String::new(),
            second: 0,
        }
    }

    fn push(&mut self, answer: &Answer) {
        self.update_date();
        write!(
            self.bytes,
            "HTTP/1.1 200 OK\r\nServer: o\r\nDate: {}\r\nContent-Type: {}\r\n\
            Content-Length: {}\r\n\r\n",
            self.date,
            answer.kind.content_type(),
            answer.body.len(),
        )
        .expect("a vector takes all that is written to it");
        self.bytes.extend_from_slice(&answer.body);
    }

    fn update_date(&mut self) {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed();
        let second = since_epoch.unwrap_or_default().as_secs();
        if second != self.second {
            self.second = second;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            self.date = httpdate::fmt_http_date(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER, Route, parse};

    #[test]
    fn a_request_is_parsed_when_it_is_all_there() {
        let request = b"GET /queries?q=2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        let length = request.len() - "GET".len();
        for part in 0..length {
            assert!(parse(&request[..part]).unwrap().is_none());
        }
        let parsed = parse(request).unwrap().unwrap();
        assert_eq!(
            (length, Some(Route::Queries(2))),
            (parsed.length, parsed.route)
        );
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        assert!(parse(&[b' '; BUFFER]).is_err());
    }
}
