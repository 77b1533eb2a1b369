//! MariaDB: a data directory, and a thread per connection.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use super::{Launch, Server, TemporaryFolder, run};
use crate::installed;

/// A MariaDB server with a new data directory, and connections for all of a
/// crowd.
pub struct MariaDb(Server);

impl MariaDb {
    /// Starts one, if it is installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    pub fn start() -> Option<Self> {
        let program = installed("mariadbd", &["/usr/sbin".into()])?;
        let initialize = installed("mariadb-install-db", &[])?;
        let folder = TemporaryFolder::new();
        run(Command::new(initialize)
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .arg(option("--datadir=", &folder, "data"))
            // Two of them in one folder remove each other's tables.
            .env("TMPDIR", folder.path())
            .current_dir(folder.path()));
        let command = |folder: &TemporaryFolder, port: u16| {
            let mut command = Command::new(&program);
            command.args(["--no-defaults", "--bind-address=127.0.0.1"]);
            command.args(["--max-connections=250", "--skip-name-resolve"]);
            command.args(["--innodb-flush-log-at-trx-commit=0", "--port"]);
            command.arg(port.to_string());
            command.arg(option("--datadir=", folder, "data"));
            command.arg(option("--socket=", folder, "socket"));
            command.arg(option("--pid-file=", folder, "pid"));
            command
                .current_dir(folder.path())
                .env("TMPDIR", folder.path());
            command
        };
        let launch = Launch {
            command: &command,
            answers: &answers,
            // It takes long to end well, and nobody needs the data.
            signal: libc::SIGKILL,
        };
        Some(Self(Server::start(folder, &launch)))
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/mysql", self.0.port)
    }
}

fn option(name: &str, folder: &TemporaryFolder, file: &str) -> String {
    format!("{name}{}", folder.path().join(file).display())
}

/// It greets whoever connects with the version of its protocol.
fn answers(port: u16) -> bool {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let mut greeting = [0; 5];
    stream
        .and_then(|mut stream| stream.read_exact(&mut greeting))
        .is_ok()
        && greeting[4] == 10
}
