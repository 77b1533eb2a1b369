//! Tasks and threads that come and go, with values, panics and priorities.

use std::thread;
use std::time::Duration;

use open_coroutine::{Builder, JoinError, spawn, yield_now};

use super::{Round, message, work};

pub(super) fn round(_: &mut Round) {
    let children: Vec<_> = (0..10_u64)
        .map(|number| {
            let task = Builder::new()
                .priority(number as i64 % 3 - 1)
                .name(number.to_string());
            let child = move || {
                work(number % 3);
                assert!(number != 7, "expected of number 7");
                assert_eq!(
                    Some(&*number.to_string()),
                    open_coroutine::current()
                        .and_then(|task| task.name().map(String::from))
                        .as_deref()
                );
                String::from("child ") + &number.to_string()
            };
            task.spawn(child).expect("a coroutine starts")
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        match (number, child.join()) {
            (7, result) => {
                let payload = result
                    .expect_err("it panics")
                    .into_panic()
                    .expect("it is a panic");
                assert_eq!("expected of number 7", message(&*payload));
            }
            (number, result) => assert_eq!(format!("child {number}"), result.expect("it ends")),
        }
    }
    let slow = spawn(|| open_coroutine::sleep(Duration::from_millis(1)));
    let early = slow.timeout_join(Duration::ZERO);
    assert!(matches!(early, Err(JoinError::TimedOut) | Ok(())));
    if early.is_err() {
        slow.join().expect("it only sleeps");
    }
    // Nobody waits for this one.
    drop(spawn(yield_now));
}

/// Threads of the system, started and joined by a coroutine.
pub(super) fn threads(round: &mut Round) {
    let number = round.number;
    let thread = thread::spawn(move || work(number % 5));
    let mut words = [1, 2, 3];
    thread::scope(|scope| {
        for word in &mut words {
            scope.spawn(|| *word *= 2);
        }
    });
    assert_eq!([2, 4, 6], words);
    assert_eq!(work(number % 5), thread.join().expect("it only computes"));
}
