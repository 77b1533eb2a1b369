//! Sleeping, and clocks, which must not go back when the worker changes.

use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::yield_now;

use super::{Round, work};

pub(super) fn sleep(round: &mut Round) {
    let duration = Duration::from_micros(100 + round.below(3000));
    let start = Instant::now();
    if round.number.is_multiple_of(2) {
        thread::sleep(duration);
    } else {
        open_coroutine::sleep(duration);
    }
    assert!(start.elapsed() >= duration);
}

pub(super) fn clocks(_: &mut Round) {
    let mut before = Instant::now();
    for step in 0..200 {
        let now = Instant::now();
        assert!(now >= before);
        before = now;
        match step % 50 {
            0 => yield_now(),
            1 => assert_ne!(0, work(1)),
            _ => {}
        }
    }
}
