//! Waiting for descriptors and for time.

use std::mem;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, pollfd, sigset_t, timespec};

use super::entries::{__poll_chk, __ppoll_chk};
use super::outcome::{Outcome, observe, observe_error};
use super::threads;
use super::world::World;
use crate::script::{Meanwhile, Sleeps, Slot, Waits};

fn time_of(milliseconds: i32) -> timespec {
    timespec {
        tv_sec: 0,
        tv_nsec: i64::from(milliseconds) * 1_000_000,
    }
}

/// Waits for several descriptors at once; the result has what each of them has.
pub(super) fn poll(world: &World, slots: &[(Slot, i16)], timeout: i32, waits: Waits) -> Outcome {
    wait_for(world, slots, timeout, (waits, ptr::null()))
}

/// [`poll`] with a mask, of a function that takes one.
pub(super) fn masked_poll(
    world: &World,
    slots: &[(Slot, i16)],
    timeout: i32,
    waits: Waits,
    meanwhile: Meanwhile,
) -> Outcome {
    // SAFETY: all-zero bytes are an empty set.
    let unblocked: sigset_t = unsafe { mem::zeroed() };
    let blocked = threads::user_signal();
    let mask = match meanwhile {
        Meanwhile::Own => ptr::null(),
        Meanwhile::Unblocked => &raw const unblocked,
        Meanwhile::Blocked => &raw const blocked,
    };
    let before = threads::user_signals();
    let outcome = wait_for(world, slots, timeout, (waits, mask));
    outcome.note(threads::user_signals() - before)
}

fn wait_for(
    world: &World,
    slots: &[(Slot, i16)],
    timeout: i32,
    (waits, mask): (Waits, *const sigset_t),
) -> Outcome {
    let entry = |&(slot, events)| pollfd {
        fd: world.fd(slot),
        events,
        revents: 0x1000,
    };
    let mut entries: Vec<pollfd> = slots.iter().map(entry).collect();
    let begin = Instant::now();
    let outcome = match waits {
        Waits::Poll
        | Waits::PPoll
        | Waits::PPollNumber
        | Waits::CheckedPoll
        | Waits::CheckedPPoll => poll_entries(&mut entries, timeout, (waits, mask)),
        Waits::Select | Waits::PSelect | Waits::PSelectNumber => {
            select(&entries, timeout, (waits, mask))
        }
        Waits::Epoll | Waits::EpollPWait | Waits::EpollNumber | Waits::EpollPWait2 => {
            epoll(&entries, timeout, (waits, mask))
        }
    };
    let is_early = outcome.result == 0 && begin.elapsed() < time(timeout);
    outcome.note(is_early)
}

fn time(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

type WithMask = (Waits, *const sigset_t);

fn poll_entries(entries: &mut [pollfd], timeout: i32, (waits, mask): WithMask) -> Outcome {
    let count = entries.len() as libc::nfds_t;
    let size = size_of_val(entries);
    let at = entries.as_mut_ptr();
    let mut limit = time_of(timeout);
    let limit = if timeout < 0 {
        ptr::null_mut()
    } else {
        &raw mut limit
    };
    // SAFETY: entries, time and mask live across the call.
    let outcome = observe(|| unsafe {
        match waits {
            Waits::PPoll => libc::ppoll(at, count, limit, mask),
            Waits::CheckedPPoll => __ppoll_chk(at, count, limit, mask, size),
            Waits::CheckedPoll => __poll_chk(at, count, timeout, size),
            Waits::PPollNumber => {
                libc::syscall(libc::SYS_ppoll, at, count, limit, mask, 8_usize) as i32
            }
            _ => libc::poll(at, count, timeout),
        }
    });
    entries
        .iter()
        .fold(outcome, |outcome, entry| outcome.note(entry.revents))
}

fn select(entries: &[pollfd], timeout: i32, (waits, mask): WithMask) -> Outcome {
    // SAFETY: all-zero bytes are empty sets.
    let mut sets: [fd_set; 3] = unsafe { mem::zeroed() };
    let wanted = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
    let valid = || {
        entries
            .iter()
            .filter(|entry| (0..libc::FD_SETSIZE as i32).contains(&entry.fd))
    };
    for entry in valid() {
        for (set, wanted) in sets.iter_mut().zip(wanted) {
            if entry.events & wanted != 0 {
                // SAFETY: the number is below the size of the set.
                unsafe { libc::FD_SET(entry.fd, set) };
            }
        }
    }
    let count = valid().map(|entry| entry.fd + 1).max().unwrap_or(0);
    let [reads, writes, excepts] = &mut sets;
    let mut value = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(timeout) * 1000,
    };
    let (limit, mut spec) = (&raw mut value, time_of(timeout));
    let (limit, spec) = if timeout < 0 {
        (ptr::null_mut(), ptr::null_mut())
    } else {
        (limit, &raw mut spec)
    };
    let kernel_mask = [mask as usize, 8];
    let kernel_mask = kernel_mask.as_ptr();
    let (read, write, except) = (&raw mut *reads, &raw mut *writes, &raw mut *excepts);
    // SAFETY: sets, times and masks live across the call.
    let outcome = observe(|| unsafe {
        match waits {
            Waits::PSelect => libc::pselect(count, read, write, except, spec, mask),
            Waits::PSelectNumber => {
                let number = libc::SYS_pselect6;
                libc::syscall(number, count, read, write, except, spec, kernel_mask) as i32
            }
            _ => libc::select(count, read, write, except, limit),
        }
    });
    valid().fold(outcome, |outcome, entry| {
        sets.iter().fold(outcome, |outcome, set| {
            // SAFETY: the number is below the size of the set.
            outcome.note(unsafe { libc::FD_ISSET(entry.fd, set) })
        })
    })
}

