//! `sem_t` and `pthread_barrier_t` between coroutines, threads and processes.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::{CString, c_int};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use std::thread;
use std::time::Duration;

use foreign::{Flow, Object, after};
use libc::{clockid_t, sem_t, timespec};
use open_coroutine_core::util::handler;
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

unsafe extern "C" {
    fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, time: *const timespec) -> c_int;
}

fn semaphore(is_shared: bool, value: u32) -> Arc<Object<sem_t>> {
    // SAFETY: memory for one.
    Object::zeroed(|semaphore| unsafe {
        assert_eq!(0, libc::sem_init(semaphore, c_int::from(is_shared), value));
    })
}

fn wait(semaphore: &Object<sem_t>) {
    // SAFETY: an initialised semaphore.
    assert_eq!(0, unsafe { libc::sem_wait(semaphore.get()) });
}

fn post(semaphore: &Object<sem_t>) {
    // SAFETY: an initialised semaphore.
    assert_eq!(0, unsafe { libc::sem_post(semaphore.get()) });
}

#[test]
fn a_semaphore_lets_as_many_in_as_it_counts() {
    on_every_runtime(|| {
        for is_shared in [false, true] {
            let places = semaphore(is_shared, 3);
            let (inside, entries) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let flows: Vec<_> = (0..10)
                .map(|index| {
                    let (places, inside, entries) =
                        (places.clone(), inside.clone(), entries.clone());
                    Flow::start(index > 2, move || {
                        for _ in 0..50 {
                            wait(&places);
                            assert!(inside.fetch_add(1, SeqCst) < 3);
                            thread::yield_now();
                            inside.fetch_sub(1, SeqCst);
                            entries.fetch_add(1, SeqCst);
                            post(&places);
                        }
                    })
                })
                .collect();
            flows.into_iter().for_each(Flow::join);
            assert_eq!(500, entries.load(SeqCst));
            let mut value = 0;
            // SAFETY: an initialised semaphore.
            unsafe { libc::sem_getvalue(places.get(), &mut value) };
            assert_eq!(3, value);
        }
    });
}

#[test]
fn others_go_on_while_a_coroutine_waits_for_a_semaphore() {
    on_every_runtime(|| {
        for is_shared in [false, true] {
            let ticker = Ticker::start();
            let semaphore = semaphore(is_shared, 0);
            let own = semaphore.clone();
            let waiter = Flow::start(true, move || wait(&own));
            ticker.wait();
            assert!(!waiter.is_finished());
            post(&semaphore);
            waiter.join();
        }
    });
}

#[test]
fn waits_with_a_limit_end_in_time() {
    on_every_runtime(|| {
        let limit = Duration::from_millis(10);
        for is_shared in [false, true] {
            let semaphore = semaphore(is_shared, 0);
            let timed_out = |result: c_int| {
                let error = io::Error::last_os_error().raw_os_error();
                assert_eq!((-1, Some(libc::ETIMEDOUT)), (result, error));
            };
            assert_takes(limit, || {
                let at = after(libc::CLOCK_REALTIME, limit);
                // SAFETY: an initialised semaphore and a valid time.
                timed_out(unsafe { libc::sem_timedwait(semaphore.get(), &at) });
            });
            assert_takes(limit, || {
                let at = after(libc::CLOCK_MONOTONIC, limit);
                // SAFETY: an initialised semaphore and a valid time.
                timed_out(unsafe { sem_clockwait(semaphore.get(), libc::CLOCK_MONOTONIC, &at) });
            });
            let invalid = timespec {
                tv_sec: 0,
                tv_nsec: -1,
            };
            // SAFETY: an initialised semaphore.
            assert_eq!(-1, unsafe {
                libc::sem_timedwait(semaphore.get(), &invalid)
            });
            assert_eq!(
                Some(libc::EINVAL),
                io::Error::last_os_error().raw_os_error()
            );
        }
    });
}

#[test]
fn success_leaves_errno_alone() {
    on_every_runtime(|| {
        let semaphore = semaphore(false, 0);
        let own = semaphore.clone();
        let waiter = open_coroutine::spawn(move || {
            // SAFETY: it returns the address of this coroutine's errno.
            unsafe { *libc::__errno_location() = 77 };
            wait(&own);
            io::Error::last_os_error().raw_os_error()
        });
        thread::yield_now();
        post(&semaphore);
        assert_eq!(Some(77), waiter.join().unwrap());
    });
}

