//! `switch`: resume and suspend of one low-level coroutine, without a scheduler.

use crate::options::Options;
use crate::report::Report;
use open_coroutine::Coroutine;
use std::hint::black_box;
use std::time::Instant;

/// A `usize` goes in with each resume and another comes out with each suspend.
pub fn round_trip(options: &Options, report: &Report) {
    let count = options.count(10_000_000);
    let mut coroutine: Coroutine<usize, usize, usize> = Coroutine::new(|suspender, first| {
        let mut sum: usize = first;
        while sum != usize::MAX {
            sum = sum.wrapping_add(suspender.suspend_with(black_box(sum)));
        }
        sum
    })
    .expect("there is memory for a stack");
    for _ in 0..1000 {
        let _ = black_box(coroutine.resume_with(1));
    }
    let start = Instant::now();
    for _ in 0..count {
        let _ = black_box(coroutine.resume_with(black_box(1)));
    }
    report.nanoseconds_each("round_trip", start.elapsed(), count);
}
