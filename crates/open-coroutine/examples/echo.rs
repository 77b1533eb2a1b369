//! An echo server and its clients in one process, all of them coroutines.
//!
//!     cargo run --release -p open-coroutine --example echo
//!
//! With `--port 7000` it is only a server, and runs until it is killed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

const CLIENTS: usize = 100;
const MESSAGES: usize = 20;

#[open_coroutine::main]
fn main() -> io::Result<()> {
    let port = std::env::args()
        .skip_while(|argument| argument != "--port")
        .nth(1);
    let is_only_server = port.is_some();
    let port: u16 = port
        .map_or(Ok(0), |port| port.parse())
        .map_err(io::Error::other)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let address = listener.local_addr()?;
    println!("listening on {address}");

    let connections = if is_only_server { usize::MAX } else { CLIENTS };
    let server = open_coroutine::spawn(move || -> io::Result<()> {
        for stream in listener.incoming().take(connections) {
            let stream = stream?;
            open_coroutine::spawn(move || echo(stream));
        }
        Ok(())
    });
    if !is_only_server {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| open_coroutine::spawn(move || client(number, address)))
            .collect();
        for client in clients {
            client.join().expect("a client does not panic")?;
        }
        println!("{CLIENTS} clients got {MESSAGES} messages back each");
    }
    server.join().expect("the server does not panic")
}

/// Sends back what it reads.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        // Suspends this coroutine until there is something to read.
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

fn client(number: usize, address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    for count in 0..MESSAGES {
        let message = format!("message {count} of client {number}");
        stream.write_all(message.as_bytes())?;
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer)?;
        assert_eq!(message.as_bytes(), answer);
    }
    Ok(())
}
