//! What is answered to a request, by servers that block.

use std::borrow::Cow;
use std::io;
use std::ops::DerefMut;

use serde::Serialize;

use crate::fortunes;
use crate::model::{self, Fortune, Message, World};
use crate::route::Route;

/// The type of a body.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Json,
    Html,
}

impl Kind {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

/// A body, and what it is.
pub struct Answer {
    pub kind: Kind,
    pub body: Cow<'static, [u8]>,
}

impl Answer {
    pub fn plaintext() -> Self {
        Self {
            kind: Kind::Text,
            body: Cow::Borrowed(b"Hello, World!"),
        }
    }

    pub fn message() -> Self {
        Self::json(&Message {
            message: "Hello, World!",
        })
    }

    pub fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("rows and messages can be written as JSON");
        Self {
            kind: Kind::Json,
            body: body.into(),
        }
    }

    pub fn fortunes(fortunes: Vec<Fortune>) -> Self {
        Self {
            kind: Kind::Html,
            body: fortunes::page(fortunes).into_bytes().into(),
        }
    }
}

/// A connection to PostgreSQL that blocks.
pub trait Database {
    fn world(&mut self, id: i32) -> io::Result<World>;

    /// A query for each of `ids`, one after the other if the driver has no other way.
    fn worlds(&mut self, ids: &[i32]) -> io::Result<Vec<World>> {
        ids.iter().map(|id| self.world(*id)).collect()
    }

    fn fortunes(&mut self) -> io::Result<Vec<Fortune>>;

    /// Stores the numbers of `worlds`.
    fn update(&mut self, worlds: &[World]) -> io::Result<()>;
}

/// Answers a request. `connection` waits for a free connection to the database, and is called
/// if one is needed.
pub fn answer<C>(route: Route, connection: impl FnOnce() -> C) -> io::Result<Answer>
where
    C: DerefMut<Target: Database + Sized>,
{
    // A connection is free again before its rows are written as JSON or HTML.
    Ok(match route {
        Route::Plaintext => Answer::plaintext(),
        Route::Json => Answer::message(),
        Route::Db => {
            let world = connection().world(model::random())?;
            Answer::json(&world)
        }
        Route::Queries(count) => {
            let worlds = connection().worlds(&model::ids(count))?;
            Answer::json(&worlds)
        }
        Route::Fortunes => {
            let fortunes = connection().fortunes()?;
            Answer::fortunes(fortunes)
        }
        Route::Updates(count) => {
            let worlds = update(&mut *connection(), count)?;
            Answer::json(&worlds)
        }
    })
}

fn update(database: &mut impl Database, count: usize) -> io::Result<Vec<World>> {
    let mut worlds = database.worlds(&model::distinct_ids(count))?;
    for world in &mut worlds {
        *world = world.changed();
    }
    database.update(&worlds)?;
    Ok(worlds)
}
