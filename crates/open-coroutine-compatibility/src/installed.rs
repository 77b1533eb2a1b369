//! The programs that the tests need and do not bring.

use std::env;
use std::path::PathBuf;

/// Where a program `name` is: in one of `folders`, or where the shell looks.
/// `None`, and a word on standard error, if it is not installed.
///
/// # Panics
///
/// If it is not installed and `OPEN_COROUTINE_REQUIRE_SERVERS=1`.
pub fn installed(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = folders
        .iter()
        .cloned()
        .chain(env::split_paths(&paths))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        let is_required = env::var_os("OPEN_COROUTINE_REQUIRE_SERVERS").is_some_and(|it| it == "1");
        assert!(!is_required, "{name} is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}
