//! Waiting for descriptors and for time.

use std::mem;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, pollfd, timespec};

use super::outcome::{Outcome, observe, observe_error};
use super::world::World;
use crate::script::{Sleeps, Slot, Waits};

fn time_of(milliseconds: i32) -> timespec {
    timespec {
        tv_sec: 0,
        tv_nsec: i64::from(milliseconds) * 1_000_000,
    }
}

/// Waits for several descriptors at once; the result has what each of them has.
pub(super) fn poll(world: &World, slots: &[(Slot, i16)], timeout: i32, waits: Waits) -> Outcome {
    let entry = |&(slot, events)| pollfd {
        fd: world.fd(slot),
        events,
        revents: 0x1000,
    };
    let mut entries: Vec<pollfd> = slots.iter().map(entry).collect();
    let begin = Instant::now();
    let outcome = match waits {
        Waits::Poll | Waits::PPoll => poll_entries(&mut entries, timeout, waits),
        Waits::Select | Waits::PSelect => select(&entries, timeout, waits),
        Waits::Epoll | Waits::EpollPWait2 => epoll(&entries, timeout, waits),
    };
    let is_early = outcome.result == 0 && begin.elapsed() < time(timeout);
    outcome.note(is_early)
}

fn time(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

fn poll_entries(entries: &mut [pollfd], timeout: i32, waits: Waits) -> Outcome {
    let count = entries.len() as libc::nfds_t;
    let limit = time_of(timeout);
    let limit = if timeout < 0 {
        ptr::null()
    } else {
        &raw const limit
    };
    // SAFETY: entries and time live across the call.
    let outcome = observe(|| unsafe {
        match waits {
            Waits::PPoll => libc::ppoll(entries.as_mut_ptr(), count, limit, ptr::null()),
            _ => libc::poll(entries.as_mut_ptr(), count, timeout),
        }
    });
    entries
        .iter()
        .fold(outcome, |outcome, entry| outcome.note(entry.revents))
}

fn select(entries: &[pollfd], timeout: i32, waits: Waits) -> Outcome {
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
    let (limit, spec) = (&raw mut value, time_of(timeout));
    let (limit, spec) = if timeout < 0 {
        (ptr::null_mut(), ptr::null())
    } else {
        (limit, &raw const spec)
    };
    // SAFETY: sets and times live across the call.
    let outcome = observe(|| unsafe {
        match waits {
            Waits::PSelect => libc::pselect(count, reads, writes, excepts, spec, ptr::null()),
            _ => libc::select(count, reads, writes, excepts, limit),
        }
    });
    valid().fold(outcome, |outcome, entry| {
        sets.iter().fold(outcome, |outcome, set| {
            // SAFETY: the number is below the size of the set.
            outcome.note(unsafe { libc::FD_ISSET(entry.fd, set) })
        })
    })
}

fn epoll(entries: &[pollfd], timeout: i32, waits: Waits) -> Outcome {
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
        Waits::EpollPWait2 => epoll_wait_until(set, timeout),
        _ => epoll_wait(set, 16, timeout),
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

fn epoll_wait_until(set: i32, timeout: i32) -> Outcome {
    let mut events = [epoll_event { events: 0, u64: 77 }; 16];
    let limit = time_of(timeout);
    let limit = if timeout < 0 {
        ptr::null()
    } else {
        &raw const limit
    };
    // SAFETY: there are 16 events, and the time lives across the call.
    let outcome =
        observe(|| unsafe { libc::epoll_pwait2(set, events.as_mut_ptr(), 16, limit, ptr::null()) });
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
