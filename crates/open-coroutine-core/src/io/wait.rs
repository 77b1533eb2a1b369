//! Waiting for several descriptors at once, and for a word in the kernel.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::descriptor::is_stream;
use super::perform::{Awaits, EXPIRED, by_driver, call, wait_ready};
use crate::driver::Op;
use crate::sched::{self, Cancel, Wake};
use crate::sys;

const UNPOLLABLE: isize = -(libc::EINVAL as isize);
const NOT_PERMITTED: isize = -(libc::EPERM as isize);
/// The calling task was asked to end.
const CANCELLED: isize = -(libc::ECANCELED as isize);

/// When a wait of `timeout` ends, if it has an end.
fn deadline_after(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// `poll(2)`, without a time-out for `None`
///
/// # Safety
///
/// The contract of `poll(2)`. Called on a coroutine.
pub unsafe fn poll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: Option<Duration>,
) -> isize {
    let deadline = deadline_after(timeout);
    // SAFETY: the caller's promise, in each call.
    let now = || unsafe { poll_now(fds, count) };
    let ready = now();
    if ready != 0 || timeout == Some(Duration::ZERO) {
        return ready;
    }
    let answer = |waited: isize| match waited {
        EXPIRED => Some(now()),
        // io_uring tells what woke it, not what is there.
        0.. => Some(now()).filter(|ready| *ready != 0),
        // The only one was closed, or is about to be.
        // SAFETY: as above.
        error if error == -(libc::EBADF as isize) => Some(unsafe { invalid(fds, count) }),
        error => Some(error),
    };
    // SAFETY: as above.
    let result = wait_for(&unsafe { merged(fds, count) }, deadline, answer);
    if !is_exhausted(result) {
        return result;
    }
    let timeout = timespec_until(deadline);
    let timeout = timeout.as_ref().map_or(0, |t| &raw const *t as usize);
    let args = [fds as usize, count as usize, timeout, 0, 0, 0];
    // SAFETY: the caller's promise; `timeout` lives across the call.
    unsafe { call(Awaits::Others, libc::SYS_ppoll, args) }
}

/// Whether a wait found no descriptor or no memory. That is no reason for `poll` or
/// `select` to fail, which need none on a thread; so there it is done on one.
fn is_exhausted(result: isize) -> bool {
    const REASONS: [c_int; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC];
    REASONS.contains(&(-result as c_int))
}

fn timespec_until(deadline: Option<Instant>) -> Option<libc::timespec> {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    left.map(sys::to_timespec)
}

/// What a poll of closed descriptors reports: that all of them are invalid.
///
/// # Safety
///
/// As [`poll`].
unsafe fn invalid(fds: *mut libc::pollfd, count: libc::nfds_t) -> isize {
    let mut found = 0;
    for index in 0..count as usize {
        // SAFETY: the kernel has written to the entries already.
        let entry = unsafe { &mut *fds.add(index) };
        if entry.fd >= 0 {
            entry.revents = libc::POLLNVAL;
            found += 1;
        }
    }
    found
}

/// # Safety
///
/// As [`poll`].
unsafe fn poll_now(fds: *mut libc::pollfd, count: libc::nfds_t) -> isize {
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let args = [
        fds as usize,
        count as usize,
        &raw const timeout as usize,
        0,
        0,
        0,
    ];
    // A signal ends also a look that waits for nothing.
    // SAFETY: the caller's promise; `timeout` lives across the call.
    sys::insist(|| unsafe { sys::syscall(libc::SYS_ppoll, args) })
}

/// The sets of descriptors that `select(2)` takes and changes.
#[derive(Clone, Copy)]
pub struct FdSets {
    /// Descriptors numbered below this are looked at.
    pub count: c_int,
    /// For reading; may be null, as the others.
    pub read: *mut libc::fd_set,
    /// For writing.
    pub write: *mut libc::fd_set,
    /// For exceptional conditions.
    pub except: *mut libc::fd_set,
}

/// What each set waits for, as the kernel's `select` has it.
const SELECT_EVENTS: [i16; 3] = [libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT, libc::POLLPRI];

/// `select(2)`, without a time-out for `None`
///
/// # Safety
///
/// The contract of `select(2)`. Called on a coroutine.
pub unsafe fn select(sets: FdSets, timeout: Option<Duration>) -> isize {
    let deadline = deadline_after(timeout);
    // SAFETY: the caller's promise.
    let wanted = unsafe { sets.copy() };
    // SAFETY: the caller's promise; the sets were copied from there.
    let now = || unsafe {
        sets.restore(&wanted);
        sets.select_now()
    };
    let ready = now();
    if ready != 0 || timeout == Some(Duration::ZERO) {
        return ready;
    }
    let answer = |waited: isize| match waited {
        EXPIRED => Some(now()),
        0.. => Some(now()).filter(|ready| *ready != 0),
        error => {
            // SAFETY: as above.
            unsafe { sets.restore(&wanted) };
            Some(error)
        }
    };
    let result = wait_for(&wanted.to_poll(), deadline, answer);
    if !is_exhausted(result) {
        return result;
    }
    let timeout = timespec_until(deadline);
    // SAFETY: the caller's promise; the sets are as they were at first.
    unsafe { sets.select_until(timeout) }
}

