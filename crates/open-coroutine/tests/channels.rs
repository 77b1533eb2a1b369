//! `std::sync::mpsc` between coroutines.

mod runtimes;
mod ticker;

use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use runtimes::on_every_runtime;
use ticker::Ticker;

#[test]
fn a_receiver_waits_for_a_sender_on_its_own_worker() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = mpsc::channel();
        let consumer = open_coroutine::spawn(move || receiver.iter().sum::<u32>());
        ticker.wait();
        for number in 0..100 {
            sender.send(number).unwrap();
            if number % 10 == 0 {
                ticker.wait();
            }
        }
        drop(sender);
        assert_eq!(4950, consumer.join().unwrap());
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_rendezvous_channel_hands_over_one_by_one() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::sync_channel(0);
        let producer = open_coroutine::spawn(move || {
            for number in 0..1000 {
                sender.send(number).unwrap();
            }
        });
        assert!(receiver.iter().eq(0..1000));
        producer.join().unwrap();
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_full_bounded_channel_makes_its_senders_wait() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = mpsc::sync_channel(3);
        let producers: Vec<_> = (0..10)
            .map(|_| {
                let sender = sender.clone();
                open_coroutine::spawn(move || (0..100).for_each(|n| sender.send(n).unwrap()))
            })
            .collect();
        drop(sender);
        ticker.wait();
        assert!(!producers.iter().any(|producer| producer.is_finished()));
        assert_eq!(10 * 4950, receiver.iter().sum::<u32>());
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_wait_with_a_time_limit_ends() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = mpsc::channel::<()>();
        let begin = Instant::now();
        let limit = Duration::from_millis(20);
        assert_eq!(Err(RecvTimeoutError::Timeout), receiver.recv_timeout(limit));
        assert!(begin.elapsed() >= limit);
        let waiting = open_coroutine::spawn(move || receiver.recv_timeout(Duration::MAX));
        ticker.wait();
        sender.send(()).unwrap();
        assert_eq!(Ok(()), waiting.join().unwrap());
    });
}

#[test]
fn a_disconnected_sender_ends_the_wait() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = mpsc::channel::<()>();
        let waiting = open_coroutine::spawn(move || receiver.recv());
        ticker.wait();
        drop(sender);
        assert!(waiting.join().unwrap().is_err());
    });
}

#[test]
fn several_channels_are_polled_in_turn() {
    on_every_runtime(|| {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel()).unzip();
        let producers: Vec<_> = senders
            .into_iter()
            .map(|sender| {
                open_coroutine::spawn(move || {
                    for number in 0..25 {
                        sender.send(number).unwrap();
                        thread::yield_now();
                    }
                })
            })
            .collect();
        let (mut sum, mut open) = (0, receivers);
        while !open.is_empty() {
            open.retain(|receiver| match receiver.try_recv() {
                Ok(number) => {
                    sum += number;
                    true
                }
                Err(error) => error == TryRecvError::Empty,
            });
            thread::yield_now();
        }
        assert_eq!(4 * 300, sum);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn messages_go_round_in_a_ring_of_coroutines() {
    on_every_runtime(|| {
        let (first, mut receiver) = mpsc::sync_channel::<u32>(1);
        let members: Vec<_> = (0..50)
            .map(|_| {
                let (sender, next) = mpsc::sync_channel(1);
                let from = std::mem::replace(&mut receiver, next);
                open_coroutine::spawn(move || {
                    for number in from {
                        sender.send(number + 1).unwrap();
                    }
                })
            })
            .collect();
        let mut number = 0;
        for _ in 0..20 {
            first.send(number).unwrap();
            number = receiver.recv().unwrap();
        }
        assert_eq!(20 * 50, number);
        drop((first, receiver));
        for member in members {
            member.join().unwrap();
        }
    });
}
