//! `thread::park`: one token per thread, and so per coroutine.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Round, work};

const EXCHANGES: u64 = 20;

pub(super) fn round(round: &mut Round) {
    let word = Arc::new(AtomicU64::new(0));
    let owner = thread::current();
    let answered = word.clone();
    let (introduces, introduced) = mpsc::channel();
    let other = open_coroutine::spawn(move || {
        introduces
            .send(thread::current())
            .expect("the owner waits for it");
        for number in 0..EXCHANGES {
            await_number(&answered, 2 * number + 1);
            answered.store(2 * number + 2, Release);
            owner.unpark();
        }
        thread::current().id()
    });
    let partner = introduced.recv().expect("it introduces itself");
    for number in 0..EXCHANGES {
        word.store(2 * number + 1, Release);
        partner.unpark();
        work(round.below(3));
        await_number(&word, 2 * number + 2);
    }
    assert_eq!(partner.id(), other.join().expect("it only parks"));
    assert_ne!(partner.id(), thread::current().id());
    thread::park_timeout(Duration::from_micros(100));
}

fn await_number(word: &AtomicU64, number: u64) {
    while word.load(Acquire) != number {
        thread::park();
    }
}
