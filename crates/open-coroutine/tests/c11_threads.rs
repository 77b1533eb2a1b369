//! The threads of C11, which glibc makes of pthread's.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use foreign::{Flow, Object, after};
use libc::{pthread_cond_t, pthread_key_t, pthread_mutex_t, pthread_once_t, pthread_t, timespec};
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const TIMED_OUT: c_int = 4;
const PLAIN: c_int = 0;
const RECURSIVE: c_int = 1;
const TIMED: c_int = 2;

unsafe extern "C" {
    fn mtx_init(mutex: *mut pthread_mutex_t, kind: c_int) -> c_int;
    fn mtx_lock(mutex: *mut pthread_mutex_t) -> c_int;
    fn mtx_trylock(mutex: *mut pthread_mutex_t) -> c_int;
    fn mtx_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int;
    fn mtx_unlock(mutex: *mut pthread_mutex_t) -> c_int;
    fn cnd_init(condition: *mut pthread_cond_t) -> c_int;
    fn cnd_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int;
    fn cnd_timedwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        until: *const timespec,
    ) -> c_int;
    fn cnd_signal(condition: *mut pthread_cond_t) -> c_int;
    fn cnd_broadcast(condition: *mut pthread_cond_t) -> c_int;
    fn thrd_create(
        thread: *mut pthread_t,
        start: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn thrd_join(thread: pthread_t, result: *mut c_int) -> c_int;
    fn thrd_sleep(period: *const timespec, remaining: *mut timespec) -> c_int;
    fn thrd_yield();
    fn call_once(flag: *mut pthread_once_t, routine: extern "C" fn());
    fn tss_create(key: *mut pthread_key_t, destructor: extern "C" fn(*mut c_void)) -> c_int;
    fn tss_set(key: pthread_key_t, value: *mut c_void) -> c_int;
    fn tss_get(key: pthread_key_t) -> *mut c_void;
    fn tss_delete(key: pthread_key_t);
}

fn mutex(kind: c_int) -> Arc<Object<pthread_mutex_t>> {
    // SAFETY: memory for one.
    Object::zeroed(|mutex| assert_eq!(SUCCESS, unsafe { mtx_init(mutex, kind) }))
}

fn condition() -> Arc<Object<pthread_cond_t>> {
    // SAFETY: memory for one.
    Object::zeroed(|condition| assert_eq!(SUCCESS, unsafe { cnd_init(condition) }))
}

#[test]
fn numbers_go_around_between_coroutines_and_threads() {
    on_every_runtime(|| {
        const ROUNDS: u32 = 100;
        let (mutex, condition) = (mutex(PLAIN), condition());
        let turn = Object::new(0u32);
        let flows: Vec<_> = (0..4)
            .map(|index| {
                let (mutex, condition, turn) = (mutex.clone(), condition.clone(), turn.clone());
                Flow::start(index != 1, move || {
                    for _ in 0..ROUNDS {
                        // SAFETY: initialised; the mutex guards the number.
                        unsafe {
                            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
                            while *turn.get() % 4 != index {
                                let result = cnd_wait(condition.get(), mutex.get());
                                assert_eq!(SUCCESS, result);
                            }
                            *turn.get() += 1;
                            assert_eq!(SUCCESS, cnd_broadcast(condition.get()));
                            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
                        }
                    }
                })
            })
            .collect();
        flows.into_iter().for_each(Flow::join);
        // SAFETY: all have ended.
        assert_eq!(4 * ROUNDS, unsafe { *turn.get() });
    });
}

#[test]
fn waits_with_a_limit_end_in_time() {
    on_every_runtime(|| {
        let limit = Duration::from_millis(10);
        let (mutex, condition) = (mutex(TIMED), condition());
        // SAFETY: initialised, and valid times.
        unsafe {
            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
            assert_eq!(BUSY, mtx_trylock(mutex.get()));
            assert_takes(limit, || {
                let at = after(libc::CLOCK_REALTIME, limit);
                assert_eq!(TIMED_OUT, mtx_timedlock(mutex.get(), &at));
            });
            assert_takes(limit, || {
                let at = after(libc::CLOCK_REALTIME, limit);
                assert_eq!(TIMED_OUT, cnd_timedwait(condition.get(), mutex.get(), &at));
            });
            let invalid = timespec {
                tv_sec: 0,
                tv_nsec: -1,
            };
            assert_eq!(ERROR, mtx_timedlock(mutex.get(), &invalid));
            let result = cnd_timedwait(condition.get(), mutex.get(), &invalid);
            assert_eq!(ERROR, result);
            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
        }
    });
}

