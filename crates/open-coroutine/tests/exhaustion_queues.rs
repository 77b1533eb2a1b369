//! Floods of tasks, timers, panics and wake-ups: they take their time, and after
//! them everything works.

mod child;
mod runtimes;
mod workload;

use std::mem;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{
    Builder, Config, Driver, JoinError, JoinHandle, ShutdownError, init, shutdown, sleep, spawn,
    yield_now,
};
use runtimes::on_every_runtime;
use workload::works;

/// Spawns `count` tasks that count themselves, and forgets their handles.
fn flood(count: usize, ran: &Arc<AtomicUsize>) {
    for _ in 0..count {
        let ran = ran.clone();
        spawn(move || ran.fetch_add(1, SeqCst));
    }
}

fn wait_for(count: usize, ran: &AtomicUsize) {
    while ran.load(SeqCst) < count {
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_million_queued_tasks_all_run() {
    child::succeeds("a_million_queued_tasks_all_run", || {
        on_every_runtime(|| {
            // On one worker all of them are queued before the first one runs.
            let ran = Arc::default();
            flood(1_000_000, &ran);
            wait_for(1_000_000, &ran);
            works();
        });
    });
}

/// Two tasks that have begun, and run until `is_open`.
fn guards(is_open: &Arc<AtomicBool>) -> [JoinHandle<()>; 2] {
    let begun = Arc::new(AtomicUsize::new(0));
    let guards = [(); 2].map(|()| {
        let (is_open, begun) = (is_open.clone(), begun.clone());
        spawn(move || {
            begun.fetch_add(1, SeqCst);
            while !is_open.load(SeqCst) {
                sleep(Duration::from_millis(1));
            }
        })
    });
    wait_for(2, &begun);
    guards
}

#[test]
fn a_million_tasks_queue_behind_two_places() {
    child::succeeds("a_million_tasks_queue_behind_two_places", || {
        for workers in [1, 2] {
            let config = Config::default().event_loop_size(workers);
            init(config.max_size(2)).unwrap();
            let is_open = Arc::new(AtomicBool::new(false));
            let guards = guards(&is_open);
            let (ran, live) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            for _ in 0..1_000_000 {
                let (ran, live) = (ran.clone(), live.clone());
                spawn(move || {
                    assert!(live.fetch_add(1, SeqCst) < 2);
                    live.fetch_sub(1, SeqCst);
                    ran.fetch_add(1, SeqCst);
                });
            }
            assert_eq!(0, ran.load(SeqCst));
            is_open.store(true, SeqCst);
            for guard in guards {
                guard.join().unwrap();
            }
            wait_for(1_000_000, &ran);
            shutdown().unwrap();
        }
    });
}

#[test]
fn tasks_that_wait_for_each_other_beyond_max_size_can_give_up() {
    child::succeeds(
        "tasks_that_wait_for_each_other_beyond_max_size_can_give_up",
        || {
            for driver in [Driver::IoUring, Driver::Epoll] {
                let config = Config::default().driver(driver).event_loop_size(2);
                let config = config.shutdown_timeout(Duration::from_millis(200));
                init(config.clone().max_size(2)).unwrap();
                let parents = [(); 2].map(|()| {
                    spawn(|| {
                        // Both places are taken by parents: it cannot start yet.
                        let child = spawn(|| 7);
                        let early = child.timeout_join(Duration::from_millis(50));
                        (early.map_err(|error| error.is_timeout()), child)
                    })
                });
                for parent in parents {
                    let (early, child) = parent.join().unwrap();
                    assert!(matches!(early, Err(true) | Ok(7)));
                    if early.is_err() {
                        assert_eq!(7, child.join().unwrap());
                    }
                }
                // Those that do not give up are named when the runtime stops.
                let parents = [(); 2].map(|()| {
                    let parent = Builder::new().name("waits for a child");
                    parent
                        .spawn(|| spawn(|| sleep(Duration::ZERO)).join())
                        .unwrap()
                });
                sleep(Duration::from_millis(50));
                let stopped = shutdown();
                if parents.iter().any(|parent| !parent.is_finished()) {
                    let Err(ShutdownError::Unfinished { running, .. }) = stopped else {
                        panic!("{stopped:?}");
                    };
                    assert!(running[0].contains("waits for a child"), "{running:?}");
                }
                init(config).unwrap();
                works();
                shutdown().unwrap();
            }
        },
    );
}

#[test]
fn a_hundred_thousand_timers_fire_at_once() {
    child::succeeds("a_hundred_thousand_timers_fire_at_once", || {
        on_every_runtime(|| {
            const COUNT: usize = 100_000;
            let woken = Arc::new(AtomicUsize::new(0));
            let at = Instant::now() + Duration::from_secs(3);
            for _ in 0..COUNT {
                let woken = woken.clone();
                spawn(move || {
                    sleep(at.saturating_duration_since(Instant::now()));
                    assert!(Instant::now() >= at);
                    woken.fetch_add(1, SeqCst);
                });
            }
            wait_for(COUNT, &woken);
            works();
        });
    });
}

#[test]
fn threads_that_spawn_all_the_time_stop_nobody() {
    child::succeeds("threads_that_spawn_all_the_time_stop_nobody", || {
        on_every_runtime(|| {
            let ran = Arc::new(AtomicUsize::new(0));
            let hog = spawn(|| {
                let end = Instant::now() + Duration::from_millis(300);
                while Instant::now() < end {
                    yield_now();
                }
            });
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let ran = ran.clone();
                    thread::spawn(move || flood(50_000, &ran))
                })
                .collect();
            works();
            hog.join().unwrap();
            for thread in threads {
                thread.join().unwrap();
            }
            wait_for(200_000, &ran);
            works();
        });
    });
}

