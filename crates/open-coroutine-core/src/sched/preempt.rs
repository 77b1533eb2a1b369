//! Preemption: the monitor signals a thread, and the handler suspends the
//! coroutine that runs there, with the signal frame on the coroutine's own stack.
//!
//! # Steps
//!
//! 1. The monitor sends `SIGURG` to the thread, with a mark by which the handler
//!    knows it. A `SIGURG` without the mark goes to the handler that was there
//!    before.
//! 2. The handler suspends only if the flow is in no section (`util::preempt`), so
//!    that it is a coroutine which runs a task; in no region where nothing
//!    suspends, a signal handler of the program among them; and if the interrupted
//!    code belongs to the executable. libc and the dynamic linker have locks that
//!    no hook sees, and so may other libraries.
//! 3. Otherwise it leaves a note, and the coroutine gives way when it leaves its
//!    next section, as all calls into the runtime are.
//! 4. The coroutine is suspended as by any other call. When it is resumed, maybe
//!    on another thread, the frame is brought up to date: the alternate stack and
//!    the signal mask that it restores are those of that thread.
//!
//! The signal is blocked while handlers of the program run (`hook::handlers`), so
//! none of their frames lies above the one here.
//!
//! # Invariants
//!
//! 1. The handler does not suspend while anything of the runtime is held: that
//!    would be a section (`util::preempt`, invariant 1).
//! 2. It restores `errno`.
//! 3. It is not interrupted by its own signal, except in a section: its first and
//!    last instructions are the executable's too, and what they have interrupted
//!    may be libc with a lock held.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Once, OnceLock};

use super::carrier::{Carrier, with_worker};
use super::local;
use super::scheduled::{Scheduled, Suspend};
use super::suspend::current;
use crate::sys;
use crate::util::{handler, preempt};

const SIGNAL: c_int = libc::SIGURG;

/// Where the executable's own code lies. Static because it is the process's.
static TEXT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The handler that was there before, or that the program has set since.
/// Static because signal dispositions belong to the process.
static CHAINED: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// The whole action that was there before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// By the address of this the handler knows a signal of the monitor.
static MARK: u8 = 0;

/// Installs the handler, once per process. What was there before is chained.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let text = sys::executable_text();
        TEXT[1].store(text.end, Relaxed);
        // Release: pairs with the Acquire in `is_installed` and `is_own_text`.
        TEXT[0].store(text.start, Release);
        preempt::on_wanted(give_way);
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        // Not on the alternate stack, which belongs to the thread; and blocked
        // meanwhile (invariant 3).
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler does what one may do.
        if let Some(before) = unsafe { sys::replace_action(SIGNAL, &action) } {
            // Release: pairs with the Acquire in `pass_on`.
            CHAINED.store(before.sa_sigaction, Release);
            let _ = BEFORE.set(before);
        }
    });
}

/// Whether `signal` is the one that preempts, and its handler is ours. What the
/// program sets is then [chained](chain).
pub fn preempts_by(signal: c_int) -> bool {
    // Acquire: pairs with the Release in `install`.
    signal == SIGNAL && TEXT[0].load(Acquire) != 0
}

/// The action of that signal before preemption was installed.
pub fn action_before_preemption() -> Option<libc::sigaction> {
    BEFORE.get().copied()
}

/// Makes `handler` the one that other signals of this number go to. It may be
/// `SIG_DFL` or `SIG_IGN`.
pub fn chain(handler: usize) {
    // Release: pairs with the Acquire in `pass_on`.
    CHAINED.store(handler, Release);
}

/// Signals the coroutine that runs on `carrier`'s thread (step 1).
pub(super) fn signal(carrier: &Carrier) {
    sys::queue_signal(carrier.thread(), SIGNAL, ptr::from_ref(&MARK).addr());
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = sys::errno();
    // SAFETY: the kernel passes a valid siginfo and the context of the
    // interrupted code, both to this handler.
    unsafe {
        if sys::is_queued_signal(&*info, ptr::from_ref(&MARK).addr()) {
            interrupt(&mut *context.cast::<libc::ucontext_t>());
        } else {
            pass_on(signal, info, context);
        }
    }
    sys::set_errno(errno);
}

/// Steps 2 to 4.
fn interrupt(context: &mut libc::ucontext_t) {
    let was_in_section = preempt::is_in_section();
    preempt::enter();
    // SAFETY: the carrier of a thread lives as long as that runs coroutines.
    if let Some(carrier) = unsafe { local::carrier().as_ref() } {
        carrier.left().in_handler();
    }
    let Some(coroutine) = current() else {
        return preempt::leave_quietly();
    };
    if !was_in_section && may_suspend(coroutine, context) {
        // The thread goes on with the mask that it had. From here to where all is
        // blocked again, this is a section (invariant 3).
        sys::set_signal_mask(sys::context_mask(context));
        // SAFETY: on the coroutine, which was in no section: nothing is borrowed.
        unsafe { coroutine.suspend(Suspend::Preempted) };
        sys::refresh_context(context);
        preempt::leave_quietly();
    } else {
        preempt::leave_wanted();
    }
}

fn may_suspend(coroutine: &Scheduled, context: &libc::ucontext_t) -> bool {
    coroutine.may_give_way()
        && is_own_text(sys::program_counter(context))
        && context.uc_stack.ss_flags & libc::SS_ONSTACK == 0
        && with_worker(|worker| {
            // Another one: a signal handler of the program has been called, and
            // has not said so yet.
            worker.is_some_and(|worker| {
                let usual = coroutine.signals().thread_mask(worker.signal_mask());
                sys::context_mask(context) == usual
            })
        })
}

fn is_own_text(address: usize) -> bool {
    (TEXT[0].load(Acquire)..TEXT[1].load(Relaxed)).contains(&address)
}

/// A coroutine leaves its last section, and has been left a note (step 3).
fn give_way() {
    if let Some(coroutine) = current()
        && coroutine.may_give_way()
    {
        // SAFETY: on the coroutine, which is in no section: so nothing is borrowed.
        unsafe { coroutine.suspend(Suspend::Preempted) };
    }
}

impl Scheduled {
    /// Whether it is in no region in which nothing suspends.
    fn may_give_way(&self) -> bool {
        self.pass_through().get() == 0 && !handler::is_inside()
    }
}

/// # Safety
///
/// The arguments of a signal handler.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Action = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    // Acquire: pairs with the Release of who stored it.
    let chained = CHAINED.load(Acquire);
    // By default the signal is ignored.
    if chained != libc::SIG_DFL && chained != libc::SIG_IGN {
        // SAFETY: a handler, which may have fewer parameters than it is given.
        unsafe { mem::transmute::<usize, Action>(chained)(signal, info, context) };
    }
}
