//! Tasks that are there to be cancelled.

use std::sync::mpsc;

use open_coroutine::{JoinHandle, current, spawn};

/// Spawns `body` and waits until it runs.
pub(crate) fn begun<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let (begins, began) = mpsc::channel();
    let task = spawn(move || {
        begins.send(()).unwrap();
        body()
    });
    began.recv().unwrap();
    task
}

/// Runs `body` as a task that is cancelled before it waits.
pub(crate) fn cancels_itself<R: Send + 'static>(
    body: impl FnOnce() -> R + Send + 'static,
) -> JoinHandle<R> {
    spawn(move || {
        assert!(current().unwrap().cancel());
        body()
    })
}
