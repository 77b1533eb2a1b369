//! `futex(2)` and its successors, by which std's locks, `thread::park` and
//! channels, parking_lot and crossbeam wait.

use std::ffi::{c_int, c_long, c_uint};
use std::time::Instant;

use libc::{clockid_t, timespec};
use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched::Hooks;
use open_coroutine_core::sync::futex;
use open_coroutine_core::{sys, time};

use crate::convert::divert;

/// The arguments of `futex(2)`.
pub(crate) struct Futex {
    pub(crate) word: *const u32,
    pub(crate) operation: c_int,
    pub(crate) value: u32,
    pub(crate) d: usize,
    pub(crate) e: usize,
    pub(crate) f: usize,
}

impl Futex {
    /// Performs the call if it concerns coroutines: `None` to pass it through.
    ///
    /// # Safety
    ///
    /// The contract of `futex(2)`.
    #[inline]
    pub(crate) unsafe fn perform(&self) -> Option<c_int> {
        let command = self.operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
        if self.operation & libc::FUTEX_PRIVATE_FLAG == 0 {
            // SAFETY: the caller's contract.
            return unsafe { self.perform_shared(command) };
        }
        let to = self.e as *const u32;
        // SAFETY: the caller's contract, in each call.
        unsafe {
            match command {
                libc::FUTEX_WAIT if divert(Hooks::LOCKS) => Some(self.wait(futex::MATCH_ANY)),
                // What no wake could match is the kernel's to refuse.
                libc::FUTEX_WAIT_BITSET if self.f as u32 != 0 && divert(Hooks::LOCKS) => {
                    Some(self.wait(self.f as u32))
                }
                libc::FUTEX_WAKE => Some(futex::wake(self.word, self.value, futex::MATCH_ANY)),
                libc::FUTEX_WAKE_BITSET => Some(futex::wake(self.word, self.value, self.f as u32)),
                libc::FUTEX_REQUEUE => Some(futex::requeue(
                    self.word,
                    to,
                    self.value,
                    self.d as u32,
                    None,
                )),
                libc::FUTEX_CMP_REQUEUE => {
                    let expected = Some(self.f as u32);
                    Some(futex::requeue(
                        self.word,
                        to,
                        self.value,
                        self.d as u32,
                        expected,
                    ))
                }
                libc::FUTEX_WAKE_OP => {
                    let (second, operation) = (self.d as u32, self.f as u32);
                    Some(futex::wake_op(self.word, to, self.value, second, operation))
                }
                _ => None,
            }
        }
    }

    /// A word in memory that other processes share: they wake through the
    /// kernel, so a thread of the pool waits there.
    ///
    /// # Safety
    ///
    /// The contract of `futex(2)`.
    unsafe fn perform_shared(&self, command: c_int) -> Option<c_int> {
        if !matches!(command, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET) || !divert(Hooks::LOCKS) {
            return None;
        }
        let args = [
            self.word as usize,
            self.operation as usize,
            self.value as usize,
            self.d,
            self.e,
            self.f,
        ];
        // SAFETY: the caller's contract.
        Some(unsafe { io::call(Awaits::Others, libc::SYS_futex, args) } as c_int)
    }

    /// # Safety
    ///
    /// The contract of `futex(2)`. Called on a coroutine.
    unsafe fn wait(&self, bitset: u32) -> c_int {
        // SAFETY: the caller passes a readable time, or null.
        let deadline = match unsafe { (self.d as *const timespec).as_ref() } {
            None => None,
            Some(time) => match self.deadline(time) {
                Ok(deadline) => deadline,
                Err(error) => return -error,
            },
        };
        // SAFETY: the caller's contract.
        unsafe { futex::wait(self.word, self.value, bitset, deadline) }
    }

    /// The time-out of a wait: relative for `FUTEX_WAIT`, else absolute by one
    /// of two clocks.
    fn deadline(&self, time: &timespec) -> Result<Option<Instant>, c_int> {
        if self.operation & !libc::FUTEX_PRIVATE_FLAG & 0x7f == libc::FUTEX_WAIT {
            let timeout = sys::to_duration(time).ok_or(libc::EINVAL)?;
            return Ok(Instant::now().checked_add(timeout));
        }
        let clock = match self.operation & libc::FUTEX_CLOCK_REALTIME {
            0 => libc::CLOCK_MONOTONIC,
            _ => libc::CLOCK_REALTIME,
        };
        deadline(time, clock)
    }
}

