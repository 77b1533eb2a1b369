//! The epoll driver: the kernel tells when a descriptor is ready.
//!
//! It performs only [`Op::Poll`]; the result is the `revents`. Each descriptor
//! has one registration, shared by all that wait for it, which is armed for
//! one event (`EPOLLONESHOT`) and armed again for every wait. So nothing is
//! believed about a descriptor that may have been closed and reused since:
//! `EPOLL_CTL_MOD` fails for a file that is not registered, and then it is
//! added. Only whoever reads from the same descriptor again and again has one that
//! stays armed: see `lasting`.
//!
//! An event carries the generation of the [`Watch`] it was armed for. Events of
//! watches that are gone are dropped: those of cancelled waits, and those of a
//! closed descriptor whose file lives on through a duplicate. What remains
//! possible is an event that was true when it was reported and is no longer so
//! when its receiver acts on it: readiness is a hint, as it is from `poll(2)`.
//!
//! The waker's eventfd is registered edge-triggered: every write to it is an
//! event, and nobody has to read it.

use std::collections::HashMap;
use std::ffi::c_int;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use self::lasting::{Lasting, Outcome, Reliant, Wait};
use super::op::{INTERESTS, Op, Reader};
use super::refusals::Refusals;
use super::request::{Request, State};
use super::waiters::{self, FdWaiters};
use super::waker::Waker;
use crate::sys;

mod lasting;

/// Events taken from the kernel at once. If there are more, those who wait for the
/// first ones run before the others are taken.
const EVENTS: usize = 256;
/// What ends every wait, asked for or not.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The token of the waker's eventfd. Tokens of watches hold a descriptor,
/// which is not negative, in their lower half.
const WAKE_UP: u64 = u64::MAX;
/// The token of a registration that lasts has this besides a descriptor in its lower
/// half.
const LASTS: u32 = 1 << 31;
/// So many descriptors are remembered at least.
const FEW_WATCHES: usize = 64;

/// See the [module](self).
pub struct Epoll {
    fd: RawFd,
    watches: HashMap<RawFd, Watch, BuildHasherDefault<FdHasher>>,
    /// When there are so many, those that nobody waits for are forgotten.
    too_many_watches: usize,
    /// Generation of the newest watch.
    generation: u32,
    reliant: Reliant,
    /// How many events came of lasting registrations that belong to no watch.
    strays: u32,
    /// Result known, not handed out yet.
    finished: Vec<NonNull<Request>>,
    in_flight: usize,
    /// `epoll_pwait2` is missing (before Linux 5.11, or filtered).
    waits_in_milliseconds: bool,
    refusals: Refusals,
    waker: Arc<Waker>,
    waiters: Arc<FdWaiters>,
}

/// Those who wait for one descriptor; there is at least one, or a registration that
/// lasts.
struct Watch {
    first: Option<NonNull<Request>>,
    generation: u32,
    /// What its waiters wait for; maybe more, since some have gone.
    events: u32,
    /// What is known of its registration, if that lasts.
    lasting: Option<Lasting>,
}

impl Epoll {
    /// # Errors
    ///
    /// Those of `epoll_create1(2)` and `eventfd(2)`.
    pub(super) fn new() -> io::Result<Self> {
        // First, so that nothing fails while there is a descriptor to close.
        let (waker, waiters) = super::outside()?;
        let driver = Self {
            // Nothing fails from here on without dropping it, which closes this.
            fd: new_set()?,
            watches: HashMap::default(),
            too_many_watches: FEW_WATCHES,
            generation: 0,
            reliant: Reliant::default(),
            strays: 0,
            finished: Vec::new(),
            in_flight: 0,
            waits_in_milliseconds: false,
            refusals: Refusals::default(),
            waker,
            waiters,
        };
        driver.add_waker(driver.fd)?;
        Ok(driver)
    }

