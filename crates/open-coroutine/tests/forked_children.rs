//! The child of a fork beside a runtime: it goes on alone, as a thread's does, may
//! start a runtime of its own, and its parent's goes on undisturbed.

mod child;
mod forks;
mod runtimes;
mod workload;

use std::env;
use std::ffi::c_int;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use forks::{Traffic, in_child, status_of};
use open_coroutine::{
    Builder, Config, Driver, JoinError, current, init, park_timeout, shutdown, sleep, spawn,
    yield_now,
};
use runtimes::{on_every_driver, on_every_runtime};
use workload::works;

unsafe extern "C" {
    fn quick_exit(status: c_int) -> !;
}

/// What a child does with std, without a runtime.
fn use_std() {
    println!("a line of process {}", process::id());
    let numbers = Arc::new((Mutex::new(0), Condvar::new()));
    let (sender, receiver) = channel();
    let other = numbers.clone();
    let thread = thread::spawn(move || {
        *other.0.lock().unwrap() = receiver.recv().unwrap();
        other.1.notify_all();
    });
    sender.send(7).unwrap();
    let mut number = numbers.0.lock().unwrap();
    while *number != 7 {
        number = numbers.1.wait(number).unwrap();
    }
    thread.join().unwrap();
    let path = env::temp_dir().join(format!("open-coroutine-child-{}", process::id()));
    fs::write(&path, "text").unwrap();
    assert_eq!("text", fs::read_to_string(&path).unwrap());
    fs::remove_file(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    assert!(std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7))).is_err());
    assert!(Command::new("true").status().unwrap().success());
}

/// What a child does with this crate while it has no runtime.
fn use_own_interface() {
    assert!(current().is_none());
    yield_now();
    sleep(Duration::from_micros(10));
    park_timeout(Duration::from_micros(10));
}

fn start_a_runtime() {
    works();
    shutdown().unwrap();
    for driver in [Driver::IoUring, Driver::Epoll] {
        for workers in [1, 2] {
            let config = Config::default().driver(driver).event_loop_size(workers);
            init(config).unwrap();
            works();
            shutdown().unwrap();
        }
    }
}

/// Runs `body` as a coroutine and on a plain thread, beside traffic that must go
/// on meanwhile.
fn beside_traffic(body: fn()) {
    for workers in [1, 2] {
        on_every_driver(workers, move || {
            let traffic = Traffic::start(50);
            traffic.flows();
            body();
            traffic.flows();
            thread::spawn(body).join().unwrap();
            traffic.flows();
            drop(traffic);
            works();
        });
    }
}

#[test]
fn a_child_uses_std() {
    child::succeeds("a_child_uses_std", || {
        beside_traffic(|| in_child(use_std));
    });
}

#[test]
fn a_child_starts_a_runtime_of_its_own() {
    child::succeeds("a_child_starts_a_runtime_of_its_own", || {
        beside_traffic(|| {
            in_child(|| {
                use_own_interface();
                start_a_runtime();
            });
        });
    });
}

#[test]
fn a_grandchild_does_so_too() {
    child::succeeds("a_grandchild_does_so_too", || {
        beside_traffic(|| {
            in_child(|| {
                in_child(|| in_child(use_std));
                works();
                // Beside the child's own runtime, from a thread and a coroutine.
                in_child(start_a_runtime);
                spawn(|| in_child(start_a_runtime)).join().unwrap();
                shutdown().unwrap();
                in_child(|| {
                    use_std();
                    works();
                });
            });
        });
    });
}

#[test]
fn a_child_can_become_another_program() {
    child::succeeds("a_child_can_become_another_program", || {
        beside_traffic(|| {
            let status = status_of(|| panic!("{}", Command::new("true").exec()));
            assert_eq!(0, status);
            // With a fork, and without one.
            let mut command = Command::new("true");
            assert!(command.status().unwrap().success());
            // SAFETY: the closure does nothing.
            unsafe { command.pre_exec(|| Ok(())) };
            assert!(command.status().unwrap().success());
        });
    });
}

fn exit_at_once() {
    // SAFETY: ends the process.
    unsafe { libc::_exit(4) }
}

fn exit_quickly() {
    // SAFETY: ends the process.
    unsafe { quick_exit(5) }
}

