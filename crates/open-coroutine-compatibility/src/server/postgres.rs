//! PostgreSQL: a cluster of files, and a process per connection.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Launch, Server, TemporaryFolder, run};
use crate::installed;

/// A PostgreSQL server with a new cluster, and connections for all of a crowd.
pub struct Postgres(Server);

impl Postgres {
    /// Starts one, if it is installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    pub fn start() -> Option<Self> {
        let folders = versions();
        let program = installed("postgres", &folders)?;
        let initialize = installed("initdb", &folders)?;
        let is_ready = installed("pg_isready", &folders)?;
        let folder = TemporaryFolder::new();
        run(Command::new(initialize)
            .args(["--username=test", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(folder.path().join("data"))
            .current_dir(folder.path()));
        let command = |folder: &TemporaryFolder, port: u16| {
            let mut command = Command::new(&program);
            command.arg("-D").arg(folder.path().join("data"));
            command.arg("-k").arg(folder.path());
            command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
            command.args(["-F", "-N", "250"]).current_dir(folder.path());
            command
        };
        let answers = |port: u16| {
            let mut command = Command::new(&is_ready);
            command.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let launch = Launch {
            command: &command,
            answers: &answers,
            signal: libc::SIGQUIT,
        };
        Some(Self(Server::start(folder, &launch)))
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        format!("postgres://test@127.0.0.1:{}/postgres", self.0.port)
    }
}

/// Where distributions keep the programs of each version, newest first.
fn versions() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut folders: Vec<_> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    folders.sort();
    folders.reverse();
    folders
}
