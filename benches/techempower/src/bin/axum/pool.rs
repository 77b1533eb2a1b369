//! Connections of tokio-postgres, and the pool of them.
//!
//! # Invariants
//!
//! 1. There is a connection in `free` for each permit that nobody holds.

use std::ops::Deref;
use std::sync::Mutex;

use bench_techempower::model::{Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World};
use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, Error, NoTls, Row, Statement};

/// A connection with its prepared statements.
pub struct Connection {
    client: Client,
    world: Statement,
    fortunes: Statement,
    update: Statement,
    pipelines: bool,
}

impl Connection {
    /// Connects, and leaves the reading and writing to a task.
    pub async fn open(url: &str, pipelines: bool) -> Result<Self, Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection to the database broke: {error}");
            }
        });
        Ok(Self {
            world: client.prepare(SELECT_WORLD).await?,
            fortunes: client.prepare(SELECT_FORTUNES).await?,
            update: client.prepare(UPDATE_WORLDS).await?,
            client,
            pipelines,
        })
    }

    pub async fn world(&self, id: i32) -> Result<World, Error> {
        let row = self.client.query_one(&self.world, &[&id]).await?;
        Ok(World {
            id: row.get(0),
            random_number: row.get(1),
        })
    }

    /// A query for each of `ids`.
    pub async fn worlds(&self, ids: &[i32]) -> Result<Vec<World>, Error> {
        if self.pipelines {
            // What is polled together is sent together.
            return try_join_all(ids.iter().map(|id| self.world(*id))).await;
        }
        let mut worlds = Vec::with_capacity(ids.len());
        for id in ids {
            worlds.push(self.world(*id).await?);
        }
        Ok(worlds)
    }

    pub async fn fortunes(&self) -> Result<Vec<Fortune>, Error> {
        let rows = self.client.query(&self.fortunes, &[]).await?;
        let fortune = |row: &Row| Fortune {
            id: row.get(0),
            message: row.get(1),
        };
        Ok(rows.iter().map(fortune).collect())
    }

    /// Stores the numbers of `worlds`.
    pub async fn update(&self, worlds: &[World]) -> Result<(), Error> {
        let ids: Vec<i32> = worlds.iter().map(|world| world.id).collect();
        let numbers: Vec<i32> = worlds.iter().map(|world| world.random_number).collect();
        let changed = self.client.execute(&self.update, &[&ids, &numbers]).await;
        changed.map(drop)
    }
}

/// The connections, which requests take in turn.
pub struct Pool {
    free: Mutex<Vec<Connection>>,
    available: Semaphore,
}

impl Pool {
    pub fn new(all: Vec<Connection>) -> Self {
        Self {
            available: Semaphore::new(all.len()),
            free: Mutex::new(all),
        }
    }

    /// Waits for a connection that nobody uses.
    pub async fn take(&self) -> Taken<'_> {
        let permit = self.available.acquire().await;
        let permit = permit.expect("nobody closes the semaphore");
        let connection = self.free.lock().expect(UNPOISONED).pop();
        Taken {
            connection: Some(connection.expect("there is one for each permit")),
            pool: self,
            _permit: permit,
        }
    }
}

/// A connection that goes back to the pool with this value.
pub struct Taken<'a> {
    connection: Option<Connection>,
    pool: &'a Pool,
    /// Goes back after `drop` has put the connection back (invariant 1).
    _permit: SemaphorePermit<'a>,
}

impl Deref for Taken<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect(TAKEN)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take().expect(TAKEN);
        self.pool.free.lock().expect(UNPOISONED).push(connection);
    }
}

const UNPOISONED: &str = "nothing panics while it holds the lock";
const TAKEN: &str = "it is taken out by `drop` alone";
