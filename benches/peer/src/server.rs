//! `echo-server` and `http`: a coroutine per connection, as one would write it with threads.
//! With `--hooked 0` the handlers call what the hooked functions call, for what the hooks cost.

use crate::http::Connection;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::spawn;
use open_coroutine_core::io as core;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
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
            spawn(move || {
                stream.set_nodelay(true)?;
                handle(stream)
            });
        }
    });
    report.listening(port);
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// A stream past the functions of libc that are hooked.
pub struct Unhooked(pub TcpStream);

impl Read for Unhooked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer is borrowed for the call, and the caller a coroutine.
        count(unsafe { core::receive(self.0.as_raw_fd(), start, length, 0) })
    }
}

impl Write for Unhooked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (start, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: as above.
        count(unsafe { core::send(self.0.as_raw_fd(), start, length, libc::MSG_NOSIGNAL) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))
}

/// Sends back what it reads.
pub fn echo(mut stream: impl Read + Write) -> io::Result<()> {
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
pub fn http(mut stream: impl Read + Write) -> io::Result<()> {
    let mut connection = Connection::new();
    loop {
        let length = stream.read(connection.space())?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(connection.received(length)?)?;
    }
}
