//! The command line, and the line that a server prints.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::exit;
use std::str::FromStr;

const USAGE: &str = "usage: --database URL [--port P] [--workers N] [--pool N] \
    [--driver NAME] [--pipeline yes|no]";

/// What the caller asked for.
pub struct Options {
    /// Of 127.0.0.1; the system chooses one if it is 0.
    pub port: u16,
    /// Where PostgreSQL is, as `postgres://user@host:port/name`.
    pub database: String,
    /// Threads that handle requests.
    pub workers: usize,
    /// Connections to the database.
    pub pool: usize,
    /// What talks to the database, where there is a choice.
    pub driver: String,
    /// Whether the queries of one request are sent before the first is answered, where the
    /// driver can do that.
    pub pipelines: bool,
}

impl Options {
    /// Ends the process with a usage line if the arguments cannot be read.
    pub fn from_command_line() -> Self {
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|problem| {
            eprintln!("{problem}\n{USAGE}");
            exit(2)
        })
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            port: 0,
            database: String::new(),
            workers: 1,
            pool: 16,
            driver: "postgres".to_owned(),
            pipelines: false,
        };
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} has no value"))?;
            match name.as_str() {
                "--port" => options.port = number(&name, &value)?,
                "--database" => options.database = value,
                "--workers" => options.workers = number(&name, &value)?,
                "--pool" => options.pool = number(&name, &value)?,
                "--driver" => options.driver = value,
                "--pipeline" => options.pipelines = value == "yes",
                _ => return Err(format!("unexpected argument {name}")),
            }
        }
        if options.database.is_empty() || options.workers == 0 || options.pool == 0 {
            return Err("a database, a worker and a connection are needed".to_owned());
        }
        Ok(options)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value}"))
}

/// Tells who started the server that connections are accepted at `address`.
pub fn report_listening(address: SocketAddr) {
    let mut out = io::stdout().lock();
    // A reader that went away is no reason to panic.
    let _ = writeln!(out, "{{\"listening\":{}}}", address.port()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let options = parse("--database postgres://x --workers 2 --pipeline yes").unwrap();
        assert_eq!((0, 2, 16), (options.port, options.workers, options.pool));
        assert!(options.pipelines);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(parse("").is_err());
        assert!(parse("--database postgres://x --workers 0").is_err());
        assert!(parse("--database postgres://x --port x").is_err());
        assert!(parse("--database postgres://x --prot 1").is_err());
    }
}
