//! Tasks that are cancelled while they wait, compute or have not begun yet.

use std::hint::spin_loop;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use open_coroutine::{Builder, capabilities, is_cancelled, park, sleep, yield_now};

use super::{Round, message};

/// The ways in which a victim spends its time until it is cancelled.
const WAYS: [fn(); 6] = [
    || {
        let (mut near, _far) = UnixStream::pair().expect("there are descriptors");
        receive(&mut near);
    },
    || {
        let (mut reader, _writer) = io::pipe().expect("there are descriptors");
        receive(&mut reader);
    },
    || thread::sleep(Duration::from_secs(3600)),
    || loop {
        yield_now();
    },
    || loop {
        park();
    },
    || {
        // Who is to cancel it may wait for a timer of the worker that it keeps.
        let gives_way = !capabilities().preemptive;
        while !is_cancelled() {
            (0..100).for_each(|_| spin_loop());
            if gives_way {
                thread::yield_now();
            }
        }
    },
];

/// Waits for bytes that nobody sends.
fn receive(from: &mut impl Read) {
    let error = from.read(&mut [0; 64]).expect_err("nobody sends");
    assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
}

pub(super) fn round(round: &mut Round) {
    let held = Arc::new(());
    let victims = WAYS.map(|way| {
        let held = held.clone();
        let victim = Builder::new().name("victim").spawn(move || {
            let _held = held;
            way();
        });
        victim.expect("a coroutine starts")
    });
    match round.below(3) {
        0 => {}
        1 => yield_now(),
        _ => sleep(Duration::from_micros(round.below(300))),
    }
    for victim in &victims {
        victim.cancel();
    }
    for victim in victims {
        match victim.join() {
            Err(error) if !error.is_cancelled() => match error.into_panic() {
                Ok(payload) => panic!("a victim: {}", message(&*payload)),
                Err(error) => panic!("a victim: {error}"),
            },
            _ => {}
        }
    }
    assert_eq!(
        1,
        Arc::strong_count(&held),
        "a victim left something behind"
    );
}
