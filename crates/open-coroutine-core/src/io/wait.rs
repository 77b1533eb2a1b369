//! Waiting for several descriptors at once, and for a word in the kernel.

use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::perform::{Awaits, EXPIRED, by_driver, call, wait_ready};
use crate::driver::Op;
use crate::sched;
use crate::sys::{self, check};

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
    unsafe {
        loop {
            let ready = poll_now(fds, count);
            if ready != 0 || timeout == Some(Duration::ZERO) {
                return ready;
            }
            match wait_any(fds, count, deadline) {
                // Ready; and in case it was spurious, wait again.
                0.. => {}
                EXPIRED => return poll_now(fds, count),
                // The only one was closed, or is about to be.
                error if error == -(libc::EBADF as isize) => return invalid(fds, count),
                error => return error,
            }
        }
    }
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
    // SAFETY: the caller's promise; `timeout` lives across the call.
    unsafe { sys::syscall(libc::SYS_ppoll, args) }
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
    loop {
        // SAFETY: the caller's promise.
        let ready = unsafe { sets.select_now() };
        if ready != 0 || timeout == Some(Duration::ZERO) {
            return ready;
        }
        let mut fds = wanted.to_poll();
        // SAFETY: the entries are a vector's.
        let result = unsafe { wait_any(fds.as_mut_ptr(), fds.len() as libc::nfds_t, deadline) };
        // SAFETY: the caller's promise; the sets were copied from there.
        unsafe { sets.restore(&wanted) };
        match result {
            0.. => {}
            // SAFETY: the caller's promise.
            EXPIRED => return unsafe { sets.select_now() },
            error => return error,
        }
    }
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
        // SAFETY: the caller's promise; `timeout` lives across the call.
        unsafe { sys::syscall(libc::SYS_pselect6, args) }
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

/// Waits until one of `fds` may be ready. Several are put into an epoll set of
/// their own, which is a descriptor that can be waited for like any other.
///
/// # Safety
///
/// As [`poll`].
unsafe fn wait_any(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    deadline: Option<Instant>,
) -> isize {
    let mut live = (0..count as usize)
        // SAFETY: the kernel has read the entries already.
        .map(|index| unsafe { *fds.add(index) })
        .filter(|entry| entry.fd >= 0);
    let Some(first) = live.next() else {
        sched::prepare_wait();
        sched::wait(deadline);
        return EXPIRED;
    };
    let Some(second) = live.next() else {
        return wait_ready(first.fd, u32::from(first.events as u16), deadline);
    };
    let set = match EpollSet::new() {
        Ok(set) => set,
        Err(error) => return -(error.raw_os_error().unwrap_or(libc::ENOMEM) as isize),
    };
    for entry in [first, second].into_iter().chain(live) {
        set.add(entry.fd, u32::from(entry.events as u16));
    }
    wait_ready(set.0, libc::POLLIN as u32, deadline)
}

/// An epoll set for one wait.
struct EpollSet(RawFd);

impl EpollSet {
    fn new() -> io::Result<Self> {
        let args = [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0];
        // SAFETY: takes one integer.
        let fd = check(unsafe { sys::syscall(libc::SYS_epoll_create1, args) })?;
        Ok(Self(fd as RawFd))
    }

    fn add(&self, fd: RawFd, events: u32) {
        let mut event = libc::epoll_event { events, u64: 0 };
        let control = |operation: c_int, event: *mut libc::epoll_event| {
            let args = [
                self.0 as usize,
                operation as usize,
                fd as usize,
                event as usize,
                0,
                0,
            ];
            // SAFETY: `event` lives across the call.
            unsafe { sys::syscall(libc::SYS_epoll_ctl, args) }
        };
        // The same descriptor twice in one poll: wait for anything it may have;
        // the poll that follows tells which entry is ready.
        if control(libc::EPOLL_CTL_ADD, &raw mut event) == -(libc::EEXIST as isize) {
            event.events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI) as u32;
            control(libc::EPOLL_CTL_MOD, &raw mut event);
        }
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
        unsafe { sys::syscall(libc::SYS_epoll_pwait, args) }
    };
    loop {
        let ready = now();
        if ready != 0 || timeout == Some(Duration::ZERO) {
            return ready;
        }
        match wait_ready(fd, libc::POLLIN as u32, deadline) {
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
        unsafe { by_driver(op, deadline) };
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
