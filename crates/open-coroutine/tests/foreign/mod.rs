//! Objects of the C library that tests share between threads and coroutines.

use std::cell::UnsafeCell;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Memory that C functions synchronise.
pub(crate) struct Object<T>(UnsafeCell<T>);

// SAFETY: tests use it through functions of pthread's, or with a lock held.
unsafe impl<T> Send for Object<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Object<T> {}

#[allow(dead_code, reason = "not every test file uses every function")]
impl<T> Object<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(value)))
    }

    /// All-zero memory, which `initialise` makes an object of.
    pub(crate) fn zeroed(initialise: impl FnOnce(*mut T)) -> Arc<Self> {
        // SAFETY: used for C structures only.
        let this = Self::new(unsafe { mem::zeroed() });
        initialise(this.get());
        this
    }

    pub(crate) fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Something that runs to its end: a thread or a coroutine.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) enum Flow {
    Thread(thread::JoinHandle<()>),
    Coroutine(open_coroutine::JoinHandle<()>),
}

#[allow(dead_code, reason = "not every test file uses every function")]
impl Flow {
    /// A coroutine, or else a thread.
    pub(crate) fn start(is_coroutine: bool, body: impl FnOnce() + Send + 'static) -> Self {
        if is_coroutine {
            Self::Coroutine(open_coroutine::spawn(body))
        } else {
            Self::Thread(thread::spawn(body))
        }
    }

    pub(crate) fn join(self) {
        match self {
            Self::Thread(thread) => thread.join().unwrap(),
            Self::Coroutine(task) => task.join().unwrap(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Coroutine(task) => task.is_finished(),
        }
    }
}

/// The time that `clock` shows after `timeout`.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn after(clock: libc::clockid_t, timeout: Duration) -> libc::timespec {
    // SAFETY: all-zero bytes are a valid time, which the call fills in.
    let now = unsafe {
        let mut now: libc::timespec = mem::zeroed();
        assert_eq!(0, libc::clock_gettime(clock, &raw mut now));
        now
    };
    let at = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + timeout;
    libc::timespec {
        tv_sec: at.as_secs() as i64,
        tv_nsec: at.subsec_nanos().into(),
    }
}
