//! Regular expressions, which keep scratch space per thread, and JSON.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::Round;

// Shared, because the pool of scratch space in it is what is interesting.
static PAIR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?<key>[a-z]+)-(?<value>\d+)").expect("it is valid"));

pub(super) fn regex(round: &mut Round) {
    let pairs: Vec<_> = (0..50)
        .map(|_| ("key".repeat(1 + round.below(3) as usize), round.below(1000)))
        .collect();
    let text: String = pairs
        .iter()
        .map(|(key, value)| format!("<{key}-{value}>, "))
        .collect();
    let found = PAIR.captures_iter(&text).map(|pair| {
        (
            pair["key"].to_owned(),
            pair["value"].parse().expect("digits"),
        )
    });
    assert_eq!(pairs, found.collect::<Vec<_>>());
    let turned = PAIR.replace_all(&text, "$value-$key");
    assert_eq!(text.len(), turned.len());
    assert!(!PAIR.is_match(&turned[1..4]));
}

pub(super) fn json(round: &mut Round) {
    let numbers: Vec<_> = (0..50).map(|_| round.below(1 << 40)).collect();
    let value = json!({
        "owner": round.index,
        "numbers": numbers,
        // Short enough to be read exactly.
        "fractions": numbers.iter().map(|number| (*number % 10_000) as f64 / 8.0).collect::<Vec<_>>(),
        "text": format!("\u{1F600} \"{}\" \n", round.number),
        "nothing": Value::Null,
    });
    let text = serde_json::to_string_pretty(&value).expect("it can be written");
    let again: Value = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(value, again);
    assert!(serde_json::from_str::<Value>(&text[..text.len() - 2]).is_err());
}
