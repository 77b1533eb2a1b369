//! What the servers of the comparison share: everything but the runtime, HTTP and the way to
//! the database.
//!
//! * `options`: the command line, and the line that tells the port.
//! * `route`: which case a request asks for, and how often.
//! * `model`: rows, random ids, statements.
//! * `answer`: bodies and their types, for servers that block.
//! * `fortunes`: the page.
//! * `wire`: a small client for PostgreSQL over any stream that blocks, where a runtime has no
//!   driver of its own.

pub mod answer;
pub mod fortunes;
pub mod model;
pub mod options;
pub mod route;
pub mod wire;
