//! A runtime stops: tasks end by themselves, or because they are asked to, or are
//! named and left behind. Then another one can be started.

mod child;
mod limits;
mod workload;

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use limits::{open_descriptors, status};
use open_coroutine::{
    Builder, Config, Driver, InitError, JoinError, JoinHandle, ShutdownError, init, park, shutdown,
    sleep, spawn, unblock, yield_now,
};
use workload::works;

/// Runs `body` for each kind of runtime, in a process of its own.
fn for_each_kind(test: &str, body: impl Fn(Config)) {
    child::succeeds(test, || {
        for driver in [Driver::IoUring, Driver::Epoll] {
            for workers in [1, 2] {
                let config = Config::default().driver(driver).event_loop_size(workers);
                body(config);
            }
        }
    });
}

/// How long tasks have that were not asked to end: hardly any time.
const SOON: Duration = Duration::from_millis(10);

fn unfinished() -> (Vec<String>, usize) {
    match shutdown() {
        Err(ShutdownError::Unfinished { running, count }) => (running, count),
        other => panic!("{other:?}"),
    }
}

/// Counts its drops.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn tasks_have_time_to_end() {
    for_each_kind("tasks_have_time_to_end", |config| {
        init(config.shutdown_timeout(Duration::from_secs(60))).unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                spawn(move || {
                    sleep(Duration::from_millis(number));
                    number
                })
            })
            .collect();
        shutdown().unwrap();
        for (number, task) in (0..).zip(tasks) {
            assert_eq!(number, task.join().unwrap());
        }
    });
}

#[test]
fn those_that_take_longer_are_asked_to_end() {
    for_each_kind("those_that_take_longer_are_asked_to_end", |config| {
        init(config.shutdown_timeout(SOON)).unwrap();
        let drops = Arc::new(AtomicUsize::new(0));
        let begun = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut near, _far) = UnixStream::pair().unwrap();
        let bodies: Vec<Box<dyn FnOnce() + Send>> = vec![
            Box::new(|| sleep(Duration::MAX)),
            Box::new(|| thread::sleep(Duration::from_secs(1000))),
            Box::new(park),
            Box::new(move || assert!(listener.accept().is_err())),
            Box::new(move || assert!(near.read(&mut [0]).is_err())),
            Box::new(|| {
                loop {
                    yield_now();
                }
            }),
        ];
        let count = bodies.len();
        let tasks: Vec<_> = bodies
            .into_iter()
            .map(|body| {
                let (guard, begun) = (Guard(drops.clone()), begun.clone());
                spawn(move || {
                    let _guard = guard;
                    begun.fetch_add(1, SeqCst);
                    body();
                })
            })
            .collect();
        while begun.load(SeqCst) < count {
            thread::yield_now();
        }
        shutdown().unwrap();
        assert_eq!(count, drops.load(SeqCst));
        for task in tasks {
            assert!(task.is_finished());
            assert!(matches!(task.join(), Ok(()) | Err(JoinError::Cancelled)));
        }
    });
}

#[test]
fn those_that_have_not_started_never_do() {
    for_each_kind("those_that_have_not_started_never_do", |config| {
        init(config.shutdown_timeout(SOON).max_size(1)).unwrap();
        let (begins, begun) = std::sync::mpsc::channel();
        spawn(move || {
            begins.send(()).unwrap();
            sleep(Duration::MAX);
        });
        begun.recv().unwrap();
        let drops = Arc::new(AtomicUsize::new(0));
        let waiting: Vec<_> = (0..1000)
            .map(|_| {
                let guard = Guard(drops.clone());
                spawn(move || {
                    drop(guard);
                    unreachable!("it has started");
                })
            })
            .collect::<Vec<JoinHandle<()>>>();
        shutdown().unwrap();
        assert_eq!(1000, drops.load(SeqCst));
        for task in waiting {
            assert!(matches!(task.join(), Err(JoinError::Cancelled)));
        }
    });
}

/// A task that sits somewhere for ever, under that name.
fn sits(
    name: &str,
    begun: &Arc<AtomicUsize>,
    body: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let begun = begun.clone();
    Builder::new()
        .name(name)
        .spawn(move || {
            begun.fetch_add(1, SeqCst);
            body();
        })
        .unwrap()
}

