//! A coroutine that its owner resumes by hand.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use corosensei::{CoroutineResult, Yielder};

use super::segment::Segment;
use crate::stack::{self, DEFAULT_STACK_SIZE, Stack, StackError};

/// The payload of a panic, as `std::panic::catch_unwind` returns it.
pub type Panic = Box<dyn Any + Send>;

/// What became of a coroutine at a resume.
#[derive(Debug)]
pub enum State<Yield, Return> {
    /// It suspended itself with this value.
    Suspended(Yield),
    /// It ran to its end and returned this value.
    Complete(Return),
    /// It panicked with this payload.
    Error(Panic),
}

/// Where a coroutine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// It has never been resumed.
    Ready,
    /// It is running: seen by itself and by listeners.
    Running,
    /// It can be resumed.
    Suspended,
    /// It has returned.
    Complete,
    /// It has panicked.
    Error,
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Complete => "complete",
            Self::Error => "panicked",
        })
    }
}

/// Is told of every change of a coroutine's state. All methods do nothing
/// unless they are implemented.
///
/// Listeners run on the owner's stack. A listener that panics makes
/// [`Coroutine::resume_with`] panic.
pub trait Listener {
    /// The state of coroutine `id`, called `name`, changed.
    fn changed(&self, id: u64, name: &str, old: StateKind, new: StateKind) {
        let _ = (id, name, old, new);
    }
}

/// Suspends the coroutine that it was given to.
pub struct Suspender<'a, Param, Yield> {
    yielder: &'a Yielder<Param, Yield>,
}

impl<Param, Yield> fmt::Debug for Suspender<'_, Param, Yield> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Suspender")
    }
}

impl<Param, Yield> Suspender<'_, Param, Yield> {
    /// Hands `value` to the owner, and returns what the owner resumes with.
    ///
    /// If the owner drops the coroutine instead, this call unwinds, so that the
    /// destructors of everything on its stack run. `std::panic::catch_unwind`
    /// must not be used to stop that: the process would abort.
    pub fn suspend_with(&self, value: Yield) -> Param {
        self.yielder.suspend(value)
    }
}

/// A function that can suspend itself and be resumed, on a stack of its own.
///
/// It runs on the thread and the thread-local storage of whoever resumes it,
/// so it is neither `Send` nor `Sync`. It is not scheduled: blocking calls
/// block, and hooks treat it like its thread. Dropping it before its end
/// unwinds its stack, and runs its destructors.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::coroutine::{Coroutine, State};
///
/// let mut sum = Coroutine::new(|suspender, first: u32| {
///     let mut total = first;
///     while total < 10 {
///         total += suspender.suspend_with(total);
///     }
///     "enough"
/// })
/// .expect("no memory for a stack");
/// assert!(matches!(sum.resume_with(4), State::Suspended(4)));
/// assert!(matches!(sum.resume_with(5), State::Suspended(9)));
/// assert!(matches!(sum.resume_with(6), State::Complete("enough")));
/// ```
pub struct Coroutine<Param, Yield, Return> {
    /// A panic of its body is caught on its own stack, once, and not at each resume.
    context: corosensei::Coroutine<Param, Yield, thread::Result<Return>, Stack>,
    /// What goes up its stack is not a panic of the body, but the end of the context.
    is_unwound: Rc<Cell<bool>>,
    /// The innermost segment while it is suspended: its own, or one that it
    /// added with `maybe_grow`.
    innermost: *const Segment,
    /// Its own segment; boxed because `innermost` points to it.
    segment: Box<Segment>,
    id: u64,
    name: Box<str>,
    state: StateKind,
    listeners: Vec<Box<dyn Listener>>,
}

