//! TLS blocks of their own for coroutines, made by glibc itself.
//!
//! A block is what `pthread_create` would make for a thread: the variables of
//! all loaded modules and a thread descriptor (`struct pthread`). Running on it
//! means to write the thread pointer. The allocator must not notice: the words
//! where malloc keeps its per-thread cache travel with the OS thread, so they
//! are copied from TLS to TLS at each switch. The files:
//!
//! * `layout`: what this glibc exports, and where things lie.
//! * `modules`: the template of a fresh block; what `dlopen` adds to it.
//! * `probe`: finds malloc's words; the start-up self-test.
//! * `block`: ids and the list of live blocks.
//! * `slab`: their memory.
//! * `task`: what a thread does when it starts and ends, for a task.
//! * `adapter`: whether the global allocator is the one for coroutines.
//!
//! # Invariants
//!
//! 1. While a block is installed, malloc's words in it are the live ones, and
//!    those of the thread's own TLS are stale; otherwise the other way round.
//! 2. A live block is in the list, and has an id that no other live block has.
//! 3. A template that `dlopen` made obsolete stays allocated: a `reset` on
//!    another thread may still read it.

mod adapter;
mod block;
mod layout;
mod modules;
mod probe;
mod slab;
mod task;

cfg_select! {
    target_arch = "x86_64" => {
        mod x86_64;
        use x86_64 as arch;
    }
    _ => {
        mod aarch64;
        use aarch64 as arch;
    }
}

use std::ffi::c_void;
use std::fmt;
use std::hint;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};
use std::thread;

pub use adapter::answer_allocation;
pub use block::Block;
pub use task::{begin, end, key_created, key_deleted};

use super::{Refusal, is_forced};
use crate::util::lock::Lock;
use block::Registry;
use layout::Layout;
use modules::{Loaded, Template};

/// How many words of TLS the allocator may use.
const MAX_WORDS: usize = 4;

/// No owner can hold it: the answer is a property of the process.
static DECISION: OnceLock<Result<&'static Isolation, Refusal>> = OnceLock::new();
/// Held while one looks for the answer, which is done once.
static DECIDING: Lock<()> = Lock::new(());

/// What [`isolation`] has decided, if it has and coroutines get their own.
pub fn decided() -> Option<&'static Isolation> {
    DECISION.get().and_then(|decision| decision.as_ref().ok().copied())
}

/// Decides, on the first call, whether coroutines get TLS of their own.
///
/// The first call starts a thread for a moment. If it cannot, nothing is decided.
///
/// # Errors
///
/// Why they do not. [`Refusal::Exhausted`] is no decision: ask again.
pub fn isolation() -> Result<&'static Isolation, Refusal> {
    let _deciding = DECIDING.lock();
    if let Some(decision) = DECISION.get() {
        return decision.clone();
    }
    let decision = if is_forced() {
        Err(Refusal::Forced)
    } else {
        decide()
    };
    if !matches!(decision, Err(Refusal::Exhausted(_))) {
        DECISION.get_or_init(|| decision.clone());
    }
    decision
}

/// Looks on a thread of its own: the process becomes multi-threaded, which
/// changes what malloc uses, and the thread is one of `pthread_create`.
fn decide() -> Result<&'static Isolation, Refusal> {
    let prober = thread::Builder::new().spawn(probe::decide);
    let prober = prober.map_err(|_| Refusal::Exhausted("thread"))?;
    prober.join().unwrap_or(Err(Refusal::SelfTest("panic")))
}

/// Proof that coroutines own their TLS, and what is needed to give it to them.
pub struct Isolation {
    layout: Layout,
    words: Words,
    /// Words that `Block::reset` need not compare: they differ from block to
    /// block, are written by `begin` or `enter`, or are `errno`.
    transient: Vec<isize>,
    foreign_allocator: bool,
    /// Never null.
    template: AtomicPtr<Template>,
    /// Held while the template is replaced.
    adoption: Lock<()>,
    /// How often that has begun.
    adoptions: AtomicUsize,
    live: Registry,
}

impl Isolation {
    /// Whether the global allocator keeps state in TLS that is not shared
    /// between a thread and its coroutines.
    pub fn has_foreign_allocator(&self) -> bool {
        self.foreign_allocator
    }

    /// The version of glibc.
    pub fn version(&self) -> &str {
        &self.layout.version
    }

