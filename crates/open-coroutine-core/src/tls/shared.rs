//! Platforms on which coroutines share the TLS of their thread.
//!
//! [`Isolation`] has no values here, so none of its users is ever reached.

use std::convert::Infallible;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;

use super::{Refusal, is_forced};

/// Always refused.
///
/// # Errors
///
/// [`Refusal::Forced`] or [`Refusal::Platform`].
pub fn isolation() -> Result<&'static Isolation, Refusal> {
    Err(if is_forced() {
        Refusal::Forced
    } else {
        Refusal::Platform
    })
}

/// None: it is always refused.
pub fn decided() -> Option<&'static Isolation> {
    None
}

/// Nothing is held.
///
/// # Safety
///
/// None: nothing is looked at.
pub unsafe fn abandon() {}

/// Proof that coroutines own their TLS: there is none on this platform.
#[derive(Debug)]
pub struct Isolation(Infallible);

impl Isolation {
    /// Whether the global allocator keeps state in TLS that is not shared.
    pub fn has_foreign_allocator(&self) -> bool {
        match self.0 {}
    }

    /// The version of the C library.
    pub fn version(&self) -> &str {
        match self.0 {}
    }

    /// Runs `open`.
    ///
    /// # Safety
    ///
    /// None: there is no `Isolation`.
    pub unsafe fn around_dlopen<R>(&self, _open: impl FnOnce() -> R) -> R {
        match self.0 {}
    }
}

/// The TLS of one coroutine.
#[derive(Debug)]
pub struct Block(Infallible);

impl Block {
    /// A block for a new coroutine.
    ///
    /// # Errors
    ///
    /// None: there is no `Isolation`.
    pub fn new(isolation: &'static Isolation) -> io::Result<Self> {
        match isolation.0 {}
    }

    /// Makes the block as new.
    ///
    /// # Safety
    ///
    /// None: there is no `Block`.
    pub unsafe fn reset(&mut self) -> bool {
        match self.0 {}
    }

    /// The block's thread id.
    pub fn thread_id(&self) -> i32 {
        match self.0 {}
    }
}

/// The TLS of an OS thread.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTls(Infallible, PhantomData<*mut u8>);

impl ThreadTls {
    /// The calling thread's.
    ///
    /// # Safety
    ///
    /// None: there is no `Isolation`.
    pub unsafe fn current(isolation: &'static Isolation) -> Self {
        match isolation.0 {}
    }
}

/// Installs the block's TLS.
///
/// # Safety
///
/// None: there is no `ThreadTls`.
#[inline(always)]
pub unsafe fn enter(thread: &ThreadTls, _block: &Block) {
    match thread.0 {}
}

/// Installs the TLS of another block.
///
/// # Safety
///
/// None: there is no `ThreadTls`.
#[inline(always)]
pub unsafe fn cross(thread: &ThreadTls, _from: &Block, _to: &Block) {
    match thread.0 {}
}

/// Installs the thread's TLS.
///
/// # Safety
///
/// None: there is no `ThreadTls`.
#[inline(always)]
pub unsafe fn leave(thread: &ThreadTls, _block: &Block) {
    match thread.0 {}
}

/// Starts a task.
///
/// # Safety
///
/// None: there is no `Isolation`.
pub unsafe fn begin(isolation: &Isolation) {
    match isolation.0 {}
}

/// Ends a task.
///
/// # Safety
///
/// None: there is no `Isolation`.
pub unsafe fn end(isolation: &Isolation) {
    match isolation.0 {}
}

/// Runs `f` on the thread's TLS.
///
/// # Safety
///
/// None: there is no `ThreadTls`.
pub unsafe fn on_thread<R>(thread: &ThreadTls, _block: &Block, _f: impl FnOnce() -> R) -> R {
    match thread.0 {}
}

/// Whether `thread` is what `pthread_self` returns on a block: there are none.
///
/// # Safety
///
/// None: nothing is looked at.
pub unsafe fn is_block(_thread: usize) -> bool {
    false
}

/// Tells that the global allocator is the adapter: nobody asks on this platform.
#[inline(always)]
pub fn answer_allocation() {}

/// Takes note of a new pthread key: not needed on this platform.
///
/// # Safety
///
/// `pthread_key_create` has just returned `key` for this destructor.
pub unsafe fn key_created(_key: u32, _destructor: Option<unsafe extern "C" fn(*mut c_void)>) {}

/// Takes note of a deleted pthread key: not needed on this platform.
pub fn key_deleted(_key: u32) {}
