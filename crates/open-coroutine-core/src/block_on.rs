//! Futures on coroutines and on plain threads.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sched;
use crate::sync::Signal;

/// Runs `future` to its end, and returns its output. While the future is not ready
/// a coroutine is suspended, and a plain thread sleeps, until its waker is used,
/// which may happen on any thread.
///
/// The future may be of any library, but nobody here drives what it needs beside a
/// waker, as the timers and sockets of an executor: enter that one's context, or use
/// its handle. What blocks in the future suspends only the calling coroutine.
///
/// A point of cancellation: if the calling task is asked to end while the future is
/// not ready, it unwinds, which drops the future.
///
/// # Examples
///
/// ```
/// use open_coroutine_core::block_on::block_on;
/// use open_coroutine_core::runtime::spawn;
///
/// let sum = spawn(|| {
///     let parts = [20, 22].map(|part| spawn(move || part));
///     block_on(async {
///         let mut sum = 0;
///         for part in parts {
///             sum += part.await.unwrap();
///         }
///         sum
///     })
/// });
/// assert_eq!(42, block_on(sum).unwrap());
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // A future that wakes itself all the time would keep others from running.
        sched::spend();
        while !signal.take() {
            signal.wait_at_point();
            sched::cancellation_point();
        }
    }
}
