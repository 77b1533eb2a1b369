//! A process ends on a coroutine as it ends on a thread: with the same status, the
//! same output, and the same functions run on the way.

mod child;

use std::env;
use std::ffi::c_int;
use std::hint::black_box;
use std::mem;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::ptr;
use std::thread;
use std::time::Duration;

use open_coroutine::{Config, ShutdownError, init, shutdown, sleep, spawn};

/// Says whether the child's job runs on a thread or on a coroutine.
const PLACE: &str = "OPEN_COROUTINE_PLACE";

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
    fn at_quick_exit(function: extern "C" fn()) -> c_int;
    fn quick_exit(status: c_int) -> !;
}

extern "C" fn at_the_end() {
    println!("at the end");
}

/// Says so when it is dropped.
struct Drops(&'static str);

impl Drop for Drops {
    fn drop(&mut self) {
        println!("{} is dropped", self.0);
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb");
    }
}

thread_local! {
    static LAST: Drops = const { Drops("a thread-local variable") };
    static BOMB: Bomb = const { Bomb };
}

extern "C" fn terminated(_signal: c_int) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(42) };
}

fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: the handler only exits.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(
            0,
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        );
    }
}

/// What a child does that may not survive it.
const JOBS: [(&str, fn()); 18] = [
    ("returns", || ()),
    ("exits", || process::exit(3)),
    ("exits in a destructor", || {
        struct Exits;
        impl Drop for Exits {
            fn drop(&mut self) {
                process::exit(6);
            }
        }
        drop(Exits);
    }),
    // SAFETY: ends the process.
    ("exits at once", || unsafe { libc::_exit(4) }),
    // SAFETY: ends the process.
    ("exits quickly", || unsafe { quick_exit(5) }),
    ("aborts", || process::abort()),
    ("panics", || panic!("plain")),
    ("panics in a destructor", || drop(Bomb)),
    ("catches a panic of a destructor", || {
        let caught = catch_unwind(AssertUnwindSafe(|| drop(Bomb)));
        println!("{}", caught.is_err());
    }),
    ("panics in a destructor while it panics", || {
        let _bomb = Bomb;
        panic!("first");
    }),
    ("panics while it prints a panic", || {
        std::panic::set_hook(Box::new(|_| panic!("in the hook")));
        panic!("first");
    }),
    ("panics where nothing may unwind", || {
        extern "C" fn no_unwinding() {
            panic!("out of C");
        }
        no_unwinding();
    }),
    (
        "panics in the destructor of a thread-local variable",
        || {
            BOMB.with(|_| ());
        },
    ),
    ("faults", || {
        // SAFETY: none: it is to crash.
        unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
    }),
    ("traps", || {
        // SAFETY: raises a signal.
        unsafe { libc::raise(libc::SIGTRAP) };
    }),
    ("is terminated", || {
        // SAFETY: sends a signal to this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }),
    ("handles its termination", || {
        handle(libc::SIGTERM, terminated);
        // SAFETY: sends a signal to this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }),
    ("divides by zero", || {
        println!("{}", black_box(1) / black_box(0));
    }),
];

/// In a child: does a job, where the environment says.
fn play(job: fn()) -> ! {
    // SAFETY: the functions only print.
    unsafe {
        assert_eq!(0, atexit(at_the_end));
        assert_eq!(0, at_quick_exit(at_the_end));
    }
    // So that threads wait beside it, and coroutines too, whatever happens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.try_clone().unwrap();
    let mut status = 0;
    if env::var(PLACE).unwrap() == "thread" {
        thread::spawn(move || other.accept());
        let task = thread::spawn(move || {
            LAST.with(|_| job());
        });
        status += i32::from(task.join().is_err());
    } else {
        init(Config::default().event_loop_size(1)).unwrap();
        spawn(move || other.accept());
        let task = spawn(move || {
            LAST.with(|_| job());
        });
        status += i32::from(task.join().is_err());
    }
    drop(listener);
    process::exit(status);
}

fn output(place: &str, number: usize, driver: &str) -> Output {
    let mut command = child::command("processes_end_as_on_a_thread");
    command
        .env(PLACE, place)
        .env("OPEN_COROUTINE_JOB", number.to_string());
    command
        .env("OPEN_COROUTINE_DRIVER", driver)
        .output()
        .unwrap()
}

/// The lines that do not depend on who prints them.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_frame = |line: &str| line.starts_with("  ");
    let is_same = |line: &&str| {
        !line.contains("thread '") && !line.contains("running 1 test") && !is_frame(line)
    };
    text.lines().filter(is_same).map(String::from).collect()
}

#[test]
fn processes_end_as_on_a_thread() {
    if child::is_child() {
        let job: usize = env::var("OPEN_COROUTINE_JOB").unwrap().parse().unwrap();
        play(JOBS[job].1);
    }
    for (number, (name, _)) in JOBS.iter().enumerate() {
        for driver in ["io_uring", "epoll"] {
            let expected = output("thread", number, driver);
            let actual = output("coroutine", number, driver);
            assert_eq!(expected.status, actual.status, "{name}: {actual:?}");
            assert_eq!(
                lines(&expected.stdout),
                lines(&actual.stdout),
                "{name}, output"
            );
            assert_eq!(
                lines(&expected.stderr),
                lines(&actual.stderr),
                "{name}, errors"
            );
        }
    }
}

#[test]
fn a_signal_can_stop_the_runtime() {
    child::succeeds("a_signal_can_stop_the_runtime", || {
        let set = {
            // SAFETY: all-zero bytes are a valid set, which is then written.
            unsafe {
                let mut set: libc::sigset_t = mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGINT);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
                set
            }
        };
        let config = Config::default().shutdown_timeout(Duration::from_secs(20));
        init(config).unwrap();
        let stopper = thread::spawn(move || {
            let mut signal = 0;
            // SAFETY: waits for the signal.
            assert_eq!(0, unsafe { libc::sigwait(&raw const set, &raw mut signal) });
            shutdown()
        });
        let task = spawn(|| sleep(Duration::from_millis(50)));
        // To the thread, because those of the harness would die of it.
        // SAFETY: the thread waits for the signal.
        assert_eq!(0, unsafe {
            libc::pthread_kill(stopper.as_pthread_t(), libc::SIGINT)
        });
        stopper.join().unwrap().unwrap();
        task.join().unwrap();
        assert!(matches!(shutdown(), Err(ShutdownError::NotRunning)));
    });
}

const MANIFEST: &str = r#"
[package]
name = "aborting"
version = "0.0.0"
edition = "2024"

[dependencies]
open-coroutine.path = "PATH"

[profile.dev]
panic = "abort"

[workspace]
"#;

const PROGRAM: &str = r#"
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use open_coroutine::{is_cancelled, park, sleep, yield_now};

fn main() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let task = open_coroutine::spawn(move || near.read_exact(&mut [0; 4]).unwrap());
    far.write_all(b"text").unwrap();
    task.join().unwrap();
    assert_eq!(7, open_coroutine::spawn(|| 7).join().unwrap());
    cancel();
    open_coroutine::shutdown().unwrap();
    println!("all of it works");
    let body = || -> u32 { panic!("on purpose") };
    if std::env::args().nth(1).is_some() {
        let _ = std::thread::spawn(body).join();
    } else {
        let _ = open_coroutine::spawn(body).join();
    }
    println!("a panic is survived");
}

fn cancel() {
    let (mut near, _far) = UnixStream::pair().unwrap();
    let tasks = [
        open_coroutine::spawn(|| while !is_cancelled() { park() }),
        open_coroutine::spawn(|| while !is_cancelled() { yield_now() }),
        open_coroutine::spawn(|| {
            while !is_cancelled() {
                sleep(Duration::from_secs(3600));
            }
        }),
        open_coroutine::spawn(move || {
            let error = near.read(&mut [0]).unwrap_err();
            assert!(is_cancelled(), "{error}");
        }),
    ];
    sleep(Duration::from_millis(20));
    assert!(tasks.iter().all(|task| task.cancel()));
    tasks.into_iter().for_each(|task| task.join().unwrap());
}
"#;

#[test]
fn a_program_that_aborts_on_panic_works_and_aborts() {
    if child::is_child() {
        return;
    }
    let own = env::current_exe().unwrap();
    let target = own.ancestors().nth(3).expect("target/profile/deps/test");
    let package = target.join("aborting");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(package.join("src")).unwrap();
    let manifest = MANIFEST.replace("PATH", path.to_str().unwrap());
    std::fs::write(package.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(package.join("src/main.rs"), PROGRAM).unwrap();
    // The same versions as here.
    let lock = path.ancestors().nth(2).unwrap().join("Cargo.lock");
    std::fs::copy(lock, package.join("Cargo.lock")).unwrap();
    let run = |argument: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--"]).args(argument);
        cargo.current_dir(&package);
        cargo.env("CARGO_TARGET_DIR", target.join("aborting-target"));
        cargo.env_remove("RUSTFLAGS").output().unwrap()
    };
    for argument in [&[][..], &["thread"]] {
        let output = run(argument);
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!("all of it works\n", text, "{errors}");
        assert!(errors.contains("on purpose"), "{errors}");
        // Cargo dies of the same signal, or says so.
        let is_aborted = output.status.signal() == Some(libc::SIGABRT);
        assert!(is_aborted || errors.contains("SIGABRT"), "{output:?}");
    }
}
