//! std's locks, channels and parking work between coroutines of one worker, and
//! the worker's other coroutines go on meanwhile.

mod runtimes;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{JoinHandle, spawn};
use runtimes::on_every_runtime;

const MOMENT: Duration = Duration::from_millis(5);

/// Runs `body` beside a coroutine that counts its turns, and fails if that one
/// had none.
fn beside_a_ticker(body: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    let ticker = spawn(move || {
        let mut ticks = 0;
        while !until.load(SeqCst) {
            thread::sleep(Duration::from_micros(200));
            ticks += 1;
        }
        ticks
    });
    body();
    stop.store(true, SeqCst);
    assert!(ticker.join().unwrap() > 0);
}

fn join_all(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        task.join().unwrap();
    }
}

#[test]
fn a_channel_carries_everything_in_order() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let (sender, receiver) = mpsc::channel();
            let producer = spawn(move || {
                for n in 0..10_000 {
                    sender.send(n).unwrap();
                    if n % 1000 == 0 {
                        thread::sleep(MOMENT);
                    }
                }
            });
            assert!(receiver.iter().eq(0..10_000));
            producer.join().unwrap();
        });
    });
}

#[test]
fn a_rendezvous_channel_hands_over_one_by_one() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let (sender, receiver) = mpsc::sync_channel(0);
            assert!(matches!(sender.try_send(0), Err(TrySendError::Full(0))));
            let producers: Vec<_> = (0..4)
                .map(|_| {
                    let sender = sender.clone();
                    spawn(move || (0..500).for_each(|n| sender.send(n).unwrap()))
                })
                .collect();
            drop(sender);
            thread::sleep(MOMENT);
            assert_eq!(4 * (0..500).sum::<u32>(), receiver.iter().sum());
            join_all(producers);
        });
    });
}

#[test]
fn a_bounded_channel_makes_its_sender_wait() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::sync_channel(2);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let producer = spawn(move || {
            for n in 0..10 {
                sender.send(n).unwrap();
                count.fetch_add(1, SeqCst);
            }
        });
        thread::sleep(Duration::from_millis(20));
        assert_eq!(2, sent.load(SeqCst));
        assert!(receiver.iter().eq(0..10));
        producer.join().unwrap();
    });
}

#[test]
fn a_receive_with_a_time_limit_ends_in_time() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::channel::<()>();
        let begin = Instant::now();
        let result = receiver.recv_timeout(Duration::from_millis(30));
        assert_eq!(Err(RecvTimeoutError::Timeout), result);
        assert!(begin.elapsed() >= Duration::from_millis(30));
        drop(sender);
        let result = receiver.recv_timeout(Duration::from_secs(60));
        assert_eq!(Err(RecvTimeoutError::Disconnected), result);
    });
}

#[test]
fn a_mutex_held_across_a_sleep_excludes_the_others() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let counter = Arc::new(Mutex::new(0));
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let counter = counter.clone();
                    spawn(move || {
                        let mut guard = counter.lock().unwrap();
                        let before = *guard;
                        thread::sleep(Duration::from_micros(300));
                        *guard = before + 1;
                    })
                })
                .collect();
            join_all(tasks);
            assert_eq!(50, *counter.lock().unwrap());
        });
    });
}

#[test]
fn a_condition_wakes_one_or_all() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let shared = Arc::new((Mutex::new(0), Condvar::new()));
            let waiters: Vec<_> = (0..20)
                .map(|_| {
                    let shared = shared.clone();
                    spawn(move || {
                        let (tickets, condition) = &*shared;
                        let guard = tickets.lock().unwrap();
                        let mut guard = condition.wait_while(guard, |left| *left == 0).unwrap();
                        *guard -= 1;
                    })
                })
                .collect();
            let (tickets, condition) = &*shared;
            for _ in 0..10 {
                *tickets.lock().unwrap() += 1;
                condition.notify_one();
            }
            while *tickets.lock().unwrap() > 0 {
                thread::yield_now();
            }
            *tickets.lock().unwrap() += 10;
            condition.notify_all();
            join_all(waiters);
        });
    });
}

#[test]
fn a_wait_for_a_condition_times_out() {
    on_every_runtime(|| {
        let (mutex, condition) = (Mutex::new(()), Condvar::new());
        let begin = Instant::now();
        let limit = Duration::from_millis(30);
        let guard = mutex.lock().unwrap();
        let (_guard, result) = condition
            .wait_timeout_while(guard, limit, |()| true)
            .unwrap();
        assert!(result.timed_out());
        assert!(begin.elapsed() >= limit);
    });
}

