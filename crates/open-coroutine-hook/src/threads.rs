//! Futexes, `sched_yield(2)`, `pthread_join(3)`, `pthread_once(3)`, thread-local
//! keys, `dl_iterate_phdr(3)`.

use std::ffi::{c_int, c_long, c_void};
use std::time::Instant;

use libc::{dl_phdr_info, pthread_key_t, pthread_once_t, pthread_t, size_t, timespec};
use open_coroutine_core::io::{self, Awaits};
use open_coroutine_core::sched::{self, Hooks};
use open_coroutine_core::sync::futex;
use open_coroutine_core::{time, tls};

use crate::convert::{divert, offload, to_c, to_int};
use crate::{descriptors, identity, real};

/// `syscall(2)`. The variadic arguments are passed like any others on the
/// supported architectures. Of all calls only two are looked at: futexes, by
/// which std's locks, `thread::park` and channels, parking_lot and crossbeam
/// wait; and closing.
///
/// # Safety
///
/// The contract of the system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_futex {
        let call = Futex {
            word: a as *const u32,
            operation: b as c_int,
            value: c as u32,
            d,
            e,
            f,
        };
        // SAFETY: the caller's contract.
        if let Some(result) = unsafe { call.perform() } {
            return to_c(result as isize) as c_long;
        }
    }
    if number == libc::SYS_close {
        descriptors::ends(a as c_int);
    }
    // SAFETY: the caller's contract, passed on unchanged.
    unsafe { real::syscall.get()(number, a, b, c, d, e, f) }
}

/// The arguments of `futex(2)`.
struct Futex {
    word: *const u32,
    operation: c_int,
    value: u32,
    d: usize,
    e: usize,
    f: usize,
}

impl Futex {
    /// Performs the call if it concerns coroutines: `None` to pass it through.
    ///
    /// # Safety
    ///
    /// The contract of `futex(2)`.
    unsafe fn perform(&self) -> Option<c_int> {
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
                libc::FUTEX_WAIT_BITSET if divert(Hooks::LOCKS) => Some(self.wait(self.f as u32)),
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
        let mut timeout = time::duration(time).ok_or(libc::EINVAL)?;
        if self.operation & !libc::FUTEX_PRIVATE_FLAG & 0x7f != libc::FUTEX_WAIT {
            let clock = match self.operation & libc::FUTEX_CLOCK_REALTIME {
                0 => libc::CLOCK_MONOTONIC,
                _ => libc::CLOCK_REALTIME,
            };
            timeout = timeout.saturating_sub(time::now(clock));
        }
        Ok(Instant::now().checked_add(timeout))
    }
}

/// `sched_yield(2)`
///
/// # Safety
///
/// None beyond those of any C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_yield() -> c_int {
    if !divert(Hooks::LOCKS) {
        // SAFETY: takes nothing.
        return unsafe { real::sched_yield.get()() };
    }
    sched::try_yield();
    0
}

/// `pthread_join(3)`: a thread of the pool waits for the other thread. A
/// coroutine cannot be joined by its id; libc would wait for ever.
///
/// # Safety
///
/// The contract of `pthread_join(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's contract.
    if let Err(error) = unsafe { identity::check_thread(thread) } {
        return error;
    }
    if !divert(Hooks::LOCKS) {
        // SAFETY: the caller's contract, passed on unchanged.
        return unsafe { real::pthread_join.get()(thread, value) };
    }
    // SAFETY: the caller's contract.
    offload(Awaits::Others, move || unsafe {
        real::pthread_join.get()(thread, value)
    })
}

/// `pthread_once(3)`: others that come meanwhile block their thread, so the
/// routine must not be suspended: hooked functions pass through in it.
///
/// # Safety
///
/// The contract of `pthread_once(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_once(
    control: *mut pthread_once_t,
    routine: Option<unsafe extern "C" fn()>,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    sched::without_diversion(|| unsafe { real::pthread_once.get()(control, routine) })
}

/// `dl_iterate_phdr(3)`: libc holds a lock of its own around the callbacks.
///
/// # Safety
///
/// The contract of `dl_iterate_phdr(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dl_iterate_phdr(
    callback: Option<unsafe extern "C" fn(*mut dl_phdr_info, size_t, *mut c_void) -> c_int>,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    sched::without_diversion(|| unsafe { real::dl_iterate_phdr.get()(callback, data) })
}

/// `pthread_key_create(3)`: its destructors run at the end of tasks too.
///
/// # Safety
///
/// The contract of `pthread_key_create(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_create(
    key: *mut pthread_key_t,
    destructor: Option<real::Destructor>,
) -> c_int {
    // SAFETY: the caller's contract, passed on unchanged.
    let result = unsafe { real::pthread_key_create.get()(key, destructor) };
    if result == 0 {
        // SAFETY: libc has stored the new key, and will call the destructor
        // with its values, as the caller promised it may.
        unsafe { tls::key_created(*key, destructor) };
    }
    result
}

/// `pthread_key_delete(3)`
///
/// # Safety
///
/// The contract of `pthread_key_delete(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_delete(key: pthread_key_t) -> c_int {
    tls::key_deleted(key);
    // SAFETY: the caller's contract, passed on unchanged.
    to_int(unsafe { real::pthread_key_delete.get()(key) } as isize)
}

/// `pthread_once(3)`, as libraries that were linked with an old libc know it.
///
/// # Safety
///
/// The contract of `pthread_once(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_once(
    control: *mut pthread_once_t,
    routine: Option<unsafe extern "C" fn()>,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_once(control, routine) }
}

/// `pthread_key_create(3)`, as the C++ library knows it.
///
/// # Safety
///
/// The contract of `pthread_key_create(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __pthread_key_create(
    key: *mut pthread_key_t,
    destructor: Option<real::Destructor>,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { pthread_key_create(key, destructor) }
}