    /// Runs `open`, which calls `dlopen`, and gives the new modules' variables
    /// their initial values in all live blocks.
    ///
    /// # Safety
    ///
    /// The calling thread runs on its own TLS (see [`on_thread`]), `open` does
    /// not unwind, and the result is not used on a block before this returns.
    pub unsafe fn around_dlopen<R>(&self, open: impl FnOnce() -> R) -> R {
        let before = Loaded::now();
        let result = open();
        let _adoption = self.adoption.lock();
        let Some(memory) = block::Memory::allocate(&self.layout) else {
            // Without memory for a new template the blocks keep zeros.
            return result;
        };
        // SAFETY: the block has just been made.
        let fresh = unsafe {
            self.layout.personalise(memory.thread_pointer(), 0);
            Template::of(&self.layout, memory.thread_pointer())
        };
        memory.free(&self.layout);
        // Blocks that were allocated too early to have the new modules are
        // listed by now, or see this count and are allocated again.
        // Relaxed: the locks of the list order it.
        self.adoptions.fetch_add(1, Relaxed);
        for module in fresh.added(self.template(), &before) {
            // SAFETY: the module was loaded by `open` and nobody uses it yet.
            self.live.for_each(|block| unsafe { module.initialise(block) });
        }
        // Release: pairs with the Acquire in `template`. Only now, so that no
        // `reset` writes what is being initialised.
        self.template.store(Box::into_raw(Box::new(fresh)), Release);
        result
    }

    fn template(&self) -> &'static Template {
        // Acquire: pairs with the Release in `around_dlopen`.
        // SAFETY: templates are leaked (invariant 3).
        unsafe { &*self.template.load(Acquire) }
    }
}

/// Frees what other threads hold, in the child of a fork. Blocks that were about
/// to be listed or taken out are forgotten, and with them others: those of the
/// parent's coroutines, which never run here.
///
/// # Safety
///
/// No other thread exists, and the caller's is not inside this module.
pub unsafe fn abandon() {
    // SAFETY: the caller's promise, in each call.
    unsafe {
        DECIDING.abandon_held(());
        block::abandon();
        if let Some(isolation) = decided() {
            isolation.adoption.abandon_held(());
            isolation.live.abandon();
        }
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation")
            .field("version", &self.version())
            .field("foreign_allocator", &self.foreign_allocator)
            .finish_non_exhaustive()
    }
}

/// Where the allocator keeps its state, relative to the thread pointer. Unused
/// entries repeat the last one, so that a switch need not branch.
#[derive(Clone, Copy, Debug)]
struct Words([isize; MAX_WORDS]);

impl Words {
    /// # Safety
    ///
    /// Both are thread pointers of initialised TLS, which only the calling
    /// thread uses.
    #[inline(always)]
    unsafe fn copy(&self, from: *mut u8, to: *mut u8) {
        for offset in self.0 {
            // SAFETY: the words lie in the TLS of every thread and block.
            unsafe {
                let word = from.offset(offset).cast::<usize>().read();
                to.offset(offset).cast::<usize>().write(word);
            }
        }
    }
}

/// The TLS of an OS thread, captured while no block was installed.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTls {
    pointer: *mut u8,
    words: Words,
    errno: isize,
}

impl ThreadTls {
    /// The calling thread's.
    ///
    /// # Safety
    ///
    /// The thread runs on its own TLS.
    pub unsafe fn current(isolation: &'static Isolation) -> Self {
        Self {
            pointer: arch::thread_pointer(),
            words: isolation.words,
            errno: isolation.layout.errno,
        }
    }
}

/// Whether `thread`, a `pthread_t`, is what `pthread_self` returns on a block.
///
/// # Safety
///
/// It is the id of a thread or coroutine that has not ended, as libc's own
/// functions ask for.
pub unsafe fn is_block(thread: usize) -> bool {
    let Some(isolation) = decided() else {
        return false;
    };
    let layout = &isolation.layout;
    let thread_id = layout.thread_id - arch::descriptor(layout.descriptor_size);
    // SAFETY: a `pthread_t` is the address of a thread descriptor, which lives
    // as the caller promises.
    let thread_id = unsafe {
        (thread as *const u8)
            .offset(thread_id)
            .cast::<i32>()
            .read_volatile()
    };
    block::is_id(thread_id)
}

/// Installs the TLS at `to` in place of that at `from`.
///
/// # Safety
///
/// The calling thread runs on `from`, nobody runs on `to`, and invariant 1 of `tls`
/// holds.
#[inline(always)]
unsafe fn exchange(words: &Words, from: *mut u8, to: *mut u8) {
    // SAFETY: the caller's promise; whoever has `Words` got them from an `Isolation`,
    // so writing the thread pointer is possible.
    unsafe {
        words.copy(from, to);
        arch::set_thread_pointer(to);
    }
}

