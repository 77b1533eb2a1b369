//! The server on open-coroutine: sockets, locks and drivers that block, a coroutine per
//! connection.

mod http;
mod libpq;
#[path = "../../pool.rs"]
mod pool;
mod postgres;

/// The locks of the pool.
mod sync {
    pub use std::sync::{Condvar, Mutex};
}

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use bench_techempower::answer::{Database, answer};
use bench_techempower::options::{Options, report_listening};
use bench_techempower::wire::{Target, Wire};
use open_coroutine::Config;

use self::libpq::Libpq;
use self::pool::Pool;
use self::postgres::Postgres;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let config = Config::default().event_loop_size(options.workers);
    open_coroutine::init(config).map_err(io::Error::other)?;
    let server = open_coroutine::spawn(move || match options.driver.as_str() {
        "postgres" => serve(&options, Postgres::connect),
        "libpq" => serve(&options, Libpq::connect),
        "wire" => serve(&options, connect_wire),
        unknown => Err(io::Error::other(format!("there is no driver {unknown}"))),
    });
    server.join().map_err(io::Error::other)?
}

fn connect_wire(options: &Options) -> io::Result<Wire<TcpStream>> {
    let target = Target::parse(&options.database)?;
    let stream = TcpStream::connect((target.host.as_str(), target.port))?;
    stream.set_nodelay(true)?;
    Wire::start(stream, &target, options.pipelines)
}

/// Serves until the process is killed.
fn serve<D: Database + Send + 'static>(
    options: &Options,
    connect: fn(&Options) -> io::Result<D>,
) -> io::Result<()> {
    let connections = (0..options.pool).map(|_| connect(options));
    let pool = Arc::new(Pool::new(connections.collect::<io::Result<_>>()?));
    let listener = TcpListener::bind(("127.0.0.1", options.port))?;
    report_listening(listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        let pool = pool.clone();
        // A connection that breaks is the client's business: its task just ends.
        open_coroutine::spawn(move || http::serve(stream, |route| answer(route, || pool.take())));
    }
    Ok(())
}
