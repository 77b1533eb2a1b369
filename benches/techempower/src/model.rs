//! The rows of the two tables, and the statements about them.

use serde::Serialize;

/// How many rows the table `world` has; their ids begin with 1.
const WORLDS: i32 = 10_000;

/// One row; `$1` is its id.
pub const SELECT_WORLD: &str = "SELECT id, randomnumber FROM world WHERE id = $1";
pub const SELECT_FORTUNES: &str = "SELECT id, message FROM fortune";
/// All rows of a request at once: `$1` has their ids, `$2` their new numbers.
pub const UPDATE_WORLDS: &str = "UPDATE world SET randomnumber = new.number \
    FROM unnest($1::int[], $2::int[]) AS new (id, number) WHERE world.id = new.id";

/// A row of `world`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct World {
    pub id: i32,
    #[serde(rename = "randomNumber")]
    pub random_number: i32,
}

impl World {
    /// The same row with a new number.
    pub fn changed(self) -> Self {
        Self {
            random_number: random(),
            ..self
        }
    }
}

/// A row of `fortune`.
#[derive(Debug, PartialEq)]
pub struct Fortune {
    pub id: i32,
    pub message: String,
}

/// What the JSON case sends.
#[derive(Serialize)]
pub struct Message {
    pub message: &'static str,
}

/// A number that is an id in `world`, too.
pub fn random() -> i32 {
    fastrand::i32(1..=WORLDS)
}

/// Ids of rows to read.
pub fn ids(count: usize) -> Vec<i32> {
    (0..count).map(|_| random()).collect()
}

/// Ids of rows to change: none twice, and in order, so that requests that change the same rows
/// lock them in the same order and never wait for each other in a circle.
pub fn distinct_ids(count: usize) -> Vec<i32> {
    let mut distinct = Vec::with_capacity(count);
    while distinct.len() < count {
        distinct.extend(ids(count - distinct.len()));
        distinct.sort_unstable();
        distinct.dedup();
    }
    distinct
}

/// An `int[]` as PostgreSQL's binary format has it.
pub fn int_array(values: impl ExactSizeIterator<Item = i32>) -> Vec<u8> {
    /// The type `int` in the system's catalogue.
    const INT: i32 = 23;
    let length = i32::try_from(values.len()).expect("a request is about 500 rows at most");
    // One dimension, no nulls, the first index is 1.
    let head = [1, 0, INT, length, 1].into_iter();
    let items = values.flat_map(|value| [4, value]);
    head.chain(items).flat_map(i32::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::{distinct_ids, int_array};

    #[test]
    fn ids_to_change_are_in_order_and_distinct() {
        let ids = distinct_ids(500);
        assert_eq!(500, ids.len());
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!((1..=10_000).contains(&ids[0]) && (1..=10_000).contains(&ids[499]));
    }

    #[test]
    fn an_array_has_a_head_and_a_length_before_each_item() {
        let words = int_array([7, 8].into_iter());
        let words: Vec<i32> = words
            .as_chunks()
            .0
            .iter()
            .map(|bytes| i32::from_be_bytes(*bytes))
            .collect();
        assert_eq!([1, 0, 23, 2, 1, 4, 7, 4, 8], words.as_slice());
    }
}
