//! std's blocking calls suspend the coroutine that makes them.

mod runtimes;

use std::thread;
use std::time::{Duration, Instant};

use runtimes::on_every_runtime;

#[test]
fn sleeps_of_one_worker_overlap() {
    on_every_runtime(|| {
        let begin = Instant::now();
        let sleepers: Vec<_> = (0..100)
            .map(|_| open_coroutine::spawn(|| thread::sleep(Duration::from_millis(50))))
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        assert!(begin.elapsed() < Duration::from_millis(100 * 50));
    });
}