/// Spawns tasks that nothing ends, and returns when they sit where they will.
fn stubborn_tasks() -> (Vec<JoinHandle<()>>, Sender<()>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = channel::<()>();
    let lock: &'static Mutex<()> = Box::leak(Box::default());
    let guard = lock.lock().unwrap();
    let path = std::env::temp_dir().join(format!("open-coroutine-{}", std::process::id()));
    let (held, wanted) = (File::create(&path).unwrap(), File::create(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    held.lock().unwrap();
    let tasks = vec![
        sits("in a channel", &begun, move || {
            let _ = receiver.recv();
        }),
        sits("in a lock", &begun, move || drop(lock.lock().unwrap())),
        sits("in a file lock", &begun, move || wanted.lock().unwrap()),
        sits("shielded", &begun, || {
            open_coroutine::without_cancellation(|| sleep(Duration::MAX));
        }),
    ];
    while begun.load(SeqCst) < tasks.len() {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(20));
    // For ever.
    std::mem::forget((guard, held));
    (tasks, sender)
}

#[test]
fn those_that_do_not_end_are_named_with_what_they_do() {
    for_each_kind(
        "those_that_do_not_end_are_named_with_what_they_do",
        |config| {
            init(config.shutdown_timeout(SOON)).unwrap();
            let (tasks, sender) = stubborn_tasks();
            let began = Instant::now();
            let (running, count) = unfinished();
            assert!(began.elapsed() < Duration::from_secs(5));
            assert_eq!(tasks.len(), count);
            let expected = [
                ("in a channel", "waiting for a lock, a channel"),
                ("in a lock", "waiting for a lock"),
                ("in a file lock", "waiting for a call on a thread"),
                ("shielded", "sleeping"),
            ];
            for (name, activity) in expected {
                let text = running.iter().find(|text| text.starts_with(name)).unwrap();
                assert!(text.contains(activity), "{text}");
            }
            let joined = tasks.into_iter().map(JoinHandle::join);
            assert!(
                joined
                    .into_iter()
                    .all(|end| matches!(end, Err(JoinError::Cancelled)))
            );
            // Whoever wakes one of them now does no harm, to nobody.
            let _ = sender.send(());
            drop(sender);
            init(Config::default()).unwrap();
            works();
            shutdown().unwrap();
        },
    );
}

#[test]
fn one_that_computes_for_ever_is_left_alone() {
    for_each_kind("one_that_computes_for_ever_is_left_alone", |config| {
        let is_over = Arc::new(AtomicBool::new(false));
        let before = status("Threads");
        // Else it could be suspended at any time, and would never run again.
        let unpreempted = config.clone().preemptive(false);
        init(unpreempted.shutdown_timeout(SOON)).unwrap();
        let seen = is_over.clone();
        let (sender, refused) = channel();
        let begun = Arc::new(AtomicUsize::new(0));
        let task = sits("a hog", &begun, move || {
            while !seen.load(SeqCst) {}
            // Its runtime is gone, and there is another one.
            let refusal = Builder::new().spawn(|| ());
            sender.send(refusal.is_err()).unwrap();
            yield_now();
            unreachable!("it never runs again");
        });
        while begun.load(SeqCst) == 0 {
            thread::yield_now();
        }
        let (running, _) = unfinished();
        assert!(running[0].contains("running"), "{running:?}");
        assert!(matches!(task.join(), Err(JoinError::Cancelled)));
        init(config).unwrap();
        works();
        is_over.store(true, SeqCst);
        assert!(refused.recv().unwrap());
        works();
        shutdown().unwrap();
        // Its thread has ended too, as those of the pools do after a while.
        while status("Threads") > before + 8 {
            thread::sleep(Duration::from_millis(10));
        }
    });
}

/// What must not grow.
fn usage() -> (usize, u64, u64, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (
        open_descriptors(),
        status("Threads"),
        status("VmRSS"),
        maps.lines().count(),
    )
}

/// Runs `round` so often, and checks that nothing grows after the first ones. Memory
/// may grow by so many KiB a round.
fn leaks_nothing(rounds: usize, memory: u64, round: impl Fn(usize)) {
    let warm = rounds / 6;
    (0..warm).for_each(&round);
    let before = usage();
    (warm..rounds).for_each(&round);
    let after = usage();
    let what = format!("{before:?}, {after:?}");
    let rounds = (rounds - warm) as u64;
    assert!(after.0 <= before.0, "descriptors: {what}");
    assert!(after.1 <= before.1 + 8, "threads: {what}");
    assert!(
        after.2 <= before.2 + 2048 + memory * rounds,
        "memory: {what}"
    );
    assert!(after.3 <= before.3 + 64, "mappings: {what}");
}

/// A little of what leaves something behind, in the runtime that runs.
fn a_little_work() {
    let (mut near, far) = UnixStream::pair().unwrap();
    let reader = spawn(move || near.read(&mut [0]).unwrap());
    let sleeper = spawn(|| thread::sleep(Duration::from_micros(50)));
    drop(far);
    assert_eq!(0, reader.join().unwrap());
    sleeper.join().unwrap();
    let task = spawn(|| unblock(|| 1));
    assert_eq!(1, task.join().unwrap());
}

#[test]
fn a_thousand_runtimes_leave_nothing_behind() {
    child::succeeds("a_thousand_runtimes_leave_nothing_behind", || {
        for driver in [Driver::IoUring, Driver::Epoll] {
            leaks_nothing(1000, 0, |number| {
                let config = Config::default().driver(driver);
                init(config.event_loop_size(1 + number % 2)).unwrap();
                a_little_work();
                shutdown().unwrap();
            });
        }
    });
}

#[test]
fn runtimes_that_leave_tasks_behind_leave_only_those() {
    child::succeeds("runtimes_that_leave_tasks_behind_leave_only_those", || {
        for driver in [Driver::IoUring, Driver::Epoll] {
            let senders = Mutex::new(Vec::new());
            // A stack, thread-local storage, and what the scheduler knows of them.
            leaks_nothing(12, 128, |_| {
                let config = Config::default().driver(driver).event_loop_size(1);
                init(config.shutdown_timeout(Duration::ZERO)).unwrap();
                a_little_work();
                let (sender, receiver) = channel::<()>();
                let begun = Arc::new(AtomicUsize::new(0));
                sits("stays", &begun, move || {
                    let _ = receiver.recv();
                });
                while begun.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                senders.lock().unwrap().push(sender);
                assert_eq!(1, unfinished().1);
            });
            init(Config::default().driver(driver)).unwrap();
            for sender in senders.into_inner().unwrap() {
                sender.send(()).unwrap();
            }
            works();
            shutdown().unwrap();
        }
    });
}

#[test]
fn everybody_may_call_it_at_the_same_time() {
    for_each_kind("everybody_may_call_it_at_the_same_time", |config| {
        for _ in 0..20 {
            init(config.clone()).unwrap();
            let task = spawn(|| sleep(Duration::from_millis(1)));
            let barrier = Arc::new(Barrier::new(4));
            let stops: Vec<_> = (0..4)
                .map(|_| {
                    let barrier = barrier.clone();
                    thread::spawn(move || {
                        barrier.wait();
                        shutdown()
                    })
                })
                .collect();
            let stopped = stops.into_iter().map(|stop| stop.join().unwrap());
            let (done, late): (Vec<_>, Vec<_>) = stopped.partition(Result::is_ok);
            assert_eq!(1, done.len());
            let is_late =
                |end: &Result<(), ShutdownError>| matches!(end, Err(ShutdownError::NotRunning));
            assert!(late.iter().all(is_late));
            task.join().unwrap();
        }
    });
}

#[test]
fn who_spawns_meanwhile_is_refused_or_served() {
    for_each_kind("who_spawns_meanwhile_is_refused_or_served", |config| {
        for _ in 0..5 {
            init(config.clone()).unwrap();
            let is_over = Arc::new(AtomicBool::new(false));
            let spawners: Vec<_> = (0..2)
                .map(|_| {
                    let is_over = is_over.clone();
                    thread::spawn(move || {
                        let mut tasks = Vec::new();
                        while !is_over.load(SeqCst) {
                            tasks.extend(Builder::new().spawn(|| 7));
                        }
                        tasks
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(2));
            shutdown().unwrap();
            is_over.store(true, SeqCst);
            for spawner in spawners {
                for task in spawner.join().unwrap() {
                    // They may have begun a runtime of their own after this one.
                    assert_eq!(7, task.join().unwrap());
                }
            }
            match shutdown() {
                Ok(()) | Err(ShutdownError::NotRunning) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn a_runtime_that_stops_cannot_be_started_yet() {
    child::succeeds("a_runtime_that_stops_cannot_be_started_yet", || {
        init(Config::default()).unwrap();
        let (sender, receiver) = channel::<()>();
        let task = spawn(move || receiver.recv());
        let stop = thread::spawn(shutdown);
        loop {
            match init(Config::default()) {
                Err(InitError::AlreadyRunning) => thread::yield_now(),
                Err(InitError::ShuttingDown) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(Builder::new().spawn(|| ()).is_err());
        sender.send(()).unwrap();
        stop.join().unwrap().unwrap();
        task.join().unwrap().unwrap();
        init(Config::default()).unwrap();
        works();
        // On a coroutine it would wait for itself.
        let on_coroutine = spawn(shutdown).join().unwrap();
        assert!(matches!(on_coroutine, Err(ShutdownError::OnCoroutine)));
        shutdown().unwrap();
    });
}

#[test]
fn an_operation_in_flight_ends_before_its_memory_may_go() {
    for_each_kind(
        "an_operation_in_flight_ends_before_its_memory_may_go",
        |config| {
            init(config.shutdown_timeout(SOON)).unwrap();
            // Cancellation does not show on a terminal or an eventfd.
            // SAFETY: makes a descriptor.
            let event = unsafe { libc::eventfd(0, 0) };
            let begun = Arc::new(AtomicUsize::new(0));
            sits("reads", &begun, move || {
                let mut count = 0u64;
                // SAFETY: writes to `count`.
                unsafe { libc::read(event, (&raw mut count).cast(), 8) };
            });
            while begun.load(SeqCst) == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(5));
            let (running, _) = unfinished();
            let place = format!("descriptor {}", event.as_raw_fd());
            assert!(running[0].contains(&place), "{running:?}");
            // Nobody takes it any more.
            // SAFETY: reads and writes 8 bytes of `count`.
            unsafe {
                let mut count = 3u64;
                assert_eq!(8, libc::write(event, (&raw const count).cast(), 8));
                assert_eq!(8, libc::read(event, (&raw mut count).cast(), 8));
                assert_eq!(3, count);
                libc::close(event);
            }
        },
    );
}