#[test]
fn others_go_on_while_a_coroutine_waits() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let (mutex, condition, is_set) = (mutex(PLAIN), condition(), Object::new(false));
        let (own, own_condition, own_set) = (mutex.clone(), condition.clone(), is_set.clone());
        // SAFETY: initialised; the mutex guards the flag.
        unsafe {
            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
            let waiter = Flow::start(true, move || {
                assert_eq!(SUCCESS, mtx_lock(own.get()));
                while !*own_set.get() {
                    assert_eq!(SUCCESS, cnd_wait(own_condition.get(), own.get()));
                }
                assert_eq!(SUCCESS, mtx_unlock(own.get()));
            });
            ticker.wait();
            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
            ticker.wait();
            assert!(!waiter.is_finished());
            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
            *is_set.get() = true;
            assert_eq!(SUCCESS, cnd_signal(condition.get()));
            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
            waiter.join();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_recursive_mutex_counts() {
    on_every_runtime(|| {
        let mutex = mutex(RECURSIVE);
        // SAFETY: initialised.
        unsafe {
            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
            assert_eq!(SUCCESS, mtx_lock(mutex.get()));
            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
            let own = mutex.clone();
            let other = open_coroutine::spawn(move || mtx_trylock(own.get()));
            assert_eq!(BUSY, other.join().unwrap());
            assert_eq!(SUCCESS, mtx_unlock(mutex.get()));
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn threads_are_joined_and_coroutines_refused() {
    extern "C" fn start(_: *mut c_void) -> c_int {
        thread::sleep(Duration::from_millis(5));
        -7
    }
    on_every_runtime(|| {
        let ticker = Ticker::start();
        // SAFETY: the thread uses nothing of this one.
        unsafe {
            let (mut thread, mut result) = (0, 0);
            assert_eq!(SUCCESS, thrd_create(&mut thread, start, ptr::null_mut()));
            assert_eq!(SUCCESS, thrd_join(thread, &mut result));
            assert_eq!(-7, result);
            assert_eq!(ERROR, thrd_join(libc::pthread_self(), ptr::null_mut()));
        }
        ticker.wait();
    });
}

#[test]
fn sleeping_and_yielding_let_others_go_on() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let period = timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let begin = Instant::now();
        // SAFETY: a valid time.
        assert_eq!(0, unsafe { thrd_sleep(&period, ptr::null_mut()) });
        assert!(begin.elapsed() >= Duration::from_millis(5));
        let invalid = timespec {
            tv_sec: 0,
            tv_nsec: -1,
        };
        // SAFETY: it is refused.
        assert!(unsafe { thrd_sleep(&invalid, ptr::null_mut()) } < -1);
        let done = Arc::new(AtomicU32::new(0));
        let own = done.clone();
        let other = open_coroutine::spawn(move || own.store(1, SeqCst));
        while done.load(SeqCst) == 0 {
            // SAFETY: takes nothing.
            unsafe { thrd_yield() };
        }
        other.join().unwrap();
        ticker.wait();
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn once_is_once_and_values_are_destroyed_with_their_task() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static DESTROYED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn routine() {
        CALLS.fetch_add(1, SeqCst);
    }
    extern "C" fn destroy(value: *mut c_void) {
        DESTROYED.fetch_add(value as u32, SeqCst);
    }
    on_every_runtime(|| {
        CALLS.store(0, SeqCst);
        DESTROYED.store(0, SeqCst);
        let flag: Arc<Object<pthread_once_t>> = Object::new(libc::PTHREAD_ONCE_INIT);
        let mut key = 0;
        // SAFETY: the destructor takes any value.
        assert_eq!(SUCCESS, unsafe { tss_create(&mut key, destroy) });
        let tasks: Vec<_> = (1..=4)
            .map(|number: usize| {
                let flag = flag.clone();
                open_coroutine::spawn(move || {
                    // SAFETY: the flag is initialised, and the key created.
                    unsafe {
                        call_once(flag.get(), routine);
                        assert!(tss_get(key).is_null());
                        let value = ptr::without_provenance_mut(number);
                        assert_eq!(SUCCESS, tss_set(key, value));
                        thread::yield_now();
                        assert_eq!(value, tss_get(key));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(1, CALLS.load(SeqCst));
        assert_eq!(10, DESTROYED.load(SeqCst));
        // SAFETY: nobody uses it any more.
        unsafe { tss_delete(key) };
    });
}
