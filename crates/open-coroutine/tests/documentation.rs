//! The documents name what there is.

use std::fs;
use std::path::Path;

use open_coroutine::capabilities;

#[test]
fn every_replaced_function_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hooks.md");
    let text = fs::read_to_string(path).unwrap();
    let missing: Vec<_> = capabilities()
        .hooks
        .iter()
        .map(|hook| hook.name)
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/hooks.md: {missing:?}");
}
