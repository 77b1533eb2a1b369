//! Which case a request asks for.

use std::num::IntErrorKind;

/// The most rows that one request may ask for.
const MOST: usize = 500;

/// A case, and how many rows it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Route {
    Plaintext,
    Json,
    Db,
    Queries(usize),
    Fortunes,
    Updates(usize),
}

impl Route {
    /// Takes path and query, as they are in the request line; `None` for other paths.
    pub fn of(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(match path {
            "/plaintext" => Self::Plaintext,
            "/json" => Self::Json,
            "/db" => Self::Db,
            "/queries" => Self::Queries(count(query)),
            "/fortunes" => Self::Fortunes,
            "/updates" => Self::Updates(count(query)),
            _ => return None,
        })
    }
}

/// The number behind `q` or `queries`, at least 1 and at most 500. What is no number, or not
/// there, counts as 1.
pub fn count(query: &str) -> usize {
    let value = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        matches!(name, "q" | "queries").then_some(value)
    });
    match value.unwrap_or_default().parse::<usize>() {
        Ok(count) => count.clamp(1, MOST),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => MOST,
        Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Route, count};

    #[test]
    fn counts_are_clamped() {
        for (query, expected) in [
            ("q=20", 20),
            ("queries=20", 20),
            ("x=3&q=7", 7),
            ("q=0", 1),
            ("q=-3", 1),
            ("q=501", 500),
            ("q=99999999999999999999999", 500),
            ("q=foo", 1),
            ("q=", 1),
            ("q", 1),
            ("", 1),
        ] {
            assert_eq!(expected, count(query), "{query}");
        }
    }

    #[test]
    fn targets_become_routes() {
        assert_eq!(Some(Route::Queries(2)), Route::of("/queries?q=2"));
        assert_eq!(Some(Route::Updates(1)), Route::of("/updates"));
        assert_eq!(Some(Route::Db), Route::of("/db?x"));
        assert_eq!(None, Route::of("/"));
    }
}
