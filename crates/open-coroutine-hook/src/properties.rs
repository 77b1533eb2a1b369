//! How an object of pthread was initialised.
//!
//! libc has no function that tells whether a mutex is shared between processes,
//! or by which clock a condition variable measures time. Where it keeps that is
//! its own affair; so two objects that differ in nothing else are initialised
//! once, and compared.

use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::real;

/// The size of the largest of these objects, and more.
const SIZE: usize = 128;

/// Memory for any of them.
#[repr(align(16))]
struct Object([u8; SIZE]);

/// Not compared yet.
const UNKNOWN: u32 = 0;
/// The objects do not differ: none has the property.
const ABSENT: u32 = 1;
/// Set in what is neither of the above.
const FOUND: u32 = 1 << 31;

/// A property that an object was initialised with or without.
pub(crate) struct Property {
    /// `UNKNOWN`, `ABSENT`, or `FOUND` with the place of the byte in bits 8 and
    /// up, and in the low ones which of its bits are set with the property.
    found: AtomicU32,
    initialise: unsafe fn(*mut c_void, bool),
}

impl Property {
    const fn new(initialise: unsafe fn(*mut c_void, bool)) -> Self {
        Self {
            found: AtomicU32::new(UNKNOWN),
            initialise,
        }
    }

    /// Whether `object` has the property.
    ///
    /// # Safety
    ///
    /// It is an initialised object of the kind that has this property.
    pub(crate) unsafe fn holds(&self, object: *const c_void) -> bool {
        let mut found = self.found.load(Relaxed);
        if found == UNKNOWN {
            found = self.find();
            self.found.store(found, Relaxed);
        }
        if found == ABSENT {
            return false;
        }
        let (place, bits) = (found & !FOUND, found as u8);
        // SAFETY: `find` saw this byte within an object of this kind. Others
        // change bits beside these, atomically.
        let byte = unsafe {
            let byte = object.cast::<u8>().add((place >> 8) as usize);
            AtomicU8::from_ptr(byte.cast_mut()).load(Relaxed)
        };
        byte & bits == bits
    }

    /// Compares two objects. Only bits that are set with the property count.
    #[cold]
    fn find(&self) -> u32 {
        let [without, with] = [false, true].map(|has| {
            let mut object = Object([0; SIZE]);
            // SAFETY: large enough, aligned and zero.
            unsafe { (self.initialise)((&raw mut object).cast(), has) };
            object.0
        });
        // The last place: a mutex with a priority has another lock word too.
        let differing = (0..SIZE).rev().find(|&at| with[at] & !without[at] != 0);
        differing.map_or(ABSENT, |at| {
            FOUND | (at as u32) << 8 | u32::from(with[at] & !without[at])
        })
    }
}

