//! Tasks, joins, waits and priorities, with each number of workers, driver and
//! mode. One runtime lives per process, so each configuration runs in a process
//! of its own: this binary again, told by the environment what to be.
//!
//! `OPEN_COROUTINE_TEST_REPEAT=1000` runs each body so many times, with a new
//! runtime each time.

use std::env;
use std::fs;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine_core::join::JoinError;
use open_coroutine_core::runtime::{
    Builder, Config, Driver, ShutdownError, current, init, shutdown, spawn,
};
use open_coroutine_core::sched::without_cancellation;
use open_coroutine_core::stack;
use open_coroutine_core::sync::{futex, park, park_timeout};
use open_coroutine_core::time::{sleep, yield_now};

const SETUP: &str = "OPEN_COROUTINE_TEST_SETUP";
const REPEAT: &str = "OPEN_COROUTINE_TEST_REPEAT";
const MODE: &str = "OPEN_COROUTINE_MODE";

/// Runs `body` in every configuration, each in a process of its own. `adapt`
/// changes the configuration.
fn everywhere_with(adapt: fn(Config) -> Config, body: fn()) {
    let Ok(setup) = env::var(SETUP) else {
        return rerun_in_every_setup();
    };
    let (workers, driver) = setup.split_once(' ').unwrap();
    let config = Config::default()
        .event_loop_size(workers.parse().unwrap())
        .driver(match driver {
            "epoll" => Driver::Epoll,
            _ => Driver::IoUring,
        });
    let repeat = env::var(REPEAT).map_or(1, |count| count.parse().unwrap());
    for _ in 0..repeat {
        init(adapt(config.clone())).unwrap();
        body();
        match shutdown() {
            Ok(()) | Err(ShutdownError::NotRunning) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn everywhere(body: fn()) {
    everywhere_with(|config| config, body);
}

fn rerun_in_every_setup() {
    let thread = thread::current();
    let test = thread.name().expect("libtest names its threads");
    for mode in ["full", "restricted"] {
        for setup in ["1 io_uring", "2 io_uring", "1 epoll", "2 epoll"] {
            let status = Command::new(env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture", "--test-threads=1", "-q"])
                .env(SETUP, setup)
                .env(MODE, mode)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "{setup} {mode}: {status}");
        }
    }
}

fn is_restricted() -> bool {
    env::var(MODE).is_ok_and(|mode| mode == "restricted")
}

fn one_worker() -> bool {
    env::var(SETUP).is_ok_and(|setup| setup.starts_with('1'))
}

#[test]
fn results_come_back_to_threads_and_coroutines() {
    everywhere(|| {
        let handles: Vec<_> = (0..100u64).map(|n| spawn(move || n * n)).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!((n * n) as u64, handle.join().unwrap());
        }
        let sum = spawn(|| {
            let handles: Vec<_> = (0..100u64).map(|n| spawn(move || n)).collect();
            handles.into_iter().map(|h| h.join().unwrap()).sum::<u64>()
        });
        assert_eq!(4950, sum.join().unwrap());
    });
}

#[test]
fn trees_of_tasks_all_end() {
    fn tree(depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let left = spawn(move || tree(depth - 1));
        let right = spawn(move || tree(depth - 1));
        left.join().unwrap() + right.join().unwrap()
    }
    everywhere(|| assert_eq!(256, spawn(|| tree(8)).join().unwrap()));
}

#[test]
fn a_task_that_yields_all_the_time_starves_no_new_task() {
    everywhere(|| {
        let waiter = spawn(|| {
            let child = spawn(|| 7);
            while !child.is_finished() {
                yield_now();
            }
            child.join().unwrap()
        });
        assert_eq!(7, waiter.join().unwrap());
    });
}

#[test]
fn unpark_before_park_is_kept_and_ping_pong_loses_no_token() {
    everywhere(|| {
        const ROUNDS: u32 = 500;
        let turn = Arc::new(AtomicU32::new(0));
        let players: Vec<_> = (0..2u32)
            .map(|me| {
                let turn = turn.clone();
                let (sender, receiver) = mpsc::channel::<open_coroutine_core::join::TaskHandle>();
                let handle = spawn(move || {
                    while turn.load(SeqCst) == u32::MAX {
                        yield_now();
                    }
                    let other = receiver.recv().unwrap();
                    for round in 0..ROUNDS {
                        while turn.load(SeqCst) != round * 2 + me {
                            park();
                        }
                        turn.fetch_add(1, SeqCst);
                        other.unpark();
                    }
                });
                (handle, sender)
            })
            .collect();
        for me in 0..2 {
            players[me].1.send(players[1 - me].0.task()).unwrap();
        }
        for (handle, _) in players {
            handle.join().unwrap();
        }
        assert_eq!(2 * ROUNDS, turn.load(SeqCst));
    });
}

#[test]
fn an_unpark_from_a_thread_wakes_a_parked_coroutine() {
    everywhere(|| {
        let flag = Arc::new(AtomicU32::new(0));
        let seen = flag.clone();
        let handle = spawn(move || {
            while seen.load(SeqCst) == 0 {
                park();
            }
        });
        flag.store(1, SeqCst);
        handle.task().unpark();
        handle.join().unwrap();
    });
}

#[test]
fn park_timeout_returns_without_an_unpark() {
    everywhere(|| {
        let elapsed = spawn(|| {
            let start = Instant::now();
            park_timeout(Duration::from_millis(5));
            park_timeout(Duration::ZERO);
            start.elapsed()
        });
        assert!(elapsed.join().unwrap() >= Duration::from_millis(5));
    });
}

#[test]
fn sleepers_all_wake_and_none_too_early() {
    everywhere(|| {
        let sleepers: Vec<_> = (0..200u64)
            .map(|n| {
                spawn(move || {
                    let start = Instant::now();
                    let delay = Duration::from_micros(n % 7 * 500);
                    sleep(delay);
                    assert!(start.elapsed() >= delay);
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        // So far away that an `Instant` cannot tell.
        let endless = spawn(|| park_timeout(Duration::MAX));
        endless.task().unpark();
        endless.join().unwrap();
    });
}

/// How often the workers have gone to sleep, in all.
fn sleeps_of_workers() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let workers = statuses.filter(|status| status.starts_with("Name:\topen-coroutine-"));
    let counts = workers.filter_map(|status| {
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    counts.sum()
}

#[test]
fn an_idle_runtime_frees_its_coroutines_and_then_sleeps_for_good() {
    everywhere_with(
        |config| {
            config
                .keep_alive_time(Duration::from_millis(20))
                .min_size(2)
        },
        || {
            let sleepers: Vec<_> = (0..1500)
                .map(|_| spawn(|| sleep(Duration::from_millis(5))))
                .collect();
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
            let is_trimmed = || {
                let stats = stack::pool().stats();
                stats.live <= 4 && stats.idle == 0
            };
            while !is_trimmed() {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(stack::pool().stats().live >= 2);
            // The last trim may still be on its way to sleep in the first window.
            let is_quiet = || {
                let before = sleeps_of_workers();
                thread::sleep(Duration::from_millis(100));
                sleeps_of_workers() == before
            };
            assert!(is_quiet() || is_quiet());
        },
    );
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn a_hundred_thousand_sleepers_take_little_memory_each() {
    everywhere(|| {
        if env::var(SETUP).is_ok_and(|setup| setup != "2 io_uring") {
            return;
        }
        const COUNT: usize = 100_000;
        let resident = || {
            let statm = fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let sleepers: Vec<_> = (0..COUNT)
            .map(|_| {
                spawn(|| {
                    sleep(Duration::from_secs(1));
                    park();
                })
            })
            .collect();
        while stack::pool().stats().live < COUNT {
            thread::sleep(Duration::from_millis(1));
        }
        let each = (resident() - before) / COUNT;
        eprintln!("{each} bytes per sleeping coroutine");
        assert!(each < 24 * 1024, "{each}");
        for sleeper in &sleepers {
            sleeper.task().unpark();
        }
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn a_wake_all_reaches_every_waiter_that_came_before() {
    everywhere(|| {
        static WORD: AtomicU32 = AtomicU32::new(0);
        WORD.store(0, SeqCst);
        let arrived = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..50)
            .map(|_| {
                let arrived = arrived.clone();
                spawn(move || {
                    arrived.fetch_add(1, SeqCst);
                    while WORD.load(SeqCst) == 0 {
                        futex::wait_anywhere(&WORD, 0, None);
                    }
                })
            })
            .collect();
        while arrived.load(SeqCst) < 50 {
            thread::yield_now();
        }
        WORD.store(1, SeqCst);
        futex::wake_all(&WORD);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_mutex_and_condition_of_futexes_lose_no_wakeup_between_threads_and_coroutines() {
    everywhere(|| {
        static WORD: AtomicU32 = AtomicU32::new(0);
        WORD.store(0, SeqCst);
        const PER_PLAYER: u32 = 200;
        const PLAYERS: u32 = 4;
        fn play(me: u32) {
            for round in 0..PER_PLAYER {
                let mine = round * PLAYERS + me;
                loop {
                    let now = WORD.load(SeqCst);
                    if now == mine {
                        break;
                    }
                    futex::wait_anywhere(&WORD, now, None);
                }
                WORD.store(mine + 1, SeqCst);
                futex::wake_all(&WORD);
            }
        }
        let coroutines: Vec<_> = (0..3).map(|me| spawn(move || play(me))).collect();
        play(3);
        for coroutine in coroutines {
            coroutine.join().unwrap();
        }
    });
}

#[test]
fn a_futex_wait_ends_at_its_deadline_or_by_a_wake_whichever_races() {
    everywhere(|| {
        let handles: Vec<_> = (0..20u64)
            .map(|n| {
                spawn(move || {
                    let word = Arc::new(AtomicU32::new(0));
                    let other = word.clone();
                    let waker = spawn(move || {
                        sleep(Duration::from_micros(200 + n * 10));
                        other.store(1, SeqCst);
                        futex::wake_all(&other);
                    });
                    let deadline = Instant::now() + Duration::from_micros(300);
                    futex::wait_anywhere(&word, 0, Some(deadline));
                    assert!(word.load(SeqCst) == 1 || Instant::now() >= deadline);
                    waker.join().unwrap();
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

#[test]
fn a_panic_is_carried_to_the_joiner_and_harms_nobody_else() {
    everywhere(|| {
        std::panic::set_hook(Box::new(|_| ()));
        let bad = spawn(|| -> u32 { panic!("expected by the test") });
        let good = spawn(|| 1);
        let error = bad.join().unwrap_err();
        assert!(error.is_panic());
        let payload = error.into_panic().unwrap();
        assert_eq!(Some(&"expected by the test"), payload.downcast_ref());
        assert_eq!(1, good.join().unwrap());
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_payload_whose_destructor_panics_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    everywhere(|| {
        std::panic::set_hook(Box::new(|_| ()));
        drop(spawn(|| Bomb));
        drop(spawn(|| std::panic::panic_any(Bomb)));
        assert_eq!(1, spawn(|| 1).join().unwrap());
        shutdown().unwrap();
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_timed_out_join_can_be_repeated() {
    everywhere(|| {
        let word = Arc::new(AtomicU32::new(0));
        let seen = word.clone();
        let handle = spawn(move || {
            while seen.load(SeqCst) == 0 {
                futex::wait_anywhere(&seen, 0, None);
            }
            9
        });
        let early = handle.timeout_join(Duration::from_millis(1));
        assert!(matches!(early, Err(JoinError::TimedOut)));
        word.store(1, SeqCst);
        futex::wake_all(&word);
        assert_eq!(9, handle.timeout_join(Duration::from_secs(60)).unwrap());
        let again = handle.timeout_join(Duration::ZERO);
        assert!(matches!(again, Err(JoinError::Taken)));
    });
}

#[test]
fn a_handle_is_a_future_that_wakes_its_poller() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    everywhere(|| {
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        for _ in 0..50 {
            let mut handle = spawn(|| 5);
            let value = loop {
                match Pin::new(&mut handle).poll(&mut context) {
                    Poll::Ready(value) => break value,
                    Poll::Pending => thread::park(),
                }
            };
            assert_eq!(5, value.unwrap());
        }
    });
}

#[test]
fn smaller_priorities_start_first_and_equal_ones_in_order() {
    everywhere(|| {
        if !one_worker() {
            return;
        }
        let order = spawn(|| {
            let order = Arc::new(Mutex::new(Vec::new()));
            let handles: Vec<_> = [3, -2, 0, 3, -7, 0, -2]
                .into_iter()
                .enumerate()
                .map(|(index, priority)| {
                    let order = order.clone();
                    let body = move || order.lock().unwrap().push((priority, index));
                    Builder::new().priority(priority).spawn(body).unwrap()
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            Arc::into_inner(order).unwrap().into_inner().unwrap()
        });
        let expected = vec![(-7, 4), (-2, 1), (-2, 6), (0, 2), (0, 5), (3, 0), (3, 3)];
        assert_eq!(expected, order.join().unwrap());
    });
}

#[test]
fn who_is_urgent_runs_on_when_it_yields() {
    everywhere(|| {
        // In restricted mode a priority is only about who starts first.
        if !one_worker() || is_restricted() {
            return;
        }
        let turns = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicU32::new(0));
        let others: Vec<_> = (0..3)
            .map(|_| {
                let (turns, stop) = (turns.clone(), stop.clone());
                spawn(move || {
                    while stop.load(SeqCst) == 0 {
                        turns.fetch_add(1, SeqCst);
                        yield_now();
                    }
                })
            })
            .collect();
        let urgent = move || {
            let before = turns.load(SeqCst);
            (0..30).for_each(|_| yield_now());
            turns.load(SeqCst) - before
        };
        let urgent = Builder::new().priority(-1).spawn(urgent).unwrap();
        // Not more than what keeps the others from starving.
        assert!(urgent.join().unwrap() <= 2);
        stop.store(1, SeqCst);
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn urgent_tasks_that_never_end_starve_nobody() {
    everywhere(|| {
        let stop = Arc::new(AtomicU32::new(0));
        let hogs: Vec<_> = (0..4)
            .map(|_| {
                let stop = stop.clone();
                let hog = move || {
                    while stop.load(SeqCst) == 0 {
                        yield_now();
                    }
                };
                Builder::new().priority(-1).spawn(hog).unwrap()
            })
            .collect();
        let others: Vec<_> = [0, 1, 5, i64::MAX]
            .into_iter()
            .map(|priority| Builder::new().priority(priority).spawn(yield_now).unwrap())
            .collect();
        for other in others {
            other.join().unwrap();
        }
        stop.store(1, SeqCst);
        for hog in hogs {
            hog.join().unwrap();
        }
    });
}

#[test]
fn a_stack_is_as_large_as_it_was_asked_to_be() {
    everywhere(|| {
        for size in [64 * 1024, 1 << 20, 8 << 20] {
            let left = Builder::new()
                .stack_size(size)
                .spawn(open_coroutine_core::coroutine::remaining_stack)
                .unwrap();
            let left = left.join().unwrap();
            assert!(left > size - 8 * 1024, "{left} of {size}");
        }
        assert!(Builder::new().stack_size(0).spawn(|| ()).is_err());
    });
}

#[test]
fn no_more_coroutines_than_max_size_are_alive_and_those_that_wait_start_in_order() {
    everywhere_with(
        |config| config.max_size(3),
        || {
            static LIVE: AtomicUsize = AtomicUsize::new(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let handles: Vec<_> = (0..60)
                .map(|index| {
                    let order = order.clone();
                    spawn(move || {
                        order.lock().unwrap().push(index);
                        assert!(LIVE.fetch_add(1, SeqCst) < 3);
                        yield_now();
                        LIVE.fetch_sub(1, SeqCst);
                    })
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            if one_worker() {
                assert!(order.lock().unwrap().is_sorted());
            }
        },
    );
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn tasks_beyond_memory_end_with_an_error_and_pass_their_place_on() {
    everywhere_with(
        |config| config.max_size(1),
        || {
            let huge = || Builder::new().stack_size((64 << 30) - 1).spawn(|| ());
            let handles: Vec<_> = (0..3).map(|_| huge().unwrap()).collect();
            let last = spawn(|| 3);
            for handle in handles {
                // Address space may suffice for one at a time.
                match handle.join() {
                    Ok(()) | Err(JoinError::NotStarted(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(3, last.join().unwrap());
        },
    );
}

#[test]
fn a_runtime_can_be_stopped_and_started_again() {
    everywhere(|| {
        for round in 0..3 {
            assert_eq!(round, spawn(move || round).join().unwrap());
            shutdown().unwrap();
            assert!(matches!(shutdown(), Err(ShutdownError::NotRunning)));
            init(Config::default().event_loop_size(2)).unwrap();
        }
    });
}

#[test]
fn shutdown_waits_for_running_tasks_and_refuses_new_ones() {
    everywhere(|| {
        let (started, has_started) = mpsc::channel();
        let handle = spawn(move || {
            started.send(()).unwrap();
            loop {
                match Builder::new().spawn(|| ()) {
                    Ok(_) => yield_now(),
                    Err(error) => return error.to_string(),
                }
            }
        });
        has_started.recv().unwrap();
        shutdown().unwrap();
        assert!(handle.is_finished());
        assert!(handle.join().unwrap().contains("shutting down"));
    });
}

#[test]
fn shutdown_names_what_has_not_ended_and_cancels_what_has_not_started() {
    everywhere_with(
        |config| {
            config
                .shutdown_timeout(Duration::from_millis(20))
                .max_size(1)
        },
        || {
            let (started, has_started) = mpsc::channel();
            let body = move || {
                started.send(()).unwrap();
                without_cancellation(|| {
                    loop {
                        park();
                    }
                })
            };
            let stuck = Builder::new().name("stuck").spawn(body).unwrap();
            has_started.recv().unwrap();
            let dropped = Arc::new(());
            let held = dropped.clone();
            let waiting = spawn(move || drop(held));
            match shutdown() {
                Err(ShutdownError::Unfinished { running, count }) => {
                    assert_eq!(1, count);
                    let expected = format!("stuck (task {}, waiting for a lock", stuck.id());
                    assert!(running[0].starts_with(&expected), "{running:?}");
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(waiting.join(), Err(JoinError::Cancelled)));
            assert_eq!(1, Arc::strong_count(&dropped));
            // A wake-up of what is left must not reach the next runtime.
            init(Config::default().event_loop_size(2)).unwrap();
            let task = stuck.task();
            spawn(move || task.unpark()).join().unwrap();
            stuck.task().unpark();
            assert_eq!(1, spawn(|| 1).join().unwrap());
            assert!(!stuck.is_finished());
            // Nobody waits for what will never end.
            assert!(matches!(stuck.join(), Err(JoinError::Cancelled)));
        },
    );
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn a_coroutine_woken_by_one_that_never_suspends_runs_on_another_worker() {
    everywhere(|| {
        if one_worker() || is_restricted() {
            return;
        }
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        let (parked, is_parked) = mpsc::channel();
        let sleeper = spawn(move || {
            parked.send(()).unwrap();
            park();
            seen.store(1, SeqCst);
        });
        is_parked.recv().unwrap();
        let task = sleeper.task();
        let hog = spawn(move || {
            task.unpark();
            while done.load(SeqCst) == 0 {
                std::hint::spin_loop();
            }
        });
        hog.join().unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn many_spawners_and_joiners_lose_no_task() {
    everywhere(|| {
        let total = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let total = total.clone();
                thread::spawn(move || {
                    for _ in 0..20 {
                        let total = total.clone();
                        let handle = spawn(move || {
                            let children: Vec<_> = (0..10)
                                .map(|n| {
                                    let total = total.clone();
                                    spawn(move || {
                                        if n % 3 == 0 {
                                            yield_now();
                                        }
                                        total.fetch_add(1, SeqCst);
                                    })
                                })
                                .collect();
                            for child in children {
                                child.join().unwrap();
                            }
                        });
                        handle.join().unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(600, total.load(SeqCst));
    });
}

#[test]
fn a_task_knows_itself() {
    everywhere(|| {
        assert!(current().is_none());
        let body = || {
            let me = current().unwrap();
            (me.id(), me.name().map(str::to_owned), me.priority())
        };
        let handle = Builder::new().name("me").priority(3).spawn(body).unwrap();
        let id = handle.id();
        assert_eq!((id, Some("me".to_owned()), 3), handle.join().unwrap());
    });
}
