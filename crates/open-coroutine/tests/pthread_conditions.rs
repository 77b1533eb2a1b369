//! `pthread_cond_t` between coroutines, and between them and threads.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

use foreign::{Flow, Object, after};
use libc::{clockid_t, pthread_cond_t, pthread_condattr_t, pthread_mutex_t, timespec};
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

unsafe extern "C" {
    fn pthread_condattr_setclock(attributes: *mut pthread_condattr_t, clock: clockid_t) -> c_int;
    fn pthread_condattr_setpshared(attributes: *mut pthread_condattr_t, shared: c_int) -> c_int;
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
}

/// A value under a mutex, with two conditions.
struct Guarded<T> {
    mutex: Arc<Object<pthread_mutex_t>>,
    first: Arc<Object<pthread_cond_t>>,
    second: Arc<Object<pthread_cond_t>>,
    value: Arc<Object<T>>,
}

fn condition(set: impl FnOnce(*mut pthread_condattr_t) -> c_int) -> Arc<Object<pthread_cond_t>> {
    // SAFETY: the attributes are initialised before they are used.
    Object::zeroed(|condition| unsafe {
        let mut attributes = std::mem::zeroed();
        let attributes = &raw mut attributes;
        assert_eq!(0, libc::pthread_condattr_init(attributes));
        assert_eq!(0, set(attributes));
        assert_eq!(0, libc::pthread_cond_init(condition, attributes));
        libc::pthread_condattr_destroy(attributes);
    })
}

impl<T> Guarded<T> {
    fn new(value: T, is_shared: bool) -> Arc<Self> {
        // SAFETY: the attributes are initialised.
        let shared = |at| unsafe { pthread_condattr_setpshared(at, c_int::from(is_shared)) };
        Arc::new(Self {
            mutex: Object::new(libc::PTHREAD_MUTEX_INITIALIZER),
            first: condition(shared),
            second: condition(shared),
            value: Object::new(value),
        })
    }

    /// Calls `body` with the mutex locked and the address of the value, which
    /// others may change while `body` waits.
    fn with<R>(&self, body: impl FnOnce(*mut T) -> R) -> R {
        // SAFETY: initialised.
        unsafe {
            assert_eq!(0, libc::pthread_mutex_lock(self.mutex.get()));
            let result = body(self.value.get());
            assert_eq!(0, libc::pthread_mutex_unlock(self.mutex.get()));
            result
        }
    }

    /// Waits for `condition` as long as `is_true`; call it in `with`.
    fn wait_while(&self, condition: &Object<pthread_cond_t>, is_true: impl Fn(&T) -> bool) {
        // SAFETY: initialised, and the mutex is held.
        unsafe {
            while is_true(&*self.value.get()) {
                assert_eq!(
                    0,
                    libc::pthread_cond_wait(condition.get(), self.mutex.get())
                );
            }
        }
    }
}

fn signal(condition: &Object<pthread_cond_t>) {
    // SAFETY: initialised.
    assert_eq!(0, unsafe { libc::pthread_cond_signal(condition.get()) });
}

fn broadcast(condition: &Object<pthread_cond_t>) {
    // SAFETY: initialised.
    assert_eq!(0, unsafe { libc::pthread_cond_broadcast(condition.get()) });
}

/// A queue of two places: `producers` and `consumers` tell which of them are
/// coroutines.
fn pass_numbers(producers: &[bool], consumers: &[bool], is_shared: bool) {
    const EACH: u64 = 150;
    struct Queue {
        items: VecDeque<u64>,
        sum: u64,
    }
    let queue = Queue {
        items: VecDeque::new(),
        sum: 0,
    };
    let queue = Guarded::new(queue, is_shared);
    let mut flows: Vec<Flow> = Vec::new();
    for is_coroutine in producers {
        let queue = queue.clone();
        flows.push(Flow::start(*is_coroutine, move || {
            for number in 0..EACH {
                queue.with(|_| {
                    queue.wait_while(&queue.first, |queue| queue.items.len() >= 2);
                    // SAFETY: the mutex is held.
                    unsafe { (*queue.value.get()).items.push_back(number) };
                    signal(&queue.second);
                });
            }
        }));
    }
    for is_coroutine in consumers {
        let queue = queue.clone();
        flows.push(Flow::start(*is_coroutine, move || {
            for _ in 0..EACH {
                queue.with(|_| {
                    queue.wait_while(&queue.second, |queue| queue.items.is_empty());
                    // SAFETY: the mutex is held.
                    let state = unsafe { &mut *queue.value.get() };
                    state.sum += state.items.pop_front().unwrap();
                });
                signal(&queue.first);
            }
        }));
    }
    let expected = producers.len() as u64 * EACH * (EACH - 1) / 2;
    flows.into_iter().for_each(Flow::join);
    // SAFETY: the mutex is held.
    assert_eq!(expected, queue.with(|queue| unsafe { (*queue).sum }));
}

#[test]
fn a_bounded_queue_between_coroutines_loses_nothing() {
    on_every_runtime(|| pass_numbers(&[true; 4], &[true; 4], false));
}

