//! Coroutines that compute do not keep the others waiting.

mod runtimes;

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use open_coroutine::{Config, no_preempt, spawn};
use open_coroutine_core::runtime::census;
use runtimes::{on_every_driver, on_every_driver_as};

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

#[test]
fn who_computes_alone_is_left_alone() {
    on_every_driver(1, || {
        let before = census().preemptions;
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            black_box(());
        }
        assert_eq!(before, census().preemptions);
    });
}

#[test]
fn computations_change_places_once_per_time_slice() {
    let slice = Duration::from_millis(20);
    let config = Config::default().event_loop_size(1).time_slice(slice);
    on_every_driver_as(&config, move || {
        let done = Arc::new(AtomicBool::new(false));
        let before = census().preemptions;
        let start = Instant::now();
        let hogs = [(); 2].map(|()| {
            let done = done.clone();
            spawn(move || compute(&done))
        });
        // A busy machine may not let any of them run for long.
        let (mut sleeps, mut count) = (0, 0);
        while count < 3 {
            std::thread::sleep(Duration::from_millis(600));
            sleeps += 1;
            count = census().preemptions - before;
        }
        let slices = start.elapsed().as_secs_f64() / slice.as_secs_f64();
        done.store(true, Relaxed);
        for hog in hogs {
            hog.join().unwrap();
        }
        // The end of a sleep changes places too.
        let most = slices + f64::from(sleeps);
        assert!(
            count as f64 <= most,
            "{count} changes in {slices:.1} slices"
        );
    });
}

#[test]
fn what_is_the_coroutines_own_is_kept() {
    let slice = Duration::from_micros(50);
    let config = Config::default().event_loop_size(2).time_slice(slice);
    on_every_driver_as(&config, || {
        let flows: Vec<_> = (0..6).map(|number| spawn(move || keep(number))).collect();
        for flow in flows {
            flow.join().unwrap();
        }
    });
}

/// Computes with `number` in `errno`, in the signal mask, in floating-point registers and
/// control words and on a stack that has grown.
fn keep(number: i32) {
    let signal = libc::SIGRTMIN() + 2 + number;
    // SAFETY: a set of one signal, all on this coroutine; MXCSR gets nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        *libc::__errno_location() = number;
    }
    let end = Instant::now() + Duration::from_millis(200);
    open_coroutine::maybe_grow!(usize::MAX / 4, 64 * 1024, move || {
        while Instant::now() < end {
            let mut sum = 0.0f64;
            for n in 0..20_000 {
                sum += black_box(f64::from(n * number));
            }
            assert_eq!(f64::from(number) * 199_990_000.0, sum);
            // SAFETY: reads.
            unsafe {
                assert_eq!(number, *libc::__errno_location());
            }
        }
    })
    .unwrap();
    // SAFETY: asks for the mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
        for other in 0..6 {
            let is_blocked = libc::sigismember(&raw const set, libc::SIGRTMIN() + 2 + other) == 1;
            assert_eq!(other == number, is_blocked);
        }
    }
}

/// How often the program's handler was called.
static URGENT: AtomicU32 = AtomicU32::new(0);

extern "C" fn urgent(_: libc::c_int) {
    URGENT.fetch_add(1, SeqCst);
}

#[test]
fn the_programs_own_handler_of_the_same_signal_is_called() {
    on_every_driver(1, || {
        // SAFETY: the handler counts; all-zero bytes are a valid action.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = urgent as *const () as usize;
            assert_eq!(
                0,
                libc::sigaction(libc::SIGURG, &raw const action, &raw mut before)
            );
            let seen = URGENT.load(SeqCst);
            libc::raise(libc::SIGURG);
            assert_eq!(seen + 1, URGENT.load(SeqCst));
            libc::sigaction(libc::SIGURG, &raw const before, &raw mut action);
            assert_eq!(urgent as *const () as usize, action.sa_sigaction);
            libc::raise(libc::SIGURG);
            assert_eq!(seen + 1, URGENT.load(SeqCst));
            libc::signal(libc::SIGURG, urgent as *const () as usize);
        }
        let seen = URGENT.load(SeqCst);
        beside_hogs(1, || {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(
            seen,
            URGENT.load(SeqCst),
            "preemption is none of its business"
        );
        // SAFETY: the signal is ignored, as by default.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_DFL) };
    });
}
