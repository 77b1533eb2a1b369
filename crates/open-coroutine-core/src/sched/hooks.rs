//! Families of hooked functions, each of which can be left out.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of families of functions that suspend the calling coroutine instead of
/// blocking its thread. What is not in the set behaves as on a thread, and so
/// blocks the worker.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::sched::Hooks;
///
/// let hooks = Hooks::ALL.without(Hooks::FILES | Hooks::NAMES);
/// assert!(hooks.contains(Hooks::SOCKETS));
/// assert!(!hooks.contains(Hooks::FILES));
/// assert_eq!(Hooks::NONE, Hooks::from(false));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hooks(u16);

/// The families by name, in the order of their bits.
const FAMILIES: &[(&str, Hooks)] = &[
    ("sockets", Hooks::SOCKETS),
    ("streams", Hooks::STREAMS),
    ("files", Hooks::FILES),
    ("waiting", Hooks::WAITING),
    ("sleeps", Hooks::SLEEPS),
    ("locks", Hooks::LOCKS),
    ("processes", Hooks::PROCESSES),
    ("names", Hooks::NAMES),
    ("signals", Hooks::SIGNALS),
];

impl Hooks {
    /// No family.
    pub const NONE: Self = Self(0);
    /// `recv`, `send`, `accept`, `connect` and their kin.
    pub const SOCKETS: Self = Self(1 << 0);
    /// `read` and `write` on any descriptor, with and without offsets, `splice`,
    /// `sendfile`.
    pub const STREAMS: Self = Self(1 << 1);
    /// `open`, `stat`, `fsync`, `flock`, directories.
    pub const FILES: Self = Self(1 << 2);
    /// `poll`, `select`, `epoll_wait`.
    pub const WAITING: Self = Self(1 << 3);
    /// `sleep`, `nanosleep`, `sched_yield`.
    pub const SLEEPS: Self = Self(1 << 4);
    /// Futexes, which are std's locks, channels and `thread::park`; pthread's
    /// mutexes, condition variables, read-write locks and barriers; semaphores;
    /// joining threads.
    pub const LOCKS: Self = Self(1 << 5);
    /// `waitpid`, `system`, `popen`.
    pub const PROCESSES: Self = Self(1 << 6);
    /// `getaddrinfo`, `gethostbyname`, `res_query`, `getpwnam`.
    pub const NAMES: Self = Self(1 << 7);
    /// `sigwait`, `pause` and their kin, and a signal mask per coroutine.
    pub const SIGNALS: Self = Self(1 << 8);
    /// Every family.
    pub const ALL: Self = Self((1 << FAMILIES.len()) - 1);

    /// Whether all families of `other` are in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set has no family.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families of this set and of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The families of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Hooks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitOrAssign for Hooks {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.with(other);
    }
}

impl From<bool> for Hooks {
    /// All, or none.
    fn from(all: bool) -> Self {
        if all { Self::ALL } else { Self::NONE }
    }
}

impl fmt::Display for Hooks {
    /// The names of the families, `all` or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self::NONE => f.write_str("none"),
            _ => {
                let names = FAMILIES.iter().filter(|(_, family)| self.contains(*family));
                for (index, (name, _)) in names.enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_name_and_a_bit_of_its_own() {
        let mut all = Hooks::NONE;
        for (name, family) in FAMILIES {
            assert!(!all.contains(*family));
            assert_eq!(*name, family.to_string());
            all |= *family;
        }
        assert_eq!(Hooks::ALL, all);
    }

    #[test]
    fn a_set_without_families_names_the_others() {
        let hooks = Hooks::SOCKETS | Hooks::STREAMS | Hooks::LOCKS;
        assert_eq!("sockets, locks", hooks.without(Hooks::STREAMS).to_string());
        assert_eq!("all", Hooks::ALL.to_string());
        assert_eq!("none", hooks.without(hooks).to_string());
    }
}
