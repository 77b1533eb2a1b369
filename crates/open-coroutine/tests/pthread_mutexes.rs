//! `pthread_mutex_t` between coroutines, and between them and threads.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use foreign::{Flow, Object, after};
use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, pthread_mutexattr_t, timespec};
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

unsafe extern "C" {
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
}

type Mutex = Object<pthread_mutex_t>;

const TYPES: [c_int; 4] = [
    libc::PTHREAD_MUTEX_NORMAL,
    libc::PTHREAD_MUTEX_RECURSIVE,
    libc::PTHREAD_MUTEX_ERRORCHECK,
    // PTHREAD_MUTEX_ADAPTIVE_NP
    3,
];

fn with_attributes(set: impl FnOnce(*mut pthread_mutexattr_t)) -> Arc<Mutex> {
    // SAFETY: the attributes are initialised before they are used.
    Mutex::zeroed(|mutex| unsafe {
        let mut attributes = std::mem::zeroed();
        let attributes = &raw mut attributes;
        assert_eq!(0, libc::pthread_mutexattr_init(attributes));
        set(attributes);
        assert_eq!(0, libc::pthread_mutex_init(mutex, attributes));
        libc::pthread_mutexattr_destroy(attributes);
    })
}

fn of_type(kind: c_int) -> Arc<Mutex> {
    // SAFETY: the attributes are initialised.
    with_attributes(|attributes| unsafe {
        assert_eq!(0, libc::pthread_mutexattr_settype(attributes, kind));
    })
}

fn lock(mutex: &Mutex) {
    // SAFETY: an initialised mutex.
    assert_eq!(0, unsafe { libc::pthread_mutex_lock(mutex.get()) });
}

fn unlock(mutex: &Mutex) {
    // SAFETY: an initialised mutex that the caller holds.
    assert_eq!(0, unsafe { libc::pthread_mutex_unlock(mutex.get()) });
}

