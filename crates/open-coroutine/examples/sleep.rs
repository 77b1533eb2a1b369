//! Ten thousand coroutines sleep at the same time, in `std::thread::sleep`.
//!
//!     cargo run --release -p open-coroutine --example sleep

use std::thread;
use std::time::{Duration, Instant};

const COROUTINES: u32 = 10_000;
const NAP: Duration = Duration::from_millis(100);

#[open_coroutine::main(event_loop_size = 2)]
fn main() {
    let start = Instant::now();
    let sleepers: Vec<_> = (0..COROUTINES)
        .map(|_| {
            open_coroutine::spawn(|| {
                // On a coroutine this suspends; the worker runs the others.
                thread::sleep(NAP);
                Instant::now()
            })
        })
        .collect();
    let woken = sleepers
        .into_iter()
        .map(|sleeper| sleeper.join().expect("it does not panic"));
    let last = woken.max().expect("there is at least one");
    let elapsed = last - start;
    assert!(elapsed >= NAP);
    println!("{COROUTINES} coroutines slept {NAP:?} each, in {elapsed:.0?} together");
    println!("one after the other it takes {:?}", NAP * COROUTINES);
}