fn terminate() {
    // SAFETY: sends a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

#[test]
fn a_child_ends_like_that_of_a_thread() {
    child::succeeds("a_child_ends_like_that_of_a_thread", || {
        beside_traffic(|| {
            let ends: [(fn(), c_int); 5] = [
                (|| process::exit(3), 3 << 8),
                (exit_at_once, 4 << 8),
                (exit_quickly, 5 << 8),
                (|| process::abort(), libc::SIGABRT),
                (terminate, libc::SIGTERM),
            ];
            for (end, expected) in ends {
                assert_eq!(expected, status_of(end) & !0x80);
            }
        });
    });
}

/// How the child ends that returns from `body`, which forks it, as it is run by
/// `run`. It tells its parent so by a file.
fn returns(run: fn(Box<dyn FnOnce() -> c_int + Send>) -> c_int) {
    let status = run(Box::new(|| {
        // SAFETY: the child returns from this closure.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            return 0;
        }
        let mut status = 0;
        // SAFETY: writes to `status`.
        assert_eq!(pid, unsafe { libc::waitpid(pid, &raw mut status, 0) });
        status
    }));
    assert_eq!(0, status);
}

#[test]
fn a_child_that_returns_from_its_task_exits() {
    child::succeeds("a_child_that_returns_from_its_task_exits", || {
        beside_traffic(|| {
            returns(|body| thread::spawn(body).join().unwrap());
            returns(|body| spawn(body).join().unwrap());
            returns(|body| spawn(move || open_coroutine::unblock(body)).join().unwrap());
            // A panic is the end of a task too.
            let task = || {
                // SAFETY: the child panics.
                let pid = unsafe { libc::fork() };
                assert!(pid != 0, "expected: the end of a child");
                let mut status = 1;
                // SAFETY: writes to `status`.
                assert_eq!(pid, unsafe { libc::waitpid(pid, &raw mut status, 0) });
                status
            };
            assert_eq!(0, thread::spawn(task).join().unwrap());
            assert_eq!(0, spawn(task).join().unwrap());
        });
    });
}

#[test]
fn a_child_does_not_wait_for_tasks_of_its_parent() {
    child::succeeds("a_child_does_not_wait_for_tasks_of_its_parent", || {
        on_every_runtime(|| {
            let (sender, receiver) = channel::<()>();
            let task = spawn(move || receiver.recv());
            let ended = spawn(|| 7);
            let detached = spawn(|| ());
            while !ended.is_finished() {
                yield_now();
            }
            in_child(|| {
                assert!(!task.is_finished() && !task.cancel());
                let limit = Duration::from_secs(1);
                assert!(matches!(
                    task.timeout_join(limit),
                    Err(JoinError::Cancelled)
                ));
                task.task().unpark();
                assert!(matches!(task.join(), Err(JoinError::Cancelled)));
                // What had ended had ended.
                assert_eq!(7, ended.join().unwrap());
                drop(detached);
                works();
            });
            drop(sender);
        });
    });
}

#[test]
fn children_of_a_runtime_with_few_places_have_their_own() {
    child::succeeds(
        "children_of_a_runtime_with_few_places_have_their_own",
        || {
            init(Config::default().event_loop_size(2).max_size(1)).unwrap();
            let task = spawn(|| {
                let waiting = spawn(|| ());
                in_child(works);
                waiting
            });
            task.join().unwrap().join().unwrap();
            shutdown().unwrap();
        },
    );
}

#[test]
fn what_other_threads_do_at_that_moment_does_not_matter() {
    child::succeeds(
        "what_other_threads_do_at_that_moment_does_not_matter",
        || {
            on_every_runtime(|| {
                // New stacks and thread-local storage all the time.
                let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let churns: Vec<_> = (0..2)
                    .map(|number| {
                        let is_over = is_over.clone();
                        spawn(move || {
                            let mut size = 16 << 10;
                            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                                size = if size > 1 << 20 {
                                    16 << 10
                                } else {
                                    size + 4096
                                };
                                let task = Builder::new().stack_size(size + number * 2048);
                                task.spawn(|| ()).unwrap().join().unwrap();
                            }
                        })
                    })
                    .collect();
                for round in 0..30 {
                    let fork = || in_child(|| assert_eq!(7, spawn(|| 7).join().unwrap()));
                    if round % 2 == 0 {
                        fork();
                    } else {
                        thread::spawn(fork).join().unwrap();
                    }
                }
                is_over.store(true, std::sync::atomic::Ordering::SeqCst);
                for churn in churns {
                    churn.join().unwrap();
                }
            });
        },
    );
}

#[test]
fn a_child_in_restricted_mode_starts_a_runtime_too() {
    if !child::is_child() {
        let mut command = child::command("a_child_in_restricted_mode_starts_a_runtime_too");
        let output = command.env("OPEN_COROUTINE_MODE", "restricted").output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        return assert!(output.status.success(), "{}: {text}", output.status);
    }
    let start = || {
        use_own_interface();
        use_std();
        assert_eq!(7, spawn(|| spawn(|| 7).join().unwrap()).join().unwrap());
        shutdown().unwrap();
    };
    init(Config::default().event_loop_size(1)).unwrap();
    in_child(start);
    spawn(move || in_child(start)).join().unwrap();
    shutdown().unwrap();
}