/// Installs the block's TLS on the thread that `thread` was captured on.
///
/// # Safety
///
/// The calling thread is that one and runs on its own TLS, nobody else runs on
/// `block`, which stays alive until `leave`, and the invariants 1 and 2 of
/// `tls` hold.
#[inline(always)]
pub unsafe fn enter(thread: &ThreadTls, block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { exchange(&thread.words, thread.pointer, block.thread_pointer()) };
}

/// Installs the TLS of another block instead of that of `from`.
///
/// # Safety
///
/// The calling thread is the one of `thread` and runs on `from`; as for [`enter`], of
/// `to`.
#[inline(always)]
pub unsafe fn cross(thread: &ThreadTls, from: &Block, to: &Block) {
    // SAFETY: the caller's promise.
    unsafe { exchange(&thread.words, from.thread_pointer(), to.thread_pointer()) };
}

/// Installs the thread's own TLS again.
///
/// # Safety
///
/// The calling thread is the one of `thread` and runs on `block`, and
/// invariant 1 of `tls` holds.
#[inline(always)]
pub unsafe fn leave(thread: &ThreadTls, block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { exchange(&thread.words, block.thread_pointer(), thread.pointer) };
}

/// From a coroutine: runs `f` on the OS thread's own TLS, for calls that must
/// come from a real thread (`fork`, `setuid`, `dlopen`). `errno` is carried over
/// and back, so that an `f` that leaves it alone leaves the coroutine's alone.
///
/// A panic in `f` ends the process: it would be counted in the wrong TLS.
///
/// # Safety
///
/// The calling thread is the one of `thread` and runs on `block`. Preemption
/// is off, and `f` does not suspend. `f` uses no reference to a thread-local
/// variable that its environment captured in the belief that it is its own.
pub unsafe fn on_thread<R>(thread: &ThreadTls, block: &Block, f: impl FnOnce() -> R) -> R {
    let own = block.thread_pointer();
    // SAFETY: the caller's promise; both are initialised.
    unsafe {
        // By offset: the compiler may remember where this thread's errno is.
        let own_errno = own.offset(thread.errno).cast::<i32>();
        let errno = thread.pointer.offset(thread.errno).cast::<i32>();
        errno.write(own_errno.read());
        let result = call_with(Some(&thread.words), own, thread.pointer, f);
        own_errno.write(errno.read());
        result
    }
}

/// Runs `f` with the thread pointer `to`, and goes back to `from`.
///
/// # Safety
///
/// The calling thread runs on `from`; nobody runs on `to`.
unsafe fn call_with<R, F: FnOnce() -> R>(
    words: Option<&Words>,
    from: *mut u8,
    to: *mut u8,
    f: F,
) -> R {
    struct Call<F, R> {
        f: Option<F>,
        result: MaybeUninit<R>,
    }

    // `extern "C"`: an unwinding `f` aborts here instead of leaving `to` behind.
    unsafe extern "C" fn trampoline<R, F: FnOnce() -> R>(call: *mut c_void) {
        // SAFETY: `call_with` passes its `Call`.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        if let Some(f) = call.f.take() {
            call.result.write(f());
        }
    }

    let mut call = Call {
        f: Some(f),
        result: MaybeUninit::uninit(),
    };
    // The optimiser must not see which function it is, or it could inline `f`
    // into the function that writes the thread pointer.
    let function = hint::black_box(trampoline::<R, F> as unsafe extern "C" fn(*mut c_void));
    // SAFETY: the caller's promise; the trampoline has written the result.
    unsafe {
        between(words, [from, to], function, (&raw mut call).cast());
        call.result.assume_init()
    }
}

/// Calls `function` between two writes of the thread pointer. There is no
/// other code in here that could touch TLS.
///
/// # Safety
///
/// As for `call_with`; `function` may be called with `argument`.
#[inline(never)]
unsafe fn between(
    words: Option<&Words>,
    [from, to]: [*mut u8; 2],
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(words) = words {
            words.copy(from, to);
        }
        arch::set_thread_pointer(to);
        function(argument);
        if let Some(words) = words {
            words.copy(to, from);
        }
        arch::set_thread_pointer(from);
    }
}

// There is none where AddressSanitizer watches.
#[cfg(all(test, not(feature = "sanitizer")))]
mod tests;
