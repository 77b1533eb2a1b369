//! What the coroutines of a run do, and check.
//!
//! A body is a function that performs one round: some tens of microseconds to
//! some milliseconds of work whose result it verifies. A wrong result panics.

mod allocation;
mod c_library;
mod cancellation;
mod channels;
mod collections;
mod compute;
mod crossbeam;
mod files;
mod local;
mod locks;
pub(crate) mod panics;
mod parking;
pub(crate) mod printing;
mod processes;
mod random;
mod recursion;
mod sockets;
mod tasks;
mod text;
mod times;
mod tracing;

use std::any::Any;
use std::sync::Arc;

use open_coroutine::Builder;

/// Something that coroutines do again and again.
pub(crate) struct Body {
    pub(crate) name: &'static str,
    pub(crate) round: fn(&mut Round),
}

const fn body(name: &'static str, round: fn(&mut Round)) -> Body {
    Body { name, round }
}

/// All but the hog.
pub(crate) const ALL: &[Body] = &[
    body("print", printing::round),
    body("collections", collections::round),
    body("mutex", locks::mutex),
    body("rwlock", locks::rwlock),
    body("condvar", locks::condvar),
    body("once", locks::once),
    body("barrier", locks::barrier),
    body("mpsc", channels::mpsc),
    body("bounded", channels::bounded),
    body("park", parking::round),
    body("parking_lot", locks::parking_lot),
    body("crossbeam", crossbeam::channels),
    body("deque", crossbeam::deque),
    body("epoch", crossbeam::epoch),
    body("rand", random::round),
    body("tracing", tracing::round),
    body("panics", panics::round),
    body("backtrace", panics::backtrace),
    body("regex", text::regex),
    body("json", text::json),
    body("c_sort", c_library::sort),
    body("c_text", c_library::text),
    body("c_stdio", c_library::stdio),
    body("floats", compute::floats),
    body("vectors", compute::vectors),
    body("errno", compute::errno),
    body("local", local::round),
    body("recursion", recursion::round),
    body("files", files::round),
    body("sockets", sockets::streams),
    body("datagrams", sockets::datagrams),
    body("processes", processes::round),
    body("sleep", times::sleep),
    body("clocks", times::clocks),
    body("tasks", tasks::round),
    body("cancel", cancellation::round),
    body("threads", tasks::threads),
    body("allocation", allocation::round),
];

/// Computes, and calls nothing.
pub(crate) const HOG: Body = body("hog", compute::hog);

pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|body| body.name).collect()
}

/// What a round is told.
pub(crate) struct Round {
    /// Which coroutine performs it.
    pub(crate) index: usize,
    /// How many rounds it has performed.
    pub(crate) number: u64,
    pub(crate) world: Arc<World>,
    state: u64,
}

impl Round {
    pub(crate) fn new(index: usize, world: Arc<World>) -> Self {
        let state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(index as u64 + 1);
        Self {
            index,
            number: 0,
            world,
            state,
        }
    }

    /// A number below `limit`, the same in every run (xorshift).
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }
}

/// What the coroutines of a run share.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) printing: printing::Shared,
    locks: locks::Shared,
    crossbeam: crossbeam::Shared,
    allocation: allocation::Shared,
    c_library: c_library::Shared,
    local: local::Shared,
}

impl World {
    /// What is wrong after all have ended.
    pub(crate) fn check(&self) -> Vec<String> {
        let checks = [
            self.locks.check(),
            self.crossbeam.check(),
            self.c_library.check(),
            self.local.check(),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }
}

/// Runs `body` on `count` coroutines of its own, and returns what they do.
fn crew<R: Send + 'static>(
    count: usize,
    body: impl Fn(usize) -> R + Clone + Send + 'static,
) -> Vec<R> {
    let start = |index| {
        let body = body.clone();
        let task = Builder::new().name(format!("member {index}"));
        task.spawn(move || body(index)).expect("a coroutine starts")
    };
    let members: Vec<_> = (0..count).map(start).collect();
    let end = |(index, member): (usize, open_coroutine::JoinHandle<R>)| match member.join() {
        Ok(result) => result,
        Err(error) => match error.into_panic() {
            Ok(payload) => panic!("member {index}: {}", message(&*payload)),
            Err(error) => panic!("member {index}: {error}"),
        },
    };
    members.into_iter().enumerate().map(end).collect()
}

/// The text of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| String::from("a panic without text"))
}

/// Computes for some microseconds per unit, without a call.
fn work(units: u64) -> u64 {
    let mut value = units | 1;
    for _ in 0..units * 2000 {
        value = std::hint::black_box(value)
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .rotate_left(7)
            ^ 1;
    }
    value
}