/// What the caller of a `select` waits for: the words of its three sets.
struct Wanted {
    count: c_int,
    sets: [Vec<usize>; 3],
}

impl FdSets {
    fn pointers(&self) -> [*mut usize; 3] {
        [self.read, self.write, self.except].map(|set| set.cast::<usize>())
    }

    /// Words of each set.
    fn words(&self) -> usize {
        usize::try_from(self.count).map_or(0, |count| count.div_ceil(usize::BITS as usize))
    }

    /// # Safety
    ///
    /// As [`select`].
    unsafe fn copy(&self) -> Wanted {
        let copy = |set: *mut usize| {
            if set.is_null() {
                Vec::new()
            } else {
                // SAFETY: a set has room for `count` bits, in whole words.
                unsafe { std::slice::from_raw_parts(set, self.words()) }.to_vec()
            }
        };
        Wanted {
            count: self.count,
            sets: self.pointers().map(copy),
        }
    }

    /// # Safety
    ///
    /// As [`select`]; `wanted` is a copy of these sets.
    unsafe fn restore(&self, wanted: &Wanted) {
        for (set, words) in self.pointers().into_iter().zip(&wanted.sets) {
            // SAFETY: as many words as were copied from there.
            unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), set, words.len()) };
        }
    }

    /// # Safety
    ///
    /// As [`select`].
    unsafe fn select_now(&self) -> isize {
        let timeout = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let args = [
            self.count as usize,
            self.read as usize,
            self.write as usize,
            self.except as usize,
            &raw const timeout as usize,
            0,
        ];
        // As in `poll_now`; a call that fails leaves the sets alone.
        // SAFETY: the caller's promise; `timeout` lives across the call.
        sys::insist(|| unsafe { sys::syscall(libc::SYS_pselect6, args) })
    }

    /// Waits on a thread.
    ///
    /// # Safety
    ///
    /// As [`select`].
    unsafe fn select_until(&self, timeout: Option<libc::timespec>) -> isize {
        let timeout = timeout.as_ref().map_or(0, |t| &raw const *t as usize);
        let [read, write, except] = self.pointers().map(|set| set as usize);
        let args = [self.count as usize, read, write, except, timeout, 0];
        // SAFETY: the caller's promise; `timeout` lives across the call.
        unsafe { call(Awaits::Others, libc::SYS_pselect6, args) }
    }
}

impl Wanted {
    fn to_poll(&self) -> Vec<libc::pollfd> {
        let is_set = |words: &[usize], fd: usize| {
            let bits = usize::BITS as usize;
            words
                .get(fd / bits)
                .is_some_and(|word| word >> (fd % bits) & 1 != 0)
        };
        let entry = |fd: c_int| {
            let wanted = self.sets.iter().zip(SELECT_EVENTS);
            let events = wanted
                .filter(|(words, _)| is_set(words, fd as usize))
                .fold(0, |events, (_, event)| events | event);
            libc::pollfd {
                fd,
                events,
                revents: 0,
            }
        };
        let entries = (0..self.count).map(entry);
        entries.filter(|entry| entry.events != 0).collect()
    }
}

/// What `fds` wait for, each descriptor once; negative ones are none.
///
/// # Safety
///
/// `fds` points to `count` entries.
unsafe fn merged(fds: *const libc::pollfd, count: libc::nfds_t) -> Vec<libc::pollfd> {
    let mut entries: Vec<_> = (0..count as usize)
        // SAFETY: the caller's promise.
        .map(|index| unsafe { *fds.add(index) })
        .filter(|entry| entry.fd >= 0)
        .collect();
    entries.sort_unstable_by_key(|entry| entry.fd);
    entries.dedup_by(|next, entry| {
        let is_same = next.fd == entry.fd;
        if is_same {
            entry.events |= next.events;
        }
        is_same
    });
    entries
}

/// Waits until `answer`, which is given the result of each wait, has one for the
/// caller.
fn wait_for(
    fds: &[libc::pollfd],
    deadline: Option<Instant>,
    answer: impl Fn(isize) -> Option<isize>,
) -> isize {
    let is_peer = |entry: &libc::pollfd| sched::is_own(entry.fd) && is_stream(entry.fd);
    let cancel = match fds.iter().any(is_peer) {
        true => Cancel::Always,
        false => Cancel::Never,
    };
    if let Some(result) = answer(wait_any(fds, deadline, cancel)) {
        return result;
    }
    // Something ends the wait and not the call: for io_uring that the other side
    // sends no more, though nobody asked, and for a `select` an end or an error
    // of what is only to be written, or looked at for exceptions. It stays, so
    // only what is new can be waited for.
    let changes = match EpollSet::of(fds, libc::EPOLLET) {
        Ok(set) => set,
        Err(error) => return error,
    };
    loop {
        let waited = wait_ready(changes.0, libc::POLLIN as u32, deadline, cancel);
        changes.forget();
        if let Some(result) = answer(waited) {
            return result;
        }
    }
}

