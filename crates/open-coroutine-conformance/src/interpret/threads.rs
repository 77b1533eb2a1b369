//! Locks, conditions, channels, signals to oneself.

use std::ffi::c_int;
use std::mem;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;

use super::outcome::{Outcome, observe, observe_error};
use super::world::{Locks, World};
use crate::script::{Guard, Slot};

/// How many signals were handled, by kind. Static because handlers are the
/// process's.
static USER_SIGNALS: AtomicI32 = AtomicI32::new(0);
static BROKEN_PIPES: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(signal: c_int) {
    match signal {
        libc::SIGPIPE => BROKEN_PIPES.fetch_add(1, SeqCst),
        _ => USER_SIGNALS.fetch_add(1, SeqCst),
    };
}

/// Installs the handlers that count signals.
pub(crate) fn install_handlers() {
    let handler = count as extern "C" fn(c_int) as libc::sighandler_t;
    for signal in [libc::SIGPIPE, libc::SIGUSR1] {
        // SAFETY: the handler only counts.
        unsafe { libc::signal(signal, handler) };
    }
}

/// How many `SIGPIPE` came so far.
pub(crate) fn broken_pipes() -> i32 {
    BROKEN_PIPES.load(SeqCst)
}

/// Sends a signal to oneself: it is handled before the call returns. (One to
/// the process may be handled by another thread, later.)
pub(super) fn raise(by: u8) -> Outcome {
    let before = USER_SIGNALS.load(SeqCst);
    // SAFETY: the handler only counts.
    let outcome = unsafe {
        match by % 4 {
            0 => observe(|| libc::raise(libc::SIGUSR1)),
            1 => observe_error(|| libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1)),
            2 => observe(|| libc::kill(libc::getpid(), 0)),
            _ => observe(|| {
                let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
                libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) as i32
            }),
        }
    };
    outcome.note(USER_SIGNALS.load(SeqCst) - before)
}

/// How often the handler of the signal ran so far.
pub(super) fn user_signals() -> i32 {
    USER_SIGNALS.load(SeqCst)
}

/// The set of `SIGUSR1`.
pub(super) fn user_signal() -> libc::sigset_t {
    set_of(libc::SIGUSR1)
}

fn set_of(signal: c_int) -> libc::sigset_t {
    // SAFETY: all-zero bytes are a set to be initialised, which lives across
    // the calls.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

/// Blocks the signal, or lets it come, and tells how often it came and whether
/// it was blocked.
pub(super) fn mask(blocks: bool, by_number: bool) -> Outcome {
    let set = user_signal();
    let mut old = set;
    let before = USER_SIGNALS.load(SeqCst);
    let how = if blocks {
        libc::SIG_BLOCK
    } else {
        libc::SIG_UNBLOCK
    };
    let (set_at, old_at) = (&raw const set, &raw mut old);
    // SAFETY: the sets live across the calls.
    let outcome = unsafe {
        if by_number {
            let number = libc::SYS_rt_sigprocmask;
            observe(|| libc::syscall(number, how, set_at, old_at, 8_usize) as i32)
        } else {
            observe_error(|| libc::pthread_sigmask(how, set_at, old_at))
        }
    };
    // SAFETY: the call has filled in the set.
    let was_blocked = unsafe { libc::sigismember(&raw const old, libc::SIGUSR1) };
    outcome
        .note(USER_SIGNALS.load(SeqCst) - before)
        .note(was_blocked)
}

/// Whether the signal is pending.
pub(super) fn pending() -> Outcome {
    let mut set = user_signal();
    // SAFETY: the set lives across the calls.
    unsafe {
        let outcome = observe(|| libc::sigpending(&raw mut set));
        outcome.note(libc::sigismember(&raw const set, libc::SIGUSR1))
    }
}

/// Takes a pending signal.
pub(super) fn wait_signal(limit: Option<u8>, by_number: bool) -> Outcome {
    let set = user_signal();
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(limit.unwrap_or(0)) * 1_000_000,
    };
    let mut signal = 0;
    // SAFETY: all-zero bytes are details to be filled in.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: set, time, number and details live across the calls.
    let outcome = unsafe {
        if limit.is_none() {
            observe_error(|| libc::sigwait(&raw const set, &raw mut signal))
        } else if by_number {
            let (number, none) = (libc::SYS_rt_sigtimedwait, std::ptr::null_mut::<c_int>());
            let (set, time) = (&raw const set, &raw const time);
            observe(|| libc::syscall(number, set, none, time, 8_usize) as i32)
        } else {
            observe(|| libc::sigtimedwait(&raw const set, &raw mut info, &raw const time))
        }
    };
    // SAFETY: a signal from a process has its number.
    let is_ours = unsafe { info.si_pid() == libc::getpid() };
    outcome.note(signal).note(info.si_code).note(is_ours)
}

