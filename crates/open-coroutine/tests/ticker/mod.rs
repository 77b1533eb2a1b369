//! A coroutine that goes on while others wait: if one of them blocked its
//! worker instead, the ticks would stop and the test with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use open_coroutine::JoinHandle;

/// Ticks until it is dropped.
pub(crate) struct Ticker {
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

struct State {
    ticks: AtomicU64,
    is_over: AtomicBool,
}

impl Ticker {
    /// Starts ticking, as a coroutine.
    pub(crate) fn start() -> Self {
        let state = Arc::new(State {
            ticks: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let own = state.clone();
        let task = open_coroutine::spawn(move || {
            while !own.is_over.load(SeqCst) {
                own.ticks.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_micros(100));
            }
        });
        Self {
            state,
            task: Some(task),
        }
    }

    /// Waits for the next few ticks.
    #[allow(dead_code, reason = "not every test file uses every function")]
    pub(crate) fn wait(&self) {
        let end = self.state.ticks.load(SeqCst) + 3;
        while self.state.ticks.load(SeqCst) < end {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.is_over.store(true, SeqCst);
        if let Some(task) = self.task.take() {
            let result = task.join();
            if !thread::panicking() {
                result.unwrap();
            }
        }
    }
}