/// Increments a plain number under the mutex, in `flows` flows of which
/// `threads` are threads; whoever holds it suspends now and then.
fn count_together(mutex: &Arc<Mutex>, flows: usize, threads: usize) {
    let number = Object::new(0usize);
    let flows: Vec<_> = (0..flows)
        .map(|index| {
            let (mutex, number) = (mutex.clone(), number.clone());
            Flow::start(index >= threads, move || {
                for round in 0..200 {
                    lock(&mutex);
                    // SAFETY: the mutex is held.
                    unsafe {
                        let before = *number.get();
                        if round % 16 == 0 {
                            thread::yield_now();
                        }
                        *number.get() = before + 1;
                    }
                    unlock(&mutex);
                }
            })
        })
        .collect();
    let expected = flows.len() * 200;
    flows.into_iter().for_each(Flow::join);
    // SAFETY: all have ended.
    assert_eq!(expected, unsafe { *number.get() });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn increments_of_coroutines_are_all_kept() {
    on_every_runtime(|| {
        for kind in TYPES {
            count_together(&of_type(kind), 8, 0);
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn increments_of_coroutines_and_threads_are_all_kept() {
    on_every_runtime(|| {
        for kind in TYPES {
            count_together(&of_type(kind), 8, 3);
        }
    });
}

#[test]
fn increments_under_a_process_shared_mutex_are_all_kept() {
    on_every_runtime(|| {
        // SAFETY: the attributes are initialised.
        let mutex = with_attributes(|attributes| unsafe {
            let shared = libc::PTHREAD_PROCESS_SHARED;
            assert_eq!(0, libc::pthread_mutexattr_setpshared(attributes, shared));
        });
        count_together(&mutex, 8, 2);
    });
}

/// The threads wait for a condition with the mutex all the time, which unlocks
/// it where no hook sees.
#[test]
fn increments_beside_threads_in_condition_waits_are_all_kept() {
    on_every_runtime(|| {
        let mutex = Object::new(libc::PTHREAD_MUTEX_INITIALIZER);
        let condition: Arc<Object<pthread_cond_t>> = Object::new(libc::PTHREAD_COND_INITIALIZER);
        let is_over = Object::new(false);
        let waiters: Vec<_> = (0..2)
            .map(|index| {
                let (mutex, condition) = (mutex.clone(), condition.clone());
                let is_over = is_over.clone();
                thread::spawn(move || {
                    lock(&mutex);
                    // SAFETY: the mutex is held wherever `is_over` is read.
                    while unsafe { !*is_over.get() } {
                        let at =
                            after(libc::CLOCK_REALTIME, Duration::from_micros(50 + 30 * index));
                        // SAFETY: initialised, and the mutex is held.
                        unsafe {
                            libc::pthread_cond_timedwait(condition.get(), mutex.get(), &at);
                        }
                    }
                    unlock(&mutex);
                })
            })
            .collect();
        count_together(&mutex, 8, 1);
        count_together(&mutex, 8, 0);
        lock(&mutex);
        // SAFETY: the mutex is held.
        unsafe { *is_over.get() = true };
        unlock(&mutex);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_coroutine_gets_the_mutex_of_a_thread_that_begins_to_wait() {
    on_every_runtime(|| {
        for _ in 0..20 {
            let mutex = Object::new(libc::PTHREAD_MUTEX_INITIALIZER);
            let condition = Object::new(libc::PTHREAD_COND_INITIALIZER);
            let (locked, is_locked) = mpsc::channel();
            let (own, own_condition) = (mutex.clone(), condition.clone());
            let thread = thread::spawn(move || {
                lock(&own);
                locked.send(()).unwrap();
                // The coroutines begin to wait before or after this, as it comes.
                thread::sleep(Duration::from_micros(200));
                // SAFETY: initialised, and the mutex is held.
                unsafe { libc::pthread_cond_wait(own_condition.get(), own.get()) };
                unlock(&own);
            });
            is_locked.recv().unwrap();
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let own = mutex.clone();
                    open_coroutine::spawn(move || {
                        lock(&own);
                        thread::yield_now();
                        unlock(&own);
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            lock(&mutex);
            // SAFETY: initialised.
            unsafe { libc::pthread_cond_signal(condition.get()) };
            unlock(&mutex);
            thread.join().unwrap();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn others_go_on_while_a_coroutine_waits_for_a_mutex() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        for holder_is_coroutine in [true, false] {
            let mutex = Object::new(libc::PTHREAD_MUTEX_INITIALIZER);
            let (own, (locked, is_locked), (end, ends)) =
                (mutex.clone(), mpsc::channel(), mpsc::channel::<()>());
            let holder = Flow::start(holder_is_coroutine, move || {
                lock(&own);
                locked.send(()).unwrap();
                let _ = ends.recv();
                unlock(&own);
            });
            is_locked.recv().unwrap();
            let waiter = Flow::start(true, move || {
                lock(&mutex);
                unlock(&mutex);
            });
            ticker.wait();
            assert!(!waiter.is_finished());
            drop(end);
            waiter.join();
            holder.join();
        }
    });
}

/// What locking does, again and by others, by type of mutex.
fn semantics(kind: c_int) -> Vec<c_int> {
    let mutex = of_type(kind);
    let mut results = Vec::new();
    // SAFETY: an initialised mutex, and valid times.
    unsafe {
        let soon = after(libc::CLOCK_REALTIME, Duration::from_millis(2));
        let invalid = timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000_000,
        };
        let at = mutex.get();
        results.push(libc::pthread_mutex_unlock(at) * c_int::from(kind == 2));
        lock(&mutex);
        results.push(libc::pthread_mutex_trylock(at));
        results.push(libc::pthread_mutex_timedlock(at, &soon));
        results.push(libc::pthread_mutex_timedlock(at, &invalid));
        if kind == libc::PTHREAD_MUTEX_RECURSIVE || kind == libc::PTHREAD_MUTEX_ERRORCHECK {
            results.push(libc::pthread_mutex_lock(at));
        }
        results.push(pthread_mutex_clocklock(at, 99, &soon));
        while libc::pthread_mutex_unlock(at) == 0 && kind == libc::PTHREAD_MUTEX_RECURSIVE {}
        results.push(libc::pthread_mutex_timedlock(at, &invalid));
    }
    results
}

#[test]
fn locking_again_is_as_on_a_thread() {
    on_every_runtime(|| {
        for kind in TYPES {
            let on_thread = thread::spawn(move || semantics(kind)).join().unwrap();
            assert_eq!(on_thread, semantics(kind), "type {kind}");
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn another_coroutine_cannot_unlock_what_knows_its_owner() {
    on_every_runtime(|| {
        for kind in [
            libc::PTHREAD_MUTEX_RECURSIVE,
            libc::PTHREAD_MUTEX_ERRORCHECK,
        ] {
            let mutex = of_type(kind);
            lock(&mutex);
            let own = mutex.clone();
            let other = open_coroutine::spawn(move || {
                // SAFETY: an initialised mutex.
                unsafe {
                    let held = libc::pthread_mutex_trylock(own.get());
                    (held, libc::pthread_mutex_unlock(own.get()))
                }
            });
            assert_eq!((libc::EBUSY, libc::EPERM), other.join().unwrap());
            unlock(&mutex);
        }
    });
}

#[test]
fn a_wait_with_a_limit_ends_in_time() {
    on_every_runtime(|| {
        let limit = Duration::from_millis(10);
        let mutex = of_type(libc::PTHREAD_MUTEX_NORMAL);
        lock(&mutex);
        assert_takes(limit, || {
            let at = after(libc::CLOCK_REALTIME, limit);
            // SAFETY: an initialised mutex and a valid time.
            let result = unsafe { libc::pthread_mutex_timedlock(mutex.get(), &at) };
            assert_eq!(libc::ETIMEDOUT, result);
        });
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
            assert_takes(limit, || {
                let at = after(clock, limit);
                // SAFETY: an initialised mutex and a valid time.
                let result = unsafe { pthread_mutex_clocklock(mutex.get(), clock, &at) };
                assert_eq!(libc::ETIMEDOUT, result);
            });
        }
        unlock(&mutex);
        let at = after(libc::CLOCK_REALTIME, limit);
        // SAFETY: an initialised mutex and a valid time.
        assert_eq!(0, unsafe {
            libc::pthread_mutex_timedlock(mutex.get(), &at)
        });
        unlock(&mutex);
    });
}

/// Limits that pass while the mutex is handed around lose no wake-up.
#[test]
fn waits_that_give_up_keep_nobody_from_locking() {
    on_every_runtime(|| {
        let mutex = of_type(libc::PTHREAD_MUTEX_NORMAL);
        let flows: Vec<_> = (0..10)
            .map(|index| {
                let mutex = mutex.clone();
                Flow::start(index > 1, move || {
                    for round in 0..100 {
                        if index % 2 == 0 {
                            lock(&mutex);
                        } else {
                            let timeout = Duration::from_micros(20 * (round % 5));
                            let at = after(libc::CLOCK_REALTIME, timeout);
                            // SAFETY: an initialised mutex and a valid time.
                            let result = unsafe { libc::pthread_mutex_timedlock(mutex.get(), &at) };
                            if result == libc::ETIMEDOUT {
                                continue;
                            }
                            assert_eq!(0, result);
                        }
                        thread::yield_now();
                        unlock(&mutex);
                    }
                })
            })
            .collect();
        flows.into_iter().for_each(Flow::join);
    });
}

#[test]
fn mutexes_whose_owner_others_must_know_are_refused() {
    /// A mutex with an attribute that only a thread may set.
    fn made_by_a_thread(set: fn(*mut pthread_mutexattr_t) -> c_int) -> Arc<Mutex> {
        let make = move || with_attributes(|attributes| assert_eq!(0, set(attributes)));
        thread::spawn(make).join().unwrap()
    }
    on_every_runtime(|| {
        // SAFETY: initialised attributes, in each function.
        let mutexes = unsafe {
            [
                made_by_a_thread(|at| libc::pthread_mutexattr_setprotocol(at, 1)),
                made_by_a_thread(|at| libc::pthread_mutexattr_setprotocol(at, 2)),
                made_by_a_thread(|at| libc::pthread_mutexattr_setrobust(at, 1)),
                made_by_a_thread(|at| {
                    libc::pthread_mutexattr_settype(at, libc::PTHREAD_MUTEX_RECURSIVE)
                        + libc::pthread_mutexattr_setpshared(at, 1)
                }),
            ]
        };
        for (index, mutex) in mutexes.into_iter().enumerate() {
            // SAFETY: an initialised mutex.
            unsafe {
                assert_eq!(libc::ENOTSUP, libc::pthread_mutex_lock(mutex.get()));
                assert_eq!(libc::ENOTSUP, libc::pthread_mutex_trylock(mutex.get()));
            }
            // Changing its priority is not any thread's right.
            if index != 1 {
                let lock_it = move || (lock(&mutex), unlock(&mutex));
                thread::spawn(lock_it).join().unwrap();
            }
        }
    });
}

#[test]
fn the_lock_word_is_as_the_kernel_waits_expect() {
    fn word(mutex: &Mutex) -> u32 {
        // SAFETY: nobody changes it meanwhile.
        unsafe { *mutex.get().cast::<u32>() }
    }
    for kind in TYPES {
        let mutex = of_type(kind);
        assert_eq!(0, word(&mutex));
        lock(&mutex);
        assert_eq!(1, word(&mutex));
        let own = mutex.clone();
        let past = timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let other = thread::spawn(move || {
            // SAFETY: an initialised mutex and a valid time.
            let result = unsafe { libc::pthread_mutex_timedlock(own.get(), &past) };
            assert_eq!(libc::ETIMEDOUT, result);
        });
        other.join().unwrap();
        assert_eq!(2, word(&mutex));
        unlock(&mutex);
        assert_eq!(0, word(&mutex));
    }
}

#[test]
fn a_cancelled_thread_unlocks_what_it_waited_with() {
    extern "C" fn unlock_again(mutex: *mut std::ffi::c_void) {
        // SAFETY: the handler runs with the mutex locked.
        unsafe { libc::pthread_mutex_unlock(mutex.cast()) };
    }
    extern "C" fn wait(pair: *mut std::ffi::c_void) -> *mut std::ffi::c_void {
        // SAFETY: the test passes a pair that lives until this thread has ended.
        unsafe {
            let pair = &*pair.cast::<(Arc<Mutex>, Arc<Object<pthread_cond_t>>, mpsc::Sender<()>)>();
            lock(&pair.0);
            pair.2.send(()).unwrap();
            libc::pthread_cond_wait(pair.1.get(), pair.0.get());
            unlock_again(pair.0.get().cast());
        }
        ptr::null_mut()
    }
    on_every_runtime(|| {
        let condition = Object::new(libc::PTHREAD_COND_INITIALIZER);
        let mutex = of_type(libc::PTHREAD_MUTEX_NORMAL);
        let (locked, is_locked) = mpsc::channel::<()>();
        let pair = (mutex.clone(), condition, locked);
        // SAFETY: `pair` outlives the thread, which is joined. Nothing in its
        // frames needs to be dropped.
        unsafe {
            let mut thread = 0;
            let argument = (&raw const pair).cast_mut().cast();
            assert_eq!(
                0,
                libc::pthread_create(&mut thread, ptr::null(), wait, argument)
            );
            is_locked.recv().unwrap();
            // The thread waits as soon as the mutex can be locked.
            lock(&mutex);
            unlock(&mutex);
            assert_eq!(0, libc::pthread_cancel(thread));
            let mut value = ptr::null_mut();
            assert_eq!(0, libc::pthread_join(thread, &mut value));
            assert_eq!(usize::MAX, value as usize);
        }
        // It was locked again before the thread ended.
        // SAFETY: an initialised mutex.
        assert_eq!(libc::EBUSY, unsafe {
            libc::pthread_mutex_trylock(mutex.get())
        });
    });
}

#[test]
fn a_spin_lock_lets_its_holder_run() {
    on_every_runtime(|| {
        let spin: Arc<Object<libc::pthread_spinlock_t>> = Object::zeroed(|spin| {
            // SAFETY: memory for one.
            assert_eq!(0, unsafe { libc::pthread_spin_init(spin, 0) });
        });
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let spin = spin.clone();
                open_coroutine::spawn(move || {
                    // SAFETY: initialised above; unlocked by its holder.
                    unsafe {
                        assert_eq!(0, libc::pthread_spin_lock(spin.get()));
                        thread::sleep(Duration::from_millis(1));
                        assert_eq!(0, libc::pthread_spin_unlock(spin.get()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}