fn epoll(entries: &[pollfd], timeout: i32, (waits, mask): WithMask) -> Outcome {
    // SAFETY: takes an integer.
    let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for (index, entry) in entries.iter().enumerate() {
        control(
            set,
            libc::EPOLL_CTL_ADD,
            entry.fd,
            entry.events as u32,
            index as u64,
        );
    }
    let outcome = match waits {
        Waits::Epoll => epoll_wait(set, 16, timeout),
        _ => epoll_masked(set, timeout, (waits, mask)),
    };
    // SAFETY: made above.
    unsafe { libc::close(set) };
    outcome
}

fn control(set: i32, operation: i32, fd: i32, events: u32, data: u64) -> i32 {
    let mut event = epoll_event { events, u64: data };
    // SAFETY: the event lives across the call.
    unsafe { libc::epoll_ctl(set, operation, fd, &raw mut event) }
}

pub(super) fn epoll_control(
    world: &World,
    set: Slot,
    operation: i32,
    slot: Slot,
    events: u32,
) -> Outcome {
    observe(|| {
        control(
            world.fd(set),
            operation,
            world.fd(slot),
            events,
            slot.into(),
        )
    })
}

pub(super) fn epoll_wait(set: i32, max: i32, timeout: i32) -> Outcome {
    let mut events = [epoll_event { events: 0, u64: 77 }; 16];
    let max = max.min(16);
    // SAFETY: there are at least `max` events.
    let outcome = observe(|| unsafe { libc::epoll_wait(set, events.as_mut_ptr(), max, timeout) });
    with_events(outcome, &events)
}

fn epoll_masked(set: i32, timeout: i32, (waits, mask): WithMask) -> Outcome {
    let mut events = [epoll_event { events: 0, u64: 77 }; 16];
    let at = events.as_mut_ptr();
    let limit = time_of(timeout);
    let limit = if timeout < 0 {
        ptr::null()
    } else {
        &raw const limit
    };
    // SAFETY: there are 16 events, and time and mask live across the call.
    let outcome = observe(|| unsafe {
        match waits {
            Waits::EpollPWait => libc::epoll_pwait(set, at, 16, timeout, mask),
            Waits::EpollNumber => {
                libc::syscall(libc::SYS_epoll_pwait, set, at, 16, timeout, mask, 8_usize) as i32
            }
            _ => libc::epoll_pwait2(set, at, 16, limit, mask),
        }
    });
    with_events(outcome, &events)
}

/// The order of events is the kernel's affair.
fn with_events(mut outcome: Outcome, events: &[epoll_event]) -> Outcome {
    let count = usize::try_from(outcome.result).unwrap_or(0);
    let mut found: Vec<(u64, u32)> = events[..count]
        .iter()
        .map(|event| (event.u64, event.events))
        .collect();
    found.sort_unstable();
    for (slot, events) in found {
        outcome = outcome.note(slot as i64).note(events);
    }
    outcome
}

pub(super) fn sleep(by: Sleeps, milliseconds: u8) -> Outcome {
    let duration = Duration::from_millis(milliseconds.into());
    let mut spec = time_of(milliseconds.into());
    let begin = Instant::now();
    // SAFETY: times live across the calls.
    let outcome = unsafe {
        match by {
            Sleeps::Nano => observe(|| libc::nanosleep(&raw const spec, ptr::null_mut())),
            Sleeps::Clock => observe_error(|| {
                libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const spec, ptr::null_mut())
            }),
            Sleeps::Number => observe(|| {
                let (number, clock) = (libc::SYS_clock_nanosleep, libc::CLOCK_MONOTONIC);
                let none = ptr::null_mut::<timespec>();
                libc::syscall(number, clock, 0, &raw const spec, none) as i32
            }),
            Sleeps::ClockUntil => {
                libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut spec);
                spec.tv_nsec += i64::from(milliseconds) * 1_000_000;
                spec.tv_sec += spec.tv_nsec / 1_000_000_000;
                spec.tv_nsec %= 1_000_000_000;
                let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
                let spec = &raw const spec;
                observe_error(|| libc::clock_nanosleep(clock, flags, spec, ptr::null_mut()))
            }
            Sleeps::Micro => observe(|| libc::usleep(u32::from(milliseconds) * 1000)),
            Sleeps::Poll => observe(|| libc::poll(ptr::null_mut(), 0, milliseconds.into())),
            Sleeps::Std => {
                thread::sleep(duration);
                Outcome::default()
            }
        }
    };
    outcome.note(begin.elapsed() < duration)
}
