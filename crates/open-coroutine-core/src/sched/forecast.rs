//! Whether what a coroutine asks a peer for is there already.
//!
//! A coroutine mostly does the same thing again and again: one that serves requests
//! finds nothing and waits, one that drains a stream finds more. Where the driver
//! tells what is ready, trying first costs the former a system call each time. So a
//! coroutine that has found nothing a few times in a row waits without trying, and
//! tries again once in a while.

use std::cell::Cell;

use super::suspend::current;

/// So many times in a row it finds nothing before it stops to try.
const PATIENCE: u8 = 3;
/// So many times it waits without trying.
const PAUSE: u8 = 29;

/// What one coroutine has found lately.
pub(super) struct Forecast {
    /// Up to `PATIENCE`: how many times it found nothing. Beyond: how many times it
    /// has not tried since.
    count: Cell<u8>,
}

impl Forecast {
    pub(super) fn new() -> Self {
        Self {
            count: Cell::new(0),
        }
    }

    fn is_worth_trying(&self) -> bool {
        let count = self.count.get();
        if !(PATIENCE..PATIENCE + PAUSE).contains(&count) {
            return true;
        }
        self.count.set(count + 1);
        false
    }

    fn learn(&self, found: bool) {
        self.count.set(match self.count.get() {
            _ if found => 0,
            count => (count + 1).min(PATIENCE),
        });
    }
}

/// Whether the caller should try to receive before it waits.
pub fn is_worth_trying() -> bool {
    current().is_none_or(|coroutine| coroutine.forecast().is_worth_trying())
}

/// The caller has tried to receive, and has or has not `found` something.
pub fn learn(found: bool) {
    if let Some(coroutine) = current() {
        coroutine.forecast().learn(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_nothing_tries_less_often() {
        let forecast = Forecast::new();
        let tries = (0..1000)
            .filter(|_| forecast.is_worth_trying())
            .inspect(|_| forecast.learn(false));
        assert!((30..40).contains(&tries.count()));
    }

    #[test]
    fn who_finds_something_tries_each_time() {
        let forecast = Forecast::new();
        while forecast.is_worth_trying() {
            forecast.learn(false);
        }
        while !forecast.is_worth_trying() {}
        forecast.learn(true);
        assert!((0..100).all(|_| {
            forecast.learn(true);
            forecast.is_worth_trying()
        }));
    }
}