/// Waits until one of `fds`, which are different ones, may be ready. Several are
/// put into an epoll set of their own, which is a descriptor that can be waited
/// for like any other.
fn wait_any(fds: &[libc::pollfd], deadline: Option<Instant>, cancel: Cancel) -> isize {
    match fds {
        [] => match (sched::sleep_until(deadline), deadline) {
            (Some(Wake::Notified), None) => CANCELLED,
            // A sleep, which may be cut short.
            _ => EXPIRED,
        },
        [one] => match wait_ready(one.fd, u32::from(one.events as u16), deadline, cancel) {
            // io_uring and epoll refuse files, which are ready for anything but
            // what was asked for.
            UNPOLLABLE | NOT_PERMITTED => wait_any(&[], deadline, cancel),
            result => result,
        },
        _ => match EpollSet::of(fds, 0) {
            Ok(set) => wait_ready(set.0, libc::POLLIN as u32, deadline, cancel),
            Err(error) => error,
        },
    }
}

/// An epoll set for one wait.
struct EpollSet(RawFd);

impl EpollSet {
    /// A set of `fds`, with `flags` for each; or minus the error number.
    fn of(fds: &[libc::pollfd], flags: c_int) -> Result<Self, isize> {
        let args = [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0];
        // SAFETY: takes one integer.
        let fd = unsafe { sys::syscall(libc::SYS_epoll_create1, args) };
        if fd < 0 {
            return Err(fd);
        }
        let set = Self(fd as RawFd);
        for entry in fds {
            let events = u32::from(entry.events as u16) | flags as u32;
            // What else cannot be added never becomes ready.
            match set.add(entry.fd, events) {
                error if is_exhausted(error) => return Err(error),
                _ => {}
            }
        }
        Ok(set)
    }

    fn add(&self, fd: RawFd, events: u32) -> isize {
        let mut event = libc::epoll_event { events, u64: 0 };
        let args = [
            self.0 as usize,
            libc::EPOLL_CTL_ADD as usize,
            fd as usize,
            &raw mut event as usize,
            0,
            0,
        ];
        // SAFETY: `event` lives across the call.
        unsafe { sys::syscall(libc::SYS_epoll_ctl, args) }
    }

    /// Takes the changes that there were.
    fn forget(&self) {
        const MOST: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
        let at = events.as_mut_ptr() as usize;
        let args = [self.0 as usize, at, MOST, 0, 0, 8];
        // SAFETY: there is room for so many events.
        let take = || sys::insist(|| unsafe { sys::syscall(libc::SYS_epoll_pwait, args) });
        while take() == MOST as isize {}
    }
}

impl Drop for EpollSet {
    fn drop(&mut self) {
        // SAFETY: `self` owns the descriptor, and nothing waits on it any more.
        unsafe { sys::close(self.0) };
    }
}

/// `epoll_wait(2)`, without a time-out for `None`
///
/// # Safety
///
/// The contract of `epoll_wait(2)`. Called on a coroutine.
pub unsafe fn epoll_wait(
    fd: RawFd,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: Option<Duration>,
) -> isize {
    let deadline = deadline_after(timeout);
    let now = || {
        let args = [fd as usize, events as usize, max as usize, 0, 0, 8];
        // SAFETY: the caller's promise.
        sys::insist(|| unsafe { sys::syscall(libc::SYS_epoll_pwait, args) })
    };
    loop {
        let ready = now();
        if ready != 0 || timeout == Some(Duration::ZERO) {
            return ready;
        }
        match wait_ready(fd, libc::POLLIN as u32, deadline, Cancel::Always) {
            0.. => {}
            EXPIRED => return now(),
            error => return error,
        }
    }
}

/// Waits in the kernel until somebody wakes one that waits on `word` there, for
/// as long as it holds `value`, at most until `deadline`. It may return without
/// reason: the caller looks at the word again.
///
/// # Safety
///
/// `word` stays readable until this returns. Called on a coroutine.
pub unsafe fn futex_wait(
    word: *const u32,
    value: u32,
    is_private: bool,
    deadline: Option<Instant>,
) {
    let op = Op::FutexWait {
        word,
        value,
        mask: u32::MAX,
        is_private,
    };
    if sched::driver_supports(&op) {
        // SAFETY: the caller's promise; the driver supports it.
        unsafe { by_driver(op, deadline, Cancel::Never) };
        return;
    }
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.map(sys::to_timespec);
    let private = if is_private {
        libc::FUTEX_PRIVATE_FLAG
    } else {
        0
    };
    let args = [
        word as usize,
        (libc::FUTEX_WAIT | private) as usize,
        value as usize,
        timeout.as_ref().map_or(0, |t| &raw const *t as usize),
        0,
        0,
    ];
    // SAFETY: the caller's promise; `timeout` lives across the call.
    unsafe { call(Awaits::Others, libc::SYS_futex, args) };
}
