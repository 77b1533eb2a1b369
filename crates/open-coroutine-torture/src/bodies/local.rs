//! Thread-locals: borrowed over work and waits, destroyed once per task.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use open_coroutine::yield_now;

use super::{Round, World, crew, work};

/// How many values with a destructor there were, and how many destructions.
#[derive(Default)]
pub(super) struct Shared {
    created: AtomicU64,
    destroyed: AtomicU64,
}

impl Shared {
    pub(super) fn check(&self) -> Result<(), String> {
        let counts = [self.created.load(Relaxed), self.destroyed.load(Relaxed)];
        if counts[0] == counts[1] {
            Ok(())
        } else {
            Err(format!("thread-locals created and destroyed: {counts:?}"))
        }
    }
}

/// Lives as long as the coroutine.
struct Tracked(Arc<World>);

impl Tracked {
    fn new(world: Arc<World>) -> Self {
        world.local.created.fetch_add(1, Relaxed);
        Self(world)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        work(1);
        yield_now();
        self.0.local.destroyed.fetch_add(1, Relaxed);
    }
}

thread_local! {
    static TABLE: RefCell<HashMap<u64, String>> = RefCell::new(HashMap::new());
    static TRACKED: RefCell<Option<Tracked>> = const { RefCell::new(None) };
}

pub(super) fn round(round: &mut Round) {
    fill(round.index as u64, round.number);
    let world = round.world.clone();
    crew(2, move |index| {
        TRACKED.set(Some(Tracked::new(world.clone())));
        TABLE.with_borrow(|table| assert!(table.is_empty()));
        fill(index as u64, 0);
        TRACKED.with_borrow(|tracked| assert!(tracked.is_some()));
    });
}

fn fill(owner: u64, number: u64) {
    TABLE.with_borrow_mut(|table| {
        assert!(
            table
                .values()
                .all(|value| value.starts_with(&format!("{owner}:")))
        );
        for step in 0..8 {
            let key = (number * 8 + step) % 64;
            table.insert(key, format!("{owner}:{key}"));
            work(1);
        }
        yield_now();
        thread::sleep(Duration::from_micros(50));
        assert!(
            table
                .iter()
                .all(|(key, value)| *value == format!("{owner}:{key}"))
        );
    });
}
