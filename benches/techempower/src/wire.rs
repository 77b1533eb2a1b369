//! A small client for PostgreSQL: its messages over any stream that blocks.
//!
//! It stands for the driver that may has no published one of. Over a socket of std it is a
//! third driver for open-coroutine, so that there is a pair of servers which differ in nothing
//! but the runtime and HTTP.
//!
//! # Invariants
//!
//! 1. Between two calls everything that was sent has been answered, also after an error of the
//!    server: what it sends up to `ReadyForQuery` is read.

use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::answer::Database;
use crate::model::{Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World, int_array};

/// How much is read at once, at least.
const READ: usize = 4096;
const WORLD: &str = "world";
const FORTUNES: &str = "fortunes";
const UPDATE: &str = "update";

/// Where to connect to, and as whom.
pub struct Target {
    pub host: String,
    pub port: u16,
    user: String,
    database: String,
}

impl Target {
    pub fn parse(url: &str) -> io::Result<Self> {
        let config: Config = url.parse().map_err(io::Error::other)?;
        let (Some(Host::Tcp(host)), Some(user), Some(database)) = (
            config.get_hosts().first(),
            config.get_user(),
            config.get_dbname(),
        ) else {
            let message = format!("{url} lacks a host, a user or a database");
            return Err(io::Error::other(message));
        };
        Ok(Self {
            host: host.clone(),
            port: config.get_ports().first().copied().unwrap_or(5432),
            user: user.to_owned(),
            database: database.to_owned(),
        })
    }
}

/// A connection with its prepared statements.
pub struct Wire<S> {
    stream: S,
    /// What has been read and not yet parsed.
    input: BytesMut,
    /// What is to be sent.
    output: BytesMut,
    pipelines: bool,
}

impl<S: Read + Write> Wire<S> {
    /// Begins a session over a stream that is connected. The server must ask for no password.
    pub fn start(stream: S, target: &Target, pipelines: bool) -> io::Result<Self> {
        let mut wire = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            pipelines,
        };
        let parameters = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut wire.output)?;
        wire.send()?;
        wire.receive(|_| Ok(()))?;
        for (name, statement) in [
            (WORLD, SELECT_WORLD),
            (FORTUNES, SELECT_FORTUNES),
            (UPDATE, UPDATE_WORLDS),
        ] {
            frontend::parse(name, statement, [], &mut wire.output)?;
        }
        frontend::sync(&mut wire.output);
        wire.send()?;
        wire.receive(|_| Ok(()))?;
        Ok(wire)
    }

    /// Appends the messages that execute a statement. Parameters and results are binary.
    fn execute(&mut self, name: &str, parameters: &[&[u8]]) -> io::Result<()> {
        const BINARY: i16 = 1;
        let put = |parameter: &&[u8], buffer: &mut BytesMut| {
            buffer.extend_from_slice(parameter);
            Ok(IsNull::No)
        };
        let output = &mut self.output;
        frontend::bind("", name, [BINARY], parameters, put, [BINARY], output).map_err(|_| {
            io::Error::other(format!(
                "the parameters of {name} do not fit into a message"
            ))
        })?;
        frontend::execute("", 0, output)?;
        frontend::sync(output);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Reads all that answers one `sync`, and returns what `row` makes of the rows.
    fn receive<T>(&mut self, row: impl Fn(&DataRowBody) -> io::Result<T>) -> io::Result<Vec<T>> {
        let mut rows = Vec::new();
        let mut result = Ok(());
        loop {
            match self.message()? {
                Message::DataRow(body) => match row(&body) {
                    Ok(row) => rows.push(row),
                    Err(error) => result = result.and(Err(error)),
                },
                Message::ErrorResponse(body) => result = result.and(Err(error(&body))),
                Message::ReadyForQuery(_) => return result.map(|()| rows),
                Message::AuthenticationCleartextPassword
                | Message::AuthenticationMd5Password(_)
                | Message::AuthenticationSasl(_) => {
                    return Err(io::Error::other("the server asks for a password"));
                }
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.input)? {
                return Ok(message);
            }
            let filled = self.input.len();
            self.input.resize(filled + READ, 0);
            let read = self.stream.read(&mut self.input[filled..]);
            self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn one_world(&mut self) -> io::Result<World> {
        let worlds = self.receive(world)?;
        worlds.first().copied().ok_or_else(|| missing("row"))
    }
}

impl<S: Read + Write> Database for Wire<S> {
    fn world(&mut self, id: i32) -> io::Result<World> {
        self.execute(WORLD, &[&id.to_be_bytes()])?;
        self.send()?;
        self.one_world()
    }

    fn worlds(&mut self, ids: &[i32]) -> io::Result<Vec<World>> {
        if !self.pipelines {
            return ids.iter().map(|id| self.world(*id)).collect();
        }
        for id in ids {
            self.execute(WORLD, &[&id.to_be_bytes()])?;
        }
        self.send()?;
        // All are read before the first error counts (invariant 1).
        let worlds: Vec<_> = ids.iter().map(|_| self.one_world()).collect();
        worlds.into_iter().collect()
    }

    fn fortunes(&mut self) -> io::Result<Vec<Fortune>> {
        self.execute(FORTUNES, &[])?;
        self.send()?;
        self.receive(fortune)
    }

    fn update(&mut self, worlds: &[World]) -> io::Result<()> {
        let ids = int_array(worlds.iter().map(|world| world.id));
        let numbers = int_array(worlds.iter().map(|world| world.random_number));
        self.execute(UPDATE, &[&ids, &numbers])?;
        self.send()?;
        self.receive(|_| Ok(())).map(drop)
    }
}

fn world(row: &DataRowBody) -> io::Result<World> {
    let mut columns = row.ranges();
    Ok(World {
        id: int(row, columns.next()?)?,
        random_number: int(row, columns.next()?)?,
    })
}

fn fortune(row: &DataRowBody) -> io::Result<Fortune> {
    let mut columns = row.ranges();
    let id = int(row, columns.next()?)?;
    let message = value(row, columns.next()?)?.to_owned();
    let message = String::from_utf8(message).map_err(io::Error::other)?;
    Ok(Fortune { id, message })
}

fn int(row: &DataRowBody, column: Option<Option<Range<usize>>>) -> io::Result<i32> {
    let bytes = value(row, column)?.try_into().map_err(io::Error::other)?;
    Ok(i32::from_be_bytes(bytes))
}

/// A column's bytes. The outer option is whether there is such a column, the inner one whether
/// it is not null.
fn value(row: &DataRowBody, column: Option<Option<Range<usize>>>) -> io::Result<&[u8]> {
    let range = column.flatten().ok_or_else(|| missing("value"))?;
    Ok(&row.buffer()[range])
}

fn missing(what: &str) -> io::Error {
    io::Error::other(format!("a {what} is missing"))
}

fn error(body: &ErrorResponseBody) -> io::Error {
    const MESSAGE: u8 = b'M';
    let message = body.fields().find(|field| Ok(field.type_() == MESSAGE));
    let text = match &message {
        Ok(Some(field)) => String::from_utf8_lossy(field.value_bytes()),
        _ => "an error without a message".into(),
    };
    io::Error::other(text)
}
