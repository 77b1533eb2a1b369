//! Conformance: what code on a coroutine sees of the C library is what code on a
//! thread sees.
//!
//! Random but valid scripts of calls are performed by threads, and then by
//! coroutines on every kind of runtime; results, `errno`, bytes and flags must
//! be the same, step by step. A script that differs is shrunk.
//!
//! ```text
//! cargo test -p open-coroutine-conformance
//! OPEN_COROUTINE_CONFORMANCE_SCRIPTS=100000 cargo test -p open-coroutine-conformance
//! OPEN_COROUTINE_CONFORMANCE_SEED=7 cargo test -p open-coroutine-conformance
//! ```
//!
//! * `script`: what a script is, and why each one is valid.
//! * `generate`: random scripts, per [`Family`].
//! * `interpret`: performs one step, and notes what a program can see of it.
//! * `run`: a script on threads or coroutines.
//! * `suite`: batches in child processes, comparison, shrinking, reports.

mod generate;
mod interpret;
mod run;
mod script;
mod suite;

pub use generate::Family;
pub use suite::{conform, is_child, run_child};