    fn add_waker(&self, set: RawFd) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let added = control(set, libc::EPOLL_CTL_ADD, self.waker.fd(), events, WAKE_UP);
        sys::check(added).map(drop)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn supports(op: &Op) -> bool {
        matches!(op, Op::Poll { .. })
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    pub(super) fn waiters(&self) -> &Arc<FdWaiters> {
        &self.waiters
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// # Safety
    ///
    /// That of [`Driver::submit`](super::Driver::submit).
    pub(super) unsafe fn submit(&mut self, request: NonNull<Request>) {
        // SAFETY: the request stays valid until it is handed out.
        let shared = unsafe { request.as_ref() };
        shared.begin(waiters::epoch());
        self.in_flight += 1;
        if let Some(fd) = shared.op.waits_on() {
            self.waiters.add(fd);
        }
        match shared.op {
            Op::Poll { fd, .. } if fd < 0 => self.finish(request, -libc::EBADF),
            Op::Poll { fd, reader, .. } => match self.link(fd, reader, request) {
                Wait::Arms => self.arm_again(fd),
                Wait::Relies => {}
                Wait::Has(events) => self.finish(request, events as i32),
            },
            _ => self.finish(request, -libc::EOPNOTSUPP),
        }
    }

    /// # Safety
    ///
    /// That of [`Driver::cancel`](super::Driver::cancel).
    pub(super) unsafe fn cancel(&mut self, request: NonNull<Request>, error: c_int) {
        // SAFETY: the caller says that the request is submitted, so it is
        // valid.
        if unsafe { request.as_ref() }.state.get() == State::Armed {
            // The registration stays as it is: if it fires, nobody is there.
            self.unlink(request);
            self.finish(request, -error);
        }
    }

    pub(super) fn cancel_all(&mut self, error: c_int) {
        let fds: Vec<RawFd> = self.watches.keys().copied().collect();
        for fd in fds {
            self.finish_where(fd, |_| Some(-error));
        }
    }

    pub(super) fn close_notice(&mut self, fd: RawFd, epoch: u64) {
        self.end_lasting(fd);
        let newer = self.finish_where(fd, |request| {
            let is_ended = request.is_ended_by_close(fd, epoch);
            is_ended.then_some(-libc::EBADF)
        });
        if newer {
            // They wait for another file than the one that the watch began
            // with, whose events must not reach them.
            let generation = self.next_generation();
            self.watches
                .get_mut(&fd)
                .expect("it has a waiter")
                .generation = generation;
            self.arm(fd);
        }
    }

    pub(super) fn poll(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        if self.in_flight > self.finished.len() {
            self.confirm(false);
            self.take_events(Some(Duration::ZERO));
        }
        self.hand_out(done);
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        done: &mut impl FnMut(NonNull<Request>),
    ) {
        self.confirm(false);
        if !self.finished.is_empty() || timeout == Some(Duration::ZERO) {
            return self.poll(done);
        }
        if !self.waker.prepare() {
            return self.poll(done);
        }
        if self.relies() && timeout.is_none_or(|timeout| timeout > lasting::PATIENCE) {
            if self.take_events(Some(lasting::PATIENCE)) == 0 {
                self.confirm(true);
            }
        } else {
            self.take_events(timeout);
        }
        self.waker.finish();
        self.hand_out(done);
    }

    /// Whether a wait relies on a registration that lasts.
    fn relies(&mut self) -> bool {
        let watches = &self.watches;
        self.reliant.has(|fd, look| {
            let lasting = watches.get(&fd).and_then(|watch| watch.lasting.as_ref());
            lasting.is_some_and(|lasting| lasting.relied_in(look))
        })
    }

    /// Arms the registrations of those who have relied on them for long, or of `all`
    /// who do.
    fn confirm(&mut self, all: bool) {
        while let Some((fd, look)) = self.reliant.next(all) {
            if let Some(lasting) = self.lasting(fd)
                && lasting.relied_in(look)
            {
                lasting.end_wait();
                self.arm_again(fd);
            }
        }
    }

    fn lasting(&mut self, fd: RawFd) -> Option<&mut Lasting> {
        self.watches.get_mut(&fd)?.lasting.as_mut()
    }

    /// The registration of `fd` is no longer one that lasts.
    fn end_lasting(&mut self, fd: RawFd) {
        if let Some(watch) = self.watches.get_mut(&fd) {
            watch.lasting = None;
            if watch.first.is_none() {
                self.watches.remove(&fd);
            }
        }
    }

    fn hand_out(&mut self, done: &mut impl FnMut(NonNull<Request>)) {
        for request in self.finished.drain(..) {
            // SAFETY: the request is valid until it is handed out, below
            // (invariant 1).
            let shared = unsafe { request.as_ref() };
            self.in_flight -= 1;
            if let Some(fd) = shared.op.waits_on() {
                self.waiters.remove(fd);
            }
            shared.release();
            done(request);
        }
    }

    /// Notes the result of a request that is in no watch.
    fn finish(&mut self, request: NonNull<Request>, result: i32) {
        // SAFETY: the request is in flight, so it is valid (invariant 1).
        unsafe { request.as_ref() }.finish(result);
        self.finished.push(request);
    }

    /// Finishes those waiters for `fd` to whom `result` gives one. Returns
    /// whether others remain.
    fn finish_where(&mut self, fd: RawFd, result: impl Fn(&Request) -> Option<i32>) -> bool {
        let mut next = self.watches.get(&fd).and_then(|watch| watch.first);
        let mut remaining = false;
        while let Some(request) = next {
            // SAFETY: what is in a watch is in flight, so it is valid
            // (invariant 1).
            let shared = unsafe { request.as_ref() };
            next = shared.next.get();
            match result(shared) {
                Some(result) => {
                    self.unlink(request);
                    self.finish(request, result);
                }
                None => remaining = true,
            }
        }
        remaining
    }

    /// Adds a request, that of `reader`, to the watch of `fd`, unless its wait ends at
    /// once. Says what is to be done.
    fn link(&mut self, fd: RawFd, reader: Option<Reader>, request: NonNull<Request>) -> Wait {
        // SAFETY: the request is in flight, so it is valid (invariant 1).
        let shared = unsafe { request.as_ref() };
        shared.state.set(State::Armed);
        shared.previous.set(None);
        shared.next.set(None);
        let events = interests(shared);
        if let Some(watch) = self.watches.get_mut(&fd) {
            if let Some(first) = watch.first.replace(request) {
                shared.next.set(Some(first));
                // SAFETY: as above, for a request of the watch.
                unsafe { first.as_ref() }.previous.set(Some(request));
                watch.events |= events;
                watch.lasting = None;
                return Wait::Arms;
            }
            // There is nobody else, and a registration that lasts.
            if events == watch.events
                && let (Some(reader), Some(lasting)) = (reader, &mut watch.lasting)
            {
                match lasting.wait(reader, shared.owner, self.reliant.look()) {
                    Wait::Arms => {}
                    Wait::Relies => {
                        self.reliant.push(fd);
                        return Wait::Relies;
                    }
                    has @ Wait::Has(_) => {
                        watch.first = None;
                        return has;
                    }
                }
            }
        }
        // Also in the place of one for what may have been another file.
        let watch = Watch {
            first: Some(request),
            generation: self.next_generation(),
            events,
            lasting: Lasting::new(reader, events),
        };
        self.add_watch(fd, watch);
        Wait::Arms
    }

    fn add_watch(&mut self, fd: RawFd, watch: Watch) {
        if self.watches.len() >= self.too_many_watches {
            // Their descriptors may be closed for long.
            self.watches.retain(|_, watch| watch.first.is_some());
            self.too_many_watches = FEW_WATCHES.max(2 * self.watches.len());
        }
        self.watches.insert(fd, watch);
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Takes a request out of its watch, and the watch away if that has nothing left.
    fn unlink(&mut self, request: NonNull<Request>) {
        // SAFETY: the request and its neighbours are in flight, so they are
        // valid (invariant 1).
        let shared = unsafe { request.as_ref() };
        let (previous, next) = (shared.previous.take(), shared.next.take());
        if let Some(next) = next {
            // SAFETY: as above.
            unsafe { next.as_ref() }.previous.set(previous);
        }
        if let Some(previous) = previous {
            // SAFETY: as above.
            unsafe { previous.as_ref() }.next.set(next);
            return;
        }
        let fd = shared.op.fd().expect("only polls are linked");
        let watch = self.watches.get_mut(&fd).expect("it has a waiter");
        watch.first = next;
        match &mut watch.lasting {
            Some(lasting) => lasting.end_wait(),
            None if next.is_none() => drop(self.watches.remove(&fd)),
            None => {}
        }
    }

    /// Arms the registration of `fd` for those that wait for it, after some have
    /// gone.
    fn arm(&mut self, fd: RawFd) {
        let mut events = 0;
        let mut next = self.watches[&fd].first;
        while let Some(request) = next {
            // SAFETY: what is in a watch is in flight, so it is valid
            // (invariant 1).
            let shared = unsafe { request.as_ref() };
            events |= interests(shared);
            next = shared.next.get();
        }
        self.watches.get_mut(&fd).expect("it has a waiter").events = events;
        self.arm_again(fd);
    }

    /// Arms the registration of `fd` for all that its watch knows of, without a look
    /// at each of them. If the kernel refuses, that is their result.
    fn arm_again(&mut self, fd: RawFd) {
        let watch = &self.watches[&fd];
        let (token, mode) = match watch.lasting {
            Some(_) => (
                token(fd, watch.generation) | u64::from(LASTS),
                libc::EPOLLET,
            ),
            None => (token(fd, watch.generation), libc::EPOLLONESHOT),
        };
        let events = watch.events | mode as u32;
        let error = match self.register(fd, events, token) as i32 {
            // Nobody who reads or accepts knows what has no space.
            error if error == -libc::ENOSPC => -libc::ENOMEM,
            error => error,
        };
        if error < 0 {
            self.finish_where(fd, |_| Some(error));
        }
    }

    /// The registration of `fd` is to tell of nothing more. False if `fd` is no longer
    /// the file that is registered.
    fn disarm(&self, fd: RawFd, generation: u32) -> bool {
        let (events, token) = (libc::EPOLLONESHOT as u32, token(fd, generation));
        control(self.fd, libc::EPOLL_CTL_MOD, fd, events, token) == 0
    }

    /// Changes the registration of `fd`, or adds it. The file behind `fd` may
    /// change in between (another thread closes it), hence the second round.
    fn register(&self, fd: RawFd, events: u32, token: u64) -> isize {
        let mut result = 0;
        for _ in 0..2 {
            result = control(self.fd, libc::EPOLL_CTL_MOD, fd, events, token);
            if result != -libc::ENOENT as isize {
                break;
            }
            result = control(self.fd, libc::EPOLL_CTL_ADD, fd, events, token);
            if result != -libc::EEXIST as isize {
                break;
            }
        }
        result
    }

    /// Waits for events and finishes the requests they are for. Returns how many there
    /// were.
    fn take_events(&mut self, timeout: Option<Duration>) -> usize {
        let mut events = [const { libc::epoll_event { events: 0, u64: 0 } }; EVENTS];
        self.reliant.count_look();
        let count = self.wait_for_events(&mut events, timeout);
        for &libc::epoll_event { events, u64: token } in &events[..count] {
            self.dispatch(token, events);
        }
        if self.strays >= lasting::STRAYS {
            self.strays = 0;
            self.make_anew();
        }
        count
    }

    fn dispatch(&mut self, token: u64, events: u32) {
        if token == WAKE_UP {
            return;
        }
        let (fd, generation) = ((token as u32 & !LASTS) as RawFd, (token >> 32) as u32);
        let watch = self.watches.get_mut(&fd);
        let is_watched = watch.is_some();
        let Some(watch) = watch.filter(|watch| watch.generation == generation) else {
            if token as u32 & LASTS != 0 && (is_watched || !self.disarm(fd, generation)) {
                self.strays += 1;
            }
            return;
        };
        if let Some(lasting) = &mut watch.lasting {
            // SAFETY: what is in a watch is in flight, so it is valid (invariant 1).
            let owner = watch.first.map(|first| unsafe { first.as_ref() }.owner);
            match lasting.tell(events, owner) {
                Outcome::Stays => {}
                Outcome::Ends => self.end_lasting(fd),
                Outcome::Unheeded => {
                    self.end_lasting(fd);
                    self.disarm(fd, generation);
                }
            }
        }
        let others = self.finish_where(fd, |request| {
            let revents = events & (interests(request) | ALWAYS);
            (revents != 0).then_some(revents as i32)
        });
        if others {
            self.arm(fd);
        }
    }

    /// Replaces the set by one with the registrations of the watches alone. If there is no
    /// descriptor left for it, all stays as it is.
    fn make_anew(&mut self) {
        let Ok(set) = new_set() else { return };
        if self.add_waker(set).is_ok() {
            let flags = libc::O_CLOEXEC as usize;
            let args = [set as usize, self.fd as usize, flags, 0, 0, 0];
            // Others know it by its number.
            // SAFETY: both descriptors are `self`'s own.
            sys::insist(|| unsafe { sys::syscall(libc::SYS_dup3, args) });
        }
        // SAFETY: the descriptor is `self`'s own.
        unsafe { sys::close(set) };
        let fds: Vec<RawFd> = self.watches.keys().copied().collect();
        for fd in fds {
            self.end_lasting(fd);
            if self.watches.contains_key(&fd) {
                self.arm_again(fd);
            }
        }
    }

    /// How many events there are; 0 after the timeout or a signal.
    fn wait_for_events(
        &mut self,
        events: &mut [libc::epoll_event; EVENTS],
        timeout: Option<Duration>,
    ) -> usize {
        let (fd, events) = (self.fd as usize, events.as_mut_ptr() as usize);
        if !self.waits_in_milliseconds {
            let timespec = timeout.map(sys::to_timespec);
            let timespec = timespec.as_ref().map_or(0, |t| &raw const *t as usize);
            let args = [fd, events, EVENTS, timespec, 0, 0];
            // SAFETY: `EVENTS` events and the time are alive for the call.
            let result = unsafe { sys::syscall(libc::SYS_epoll_pwait2, args) };
            match -result as i32 {
                libc::ENOSYS | libc::EPERM => self.waits_in_milliseconds = true,
                _ => return self.count(result),
            }
        }
        let args = [fd, events, EVENTS, milliseconds(timeout) as usize, 0, 0];
        // SAFETY: `EVENTS` events are alive for the whole call.
        let result = unsafe { sys::syscall(libc::SYS_epoll_pwait, args) };
        self.count(result)
    }

    /// The number of events in a result of `epoll_wait`.
    fn count(&mut self, result: isize) -> usize {
        match -result as i32 {
            ..=0 => {
                self.refusals.end();
                result as usize
            }
            libc::EINTR => 0,
            error => {
                let hint = "the descriptor of the driver is in foreign hands";
                self.refusals.count("epoll_wait", error, hint);
                0
            }
        }
    }
}

/// A new set of registrations.
fn new_set() -> io::Result<RawFd> {
    let flags = libc::EPOLL_CLOEXEC as usize;
    // SAFETY: takes an integer.
    let fd = unsafe { sys::syscall(libc::SYS_epoll_create1, [flags, 0, 0, 0, 0, 0]) };
    sys::check(fd).map(|fd| fd as RawFd)
}

/// Changes what `set` has of `fd`.
fn control(set: RawFd, command: c_int, fd: RawFd, events: u32, token: u64) -> isize {
    let mut event = libc::epoll_event { events, u64: token };
    let event = &raw mut event as usize;
    let args = [set as usize, command as usize, fd as usize, event, 0, 0];
    // SAFETY: the event is alive for the whole call.
    unsafe { sys::syscall(libc::SYS_epoll_ctl, args) }
}

/// The token of a watch of `fd`.
fn token(fd: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | fd as u64
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // SAFETY: the descriptor is `self`'s own.
        unsafe { sys::close(self.fd) };
    }
}

/// What a request waits for, in the kernel's terms (`poll` and `epoll` use the
/// same bits).
fn interests(request: &Request) -> u32 {
    match request.op {
        Op::Poll { events, .. } => events & INTERESTS,
        _ => 0,
    }
}

/// `timeout` for the older call; rounded up, because a deadline must have
/// passed when a wait ends by it.
fn milliseconds(timeout: Option<Duration>) -> c_int {
    match timeout {
        None => -1,
        Some(timeout) => {
            c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        }
    }
}

/// Spreads descriptors, which are small and dense, over a hash table.
#[derive(Default)]
struct FdHasher(u64);

impl Hasher for FdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(SPREAD);
        }
    }

    fn write_i32(&mut self, fd: i32) {
        self.0 = u64::from(fd as u32).wrapping_mul(SPREAD);
    }
}

/// 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests;
