//! Whether what a coroutine asks a peer for is there already.
//!
//! A coroutine mostly does the same thing again and again: one that serves requests
//! finds nothing and waits, one that drains a stream finds more. Where the driver
//! tells what is ready, trying first costs the former a system call each time. So a
//! coroutine that has found nothing a few times in a row waits without trying, and
//! tries again once in a while.
//!
//! It also knows whether its last receive has left nothing, which spares the driver a
//! question.

use std::cell::Cell;
use std::os::fd::RawFd;

use super::suspend::current;

/// So many times in a row it finds nothing before it stops to try.
const PATIENCE: u8 = 3;
/// So many times it waits without trying.
const PAUSE: u8 = 29;

/// What one coroutine has found lately.
pub(super) struct Forecast {
    /// Where it looked for it.
    source: Cell<Source>,
    /// Up to `PATIENCE`: how many times it found nothing there. Beyond: how many times
    /// it has not tried since.
    count: Cell<u8>,
    /// Which incarnation of the source it has emptied since it last waited there.
    emptied: Cell<Option<u32>>,
}

/// A descriptor, and whether connections are accepted there. What has not been tried
/// there may be an error at once, and nothing to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The descriptor.
    pub fd: RawFd,
    /// Whether connections are accepted there.
    pub accepts: bool,
}

impl Forecast {
    pub(super) fn new() -> Self {
        let source = Source {
            fd: -1,
            accepts: false,
        };
        Self {
            source: Cell::new(source),
            count: Cell::new(0),
            emptied: Cell::new(None),
        }
    }

    fn is_worth_trying(&self, source: Source) -> bool {
        if self.source.replace(source) != source {
            self.count.set(0);
            self.emptied.set(None);
        }
        let count = self.count.get();
        if !(PATIENCE..PATIENCE + PAUSE).contains(&count) {
            return true;
        }
        self.count.set(count + 1);
        false
    }

    fn learn(&self, found: bool) {
        if found {
            self.emptied.set(None);
        }
        self.count.set(match self.count.get() {
            _ if found => 0,
            count => (count + 1).min(PATIENCE),
        });
    }
}

/// Whether the caller should try to receive from `source` before it waits. If it does,
/// it is to [`learn`].
pub fn is_worth_trying(source: Source) -> bool {
    current().is_none_or(|coroutine| coroutine.forecast().is_worth_trying(source))
}

/// Whether the caller waits for its source without trying, most of the time.
pub fn waits_without_trying() -> bool {
    current().is_some_and(|coroutine| coroutine.forecast().count.get() >= PATIENCE)
}

/// The caller has received from its source, the `incarnation` of it, and has left
/// nothing there.
pub fn has_emptied(incarnation: u32) {
    if let Some(coroutine) = current() {
        coroutine.forecast().emptied.set(Some(incarnation));
    }
}

/// The caller is about to wait for its source: which incarnation of it has it emptied
/// since it last did so?
pub fn take_emptied() -> Option<u32> {
    current()?.forecast().emptied.take()
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

    const SOURCE: Source = Source {
        fd: 7,
        accepts: false,
    };

    #[test]
    fn who_finds_nothing_tries_less_often() {
        let forecast = Forecast::new();
        let tries = (0..1000)
            .filter(|_| forecast.is_worth_trying(SOURCE))
            .inspect(|_| forecast.learn(false));
        assert!((30..40).contains(&tries.count()));
    }

    #[test]
    fn who_finds_something_or_looks_elsewhere_tries_each_time() {
        let forecast = Forecast::new();
        let disappoint = || {
            while forecast.is_worth_trying(SOURCE) {
                forecast.learn(false);
            }
        };
        disappoint();
        while !forecast.is_worth_trying(SOURCE) {}
        assert!((0..100).all(|_| {
            forecast.learn(true);
            forecast.is_worth_trying(SOURCE)
        }));
        disappoint();
        assert!(forecast.is_worth_trying(Source {
            accepts: true,
            ..SOURCE
        }));
        assert!(forecast.is_worth_trying(SOURCE));
    }
}
