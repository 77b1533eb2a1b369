//! std's channels, `Mutex` and `Condvar` between coroutines and a plain thread.
//!
//!     cargo run --release -p open-coroutine --example channels

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

const PRODUCERS: u64 = 10;
const NUMBERS: u64 = 1000;

#[open_coroutine::main]
fn main() {
    // A bounded channel: whoever finds it full or empty is suspended.
    let (sender, receiver) = mpsc::sync_channel(16);
    for producer in 0..PRODUCERS {
        let sender = sender.clone();
        open_coroutine::spawn(move || {
            for number in 0..NUMBERS {
                sender
                    .send(producer * NUMBERS + number)
                    .expect("the receiver is there");
            }
        });
    }
    // The channel ends when the last sender is gone.
    drop(sender);
    let consumer = open_coroutine::spawn(move || receiver.into_iter().sum::<u64>());
    let sum = consumer.join().expect("it does not panic");
    assert_eq!((0..PRODUCERS * NUMBERS).sum::<u64>(), sum);
    println!("{PRODUCERS} producers sent numbers that add up to {sum}");

    // A gate that a plain thread opens for coroutines.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let waiting: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let gate = gate.clone();
            open_coroutine::spawn(move || {
                let (is_open, opened) = &*gate;
                let guard = is_open.lock().expect("nobody panics");
                drop(
                    opened
                        .wait_while(guard, |is_open| !*is_open)
                        .expect("nobody panics"),
                );
            })
        })
        .collect();
    let opener = thread::spawn(move || {
        let (is_open, opened) = &*gate;
        *is_open.lock().expect("nobody panics") = true;
        opened.notify_all();
    });
    for coroutine in waiting {
        coroutine.join().expect("it does not panic");
    }
    opener.join().expect("it does not panic");
    println!("a thread let {PRODUCERS} coroutines through a gate");
}