#[test]
fn a_bounded_queue_between_threads_and_coroutines_loses_nothing() {
    on_every_runtime(|| {
        pass_numbers(&[false; 2], &[true; 2], false);
        pass_numbers(&[true; 2], &[false; 2], false);
        pass_numbers(&[true, false, true], &[false, true, true], false);
    });
}

#[test]
fn a_bounded_queue_with_process_shared_conditions_loses_nothing() {
    on_every_runtime(|| pass_numbers(&[true, false], &[false, true], true));
}

#[test]
fn a_broadcast_wakes_every_coroutine_and_thread() {
    on_every_runtime(|| {
        for is_shared in [false, true] {
            let state = Guarded::new((0, false), is_shared);
            let flows: Vec<_> = (0..20)
                .map(|index| {
                    let state = state.clone();
                    Flow::start(index % 10 != 0, move || {
                        state.with(|value| {
                            // SAFETY: the mutex is held.
                            unsafe { (*value).0 += 1 };
                            signal(&state.second);
                            state.wait_while(&state.first, |value| !value.1);
                        });
                    })
                })
                .collect();
            state.with(|_| {
                state.wait_while(&state.second, |value| value.0 < 20);
                // SAFETY: the mutex is held.
                unsafe { (*state.value.get()).1 = true };
            });
            broadcast(&state.first);
            flows.into_iter().for_each(Flow::join);
        }
    });
}

#[test]
fn others_go_on_while_a_coroutine_waits_for_a_condition() {
    on_every_runtime(|| {
        for is_shared in [false, true] {
            let ticker = Ticker::start();
            let state = Guarded::new(false, is_shared);
            let own = state.clone();
            let waiter = Flow::start(true, move || {
                own.with(|_| own.wait_while(&own.first, |is_set| !*is_set));
            });
            ticker.wait();
            assert!(!waiter.is_finished());
            // SAFETY: the mutex is held.
            state.with(|is_set| unsafe { *is_set = true });
            signal(&state.first);
            waiter.join();
        }
    });
}

#[test]
fn a_wait_with_a_limit_ends_in_time_by_the_clock_of_the_condition() {
    on_every_runtime(|| {
        let limit = Duration::from_millis(10);
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
            let mutex = Object::new(libc::PTHREAD_MUTEX_INITIALIZER);
            // SAFETY: the attributes are initialised.
            let condition = condition(|at| unsafe { pthread_condattr_setclock(at, clock) });
            // SAFETY: initialised objects and valid times; the mutex is held.
            unsafe {
                assert_eq!(0, libc::pthread_mutex_lock(mutex.get()));
                assert_takes(limit, || {
                    let at = after(clock, limit);
                    let result = libc::pthread_cond_timedwait(condition.get(), mutex.get(), &at);
                    assert_eq!(libc::ETIMEDOUT, result);
                });
                for other in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
                    assert_takes(limit, || {
                        let at = after(other, limit);
                        let result =
                            pthread_cond_clockwait(condition.get(), mutex.get(), other, &at);
                        assert_eq!(libc::ETIMEDOUT, result);
                    });
                }
                let invalid = timespec {
                    tv_sec: 0,
                    tv_nsec: -1,
                };
                let result = libc::pthread_cond_timedwait(condition.get(), mutex.get(), &invalid);
                assert_eq!(libc::EINVAL, result);
                assert_eq!(libc::EBUSY, libc::pthread_mutex_trylock(mutex.get()));
                assert_eq!(0, libc::pthread_mutex_unlock(mutex.get()));
            }
        }
    });
}

#[test]
fn a_signal_ends_a_wait_with_a_limit() {
    on_every_runtime(|| {
        for is_coroutine in [true, false] {
            let state = Guarded::new(false, false);
            let own = state.clone();
            let waiter = Flow::start(is_coroutine, move || {
                own.with(|_| {
                    let at = after(libc::CLOCK_REALTIME, Duration::from_secs(3600));
                    // SAFETY: initialised, and the mutex is held. Others change
                    // the value during the wait, so nothing borrows it then.
                    unsafe {
                        while !*own.value.get() {
                            let (condition, mutex) = (own.first.get(), own.mutex.get());
                            assert_eq!(0, libc::pthread_cond_timedwait(condition, mutex, &at));
                        }
                    }
                });
            });
            // SAFETY: the mutex is held.
            state.with(|is_set| unsafe { *is_set = true });
            signal(&state.first);
            waiter.join();
        }
    });
}

#[test]
fn waiting_without_the_mutex_is_refused_where_a_thread_is() {
    on_every_runtime(|| {
        let mutex: Arc<Object<pthread_mutex_t>> =
            Object::new(libc::PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP);
        let condition = Object::new(libc::PTHREAD_COND_INITIALIZER);
        // SAFETY: initialised; the mutex refuses.
        let result = unsafe { libc::pthread_cond_wait(condition.get(), mutex.get()) };
        assert_eq!(libc::EPERM, result);
    });
}