/// `futex_wait(2)` and its kin, which Linux has since 6.7: the number of the
/// flag that says that a word is not shared with other processes, and the size
/// of a word, of which there is one.
const FUTEX2_PRIVATE: c_uint = 128;
const FUTEX2_SIZE_U32: c_uint = 2;
/// A private word of 32 bits, the only kind that coroutines wait on here.
const PRIVATE_WORD: c_uint = FUTEX2_PRIVATE | FUTEX2_SIZE_U32;

pub(crate) const SYS_FUTEX_WAKE: c_long = 454;
pub(crate) const SYS_FUTEX_WAIT: c_long = 455;
pub(crate) const SYS_FUTEX_REQUEUE: c_long = 456;

/// `futex_wait(2)`: `None` to pass it through.
///
/// # Safety
///
/// The contract of the system call.
pub(crate) unsafe fn wait(args: [usize; 6]) -> Option<c_int> {
    let [word, value, mask, flags, time, clock] = args;
    if !divert(Hooks::LOCKS) {
        return None;
    }
    if flags as c_uint != PRIVATE_WORD || mask as u32 == 0 {
        // SAFETY: the caller's contract.
        return Some(unsafe { io::call(Awaits::Others, SYS_FUTEX_WAIT, args) } as c_int);
    }
    // SAFETY: the caller passes a readable time, or null.
    let deadline = match unsafe { (time as *const timespec).as_ref() } {
        None => None,
        Some(until) => match deadline(until, clock as clockid_t) {
            Ok(deadline) => deadline,
            Err(error) => return Some(-error),
        },
    };
    // SAFETY: the caller's contract.
    Some(unsafe { futex::wait(word as *const u32, value as u32, mask as u32, deadline) })
}

/// `futex_waitv(2)`, on a thread of its own: `None` to pass it through.
///
/// # Safety
///
/// The contract of the system call.
pub(crate) unsafe fn wait_for_any(args: [usize; 6]) -> Option<c_int> {
    // SAFETY: the caller's contract.
    divert(Hooks::LOCKS)
        .then(|| unsafe { io::call(Awaits::Others, libc::SYS_futex_waitv, args) } as c_int)
}

/// `futex_wake(2)`: `None` to pass it through.
pub(crate) fn wake(args: [usize; 6]) -> Option<c_int> {
    let [word, mask, count, flags, ..] = args;
    let count = u32::try_from(count as c_int).ok()?;
    (flags as c_uint == PRIVATE_WORD && mask as u32 != 0)
        .then(|| futex::wake(word as *const u32, count, mask as u32))
}

/// One of the two words of `futex_requeue(2)`, as `futex_waitv(2)` has them.
#[repr(C)]
struct Word {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// `futex_requeue(2)`: `None` to pass it through.
///
/// # Safety
///
/// The contract of the system call.
pub(crate) unsafe fn requeue(args: [usize; 6]) -> Option<c_int> {
    let [words, flags, wake, moved, ..] = args;
    // SAFETY: the caller passes two words, or null.
    let [from, to] = unsafe { (words as *const [Word; 2]).as_ref()? };
    if flags != 0 || from.flags != PRIVATE_WORD || to.flags != PRIVATE_WORD {
        return None;
    }
    let (from, to, value) = (
        from.address as *const u32,
        to.address as *const u32,
        from.value,
    );
    // SAFETY: the caller's contract.
    Some(unsafe { futex::requeue(from, to, wake as u32, moved as u32, Some(value as u32)) })
}

/// When an absolute `time` of `clock` comes.
fn deadline(until: &timespec, clock: clockid_t) -> Result<Option<Instant>, c_int> {
    let until = sys::to_duration(until).ok_or(libc::EINVAL)?;
    Ok(Instant::now().checked_add(until.saturating_sub(time::now(clock))))
}
