//! Redis: no files, one process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use super::{Launch, Server, TemporaryFolder};
use crate::installed;

/// A Redis server without persistence.
pub struct Redis(Server);

impl Redis {
    /// Starts one, if it is installed.
    pub fn start() -> Option<Self> {
        let program = installed("redis-server", &[])?;
        let command = |folder: &TemporaryFolder, port: u16| {
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]);
            command.arg(folder.path());
            command
        };
        let launch = Launch {
            command: &command,
            answers: &answers,
            signal: libc::SIGTERM,
        };
        Some(Self(Server::start(TemporaryFolder::new(), &launch)))
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.0.port)
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let mut answer = [0; 7];
    let asked = stream.write_all(b"PING\r\n");
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"+PONG\r\n"
}
