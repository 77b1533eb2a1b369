//! Registrations that outlast a wait, so that the next one needs no system call.
//!
//! A [`Reader`] gets one that is edge-triggered (`EPOLLET`) and not disarmed: the kernel
//! tells of everything that comes, once. A wait *relies* on it, which is to say that
//! nothing is asked, if
//!
//! 1. it was armed for the same file: the reader's `incarnation` is the same;
//! 2. the reader is the one that was told last, and has seen since that nothing was
//!    left. So whatever there is came later, and is told of;
//! 3. nothing came since for which nobody waited (`missed`). Else the wait ends at once
//!    with that.
//!
//! In all other cases it is armed again, and the kernel looks at the file.
//!
//! 4. An end of stream and an error come once, and are there for good: with them the
//!    registration is one for a single wait, as for those who are no readers.
//! 5. The second event in a row that nobody waits for disarms it: its reader has gone
//!    elsewhere, and what comes there is not to wake this driver. So does the first one
//!    of a registration that is forgotten.
//! 6. Rules 1 and 2 depend on what the reader says. A file that was closed and replaced
//!    by raw system calls is no longer registered, and a short count need not mean that
//!    nothing is left. So a wait that has relied and is still there after [`LOOKS`] looks
//!    at the kernel, or [`PATIENCE`] of sleep, is armed after all. Each wait is, at
//!    most once.
//! 7. A closed file that lives on through a duplicate keeps its registration, which can
//!    no longer be reached to disarm it. After [`STRAYS`] events of such, the set is made
//!    anew.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use crate::driver::op::Reader;

/// See rule 6.
const LOOKS: u32 = 64;
/// See rule 6.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);
/// See rule 7.
pub(super) const STRAYS: u32 = 64;
/// See rule 5.
const UNHEEDED: u8 = 2;
/// See rule 4.
const ENDS: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// What is waited for with a registration that lasts.
const READS: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;

/// What is known of a registration that lasts.
pub(super) struct Lasting {
    incarnation: u32,
    /// The owner of the request that was told last.
    told: *const (),
    /// What came since, while nobody waited.
    missed: u32,
    /// How many times in a row something came while nobody waited.
    unheeded: u8,
    /// In which look at the kernel the wait began that relies on it.
    pub(super) relied: Option<u32>,
}

/// What is to happen with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays as it is.
    Stays,
    /// It is no longer one that lasts.
    Ends,
    /// That, and it must be disarmed.
    Unheeded,
}

/// What a wait may do.
pub(super) enum Wait {
    /// Rely on the registration.
    Relies,
    /// End at once with these events.
    Has(u32),
    /// Arm it.
    Arms,
}

impl Lasting {
    /// For the wait of `reader`; `None` if that is not one to last.
    pub(super) fn new(reader: Option<Reader>, events: u32) -> Option<Self> {
        let reader = reader.filter(|_| events & !READS == 0)?;
        Some(Self {
            incarnation: reader.incarnation,
            told: ptr::null(),
            missed: 0,
            unheeded: 0,
            relied: None,
        })
    }

    /// `reader`, which has `owner`, begins to wait in look number `look`.
    pub(super) fn wait(&mut self, reader: Reader, owner: *const (), look: u32) -> Wait {
        let is_same = self.incarnation == reader.incarnation && self.told == owner;
        if !(is_same && reader.has_emptied) {
            return Wait::Arms;
        }
        self.unheeded = 0;
        if self.missed != 0 {
            return Wait::Has(mem::take(&mut self.missed));
        }
        self.relied = Some(look);
        Wait::Relies
    }

    /// The wait that there was is over, by whatever.
    pub(super) fn end_wait(&mut self) {
        self.relied = None;
    }

    /// `events` have come; `owner` has the only request that waits for them.
    pub(super) fn tell(&mut self, events: u32, owner: Option<*const ()>) -> Outcome {
        if events & ENDS != 0 {
            return Outcome::Ends;
        }
        if let Some(owner) = owner {
            self.told = owner;
            self.unheeded = 0;
            return Outcome::Stays;
        }
        self.missed |= events;
        self.unheeded += 1;
        if self.unheeded < UNHEEDED {
            Outcome::Stays
        } else {
            Outcome::Unheeded
        }
    }

    /// Whether a wait relies on it that began in look number `look`.
    pub(super) fn relied_in(&self, look: u32) -> bool {
        self.relied == Some(look)
    }
}

/// Those who have relied on a registration, in the order in which they began to.
#[derive(Default)]
pub(super) struct Reliant {
    /// The descriptor, and in which look at the kernel that was.
    queue: VecDeque<(RawFd, u32)>,
    /// How many times the kernel was looked at.
    look: u32,
}

impl Reliant {
    pub(super) fn look(&self) -> u32 {
        self.look
    }

    pub(super) fn push(&mut self, fd: RawFd) {
        self.queue.push_back((fd, self.look));
    }

    /// The kernel is looked at.
    pub(super) fn count_look(&mut self) {
        self.look = self.look.wrapping_add(1);
    }

    /// The next one to whom rule 6 applies, whoever is the next if `all`. His wait may
    /// be over.
    pub(super) fn next(&mut self, all: bool) -> Option<(RawFd, u32)> {
        let look = self.look;
        self.queue
            .pop_front_if(|(_, since)| all || look.wrapping_sub(*since) >= LOOKS)
    }

    /// Whether there is one of whom `waits` says that his wait is not over.
    pub(super) fn has(&mut self, waits: impl Fn(RawFd, u32) -> bool) -> bool {
        while self
            .queue
            .pop_front_if(|(fd, since)| !waits(*fd, *since))
            .is_some()
        {}
        !self.queue.is_empty()
    }
}
