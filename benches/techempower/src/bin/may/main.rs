//! The server on may and its HTTP server. may_postgres, its driver, is not on crates.io: `wire`,
//! on may's sockets, is in its place.

#[path = "../../pool.rs"]
mod pool;

/// The locks of the pool.
mod sync {
    pub use may::sync::{Condvar, Mutex};
}

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use bench_techempower::answer::{Kind, answer};
use bench_techempower::options::{Options, report_listening};
use bench_techempower::route::Route;
use bench_techempower::wire::{Target, Wire};
use may::net::TcpStream;
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use self::pool::Pool;

/// In words of the machine: twice the default, which `wire` would just fit into.
const STACK: usize = 0x2000;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    may::config()
        .set_workers(options.workers)
        .set_stack_size(STACK);
    let port = free_port(options.port)?;
    // In a coroutine, so that connecting suspends as all the rest does.
    let server = may::go!(move || -> io::Result<()> {
        let connections = (0..options.pool).map(|_| connect(&options));
        let pool = Arc::new(Pool::new(connections.collect::<io::Result<_>>()?));
        let server = Server { pool }.start((Ipv4Addr::LOCALHOST, port))?;
        report_listening((Ipv4Addr::LOCALHOST, port).into());
        server.join().map_err(|_| io::Error::other("it panicked"))
    });
    server
        .join()
        .map_err(|_| io::Error::other("the server panicked"))?
}

/// may_minihttp does not tell which port the system chose, so it is chosen here.
fn free_port(port: u16) -> io::Result<u16> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port))?;
    Ok(listener.local_addr()?.port())
}

type Database = Wire<TcpStream>;

fn connect(options: &Options) -> io::Result<Database> {
    let target = Target::parse(&options.database)?;
    let stream = TcpStream::connect((target.host.as_str(), target.port))?;
    stream.set_nodelay(true)?;
    Wire::start(stream, &target, options.pipelines)
}

/// All connections, and what each of them has.
#[derive(Clone)]
struct Server {
    pool: Arc<Pool<Database>>,
}

impl HttpServiceFactory for Server {
    type Service = Self;

    fn new_service(&self, _: usize) -> Self {
        self.clone()
    }
}

impl HttpService for Server {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        let Some(route) = Route::of(request.path()) else {
            response.status_code(404, "Not Found");
            return Ok(());
        };
        let answer = answer(route, || self.pool.take())?;
        response.header(content_type(answer.kind));
        match answer.body {
            Cow::Borrowed(bytes) => response.body_mut().extend_from_slice(bytes),
            Cow::Owned(bytes) => response.body_vec(bytes),
        }
        Ok(())
    }
}

/// may_minihttp takes whole lines.
fn content_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "Content-Type: text/plain",
        Kind::Json => "Content-Type: application/json",
        Kind::Html => "Content-Type: text/html; charset=utf-8",
    }
}