/// A task that spawns itself again until it is told to stop.
fn keep_spawning(priority: i64, is_over: &Arc<AtomicBool>, running: &Arc<AtomicUsize>) {
    if is_over.load(SeqCst) {
        running.fetch_sub(1, SeqCst);
        return;
    }
    let (next_over, next_running) = (is_over.clone(), running.clone());
    let task = Builder::new().priority(priority);
    task.spawn(move || keep_spawning(priority, &next_over, &next_running))
        .unwrap();
}

#[test]
fn floods_of_any_priority_starve_no_other() {
    child::succeeds("floods_of_any_priority_starve_no_other", || {
        on_every_runtime(|| {
            let is_over = Arc::new(AtomicBool::new(false));
            let running = Arc::new(AtomicUsize::new(0));
            for priority in [i64::MIN, -1, 0, 1] {
                for _ in 0..20 {
                    running.fetch_add(1, SeqCst);
                    keep_spawning(priority, &is_over, &running);
                }
            }
            for priority in [i64::MIN, -1, 0, 1, i64::MAX] {
                let task = Builder::new().priority(priority);
                let task = task.spawn(|| {
                    yield_now();
                    spawn(|| sleep(Duration::from_micros(10))).join()
                });
                task.unwrap().join().unwrap().unwrap();
            }
            is_over.store(true, SeqCst);
            while running.load(SeqCst) > 0 {
                sleep(Duration::from_millis(1));
            }
            works();
        });
    });
}

/// What panics when it is dropped, and what it panics with as well.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 && !thread::panicking() {
            panic::resume_unwind(Box::new(Bomb(self.0 - 1)));
        }
    }
}

#[test]
fn a_storm_of_panics_passes() {
    child::succeeds("a_storm_of_panics_passes", || {
        // The reports would take longest.
        panic::set_hook(Box::new(|_| {}));
        on_every_runtime(|| {
            let tasks: Vec<JoinHandle<()>> = (0..20_000)
                .map(|number| {
                    spawn(move || match number % 4 {
                        0 => panic!("plain"),
                        1 => panic::resume_unwind(Box::new(Bomb(3))),
                        2 => drop(Bomb(3)),
                        _ => {
                            yield_now();
                            panic!("after a suspension");
                        }
                    })
                })
                .collect();
            for (number, task) in tasks.into_iter().enumerate() {
                if number % 2 == 0 {
                    continue; // Nobody takes this one's payload.
                }
                match task.join() {
                    Err(JoinError::Panicked(payload)) => mem::forget(payload),
                    other => panic!("{other:?}"),
                }
            }
            works();
        });
    });
}

/// Panics when it is destroyed, at the end of its task.
struct LastWords;

impl Drop for LastWords {
    fn drop(&mut self) {
        sleep(Duration::from_micros(10));
    }
}

#[test]
fn tasks_that_wait_in_destructors_of_thread_locals_all_end() {
    thread_local! {
        static LAST_WORDS: LastWords = const { LastWords };
    }
    child::succeeds(
        "tasks_that_wait_in_destructors_of_thread_locals_all_end",
        || {
            on_every_runtime(|| {
                let task = || LAST_WORDS.with(|_| yield_now());
                let tasks: Vec<_> = (0..5_000).map(|_| spawn(task)).collect();
                for task in tasks {
                    task.join().unwrap();
                }
                works();
            });
        },
    );
}
