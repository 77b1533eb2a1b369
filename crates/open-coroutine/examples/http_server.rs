//! An HTTP/1.1 server on blocking `std::net`, a coroutine per connection.
//!
//!     cargo run --release -p open-coroutine --example http_server -- --port 8080 --workers 2
//!     curl http://127.0.0.1:8080/
//!     curl http://127.0.0.1:8080/slow
//!
//! It runs until it is killed, or has answered as many requests as `--requests`
//! says. Without `--port` the system chooses one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Request, Status};

/// A request with its body must fit into this; it lives on the heap because a
/// coroutine's stack is small.
const BUFFER: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

fn main() -> io::Result<()> {
    // The number of workers comes from the command line, so it is `init` and
    // not the attribute.
    let mut config = open_coroutine::Config::default();
    if let Some(workers) = option("--workers") {
        config = config.event_loop_size(workers);
    }
    open_coroutine::init(config).map_err(io::Error::other)?;

    let port = option("--port").map_or(Ok(0), u16::try_from);
    let listener = TcpListener::bind(("127.0.0.1", port.map_err(io::Error::other)?))?;
    println!("listening on {}", listener.local_addr()?);
    println!("{}", open_coroutine::capabilities());

    let (all_served, done) = mpsc::channel();
    let served = Arc::new(Served {
        count: AtomicUsize::new(0),
        limit: option("--requests"),
        all_served,
    });
    open_coroutine::spawn(move || accept(&listener, &served));
    // The plain main thread waits here; the workers do the rest.
    match done.recv() {
        Ok(count) => println!("served {count} requests"),
        Err(_) => eprintln!("no more connections can be accepted"),
    }
    Ok(())
}

/// The number that follows `name` on the command line.
fn option(name: &str) -> Option<usize> {
    let value = std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} needs a number, not {value}")),
    )
}

/// Counts requests up to the limit.
struct Served {
    count: AtomicUsize,
    limit: Option<usize>,
    all_served: Sender<usize>,
}

impl Served {
    fn add(&self, requests: usize) {
        let before = self.count.fetch_add(requests, Relaxed);
        let after = before + requests;
        if self
            .limit
            .is_some_and(|limit| before < limit && limit <= after)
        {
            // The receiver is gone only when the program ends anyway.
            let _ = self.all_served.send(after);
        }
    }
}

fn accept(listener: &TcpListener, served: &Arc<Served>) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let served = served.clone();
                // A connection that breaks is its client's business: the
                // handle is dropped, and the error with it.
                open_coroutine::spawn(move || serve(stream, &served));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                // Out of descriptors, most likely: let some connections end.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Answers the requests of one connection. All that one read brought are
/// answered with one write, so pipelining costs no more system calls.
fn serve(mut stream: TcpStream, served: &Served) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; BUFFER];
    let mut output = Vec::new();
    let mut filled = 0;
    loop {
        let length = stream.read(&mut input[filled..])?;
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let mut parsed = 0;
        let mut requests = 0;
        let mut keep_alive = true;
        while keep_alive && parsed < filled {
            let (answer, length) = match parse(&input[parsed..filled]) {
                Ok(Some(head)) if head.length > BUFFER => (Answer::TooLarge, 0),
                Ok(Some(head)) if head.length > filled - parsed => break,
                Ok(Some(head)) => (Answer::to(&head), head.length),
                Ok(None) if filled - parsed == BUFFER => (Answer::TooLarge, 0),
                Ok(None) => break,
                Err(_) => (Answer::Malformed, 0),
            };
            keep_alive = answer.keeps_alive();
            answer.write(&mut output);
            parsed += length;
            requests += 1;
        }
        stream.write_all(&output)?;
        output.clear();
        served.add(requests);
        if !keep_alive {
            return Ok(());
        }
        input.copy_within(parsed..filled, 0);
        filled -= parsed;
    }
}

/// What the server needs to know of a request.
struct Head {
    /// Bytes of head and body.
    length: usize,
    is_slow: bool,
    keep_alive: bool,
}

/// Parses the request that `bytes` begins with; `None` if its head is not all
/// there yet.
fn parse(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let Status::Complete(head) = request.parse(bytes)? else {
        return Ok(None);
    };
    let mut body = 0;
    let mut keep_alive = request.version == Some(1);
    for header in request.headers.iter() {
        let value = str::from_utf8(header.value).map_err(|_| httparse::Error::HeaderValue)?;
        if header.name.eq_ignore_ascii_case("content-length") {
            body = value.parse().map_err(|_| httparse::Error::HeaderValue)?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(httparse::Error::HeaderValue);
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = value.eq_ignore_ascii_case("keep-alive")
                || keep_alive && !value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(Head {
        length: head.saturating_add(body),
        is_slow: request.path == Some("/slow"),
        keep_alive,
    }))
}

#[derive(Clone, Copy)]
enum Answer {
    Hello,
    Goodbye,
    Malformed,
    TooLarge,
}

impl Answer {
    fn to(head: &Head) -> Self {
        if head.is_slow {
            // Blocking code: only this connection waits.
            thread::sleep(Duration::from_millis(100));
        }
        if head.keep_alive {
            Self::Hello
        } else {
            Self::Goodbye
        }
    }

    fn keeps_alive(self) -> bool {
        matches!(self, Self::Hello)
    }

    fn write(self, output: &mut Vec<u8>) {
        output.extend_from_slice(match self {
            Self::Hello => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n\
                Hello, World!"
            }
            Self::Goodbye => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
                Connection: close\r\n\r\nHello, World!" as &[u8]
            }
            Self::Malformed => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::TooLarge => {
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
        });
    }
}
