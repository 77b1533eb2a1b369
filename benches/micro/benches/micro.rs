//! What single steps cost: a switch, a task, a wait, a wake-up, an operation.
//!
//! All but `switch` run on coroutines of one worker: what is compared is the work of
//! the runtime, not the caches of two processors.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use open_coroutine::{Config, Coroutine, init, spawn, yield_now};

/// Measures `rounds` on a coroutine.
fn on_coroutine(bencher: &mut Bencher, rounds: fn(u64)) {
    bencher.iter_custom(|count| {
        let task = spawn(move || {
            let start = Instant::now();
            rounds(count);
            start.elapsed()
        });
        task.join().expect("the rounds end")
    });
}

fn switch(bencher: &mut Bencher) {
    let body = |suspender: &open_coroutine::Suspender<'_, usize, usize>, first: usize| {
        let mut next = first;
        loop {
            next = suspender.suspend_with(black_box(next));
        }
    };
    let mut coroutine: Coroutine<usize, usize, ()> = Coroutine::new(body).expect("a stack");
    bencher.iter(|| coroutine.resume_with(black_box(1)));
}

/// Two that take turns; half of the yields are counted.
fn yields(count: u64) {
    let other = spawn(move || (0..count).for_each(|_| yield_now()));
    (0..count).for_each(|_| yield_now());
    other.join().expect("it only yields");
}

fn spawn_and_join(count: u64) {
    for number in 0..count {
        let task = spawn(move || black_box(number));
        assert_eq!(number, task.join().expect("it returns"));
    }
}

fn spawn_many(count: u64) {
    let tasks: Vec<_> = (0..count).map(|number| spawn(move || number)).collect();
    let sum: u64 = tasks
        .into_iter()
        .map(|task| task.join().expect("it returns"))
        .sum();
    assert_eq!(count * count.saturating_sub(1) / 2, sum);
}

fn channels(count: u64) {
    let (ping, pings) = sync_channel(1);
    let (pong, pongs) = sync_channel(1);
    let other = spawn(move || {
        pings
            .iter()
            .for_each(|number: u64| pong.send(number).expect("open"))
    });
    for number in 0..count {
        ping.send(number).expect("open");
        assert_eq!(Ok(number), pongs.recv());
    }
    drop(ping);
    other.join().expect("it echoes");
}

fn condition(count: u64) {
    let shared = Arc::new((Mutex::new(0), Condvar::new()));
    let turn = |shared: &(Mutex<u64>, Condvar), parity: u64| {
        let (number, changed) = shared;
        let mut number = changed
            .wait_while(number.lock().unwrap(), |n| *n % 2 != parity)
            .unwrap();
        *number += 1;
        changed.notify_one();
    };
    let other = {
        let shared = shared.clone();
        spawn(move || (0..count).for_each(|_| turn(&shared, 1)))
    };
    (0..count).for_each(|_| turn(&shared, 0));
    other.join().expect("it takes turns");
}

fn sleeps(count: u64) {
    for _ in 0..count {
        std::thread::sleep(Duration::from_nanos(1));
    }
}

fn streams(count: u64) {
    let (mut near, mut far) = UnixStream::pair().expect("descriptors");
    let other = spawn(move || {
        let mut bytes = [0; 64];
        while far.read_exact(&mut bytes).is_ok() {
            far.write_all(&bytes).expect("open");
        }
    });
    let mut bytes = [7; 64];
    for _ in 0..count {
        near.write_all(&bytes).expect("open");
        near.read_exact(&mut bytes).expect("open");
    }
    drop(near);
    other.join().expect("it echoes");
}

fn cached_reads(count: u64) {
    let file = File::open("/proc/self/exe").expect("it is there");
    let mut bytes = [0; 512];
    for number in 0..count {
        file.read_exact_at(&mut bytes, number % 8 * 512)
            .expect("it is longer");
    }
}

fn all(criterion: &mut Criterion) {
    criterion.bench_function("switch", switch);
    init(Config::default().event_loop_size(1)).expect("a runtime");
    let works: [(&str, fn(u64)); 8] = [
        ("two yields", yields),
        ("spawn and join", spawn_and_join),
        ("spawn all, then join all", spawn_many),
        ("round trip over sync_channel(1)", channels),
        ("round trip over a condition variable", condition),
        ("shortest sleep", sleeps),
        ("round trip over a socket pair", streams),
        ("cached pread", cached_reads),
    ];
    for (name, rounds) in works {
        criterion.bench_function(name, |bencher| on_coroutine(bencher, rounds));
    }
    open_coroutine::shutdown().expect("everything has ended");
}

criterion_group!(benches, all);
criterion_main!(benches);
