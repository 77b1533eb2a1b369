//! `HashMap` with std's random keys (one pair per thread), `String`, `BTreeMap`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Round;

pub(super) fn round(round: &mut Round) {
    let mut hashed: HashMap<String, u64> = HashMap::new();
    let mut sorted: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..64 + round.below(64) {
        let key = format!("key {} of {}", round.below(50), round.index);
        let value = round.below(1000);
        if value.is_multiple_of(4) {
            assert_eq!(sorted.remove(&key), hashed.remove(&key));
        } else {
            assert_eq!(sorted.insert(key.clone(), value), hashed.insert(key, value));
        }
    }
    let mut pairs: Vec<_> = hashed.iter().collect();
    pairs.sort();
    assert!(pairs.into_iter().eq(&sorted));
    let words: HashSet<&str> = hashed.keys().flat_map(|key| key.split(' ')).collect();
    assert!(hashed.is_empty() || words.contains("of"));
    let joined = sorted.keys().cloned().collect::<Vec<_>>().join("/");
    assert_eq!(sorted.len(), joined.split_terminator('/').count());
}
