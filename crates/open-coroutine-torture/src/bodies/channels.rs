//! std's channels: what is sent arrives once, in the order of each sender.

use std::sync::mpsc;
use std::time::Duration;

use super::{Round, crew, work};

const SENDERS: usize = 3;
const MESSAGES: u64 = 50;

pub(super) fn mpsc(_: &mut Round) {
    let (sender, receiver) = mpsc::channel();
    let receives = open_coroutine::spawn(move || receive(receiver.iter()));
    crew(SENDERS, move |index| {
        for number in 0..MESSAGES {
            sender.send((index, number)).expect("the receiver is there");
            if number % 16 == 0 {
                work(1);
            }
        }
    });
    assert_eq!(
        [MESSAGES; SENDERS],
        receives.join().expect("it only receives")
    );
}

pub(super) fn bounded(round: &mut Round) {
    let (sender, receiver) = mpsc::sync_channel(round.below(4) as usize);
    let receives = open_coroutine::spawn(move || {
        let next = || receiver.recv_timeout(Duration::from_secs(60)).ok();
        receive(std::iter::from_fn(next))
    });
    crew(SENDERS, move |index| {
        for number in 0..MESSAGES {
            sender.send((index, number)).expect("the receiver is there");
        }
    });
    assert_eq!(
        [MESSAGES; SENDERS],
        receives.join().expect("it only receives")
    );
}

fn receive(messages: impl Iterator<Item = (usize, u64)>) -> [u64; SENDERS] {
    let mut next = [0; SENDERS];
    for (sender, number) in messages {
        assert_eq!(next[sender], number, "sender {sender}");
        next[sender] += 1;
    }
    next
}
