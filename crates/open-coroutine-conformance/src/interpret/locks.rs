//! Conditions and read-write locks of pthread.

use std::ffi::c_int;
use std::mem::{self, MaybeUninit};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, timespec};

use super::outcome::{Outcome, observe_error};
use super::world::World;
use crate::script::Patience;

/// How long a call waits for what comes.
const LONG: Duration = Duration::from_secs(15);
/// How long for what does not.
const SHORT: Duration = Duration::from_millis(1);
/// How many calls [`again`] makes.
pub(crate) const AGAIN: u8 = 10;

unsafe extern "C" {
    // The libc crate has them for other systems only.
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
}

/// The time of `clock` after `wait`.
fn after(clock: clockid_t, wait: Duration) -> timespec {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time lives across the call.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let nanoseconds = now.tv_nsec + i64::from(wait.subsec_nanos());
    timespec {
        tv_sec: now.tv_sec + wait.as_secs() as i64 + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

/// Gives tickets, and wakes who waits for them.
pub(super) fn signal(world: &World, tickets: u8) -> Outcome {
    let locks = &world.locks;
    let (mutex, condition) = (locks.ticket_mutex.get(), locks.ticket_condition.get());
    // SAFETY: initialised objects, which live as long as the world; the mutex is
    // released by who has taken it.
    unsafe {
        let locked = observe_error(|| libc::pthread_mutex_lock(mutex));
        locks.tickets.fetch_add(tickets.into(), Relaxed);
        let woken = observe_error(|| match tickets {
            1 => libc::pthread_cond_signal(condition),
            _ => libc::pthread_cond_broadcast(condition),
        });
        let unlocked = observe_error(|| libc::pthread_mutex_unlock(mutex));
        locked.note(woken.errno).note(unlocked.errno)
    }
}

/// One wait on the condition, whose mutex the caller holds.
fn wait(world: &World, by: Patience, limit: Duration) -> Outcome {
    let (mutex, condition) = (
        world.locks.ticket_mutex.get(),
        world.locks.ticket_condition.get(),
    );
    let clock = match by {
        Patience::Clock => libc::CLOCK_MONOTONIC,
        _ => libc::CLOCK_REALTIME,
    };
    let until = after(clock, limit);
    let until = &raw const until;
    // SAFETY: initialised objects, which live as long as the world; the caller
    // holds the mutex, and the time lives across the calls.
    observe_error(|| unsafe {
        match by {
            Patience::Endless => libc::pthread_cond_wait(condition, mutex),
            Patience::Timed => libc::pthread_cond_timedwait(condition, mutex, until),
            Patience::Clock => pthread_cond_clockwait(condition, mutex, clock, until),
        }
    })
}

/// Takes a ticket, which somebody gives.
pub(super) fn wait_ticket(world: &World, by: Patience) -> Outcome {
    let locks = &world.locks;
    let mutex = locks.ticket_mutex.get();
    let mut outcome = Outcome::default();
    // SAFETY: an initialised mutex, which is released by who has taken it.
    unsafe { libc::pthread_mutex_lock(mutex) };
    while locks.tickets.load(Relaxed) == 0 && outcome.errno == 0 {
        outcome = wait(world, by, LONG);
    }
    locks.tickets.fetch_sub(1, Relaxed);
    // SAFETY: taken above.
    unsafe { libc::pthread_mutex_unlock(mutex) };
    outcome
}

/// Waits until the time is over.
pub(super) fn no_ticket(world: &World, by: Patience, milliseconds: u8) -> Outcome {
    let mutex = world.locks.ticket_mutex.get();
    let limit = Duration::from_millis(milliseconds.into());
    let begin = Instant::now();
    // SAFETY: an initialised mutex, which is released by who has taken it.
    unsafe { libc::pthread_mutex_lock(mutex) };
    let mut outcome = wait(world, by, limit);
    // Spurious wake-ups are allowed.
    while outcome.errno == 0 {
        outcome = wait(world, by, limit);
    }
    // SAFETY: taken above.
    let unlocked = observe_error(|| unsafe { libc::pthread_mutex_unlock(mutex) });
    let is_early = matches!(by, Patience::Clock) && begin.elapsed() < limit;
    outcome.note(is_early).note(unlocked.errno)
}

/// Adds to both numbers, one after the other.
pub(super) fn write_both(world: &World, times: u8, is_timed: bool) -> Outcome {
    let lock = world.locks.pthread_rw_lock.get();
    let mut outcome = Outcome::default();
    for _ in 0..times {
        let until = after(libc::CLOCK_REALTIME, LONG);
        // SAFETY: an initialised lock, which is released by who has taken it; the
        // time lives across the call.
        unsafe {
            outcome = observe_error(|| match is_timed {
                true => pthread_rwlock_timedwrlock(lock, &raw const until),
                false => libc::pthread_rwlock_wrlock(lock),
            });
            for number in &world.locks.both {
                let value = number.load(Relaxed);
                thread::yield_now();
                number.store(value + 1, Relaxed);
            }
            libc::pthread_rwlock_unlock(lock);
        }
    }
    outcome
}

/// How often the two numbers were seen to be different.
pub(super) fn read_both(world: &World, times: u8, is_timed: bool) -> Outcome {
    let lock = world.locks.pthread_rw_lock.get();
    let mut outcome = Outcome::default();
    let mut differed = 0;
    for _ in 0..times {
        let until = after(libc::CLOCK_REALTIME, LONG);
        // SAFETY: as in `write_both`.
        unsafe {
            outcome = observe_error(|| match is_timed {
                true => pthread_rwlock_timedrdlock(lock, &raw const until),
                false => libc::pthread_rwlock_rdlock(lock),
            });
            let first = world.locks.both[0].load(Relaxed);
            thread::yield_now();
            differed += i32::from(first != world.locks.both[1].load(Relaxed));
            libc::pthread_rwlock_unlock(lock);
        }
    }
    outcome.note(differed)
}

/// A second call to a lock of one's own.
pub(super) fn again(which: u8) -> Outcome {
    match which % AGAIN {
        which @ ..6 => mutex_again(which),
        which => rw_lock_again(which),
    }
}

fn mutex_again(which: u8) -> Outcome {
    let kinds = [
        libc::PTHREAD_MUTEX_NORMAL,
        libc::PTHREAD_MUTEX_RECURSIVE,
        libc::PTHREAD_MUTEX_ERRORCHECK,
    ];
    let until = after(libc::CLOCK_REALTIME, SHORT);
    let mut attributes = MaybeUninit::uninit();
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    let mutex = &raw mut mutex;
    // SAFETY: attributes and mutex are used between their initialisation and
    // destruction; the time lives across the call.
    unsafe {
        libc::pthread_mutexattr_init(attributes.as_mut_ptr());
        libc::pthread_mutexattr_settype(attributes.as_mut_ptr(), kinds[usize::from(which % 3)]);
        libc::pthread_mutex_init(mutex, attributes.as_ptr());
        let unheld = match which % 3 {
            0 => 0,
            _ => libc::pthread_mutex_unlock(mutex),
        };
        libc::pthread_mutex_lock(mutex);
        let second = observe_error(|| match which {
            ..3 => libc::pthread_mutex_trylock(mutex),
            _ => libc::pthread_mutex_timedlock(mutex, &raw const until),
        });
        let busy = libc::pthread_mutex_destroy(mutex);
        let unlocked = libc::pthread_mutex_unlock(mutex);
        if second.is_ok() {
            libc::pthread_mutex_unlock(mutex);
        }
        let destroyed = libc::pthread_mutex_destroy(mutex);
        libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
        second
            .note(unheld)
            .note(busy)
            .note(unlocked)
            .note(destroyed)
    }
}

fn rw_lock_again(which: u8) -> Outcome {
    let until = after(libc::CLOCK_REALTIME, SHORT);
    let until = &raw const until;
    // SAFETY: all-zero bytes are a lock to be initialised.
    let mut lock: libc::pthread_rwlock_t = unsafe { mem::zeroed() };
    let lock = &raw mut lock;
    // SAFETY: the lock is used between its initialisation and destruction; the
    // time lives across the calls.
    unsafe {
        libc::pthread_rwlock_init(lock, std::ptr::null());
        let first = match which {
            6 | 7 => libc::pthread_rwlock_rdlock(lock),
            _ => libc::pthread_rwlock_wrlock(lock),
        };
        let second = observe_error(|| match which {
            6 => libc::pthread_rwlock_tryrdlock(lock),
            7 => pthread_rwlock_timedwrlock(lock, until),
            8 => libc::pthread_rwlock_trywrlock(lock),
            _ => pthread_rwlock_timedrdlock(lock, until),
        });
        if second.is_ok() {
            libc::pthread_rwlock_unlock(lock);
        }
        let unlocked = libc::pthread_rwlock_unlock(lock);
        let destroyed = libc::pthread_rwlock_destroy(lock);
        second.note(first).note(unlocked).note(destroyed)
    }
}
