//! Real threads and coroutines wait for each other.

mod runtimes;
mod ticker;

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

use runtimes::on_every_runtime;
use ticker::Ticker;

#[test]
fn a_coroutine_joins_a_thread_while_others_go_on() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = thread::spawn(move || receiver.recv().map(|()| 42));
        let task = open_coroutine::spawn(move || thread.join().unwrap().unwrap());
        ticker.wait();
        assert!(!task.is_finished());
        sender.send(()).unwrap();
        assert_eq!(42, task.join().unwrap());
    });
}

#[test]
fn scoped_threads_borrow_from_a_coroutine() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let numbers: Vec<u32> = (0..100).collect();
        let (sender, receiver) = mpsc::channel::<()>();
        let sum: u32 = thread::scope(|scope| {
            let blocked = scope.spawn(move || receiver.recv().unwrap());
            let halves: Vec<_> = numbers
                .chunks(50)
                .map(|half| scope.spawn(|| half.iter().sum::<u32>()))
                .collect();
            ticker.wait();
            sender.send(()).unwrap();
            blocked.join().unwrap();
            // Left to the end of the scope.
            scope.spawn(|| assert_eq!(100, numbers.len()));
            halves.into_iter().map(|half| half.join().unwrap()).sum()
        });
        assert_eq!(4950, sum);
    });
}

#[test]
fn the_panic_of_a_thread_reaches_the_coroutine_that_joins_it() {
    on_every_runtime(|| {
        let thread = thread::spawn(|| std::panic::resume_unwind(Box::new(7u8)));
        assert_eq!(7, *thread.join().unwrap_err().downcast::<u8>().unwrap());
    });
}

#[test]
fn a_thread_and_a_coroutine_play_ping_pong_over_channels() {
    on_every_runtime(|| {
        let ((ping, pings), (pong, pongs)) = (mpsc::sync_channel(0), mpsc::sync_channel(0));
        let thread = thread::spawn(move || {
            for number in pings {
                pong.send(number + 1).unwrap();
            }
        });
        let mut number = 0;
        for _ in 0..200 {
            ping.send(number).unwrap();
            number = pongs.recv().unwrap();
        }
        drop(ping);
        thread.join().unwrap();
        assert_eq!(200, number);
    });
}

#[test]
fn a_thread_and_a_coroutine_take_turns_by_a_condition_variable() {
    on_every_runtime(|| {
        let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
        let play = |shared: Arc<(Mutex<u32>, Condvar)>, parity: u32| {
            for _ in 0..200 {
                let (lock, changed) = &*shared;
                let turn = lock.lock().unwrap();
                let mut turn = changed
                    .wait_while(turn, |turn| *turn % 2 != parity)
                    .unwrap();
                *turn += 1;
                changed.notify_all();
            }
        };
        let own = shared.clone();
        let thread = thread::spawn(move || play(own, 0));
        let own = shared.clone();
        let task = open_coroutine::spawn(move || play(own, 1));
        task.join().unwrap();
        thread.join().unwrap();
        assert_eq!(400, *shared.0.lock().unwrap());
    });
}

#[test]
fn a_thread_joins_a_coroutine() {
    on_every_runtime(|| {
        let task = open_coroutine::spawn(|| {
            thread::yield_now();
            42
        });
        let thread = thread::spawn(move || task.join().unwrap());
        assert_eq!(42, thread.join().unwrap());
    });
}

#[test]
fn a_thread_that_a_coroutine_started_outlives_it() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::channel::<()>();
        let task = open_coroutine::spawn(move || thread::spawn(move || receiver.recv()));
        let thread = task.join().unwrap();
        sender.send(()).unwrap();
        thread.join().unwrap().unwrap();
    });
}
