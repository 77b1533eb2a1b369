//! `echo-server` and `http`: a coroutine per connection, as one would write it with threads.

use crate::http::Connection;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::spawn;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const ECHO_BUFFER: usize = 4096;

/// Serves each connection with `handle` until the harness kills the process.
pub fn serve(options: &Options, report: &Report, handle: fn(TcpStream) -> io::Result<()>) {
    let listener = TcpListener::bind(("127.0.0.1", options.port())).expect("the port is free");
    let port = listener.local_addr().expect("it is bound").port();
    spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("connections can be accepted");
            // A connection that breaks is the client's business: its task just ends.
            spawn(move || handle(stream));
        }
    });
    report.listening(port);
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Sends back what it reads.
pub fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; ECHO_BUFFER];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Answers requests with a constant text; one write for all requests that one read brought.
pub fn http(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = Connection::new();
    loop {
        let length = stream.read(connection.space())?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(connection.received(length)?)?;
    }
}