#[test]
fn readers_share_and_a_writer_waits() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let lock = Arc::new(RwLock::new(0));
            let readers: Vec<_> = (0..20)
                .map(|_| {
                    let lock = lock.clone();
                    spawn(move || {
                        let before = lock.read().unwrap();
                        thread::sleep(MOMENT);
                        assert_eq!(*before, *before);
                    })
                })
                .collect();
            let writers: Vec<_> = (0..5)
                .map(|_| {
                    let lock = lock.clone();
                    spawn(move || {
                        let mut value = lock.write().unwrap();
                        let before = *value;
                        thread::sleep(Duration::from_micros(500));
                        *value = before + 1;
                    })
                })
                .collect();
            join_all(readers.into_iter().chain(writers));
            assert_eq!(5, *lock.read().unwrap());
        });
    });
}

#[test]
fn a_barrier_releases_everyone_at_once() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let barrier = Arc::new(Barrier::new(30));
            let leaders = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..30)
                .map(|_| {
                    let (barrier, leaders) = (barrier.clone(), leaders.clone());
                    spawn(move || {
                        for _ in 0..10 {
                            leaders.fetch_add(barrier.wait().is_leader().into(), SeqCst);
                        }
                    })
                })
                .collect();
            join_all(tasks);
            assert_eq!(10, leaders.load(SeqCst));
        });
    });
}

#[test]
fn initialisation_that_suspends_happens_once() {
    on_every_runtime(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let cells = Arc::new((Once::new(), OnceLock::new()));
        let lazy: Arc<LazyLock<u32>> = Arc::new(LazyLock::new(|| {
            thread::sleep(MOMENT);
            7
        }));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (calls, cells, lazy) = (calls.clone(), cells.clone(), lazy.clone());
                spawn(move || {
                    cells.0.call_once(|| {
                        thread::sleep(MOMENT);
                        calls.fetch_add(1, SeqCst);
                    });
                    let value = cells.1.get_or_init(|| {
                        thread::sleep(MOMENT);
                        calls.fetch_add(1, SeqCst)
                    });
                    assert_eq!(1, *value);
                    assert_eq!(7, **lazy);
                })
            })
            .collect();
        join_all(tasks);
        assert_eq!(2, calls.load(SeqCst));
    });
}

#[test]
fn two_parked_coroutines_of_one_worker_are_told_apart() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            for first in [0, 1] {
                let (sender, receiver) = mpsc::channel();
                let tasks: Vec<_> = (0..2)
                    .map(|n| {
                        let sender = sender.clone();
                        spawn(move || {
                            let woken = Cell::new(false);
                            sender.send((n, thread::current())).unwrap();
                            while !woken.get() {
                                thread::park();
                                woken.set(true);
                            }
                        })
                    })
                    .collect();
                let mut threads = [None, None];
                for _ in 0..2 {
                    let (n, thread) = receiver.recv().unwrap();
                    threads[n] = Some(thread);
                }
                thread::sleep(MOMENT);
                threads[first].as_ref().unwrap().unpark();
                while !tasks[first].is_finished() {
                    thread::yield_now();
                }
                assert!(!tasks[1 - first].is_finished());
                threads[1 - first].as_ref().unwrap().unpark();
                join_all(tasks);
            }
        });
    });
}

#[test]
fn an_unpark_before_the_park_is_kept() {
    on_every_runtime(|| {
        thread::current().unpark();
        thread::park();
        let begin = Instant::now();
        thread::park_timeout(Duration::from_millis(20));
        assert!(begin.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn coroutines_and_threads_wait_for_each_other() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let (to_thread, at_thread) = mpsc::channel::<u32>();
            let (to_coroutine, at_coroutine) = mpsc::channel::<u32>();
            let thread = thread::spawn(move || {
                for n in at_thread {
                    thread::sleep(Duration::from_micros(100));
                    to_coroutine.send(n + 1).unwrap();
                }
                "done"
            });
            let mut n = 0;
            for _ in 0..50 {
                to_thread.send(n).unwrap();
                n = at_coroutine.recv().unwrap();
            }
            drop(to_thread);
            assert_eq!("done", thread.join().unwrap());
            assert_eq!(50, n);
        });
    });
}

#[test]
fn a_scope_of_threads_borrows_from_a_coroutine() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
            let mut numbers = [1, 2, 3, 4];
            thread::scope(|scope| {
                for number in &mut numbers {
                    scope.spawn(|| {
                        thread::sleep(MOMENT);
                        *number *= 2;
                    });
                }
            });
            assert_eq!([2, 4, 6, 8], numbers);
        });
    });
}

#[test]
fn crossbeam_channels_flume_and_parking_lot_work() {
    on_every_runtime(|| {
        beside_a_ticker(|| {
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
        });
    });
}
