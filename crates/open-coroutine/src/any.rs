//! `any_join!` and `any_timeout_join!`: wait for whichever task ends first.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use open_coroutine_core::join::{JoinError, JoinHandle};
use open_coroutine_core::sync::Signal;

/// Waits for the first of several tasks that has a result, and takes it:
/// `Result<R, JoinError>`. A coroutine is suspended while it waits, a thread
/// sleeps.
///
/// The arguments are [`JoinHandle`](crate::JoinHandle)s of one type; variables
/// must be `mut`. They stay usable: the other tasks go on, and can be joined
/// later, or by the next `any_join!`, which passes over results that were
/// taken. [`JoinError::Taken`](crate::JoinError::Taken) means that none is left.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let mut slow = open_coroutine::spawn(|| {
///     open_coroutine::sleep(Duration::from_millis(100));
///     "slow"
/// });
/// let mut fast = open_coroutine::spawn(|| "fast");
/// assert_eq!("fast", open_coroutine::any_join!(slow, fast).unwrap());
/// assert_eq!("slow", open_coroutine::any_join!(slow, fast).unwrap());
/// ```
#[macro_export]
macro_rules! any_join {
    ($($handle:expr),+ $(,)?) => {
        $crate::__private::any_join(&mut [$(&mut $handle),+], ::core::option::Option::None)
    };
}

/// Like [`any_join!`], for a limited time: the first argument is a `Duration`.
/// [`JoinError::TimedOut`](crate::JoinError::TimedOut) means that none of the
/// tasks ended in it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let mut parked = open_coroutine::spawn(open_coroutine::park);
/// let first = open_coroutine::any_timeout_join!(Duration::from_millis(5), parked);
/// assert!(first.unwrap_err().is_timeout());
/// parked.task().unpark();
/// parked.join().unwrap();
/// ```
#[macro_export]
macro_rules! any_timeout_join {
    ($timeout:expr, $($handle:expr),+ $(,)?) => {
        $crate::__private::any_join(
            &mut [$(&mut $handle),+],
            ::core::option::Option::Some($timeout),
        )
    };
}

/// What `any_join!` and `any_timeout_join!` call.
#[doc(hidden)]
pub fn any_join<R>(
    handles: &mut [&mut JoinHandle<R>],
    timeout: Option<Duration>,
) -> Result<R, JoinError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = poll(handles, &mut context) {
            return result;
        }
        while !signal.take() {
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(JoinError::TimedOut);
            }
            signal.wait(deadline);
        }
    }
}

/// The first result that is there; `Taken` if none is left to wait for. Else
/// the waker of `context` is registered with every task that has not ended.
fn poll<R>(
    handles: &mut [&mut JoinHandle<R>],
    context: &mut Context<'_>,
) -> Poll<Result<R, JoinError>> {
    let mut is_pending = false;
    for handle in handles {
        match Pin::new(&mut **handle).poll(context) {
            Poll::Pending => is_pending = true,
            Poll::Ready(Err(JoinError::Taken)) => {}
            ready => return ready,
        }
    }
    if is_pending {
        Poll::Pending
    } else {
        Poll::Ready(Err(JoinError::Taken))
    }
}
