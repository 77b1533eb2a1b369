//! A coroutine that blocks its thread all the same does not keep the others waiting.

mod runtimes;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use open_coroutine::{Config, no_preempt, spawn, yield_now};
use runtimes::on_every_driver_as;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

fn on_every_driver(workers: usize, body: fn()) {
    on_every_driver_as(&Config::default().event_loop_size(workers), body);
}

unsafe extern "C" {
    fn flockfile(file: *mut libc::FILE);
    fn funlockfile(file: *mut libc::FILE);
}

/// `read(2)` of one byte, which no hook sees.
fn unseen_read(fd: c_int) -> isize {
    let mut byte = 0u8;
    let result: isize;
    // SAFETY: the call writes one byte to `byte`.
    unsafe {
        cfg_select! {
            target_arch = "x86_64" => {
                std::arch::asm!(
                    "syscall",
                    inlateout("rax") libc::SYS_read as isize => result,
                    in("rdi") fd as usize, in("rsi") &raw mut byte, in("rdx") 1,
                    lateout("rcx") _, lateout("r11") _,
                );
            }
            target_arch = "aarch64" => {
                std::arch::asm!(
                    "svc 0",
                    in("x8") libc::SYS_read,
                    inlateout("x0") fd as isize => result,
                    in("x1") &raw mut byte, in("x2") 1,
                );
            }
        }
    }
    result
}

/// A stream that answers every byte, until its other end is closed.
fn echo(mut stream: UnixStream) -> impl FnOnce() {
    move || {
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            stream.write_all(&byte).unwrap();
        }
    }
}

#[test]
fn who_holds_a_lock_of_libc_while_suspended_goes_on_and_gives_it_back() {
    on_every_driver(1, || {
        // SAFETY: the path and mode are C strings.
        let file = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) } as usize;
        let file = move || file as *mut libc::FILE;
        let is_held = Arc::new(AtomicBool::new(false));
        let first = {
            let is_held = is_held.clone();
            spawn(move || {
                // SAFETY: the file is open; the coroutine that locks it unlocks it.
                unsafe {
                    flockfile(file());
                    is_held.store(true, SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    funlockfile(file());
                }
            })
        };
        while !is_held.load(SeqCst) {
            yield_now();
        }
        // SAFETY: as above.
        let second = spawn(move || unsafe {
            flockfile(file());
            funlockfile(file());
        });
        first.join().unwrap();
        second.join().unwrap();
        // SAFETY: nobody uses it any more.
        unsafe { libc::fclose(file()) };
    });
}

#[test]
fn input_that_waited_before_the_thread_was_stuck_still_comes() {
    on_every_driver(1, || {
        let (mut one, other) = UnixStream::pair().unwrap();
        let echo = spawn(echo(other));
        one.write_all(&[1]).unwrap();
        one.read_exact(&mut [0]).unwrap();
        // From here on the echo waits in the kernel, by this worker's driver.
        let (blocked, mut release) = UnixStream::pair().unwrap();
        let stuck = spawn(move || unseen_read(blocked.as_raw_fd()));
        yield_now();
        for n in 0..100 {
            one.write_all(&[n]).unwrap();
            let mut byte = [0];
            one.read_exact(&mut byte).unwrap();
            assert_eq!(n, byte[0]);
        }
        assert!(!stuck.is_finished());
        release.write_all(&[7]).unwrap();
        assert_eq!(1, stuck.join().unwrap());
        drop(one);
        echo.join().unwrap();
    });
}

#[test]
fn reads_with_a_time_limit_keep_it_when_their_thread_is_stuck() {
    on_every_driver(1, || {
        let (mut silent, _other) = UnixStream::pair().unwrap();
        silent
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let reader = spawn(move || silent.read(&mut [0]).unwrap_err().kind());
        yield_now();
        let (blocked, mut release) = UnixStream::pair().unwrap();
        let stuck = spawn(move || unseen_read(blocked.as_raw_fd()));
        assert_eq!(std::io::ErrorKind::WouldBlock, reader.join().unwrap());
        release.write_all(&[7]).unwrap();
        assert_eq!(1, stuck.join().unwrap());
    });
}

#[test]
fn sleepers_and_new_tasks_go_on_beside_a_stuck_thread() {
    on_every_driver(1, || {
        let (blocked, mut release) = UnixStream::pair().unwrap();
        let stuck = spawn(move || {
            let result = unseen_read(blocked.as_raw_fd());
            // On a thread without a worker: all of this must find one.
            spawn(|| ()).join().unwrap();
            std::thread::sleep(Duration::from_millis(1));
            result
        });
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            spawn(yield_now).join().unwrap();
        }
        assert!(!stuck.is_finished());
        release.write_all(&[7]).unwrap();
        assert_eq!(1, stuck.join().unwrap());
    });
}

#[test]
fn a_long_section_does_not_starve_the_others() {
    on_every_driver(1, || {
        let done = Arc::new(AtomicBool::new(false));
        let hog = {
            let done = done.clone();
            spawn(move || no_preempt(|| while !done.load(SeqCst) {}))
        };
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        done.store(true, SeqCst);
        hog.join().unwrap();
    });
}

#[test]
fn every_worker_may_be_stuck_again_and_again() {
    on_every_driver(2, || {
        for _ in 0..10 {
            let stuck: Vec<_> = (0..4)
                .map(|_| {
                    let (blocked, release) = UnixStream::pair().unwrap();
                    (spawn(move || unseen_read(blocked.as_raw_fd())), release)
                })
                .collect();
            let start = Instant::now();
            std::thread::sleep(Duration::from_millis(30));
            assert!(start.elapsed() >= Duration::from_millis(30));
            for (stuck, mut release) in stuck {
                release.write_all(&[7]).unwrap();
                assert_eq!(1, stuck.join().unwrap());
            }
        }
    });
}

/// Keeps the texts of all events.
struct Listener;

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?}");
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        HEARD.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[inline(never)]
fn a_place_that_blocks(fd: c_int) -> isize {
    std::hint::black_box(unseen_read(fd))
}

#[test]
fn each_place_that_blocks_is_told_once() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    on_every_driver(1, || {
        for _ in 0..3 {
            let (blocked, mut release) = UnixStream::pair().unwrap();
            let stuck = spawn(move || a_place_that_blocks(blocked.as_raw_fd()));
            std::thread::sleep(Duration::from_millis(60));
            release.write_all(&[7]).unwrap();
            assert_eq!(1, stuck.join().unwrap());
        }
    });
    // The threads that were blocked have ended with their runtime.
    let heard = HEARD.lock().unwrap();
    let ours = |text: &&String| text.contains("a_place_that_blocks");
    let told: Vec<_> = heard.iter().filter(ours).collect();
    let [text] = &*told else { panic!("{heard:#?}") };
    assert!(text.starts_with("WARN"), "{text}");
    assert!(text.contains("blocked the worker for "), "{text}");
}
