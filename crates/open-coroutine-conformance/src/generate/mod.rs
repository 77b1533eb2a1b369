//! Random scripts.
//!
//! * `values`: flags, sizes, slots, ways to read and write.
//! * `solo`: calls of one actor, on anything, in any state.
//! * `scene_*`: what several actors do at once; see [`crate::script`] for what a
//!   scene must guarantee.

mod scene_connections;
mod scene_files;
mod scene_pipes;
mod scene_sockets;
mod scene_streams;
mod scene_threads;
mod scene_waits;
mod solo;
mod values;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::script::{Round, Script};

/// What a script is mostly about. Each has a test of its own, so that they run
/// side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Sockets of all kinds.
    Sockets,
    /// Pipes, FIFOs, terminals, copies within the kernel.
    Pipes,
    /// Files, directories, locks of files.
    Files,
    /// poll, select, epoll, event counters, timers, sleeps.
    Waiting,
    /// Locks, channels, signals, errors.
    Threads,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 5] = [
        Self::Sockets,
        Self::Pipes,
        Self::Files,
        Self::Waiting,
        Self::Threads,
    ];
}

/// Random scripts of a family.
pub(crate) fn script(family: Family) -> BoxedStrategy<Script> {
    let solo = (0..4_usize, solo::call(family))
        .prop_map(|(actor, call)| vec![Round::Solo { actor, call }]);
    let rounds = prop_oneof![4 => solo, 1 => scene(family)];
    (2..=4_usize, vec(rounds, 1..16))
        .prop_map(|(actors, rounds)| Script {
            actors,
            rounds: rounds.concat(),
        })
        .boxed()
}

fn scene(family: Family) -> BoxedStrategy<Vec<Round>> {
    match family {
        Family::Sockets => scene_sockets::sockets(),
        Family::Pipes => scene_pipes::pipes(),
        Family::Files => scene_files::scene(),
        Family::Waiting => scene_waits::scene(),
        Family::Threads => scene_threads::scene(),
    }
}

/// A scene that begins with any of the actors.
pub(crate) fn begun_by_any(
    parts: impl Strategy<Value = (Vec<crate::script::Call>, Vec<Vec<crate::script::Call>>)> + 'static,
) -> BoxedStrategy<Vec<Round>> {
    (0..4_usize, parts)
        .prop_map(|(first, (setup, together))| {
            vec![Round::Scene {
                first,
                setup,
                together,
            }]
        })
        .boxed()
}
