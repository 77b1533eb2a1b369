//! Many coroutines that do the same at once, and one that watches whether they
//! block the worker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use open_coroutine::{Builder, JoinHandle};

use crate::ticker::Ticker;

/// How many coroutines a crowd has.
pub const COROUTINES: usize = 200;

/// What a coroutine has by default.
const STACK_SIZE: usize = 128 << 10;

/// [`COROUTINES`] coroutines, and beside them one that ticks all the time.
pub struct Crowd<R> {
    members: Vec<JoinHandle<R>>,
    ticker: Ticker,
}

impl<R: Send + 'static> Crowd<R> {
    /// Starts `work(0)`, `work(1)`, .. as coroutines.
    ///
    /// # Panics
    ///
    /// If there is no runtime to start them.
    pub fn start(work: impl Fn(usize) -> R + Send + Sync + 'static) -> Self {
        Self::start_with_stacks(STACK_SIZE, work)
    }

    /// [`Crowd::start`], with stacks of `size` bytes.
    ///
    /// # Panics
    ///
    /// As [`Crowd::start`].
    pub fn start_with_stacks(
        size: usize,
        work: impl Fn(usize) -> R + Send + Sync + 'static,
    ) -> Self {
        let ticker = Ticker::start();
        let work = Arc::new(work);
        let start = |n| {
            let work = work.clone();
            let task = Builder::new().name(format!("member {n}")).stack_size(size);
            task.spawn(move || work(n)).expect("a coroutine starts")
        };
        let members = (0..COROUTINES).map(start).collect();
        Self { members, ticker }
    }

    /// Waits for ticks while every member waits for what the caller holds back:
    /// they come only if no member blocks the worker.
    ///
    /// # Panics
    ///
    /// If a member did not wait.
    pub fn tick(&self) {
        self.ticker.wait();
        let finished = self.members.iter().filter(|member| member.is_finished());
        assert_eq!(0, finished.count(), "members did not wait");
    }

    /// What the members returned, in their order.
    ///
    /// # Panics
    ///
    /// If a member did, or if they let nothing else run.
    pub fn join(self) -> Vec<R> {
        let results = self.members.into_iter().map(JoinHandle::join);
        let results = results.collect::<Result<_, _>>();
        self.ticker.wait();
        results.unwrap()
    }
}

/// Asks again and again until `holds`.
///
/// # Panics
///
/// If it does not hold after half a minute.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
