//! Locks and channels of other crates work between coroutines of one worker.

mod runtimes;
mod ticker;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use open_coroutine::{JoinHandle, spawn};
use runtimes::on_every_runtime;
use ticker::Ticker;

fn join_all(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        task.join().unwrap();
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn crossbeam_channels_flume_and_parking_lot_work() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let (over, out) = flume::bounded(0);
        let middle = spawn(move || receiver.iter().for_each(|n: u32| over.send(n).unwrap()));
        let feeder = spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
        assert!(out.iter().eq(0..1000));
        join_all([middle, feeder]);

        let shared = Arc::new((parking_lot::Mutex::new(0), parking_lot::Condvar::new()));
        let tasks: Vec<_> = (0..30)
            .map(|_| {
                let shared = shared.clone();
                spawn(move || {
                    let (count, condition) = &*shared;
                    let mut guard = count.lock();
                    thread::sleep(Duration::from_micros(200));
                    *guard += 1;
                    condition.notify_all();
                    condition.wait_while(&mut guard, |count| *count < 30);
                })
            })
            .collect();
        join_all(tasks);
        let lock = parking_lot::RwLock::new(1);
        assert_eq!(1, *lock.read());
        ticker.wait();
    });
}