/// A mutex that processes share.
pub(crate) static SHARED_MUTEX: Property = Property::new(|object, has| {
    let shared = c_int::from(has);
    // SAFETY: see `mutex`.
    unsafe { mutex(object, |at| libc::pthread_mutexattr_setpshared(at, shared)) }
});
/// A mutex that the kernel unlocks when its thread ends.
pub(crate) static ROBUST_MUTEX: Property = Property::new(|object, has| {
    let robust = if has {
        libc::PTHREAD_MUTEX_ROBUST
    } else {
        libc::PTHREAD_MUTEX_STALLED
    };
    // SAFETY: see `mutex`.
    unsafe {
        mutex(object, |at| {
            real::pthread_mutexattr_setrobust.get()(at, robust)
        })
    }
});
/// A mutex whose holder inherits priorities.
pub(crate) static INHERITING_MUTEX: Property = Property::new(|object, has| {
    let protocol = if has {
        libc::PTHREAD_PRIO_INHERIT
    } else {
        libc::PTHREAD_PRIO_NONE
    };
    // SAFETY: see `mutex`.
    unsafe {
        mutex(object, |at| {
            real::pthread_mutexattr_setprotocol.get()(at, protocol)
        })
    }
});
/// A mutex whose holder has at least a certain priority.
pub(crate) static PROTECTING_MUTEX: Property = Property::new(|object, has| {
    let protocol = if has {
        libc::PTHREAD_PRIO_PROTECT
    } else {
        libc::PTHREAD_PRIO_NONE
    };
    // SAFETY: see `mutex`.
    unsafe {
        mutex(object, |at| {
            real::pthread_mutexattr_setprotocol.get()(at, protocol)
        })
    }
});
/// A mutex that its holder may lock again; and an adaptive one.
pub(crate) static RECURSIVE_MUTEX: Property = Property::new(|object, has| {
    let kind = if has {
        libc::PTHREAD_MUTEX_RECURSIVE
    } else {
        libc::PTHREAD_MUTEX_NORMAL
    };
    // SAFETY: see `mutex`.
    unsafe { mutex(object, |at| libc::pthread_mutexattr_settype(at, kind)) }
});
/// A mutex that tells its holder that he has it; and an adaptive one.
pub(crate) static CHECKING_MUTEX: Property = Property::new(|object, has| {
    let kind = if has {
        libc::PTHREAD_MUTEX_ERRORCHECK
    } else {
        libc::PTHREAD_MUTEX_NORMAL
    };
    // SAFETY: see `mutex`.
    unsafe { mutex(object, |at| libc::pthread_mutexattr_settype(at, kind)) }
});
/// A condition variable that processes share.
pub(crate) static SHARED_CONDITION: Property = Property::new(|object, has| {
    let shared = c_int::from(has);
    // SAFETY: see `condition`.
    unsafe { condition(object, |at| libc::pthread_condattr_setpshared(at, shared)) }
});
/// A condition variable whose clock is `CLOCK_MONOTONIC`.
pub(crate) static MONOTONIC_CONDITION: Property = Property::new(|object, has| {
    let clock = if has {
        libc::CLOCK_MONOTONIC
    } else {
        libc::CLOCK_REALTIME
    };
    // SAFETY: see `condition`.
    unsafe { condition(object, |at| libc::pthread_condattr_setclock(at, clock)) }
});
/// A read-write lock that processes share.
pub(crate) static SHARED_RWLOCK: Property = Property::new(|object, has| {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: `Property::find` passes memory for any object; the attributes are
    // initialised first.
    unsafe {
        libc::pthread_rwlockattr_init(attributes);
        libc::pthread_rwlockattr_setpshared(attributes, c_int::from(has));
        libc::pthread_rwlock_init(object.cast(), attributes);
        libc::pthread_rwlockattr_destroy(attributes);
    }
});
/// A semaphore that processes share.
pub(crate) static SHARED_SEMAPHORE: Property = Property::new(|object, has| {
    // SAFETY: `Property::find` passes memory for any object.
    unsafe { libc::sem_init(object.cast(), c_int::from(has), 0) };
});

/// Initialises a mutex with what `set` does to its attributes.
///
/// # Safety
///
/// `object` is memory for one.
unsafe fn mutex(object: *mut c_void, set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the caller's promise; the attributes are initialised first.
    unsafe {
        libc::pthread_mutexattr_init(attributes);
        set(attributes);
        libc::pthread_mutex_init(object.cast(), attributes);
        libc::pthread_mutexattr_destroy(attributes);
    }
}

/// Initialises a condition variable with what `set` does to its attributes.
///
/// # Safety
///
/// `object` is memory for one.
unsafe fn condition(object: *mut c_void, set: impl FnOnce(*mut libc::pthread_condattr_t) -> c_int) {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the caller's promise; the attributes are initialised first.
    unsafe {
        libc::pthread_condattr_init(attributes);
        set(attributes);
        libc::pthread_cond_init(object.cast(), attributes);
        libc::pthread_condattr_destroy(attributes);
    }
}

const _: () = {
    assert!(mem::size_of::<libc::pthread_mutex_t>() <= SIZE);
    assert!(mem::size_of::<libc::pthread_cond_t>() <= SIZE);
    assert!(mem::size_of::<libc::pthread_rwlock_t>() <= SIZE);
    assert!(mem::size_of::<libc::sem_t>() <= SIZE);
};
