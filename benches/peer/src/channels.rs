//! `pingpong` and `mpmc`: channels written for threads.

use crate::in_root;
use crate::options::Options;
use crate::report::Report;
use open_coroutine::spawn;
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// `pingpong`: a `u64` goes there and back over two channels of capacity 1, from `std`.
pub fn ping_pong(options: &Options, report: &Report) {
    let count = options.count(100_000);
    let elapsed = in_root(move || {
        let (ping, pings) = sync_channel::<u64>(1);
        let (pong, pongs) = sync_channel::<u64>(1);
        let echo = spawn(move || {
            for value in pings {
                if pong.send(value + 1).is_err() {
                    break;
                }
            }
        });
        let caller = spawn(move || {
            let start = Instant::now();
            for value in 0..count {
                ping.send(value).expect("the other task receives");
                black_box(pongs.recv().expect("the other task answers"));
            }
            start.elapsed()
        });
        let elapsed = caller.join().expect("the caller ends");
        echo.join().expect("the echoing task ends");
        elapsed
    });
    report.nanoseconds_each("round_trip", elapsed, count);
}

/// `mpmc`: four producers and four consumers on one channel of capacity 1024. Crossbeam's, as
/// `std` has no stable one.
pub fn many_to_many(options: &Options, report: &Report) {
    const SIDE: u64 = 4;
    let each = options.count(1_000_000) / SIDE;
    let (elapsed, received) = in_root(move || {
        let (sender, receiver) = crossbeam_channel::bounded::<u64>(1024);
        let start = Instant::now();
        let producers: Vec<_> = (0..SIDE)
            .map(|_| {
                let sender = sender.clone();
                spawn(move || {
                    for value in 0..each {
                        sender.send(value).expect("a consumer is there");
                    }
                })
            })
            .collect();
        drop(sender);
        let consumers: Vec<_> = (0..SIDE)
            .map(|_| {
                let receiver = receiver.clone();
                spawn(move || receiver.iter().map(black_box).count() as u64)
            })
            .collect();
        drop(receiver);
        for producer in producers {
            producer.join().expect("a producer ends");
        }
        let received: u64 = consumers
            .into_iter()
            .map(|consumer| consumer.join().expect("a consumer ends"))
            .sum();
        (start.elapsed(), received)
    });
    assert_eq!(SIDE * each, received, "no message is lost");
    report.nanoseconds_each("per_msg", elapsed, received);
}