impl<Param: 'static, Yield: 'static, Return: 'static> Coroutine<Param, Yield, Return> {
    /// A coroutine that will run `body` on a stack of the default size, 128 KiB.
    ///
    /// # Errors
    ///
    /// When there is no memory for a stack.
    pub fn new<F>(body: F) -> Result<Self, StackError>
    where
        F: FnOnce(&Suspender<'_, Param, Yield>, Param) -> Return + 'static,
    {
        Self::with_stack_size(DEFAULT_STACK_SIZE, body)
    }

    /// Like [`new`](Self::new), with at least `stack_size` bytes of stack.
    ///
    /// # Errors
    ///
    /// When `stack_size` is absurd or there is no memory for a stack.
    pub fn with_stack_size<F>(stack_size: usize, body: F) -> Result<Self, StackError>
    where
        F: FnOnce(&Suspender<'_, Param, Yield>, Param) -> Return + 'static,
    {
        let stack = stack::pool().allocate(stack_size)?;
        let segment = Box::new(Segment::of(&stack));
        let is_unwound = Rc::new(Cell::new(false));
        let context = corosensei::Coroutine::with_stack(stack, {
            let is_unwound = is_unwound.clone();
            move |yielder, param| {
                let result = catch_unwind(AssertUnwindSafe(|| body(&Suspender { yielder }, param)));
                match result {
                    Err(payload) if is_unwound.get() => resume_unwind(payload),
                    result => result,
                }
            }
        });
        let id = next_id();
        Ok(Self {
            context,
            is_unwound,
            innermost: &raw const *segment,
            segment,
            id,
            name: format!("coroutine-{id}").into(),
            state: StateKind::Ready,
            listeners: Vec::new(),
        })
    }

    /// Gives it a name, for listeners and `Debug`. The default is
    /// `coroutine-` and its id.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Has `listener` told of every change of state from now on.
    pub fn add_listener(&mut self, listener: impl Listener + 'static) {
        self.listeners.push(Box::new(listener));
    }

    /// Runs it until it suspends itself, returns or panics. A panic is caught
    /// and returned as [`State::Error`].
    ///
    /// # Panics
    ///
    /// If it has returned or panicked before: there is nothing to resume.
    // Always: a `State` that is returned in memory is read back in other pieces than it
    // was written in, which the processor cannot forward, and which costs more than
    // all the rest.
    #[inline(always)]
    pub fn resume_with(&mut self, param: Param) -> State<Yield, Return> {
        if !matches!(self.state, StateKind::Ready | StateKind::Suspended) {
            self.refuse();
        }
        self.change(StateKind::Running);
        let outer = Segment::replace_innermost(self.innermost);
        let result = self.context.resume(param);
        self.innermost = Segment::replace_innermost(outer);
        let (kind, state) = match result {
            CoroutineResult::Yield(value) => (StateKind::Suspended, State::Suspended(value)),
            CoroutineResult::Return(Ok(value)) => (StateKind::Complete, State::Complete(value)),
            CoroutineResult::Return(Err(payload)) => (StateKind::Error, State::Error(payload)),
        };
        self.change(kind);
        state
    }
}

impl<Param, Yield, Return> Coroutine<Param, Yield, Return> {
    /// A number that no other coroutine of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is in its life.
    pub fn state(&self) -> StateKind {
        self.state
    }

    #[cold]
    fn refuse(&self) -> ! {
        panic!("cannot resume a coroutine that is {}", self.state)
    }

    #[inline(always)]
    fn change(&mut self, new: StateKind) {
        let old = std::mem::replace(&mut self.state, new);
        if !self.listeners.is_empty() {
            self.tell_listeners(old);
        }
    }

    #[cold]
    fn tell_listeners(&self, old: StateKind) {
        for listener in &self.listeners {
            listener.changed(self.id, &self.name, old, self.state);
        }
    }
}

impl<Param, Yield, Return> Drop for Coroutine<Param, Yield, Return> {
    fn drop(&mut self) {
        if self.context.done() {
            return;
        }
        self.is_unwound.set(true);
        let outer = Segment::replace_innermost(self.innermost);
        let context = &mut self.context;
        // Destructors on the coroutine's stack may panic; that goes on in the
        // caller, as for any other value that is dropped.
        let result = catch_unwind(AssertUnwindSafe(|| context.force_unwind()));
        Segment::replace_innermost(outer);
        if let Err(payload) = result
            && !thread::panicking()
        {
            resume_unwind(payload);
        }
    }
}

impl<Param, Yield, Return> fmt::Debug for Coroutine<Param, Yield, Return> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coroutine")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("state", &self.state)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

fn next_id() -> u64 {
    /// Coroutines are unrelated objects; nothing owns them all.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn values_go_in_and_out_of_each_suspension() {
        let mut coroutine = Coroutine::new(|suspender, mut n: u32| {
            for _ in 0..3 {
                n = suspender.suspend_with(n * 2);
            }
            n
        })
        .unwrap();
        assert_eq!(StateKind::Ready, coroutine.state());
        for n in 1..=3 {
            assert!(matches!(coroutine.resume_with(n), State::Suspended(m) if m == 2 * n));
        }
        assert!(matches!(coroutine.resume_with(9), State::Complete(9)));
        assert_eq!(StateKind::Complete, coroutine.state());
    }

    #[test]
    fn a_panic_is_caught_and_carried() {
        let mut coroutine =
            Coroutine::new(|_: &Suspender<'_, (), ()>, ()| std::panic::panic_any(7u8)).unwrap();
        let State::Error(payload) = coroutine.resume_with(()) else {
            panic!("expected an error");
        };
        assert_eq!(7, *payload.downcast::<u8>().unwrap());
        assert_eq!(StateKind::Error, coroutine.state());
    }

    #[test]
    fn dropping_an_unfinished_coroutine_runs_its_destructors() {
        let value = Rc::new(());
        let held = value.clone();
        let mut coroutine = Coroutine::new(move |suspender, ()| {
            suspender.suspend_with(());
            drop(held);
        })
        .unwrap();
        coroutine.resume_with(());
        assert_eq!(2, Rc::strong_count(&value));
        drop(coroutine);
        assert_eq!(1, Rc::strong_count(&value));
    }

    #[test]
    fn dropping_a_coroutine_that_never_ran_drops_its_body() {
        let value = Rc::new(());
        let held = value.clone();
        let body = move |_: &Suspender<'_, (), ()>, ()| drop(held);
        drop(Coroutine::new(body).unwrap());
        assert_eq!(1, Rc::strong_count(&value));
    }

    #[test]
    fn a_coroutine_can_resume_another_one() {
        let mut outer = Coroutine::new(|suspender, n: u32| {
            let mut inner = Coroutine::new(|suspender, n: u32| {
                suspender.suspend_with(n + 1);
                n + 2
            })
            .unwrap();
            while let State::Suspended(value) = inner.resume_with(n) {
                suspender.suspend_with(value);
            }
        })
        .unwrap();
        assert!(matches!(outer.resume_with(1), State::Suspended(2)));
        assert!(matches!(outer.resume_with(1), State::Complete(())));
    }

    #[test]
    fn listeners_see_every_change() {
        struct Log(Rc<RefCell<Vec<(StateKind, StateKind)>>>);
        impl Listener for Log {
            fn changed(&self, _: u64, name: &str, old: StateKind, new: StateKind) {
                assert_eq!("traced", name);
                self.0.borrow_mut().push((old, new));
            }
        }
        use StateKind::{Complete, Ready, Running, Suspended};
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut coroutine = Coroutine::new(|suspender, ()| suspender.suspend_with(()))
            .unwrap()
            .named("traced");
        coroutine.add_listener(Log(log.clone()));
        coroutine.resume_with(());
        coroutine.resume_with(());
        let expected = [
            (Ready, Running),
            (Running, Suspended),
            (Suspended, Running),
            (Running, Complete),
        ];
        assert_eq!(expected.as_slice(), &**log.borrow());
    }

    #[test]
    #[should_panic(expected = "cannot resume a coroutine that is complete")]
    fn resuming_after_the_end_panics() {
        let mut coroutine = Coroutine::new(|_: &Suspender<'_, (), ()>, ()| ()).unwrap();
        coroutine.resume_with(());
        coroutine.resume_with(());
    }
}