#[test]
fn a_named_semaphore_is_posted_by_another_process() {
    on_every_runtime(|| {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, SeqCst);
        let name = format!("/open-coroutine-{}-{number}", std::process::id());
        let name = CString::new(name).unwrap();
        // SAFETY: a C string; the child only posts and exits.
        unsafe {
            let create = libc::O_CREAT | libc::O_EXCL;
            let semaphore = libc::sem_open(name.as_ptr(), create, 0o600, 0);
            assert_ne!(libc::SEM_FAILED, semaphore);
            let ticker = Ticker::start();
            let child = libc::fork();
            if child == 0 {
                libc::usleep(5_000);
                libc::sem_post(semaphore);
                libc::_exit(0);
            }
            assert_eq!(0, libc::sem_wait(semaphore));
            assert_eq!(child, libc::waitpid(child, ptr::null_mut(), 0));
            ticker.wait();
            assert_eq!(0, libc::sem_close(semaphore));
            assert_eq!(0, libc::sem_unlink(name.as_ptr()));
        }
    });
}

#[test]
fn a_barrier_lets_all_go_on_and_chooses_one() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let barrier: Arc<Object<libc::pthread_barrier_t>> = Object::zeroed(|barrier| {
            // SAFETY: memory for one.
            assert_eq!(0, unsafe {
                libc::pthread_barrier_init(barrier, ptr::null(), 5)
            });
        });
        let chosen = Arc::new(AtomicU32::new(0));
        let pass = |barrier: &Object<libc::pthread_barrier_t>, chosen: &AtomicU32| {
            // SAFETY: initialised.
            match unsafe { libc::pthread_barrier_wait(barrier.get()) } {
                0 => {}
                libc::PTHREAD_BARRIER_SERIAL_THREAD => {
                    chosen.fetch_add(1, SeqCst);
                }
                error => panic!("{error}"),
            }
        };
        let flows: Vec<_> = (0..4)
            .map(|index| {
                let (barrier, chosen) = (barrier.clone(), chosen.clone());
                Flow::start(index != 0, move || {
                    for _ in 0..10 {
                        pass(&barrier, &chosen);
                    }
                })
            })
            .collect();
        for round in 0..10 {
            ticker.wait();
            assert!(flows.iter().all(|flow| !flow.is_finished()), "{round}");
            pass(&barrier, &chosen);
        }
        flows.into_iter().for_each(Flow::join);
        assert_eq!(10, chosen.load(SeqCst));
    });
}

/// What the handler posts.
static POSTED: AtomicPtr<sem_t> = AtomicPtr::new(ptr::null_mut());

extern "C" fn post_in_handler(_: c_int) {
    // SAFETY: it is initialised, and stays until no signal comes any more.
    handler::inside(|| unsafe { libc::sem_post(POSTED.load(SeqCst)) });
}

fn install_handler(semaphore: &Object<sem_t>) {
    POSTED.store(semaphore.get(), SeqCst);
    // SAFETY: the handler does what handlers may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = post_in_handler as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(0, libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
    }
}

#[test]
fn a_signal_handler_on_a_coroutine_posts_to_another() {
    on_every_runtime(|| {
        let semaphore = semaphore(false, 0);
        install_handler(&semaphore);
        let own = semaphore.clone();
        let waiter = Flow::start(true, move || (0..100).for_each(|_| wait(&own)));
        for _ in 0..100 {
            // SAFETY: the handler is installed.
            assert_eq!(0, unsafe { libc::raise(libc::SIGUSR1) });
            thread::yield_now();
        }
        waiter.join();
    });
}

/// Only handlers post, and they interrupt the waits, also where these hold what
/// a post needs.
#[test]
fn handlers_that_interrupt_waits_lose_nothing() {
    on_every_runtime(|| {
        let semaphore = semaphore(false, 0);
        install_handler(&semaphore);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let sender = thread::spawn(move || {
            let threads = runtime_threads();
            while !over.load(SeqCst) {
                for thread in &threads {
                    // A thread of a pool may have ended.
                    // SAFETY: sends a signal that has a handler.
                    unsafe {
                        let process = libc::getpid();
                        libc::syscall(libc::SYS_tgkill, process, *thread, libc::SIGUSR1);
                    }
                }
                thread::yield_now();
            }
        });
        let flows: Vec<_> = (0..4)
            .map(|_| {
                let own = semaphore.clone();
                Flow::start(true, move || (0..500).for_each(|_| wait(&own)))
            })
            .collect();
        flows.into_iter().for_each(Flow::join);
        is_over.store(true, SeqCst);
        sender.join().unwrap();
    });
}

/// The kernel's ids of the runtime's threads.
fn runtime_threads() -> Vec<libc::pid_t> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            name.starts_with("open-coroutine")
                .then(|| path.file_name()?.to_str()?.parse().ok())?
        })
        .collect()
}
