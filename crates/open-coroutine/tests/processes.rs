//! Child processes, forks, name look-ups and libraries, from coroutines.

mod runtimes;

use std::ffi::{CString, c_void};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

use open_coroutine::spawn;
use runtimes::on_every_runtime;

/// Runs `body` while another coroutine of the worker exchanges bytes.
fn beside_traffic(body: impl FnOnce()) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    let (started, start) = std::sync::mpsc::channel();
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            stream.write_all(&byte).unwrap();
        }
    });
    let client = spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        while !until.load(SeqCst) {
            stream.write_all(&[7]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let _ = started.send(());
            thread::sleep(Duration::from_micros(100));
        }
    });
    start.recv().unwrap();
    body();
    stop.store(true, SeqCst);
    client.join().unwrap();
    server.join().unwrap();
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn commands_run_and_are_waited_for() {
    on_every_runtime(|| {
        beside_traffic(|| {
            let tasks: Vec<_> = (0..8)
                .map(|n| {
                    spawn(move || {
                        let script = format!("sleep 0.05; echo {n}; echo error >&2; exit {n}");
                        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
                        assert_eq!(format!("{n}\n").as_bytes(), output.stdout);
                        assert_eq!(b"error\n", &*output.stderr);
                        assert_eq!(Some(n), output.status.code());
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
        });
    });
}

#[test]
fn commands_form_a_pipeline_and_can_be_killed() {
    on_every_runtime(|| {
        let mut first = Command::new("cat");
        let mut first = first
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut second = Command::new("wc");
        let second = second.arg("-c").stdin(first.stdout.take().unwrap());
        let second = second.stdout(Stdio::piped()).spawn().unwrap();
        let mut input = first.stdin.take().unwrap();
        // More than pipes hold.
        input.write_all(&vec![b'x'; 1 << 20]).unwrap();
        drop(input);
        let output = second.wait_with_output().unwrap();
        assert_eq!("1048576", String::from_utf8(output.stdout).unwrap().trim());
        assert!(first.wait().unwrap().success());

        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(sleeper.try_wait().unwrap().is_none());
        let begin = Instant::now();
        sleeper.kill().unwrap();
        assert!(!sleeper.wait().unwrap().success());
        assert!(begin.elapsed() < Duration::from_secs(30));
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn what_runs_between_fork_and_exec_may_block() {
    on_every_runtime(|| {
        beside_traffic(|| {
            let mut command = Command::new("true");
            // SAFETY: sleeping is async-signal-safe.
            unsafe {
                command.pre_exec(|| {
                    libc::usleep(1000);
                    Ok(())
                });
            }
            assert!(command.status().unwrap().success());
        });
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn the_child_of_a_fork_goes_on_alone() {
    on_every_runtime(|| {
        beside_traffic(|| {
            let (mut reader, writer) = io::pipe().unwrap();
            // SAFETY: the child only does what is allowed after a fork.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                // Blocks, since there is nobody else.
                thread::sleep(Duration::from_millis(5));
                let message = b"from the child";
                // SAFETY: writes the message; ends the child at once.
                unsafe {
                    libc::write(
                        writer.as_raw_fd(),
                        message.as_ptr().cast::<c_void>(),
                        message.len(),
                    );
                    libc::_exit(3);
                }
            }
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!("from the child", text);
            let mut status = 0;
            // SAFETY: `status` is alive for the call.
            assert_eq!(pid, unsafe { libc::waitpid(pid, &raw mut status, 0) });
            assert_eq!(3, libc::WEXITSTATUS(status));
        });
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn names_are_looked_up() {
    on_every_runtime(|| {
        beside_traffic(|| {
            let tasks: Vec<_> = (0..20)
                .map(|_| spawn(|| ("localhost", 80).to_socket_addrs().unwrap().count()))
                .collect();
            for task in tasks {
                assert!(task.join().unwrap() > 0);
            }
            assert!("no-such-name.invalid:80".to_socket_addrs().is_err());
        });
    });
}

/// Builds a library with a thread-local variable that starts with 42.
/// It belongs to the test that calls this.
fn build_library(test: &str) -> CString {
    let directory = format!("open-coroutine-library-{test}-{}", process::id());
    let directory = env::temp_dir().join(directory);
    fs::create_dir_all(&directory).unwrap();
    let (source, library) = (directory.join("counter.c"), directory.join("libcounter.so"));
    fs::write(
        &source,
        "static __thread int counter = 42; int count(void) { return counter++; }",
    )
    .unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let status = compiler.args([&library, &source]).status().unwrap();
    assert!(status.success());
    CString::new(library.into_os_string().into_encoded_bytes()).unwrap()
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_library_that_is_loaded_has_thread_locals_in_every_coroutine() {
    on_every_runtime(|| {
        let library = build_library("loaded");
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let turn = barrier.clone();
        let (sender, receiver) = std::sync::mpsc::channel::<usize>();
        let older = spawn(move || {
            turn.wait();
            let address = receiver.recv().unwrap();
            // SAFETY: the address of `count`, in a library that stays loaded.
            let count: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
            (count(), count())
        });
        barrier.wait();
        // SAFETY: the library has no initialisers.
        let count = unsafe {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null());
            libc::dlsym(handle, c"count".as_ptr())
        };
        assert!(!count.is_null());
        sender.send(count as usize).unwrap();
        assert_eq!((42, 43), older.join().unwrap());
        let address = count as usize;
        let younger = spawn(move || {
            // SAFETY: as above.
            let count: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
            (count(), count())
        });
        assert_eq!((42, 43), younger.join().unwrap());
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_library_that_is_closed_and_loaded_again_begins_anew() {
    on_every_runtime(|| {
        let library = build_library("closed");
        let (sender, receiver) =
            std::sync::mpsc::channel::<(usize, std::sync::mpsc::Sender<i32>)>();
        let older = spawn(move || {
            for (address, answer) in receiver {
                // SAFETY: the address of `count`, in a library that is loaded
                // until the answer has come.
                let count: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
                answer.send(count()).unwrap();
            }
        });
        for _ in 0..5 {
            // SAFETY: the library has neither initialisers nor finalisers, and is
            // closed when nobody uses it any more.
            unsafe {
                let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
                assert!(!handle.is_null());
                let count = libc::dlsym(handle, c"count".as_ptr());
                let (answer, answers) = std::sync::mpsc::channel();
                sender.send((count as usize, answer)).unwrap();
                assert_eq!(42, answers.recv().unwrap());
                let count: extern "C" fn() -> i32 = std::mem::transmute(count);
                assert_eq!((42, 43), (count(), count()));
                thread::yield_now();
                assert_eq!(44, count());
                assert_eq!(0, libc::dlclose(handle));
            }
        }
        drop(sender);
        older.join().unwrap();
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn credentials_change_without_waiting_for_anybody() {
    on_every_runtime(|| {
        beside_traffic(|| {
            let begin = Instant::now();
            for _ in 0..20 {
                // SAFETY: sets what is set already.
                unsafe {
                    assert_eq!(0, libc::setegid(libc::getegid()));
                    assert_eq!(0, libc::seteuid(libc::geteuid()));
                }
                thread::sleep(Duration::from_millis(1));
            }
            assert!(begin.elapsed() < Duration::from_secs(10));
        });
    });
}

#[test]
fn a_thread_changes_credentials_beside_a_coroutine_that_computes() {
    on_every_runtime(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        // Every worker is busy until the thread is done.
        let hogs: Vec<_> = (0..2)
            .map(|_| {
                let until = until.clone();
                spawn(move || {
                    let begin = Instant::now();
                    while !until.load(SeqCst) && begin.elapsed() < Duration::from_secs(20) {
                        std::hint::spin_loop();
                    }
                    assert!(until.load(SeqCst), "the thread waits for the coroutine");
                })
            })
            .collect();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            // SAFETY: sets what is set already.
            let result = unsafe { libc::setegid(libc::getegid()) };
            stop.store(true, SeqCst);
            result
        });
        for hog in hogs {
            hog.join().unwrap();
        }
        assert_eq!(0, thread.join().unwrap());
    });
}