pub(super) fn signal_fd(world: &World, slot: Slot, nonblock: bool) -> Outcome {
    let set = set_of(libc::SIGUSR2);
    let flags = if nonblock { libc::SFD_NONBLOCK } else { 0 };
    // SAFETY: the set lives across the call.
    let outcome = observe(|| unsafe { libc::signalfd(-1, &raw const set, flags) });
    if outcome.is_ok() {
        world.put(slot, outcome.result as i32);
    }
    outcome.without_result()
}

/// Adds to the counter in steps that another actor would spoil, if the lock let
/// it in.
pub(super) fn add(world: &World, guard: Guard, times: u8) -> Outcome {
    let locks = &world.locks;
    (0..times).fold(Outcome::default(), |_, _| add_one(locks, guard))
}

fn spoil(locks: &Locks) {
    let value = locks.counter.load(Relaxed);
    thread::yield_now();
    locks.counter.store(value + 1, Relaxed);
}

fn add_one(locks: &Locks, guard: Guard) -> Outcome {
    let between = |lock: &dyn Fn() -> c_int, unlock: &dyn Fn() -> c_int| {
        let locked = observe_error(lock);
        spoil(locks);
        let unlocked = observe_error(unlock);
        locked.note(unlocked.errno).note(unlocked.changes_errno)
    };
    let (mutex, rw_lock) = (locks.pthread_mutex.get(), locks.pthread_rw_lock.get());
    let semaphore = locks.semaphore.get();
    // SAFETY: initialised locks, which live as long as the world; each is
    // released by who has taken it.
    unsafe {
        match guard {
            Guard::Mutex => {
                let _held = locks.mutex.lock().unwrap_or_else(PoisonError::into_inner);
                spoil(locks);
                Outcome::default()
            }
            Guard::RwLock => {
                let _held = locks
                    .rw_lock
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                spoil(locks);
                Outcome::default()
            }
            Guard::PthreadMutex => between(&|| libc::pthread_mutex_lock(mutex), &|| {
                libc::pthread_mutex_unlock(mutex)
            }),
            Guard::PthreadRwLock => between(&|| libc::pthread_rwlock_wrlock(rw_lock), &|| {
                libc::pthread_rwlock_unlock(rw_lock)
            }),
            Guard::Semaphore => {
                between(&|| libc::sem_wait(semaphore), &|| libc::sem_post(semaphore))
            }
        }
    }
}

pub(super) fn counter(world: &World) -> Outcome {
    Outcome::number(world.locks.counter.swap(0, SeqCst).into())
}

pub(super) fn notify(world: &World) -> Outcome {
    *world
        .locks
        .notices
        .lock()
        .unwrap_or_else(PoisonError::into_inner) += 1;
    world.locks.noticed.notify_one();
    Outcome::default()
}

pub(super) fn wait_notified(world: &World) -> Outcome {
    let mut notices = world
        .locks
        .notices
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    while *notices == 0 {
        notices = world
            .locks
            .noticed
            .wait(notices)
            .unwrap_or_else(PoisonError::into_inner);
    }
    *notices -= 1;
    Outcome::default()
}

pub(super) fn send(world: &World, values: u8) -> Outcome {
    for value in 0..values {
        world
            .locks
            .sender
            .send(value)
            .expect("the world has the receiver");
        if value % 4 == 3 {
            thread::yield_now();
        }
    }
    Outcome::default()
}

pub(super) fn receive(world: &World, values: u8) -> Outcome {
    let receiver = world
        .locks
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let sum = (0..values)
        .map(|_| i64::from(receiver.recv().expect("the world has a sender")))
        .sum();
    Outcome::number(sum)
}
