//! Recursion over many stacks, with waits and panics at the bottom.

use std::panic::catch_unwind;

use open_coroutine::{maybe_grow, yield_now};

use super::{Round, message};

const DEPTH: u64 = 400;

fn descend(depth: u64, panics: bool) -> u64 {
    let page = std::hint::black_box([depth as u8; 4096]);
    if depth == 0 {
        yield_now();
        assert!(!panics, "expected at the bottom");
        return 0;
    }
    let below = maybe_grow!(|| descend(depth - 1, panics)).expect("there is memory");
    below + u64::from(page[depth as usize] == depth as u8)
}

pub(super) fn round(round: &mut Round) {
    assert_eq!(DEPTH, descend(DEPTH, false));
    if round.number.is_multiple_of(8) {
        let payload = catch_unwind(|| descend(DEPTH, true)).expect_err("it panics");
        assert_eq!("expected at the bottom", message(&*payload));
    }
}
