//! `pthread_rwlock_t` between coroutines, and between them and threads.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::c_int;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use foreign::{Flow, Object, after};
use libc::{clockid_t, pthread_rwlock_t, timespec};
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

unsafe extern "C" {
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_clockrdlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_clockwrlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
}

type Lock = Object<pthread_rwlock_t>;

/// Every preference that glibc knows, and a lock that processes share.
fn locks() -> Vec<Arc<Lock>> {
    let make = |kind: c_int, shared: c_int| {
        // SAFETY: the attributes are initialised before they are used.
        Lock::zeroed(|lock| unsafe {
            let mut attributes = std::mem::zeroed();
            let attributes = &raw mut attributes;
            assert_eq!(0, libc::pthread_rwlockattr_init(attributes));
            assert_eq!(0, libc::pthread_rwlockattr_setkind_np(attributes, kind));
            assert_eq!(0, libc::pthread_rwlockattr_setpshared(attributes, shared));
            assert_eq!(0, libc::pthread_rwlock_init(lock, attributes));
            libc::pthread_rwlockattr_destroy(attributes);
        })
    };
    vec![make(0, 0), make(1, 0), make(2, 0), make(0, 1)]
}

fn read(lock: &Lock) {
    // SAFETY: an initialised lock.
    assert_eq!(0, unsafe { libc::pthread_rwlock_rdlock(lock.get()) });
}

fn write(lock: &Lock) {
    // SAFETY: an initialised lock.
    assert_eq!(0, unsafe { libc::pthread_rwlock_wrlock(lock.get()) });
}

fn unlock(lock: &Lock) {
    // SAFETY: an initialised lock that the caller holds.
    assert_eq!(0, unsafe { libc::pthread_rwlock_unlock(lock.get()) });
}

/// Writers change both numbers, readers see them equal.
fn change_together(lock: &Arc<Lock>, flows: usize, threads: usize) {
    let numbers = Object::new((0u32, 0u32));
    let flows: Vec<_> = (0..flows)
        .map(|index| {
            let (lock, numbers) = (lock.clone(), numbers.clone());
            Flow::start(index >= threads, move || {
                for round in 0..100 {
                    // SAFETY: read with the lock held, written by the writer.
                    unsafe {
                        if (round + index) % 4 == 0 {
                            write(&lock);
                            (*numbers.get()).0 += 1;
                            if round % 8 == 0 {
                                thread::yield_now();
                            }
                            (*numbers.get()).1 += 1;
                        } else {
                            read(&lock);
                            let before = (*numbers.get()).0;
                            if round % 8 == 0 {
                                thread::yield_now();
                            }
                            assert_eq!((before, before), *numbers.get());
                        }
                        unlock(&lock);
                    }
                }
            })
        })
        .collect();
    let expected = flows.len() as u32 * 25;
    flows.into_iter().for_each(Flow::join);
    // SAFETY: all have ended.
    assert_eq!((expected, expected), unsafe { *numbers.get() });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn writers_are_alone_among_coroutines() {
    on_every_runtime(|| {
        for lock in locks() {
            change_together(&lock, 8, 0);
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn writers_are_alone_among_coroutines_and_threads() {
    on_every_runtime(|| {
        for lock in locks() {
            change_together(&lock, 8, 3);
        }
    });
}

#[test]
fn readers_hold_it_together() {
    on_every_runtime(|| {
        for lock in locks() {
            read(&lock);
            let own = lock.clone();
            Flow::start(true, move || {
                read(&own);
                unlock(&own);
            })
            .join();
            unlock(&lock);
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn others_go_on_while_a_coroutine_waits_for_a_lock() {
    on_every_runtime(|| {
        for lock in locks() {
            let ticker = Ticker::start();
            for (held, wanted) in [
                (write as fn(&Lock), read as fn(&Lock)),
                (write, write),
                (read, write),
            ] {
                held(&lock);
                let own = lock.clone();
                let waiter = Flow::start(true, move || {
                    wanted(&own);
                    unlock(&own);
                });
                ticker.wait();
                assert!(!waiter.is_finished());
                unlock(&lock);
                waiter.join();
            }
        }
    });
}

#[test]
fn a_writer_that_locks_again_is_told() {
    fn again(lock: &Lock) -> [c_int; 4] {
        write(lock);
        // SAFETY: an initialised lock.
        unsafe {
            let lock = lock.get();
            let results = [
                libc::pthread_rwlock_rdlock(lock),
                libc::pthread_rwlock_wrlock(lock),
                libc::pthread_rwlock_tryrdlock(lock),
                libc::pthread_rwlock_trywrlock(lock),
            ];
            assert_eq!(0, libc::pthread_rwlock_unlock(lock));
            results
        }
    }
    on_every_runtime(|| {
        for lock in locks() {
            let own = lock.clone();
            let on_thread = thread::spawn(move || again(&own)).join().unwrap();
            assert_eq!(on_thread, again(&lock));
            assert_eq!(libc::EDEADLK, on_thread[0]);
        }
    });
}

#[test]
fn waits_with_a_limit_end_in_time() {
    on_every_runtime(|| {
        let limit = Duration::from_millis(10);
        for lock in locks() {
            let holder = lock.clone();
            thread::spawn(move || write(&holder)).join().unwrap();
            let at = || after(libc::CLOCK_REALTIME, limit);
            let monotonic = libc::CLOCK_MONOTONIC;
            let lock = lock.get();
            // SAFETY: an initialised lock and valid times.
            unsafe {
                let check = |wait: &dyn Fn() -> c_int| {
                    assert_takes(limit, || assert_eq!(libc::ETIMEDOUT, wait()));
                };
                check(&|| pthread_rwlock_timedrdlock(lock, &at()));
                check(&|| pthread_rwlock_timedwrlock(lock, &at()));
                check(&|| pthread_rwlock_clockrdlock(lock, monotonic, &after(monotonic, limit)));
                check(&|| pthread_rwlock_clockwrlock(lock, monotonic, &after(monotonic, limit)));
                let invalid = timespec {
                    tv_sec: 0,
                    tv_nsec: 1_000_000_000,
                };
                assert_eq!(libc::EINVAL, pthread_rwlock_timedrdlock(lock, &invalid));
                assert_eq!(libc::EINVAL, pthread_rwlock_clockwrlock(lock, 99, &at()));
            }
        }
    });
}
