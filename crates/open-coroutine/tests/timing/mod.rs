//! Checks that a wait with a limit ends in time.

use std::time::{Duration, Instant};

/// Runs `wait`, which must take `limit`: never less, and not much more. A busy
/// machine may delay it now and then, so only being late each time is an error.
pub(crate) fn assert_takes(limit: Duration, mut wait: impl FnMut()) {
    let mut elapsed = Duration::ZERO;
    for _ in 0..5 {
        let begin = Instant::now();
        wait();
        elapsed = begin.elapsed();
        assert!(elapsed >= limit, "{elapsed:?} instead of {limit:?}");
        if elapsed < limit + limit / 2 + Duration::from_millis(10) {
            return;
        }
    }
    panic!("{elapsed:?} instead of {limit:?}, again and again");
}
