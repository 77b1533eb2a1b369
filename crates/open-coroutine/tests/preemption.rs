//! Coroutines that compute do not keep the others waiting.

mod runtimes;

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use open_coroutine::{no_preempt, spawn};
use runtimes::on_every_driver;

/// Computes, and calls nothing, until `done`.
fn compute(done: &AtomicBool) -> u64 {
    let mut state = 1u64;
    while !done.load(Relaxed) {
        for _ in 0..64 {
            state = black_box(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1),
            );
        }
    }
    state
}

/// Runs `body` beside coroutines that compute until it ends.
fn beside_hogs(hogs: usize, body: impl FnOnce() + Send + 'static) {
    let done = Arc::new(AtomicBool::new(false));
    let hogs: Vec<_> = (0..hogs)
        .map(|_| {
            let done = done.clone();
            spawn(move || compute(&done))
        })
        .collect();
    spawn(body).join().unwrap();
    done.store(true, Relaxed);
    for hog in hogs {
        hog.join().unwrap();
    }
}

#[test]
fn a_computation_does_not_starve_a_sleeper() {
    on_every_driver(1, || {
        beside_hogs(2, || {
            for _ in 0..100 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    });
}

#[test]
fn a_computation_does_not_starve_input_and_output() {
    on_every_driver(1, || {
        beside_hogs(1, || {
            let (mut one, mut other) = UnixStream::pair().unwrap();
            let echo = spawn(move || {
                let mut byte = [0];
                while other.read(&mut byte).unwrap() == 1 {
                    other.write_all(&byte).unwrap();
                }
            });
            for n in 0..100 {
                one.write_all(&[n]).unwrap();
                let mut byte = [0];
                one.read_exact(&mut byte).unwrap();
                assert_eq!(n, byte[0]);
            }
            drop(one);
            echo.join().unwrap();
        });
    });
}

#[test]
fn computations_share_a_worker() {
    on_every_driver(1, || {
        let done = Arc::new(AtomicBool::new(false));
        let turns: Arc<[AtomicU64; 3]> = Arc::default();
        let hogs: Vec<_> = (0..turns.len())
            .map(|index| {
                let (done, turns) = (done.clone(), turns.clone());
                spawn(move || {
                    while !done.load(Relaxed) {
                        turns[index].fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        while turns.iter().any(|turns| turns.load(Relaxed) < 1000) {
            std::thread::sleep(Duration::from_millis(1));
        }
        done.store(true, Relaxed);
        for hog in hogs {
            hog.join().unwrap();
        }
    });
}

#[test]
fn what_is_asked_not_to_be_preempted_is_not() {
    on_every_driver(1, || {
        let done = Arc::new(AtomicBool::new(false));
        let ran = Arc::new(AtomicU32::new(0));
        let other = {
            let (done, ran) = (done.clone(), ran.clone());
            spawn(move || {
                while !done.load(Relaxed) {
                    std::thread::sleep(Duration::from_micros(200));
                    ran.fetch_add(1, SeqCst);
                }
            })
        };
        let hog = spawn(move || {
            let mut undisturbed = 0;
            for _ in 0..100 {
                let before = ran.load(SeqCst);
                undisturbed += no_preempt(|| {
                    let end = Instant::now() + Duration::from_millis(2);
                    while Instant::now() < end {}
                    u32::from(before == ran.load(SeqCst))
                });
                // Whoever was due comes as soon as the section is over.
                while ran.load(SeqCst) == before {
                    black_box(());
                }
            }
            undisturbed
        });
        // On a busy machine a section may last so long that the thread passes for
        // stuck, and the other one goes on elsewhere.
        assert!(hog.join().unwrap() >= 90);
        done.store(true, Relaxed);
        other.join().unwrap();
    });
}
