//! The server on tokio, axum and tokio-postgres.
//!
//! With one worker it is tokio's single-threaded runtime, which is the faster one there.

mod pool;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bench_techempower::answer::Answer;
use bench_techempower::model;
use bench_techempower::options::{Options, report_listening};
use bench_techempower::route::count;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use self::pool::{Connection, Pool};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut builder = match options.workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(options.workers)
        .enable_all()
        .build()?;
    runtime.block_on(serve(&options))
}

/// Serves until the process is killed.
async fn serve(options: &Options) -> io::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..options.pool {
        let connection = Connection::open(&options.database, options.pipelines).await;
        connections.push(connection.map_err(io::Error::other)?);
    }
    let router = Router::new()
        .route("/plaintext", get(plaintext))
        .route("/json", get(json))
        .route("/db", get(db))
        .route("/queries", get(queries))
        .route("/fortunes", get(fortunes))
        .route("/updates", get(updates))
        .with_state(Arc::new(Pool::new(connections)));
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    report_listening(listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // One that is closed already fails at its first read, too.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

type Databases = State<Arc<Pool>>;

async fn plaintext() -> Sent {
    Sent(Answer::plaintext())
}

async fn json() -> Sent {
    Sent(Answer::message())
}

async fn db(pool: Databases) -> Result<Sent, Failed> {
    let world = pool.take().await.world(model::random()).await?;
    Ok(Sent(Answer::json(&world)))
}

async fn queries(pool: Databases, RawQuery(query): RawQuery) -> Result<Sent, Failed> {
    let ids = model::ids(count(&query.unwrap_or_default()));
    let worlds = pool.take().await.worlds(&ids).await?;
    Ok(Sent(Answer::json(&worlds)))
}

async fn fortunes(pool: Databases) -> Result<Sent, Failed> {
    let fortunes = pool.take().await.fortunes().await?;
    Ok(Sent(Answer::fortunes(fortunes)))
}

async fn updates(pool: Databases, RawQuery(query): RawQuery) -> Result<Sent, Failed> {
    let ids = model::distinct_ids(count(&query.unwrap_or_default()));
    let connection = pool.take().await;
    let mut worlds = connection.worlds(&ids).await?;
    for world in &mut worlds {
        *world = world.changed();
    }
    connection.update(&worlds).await?;
    drop(connection);
    Ok(Sent(Answer::json(&worlds)))
}

/// An answer on its way.
struct Sent(Answer);

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        let head = [(CONTENT_TYPE, self.0.kind.content_type()), (SERVER, "a")];
        let body = match self.0.body {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
        };
        (head, body).into_response()
    }
}

/// The database could not do what it was asked for.
struct Failed(tokio_postgres::Error);

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("{}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
