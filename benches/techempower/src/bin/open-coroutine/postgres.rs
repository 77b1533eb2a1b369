//! The `postgres` crate, which runs tokio under its blocking interface.

use std::io;

use bench_techempower::answer::Database;
use bench_techempower::model::{Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World};
use bench_techempower::options::Options;
use postgres::{Client, NoTls, Row, Statement};

/// A connection with its prepared statements.
pub struct Postgres {
    client: Client,
    world: Statement,
    fortunes: Statement,
    update: Statement,
}

impl Postgres {
    pub fn connect(options: &Options) -> io::Result<Self> {
        let mut client = Client::connect(&options.database, NoTls).map_err(io::Error::other)?;
        let mut prepare = |statement| client.prepare(statement).map_err(io::Error::other);
        Ok(Self {
            world: prepare(SELECT_WORLD)?,
            fortunes: prepare(SELECT_FORTUNES)?,
            update: prepare(UPDATE_WORLDS)?,
            client,
        })
    }
}

impl Database for Postgres {
    fn world(&mut self, id: i32) -> io::Result<World> {
        let row = self.client.query_one(&self.world, &[&id]);
        let row = row.map_err(io::Error::other)?;
        Ok(World {
            id: row.get(0),
            random_number: row.get(1),
        })
    }

    fn fortunes(&mut self) -> io::Result<Vec<Fortune>> {
        let rows = self.client.query(&self.fortunes, &[]);
        let fortune = |row: &Row| Fortune {
            id: row.get(0),
            message: row.get(1),
        };
        Ok(rows
            .map_err(io::Error::other)?
            .iter()
            .map(fortune)
            .collect())
    }

    fn update(&mut self, worlds: &[World]) -> io::Result<()> {
        let ids: Vec<i32> = worlds.iter().map(|world| world.id).collect();
        let numbers: Vec<i32> = worlds.iter().map(|world| world.random_number).collect();
        let changed = self.client.execute(&self.update, &[&ids, &numbers]);
        changed.map(drop).map_err(io::Error::other)
    }
}
