//! A script, performed once.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use open_coroutine::{Builder, Config, Driver, InitError, ShutdownError};

use crate::interpret::{Outcome, World, perform, perform_at_once, threads};
use crate::script::{Round, Script};

/// Bytes of stack of an actor that is a coroutine: unoptimized code needs more
/// than the default.
const STACK_SIZE: usize = 512 * 1024;

/// Who performs a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Performer {
    /// OS threads; what they see is right.
    Threads,
    /// Coroutines on a runtime with this driver and so many workers.
    Coroutines(Driver, usize),
}

/// All kinds of coroutines.
pub(crate) const COROUTINES: [Performer; 4] = [
    Performer::Coroutines(Driver::IoUring, 1),
    Performer::Coroutines(Driver::IoUring, 2),
    Performer::Coroutines(Driver::Epoll, 1),
    Performer::Coroutines(Driver::Epoll, 2),
];

impl Performer {
    /// Starts the runtime, if it is for coroutines. Returns whether there is
    /// such a runtime here.
    pub(crate) fn start(self) -> bool {
        let Self::Coroutines(driver, workers) = self else {
            return true;
        };
        match open_coroutine::init(
            Config::default()
                .event_loop_size(workers)
                .driver(driver)
                .take_over(false),
        ) {
            Err(InitError::Driver(_)) => false,
            result => {
                result.expect("a runtime starts");
                assert_eq!(
                    driver,
                    open_coroutine::capabilities().driver,
                    "OPEN_COROUTINE_DRIVER must not be set: conformance chooses the driver"
                );
                true
            }
        }
    }

    /// Stops the runtime.
    pub(crate) fn stop(self) -> Result<(), ShutdownError> {
        match self {
            Self::Threads => Ok(()),
            Self::Coroutines(..) => open_coroutine::shutdown(),
        }
    }
}

/// What each actor saw, in the order of its steps; the last is what all saw.
pub(crate) type Record = Vec<Vec<Outcome>>;

/// Where each actor is: the round, for reports of those that hang.
#[derive(Default)]
pub(crate) struct Progress([AtomicUsize; 4]);

impl Progress {
    /// "actor 0 at round 3, .."
    pub(crate) fn describe(&self, script: &Script) -> String {
        let mut text = String::new();
        for (actor, round) in self.0.iter().take(script.actors).enumerate() {
            let index = round.load(Relaxed);
            // Writing to a string does not fail.
            let _ = match script.rounds.get(index) {
                Some(round) => writeln!(text, "actor {actor} is at round {index}: {round:?}"),
                None => writeln!(text, "actor {actor} has ended"),
            };
        }
        text
    }
}

/// Performs `script`; the runtime of `performer` is started.
pub(crate) fn run(script: &Arc<Script>, performer: Performer, progress: &Arc<Progress>) -> Record {
    let world = Arc::new(World::new(script.actors, &fresh_dir()));
    let before = threads::broken_pipes();
    let actors: Vec<_> = (0..script.actors)
        .map(|actor| {
            let (script, world, progress) = (script.clone(), world.clone(), progress.clone());
            let body = move || play(&script, &world, &progress, actor);
            spawn(performer, body)
        })
        .collect();
    let mut record: Record = actors.into_iter().map(|join| join()).collect();
    record.push(vec![Outcome::number(
        (threads::broken_pipes() - before).into(),
    )]);
    record
}

/// Starts an actor; what is returned waits for its end.
fn spawn(
    performer: Performer,
    body: impl FnOnce() -> Vec<Outcome> + Send + 'static,
) -> Box<dyn FnOnce() -> Vec<Outcome>> {
    match performer {
        Performer::Threads => {
            let handle = thread::spawn(body);
            Box::new(move || handle.join().expect("an actor does not panic"))
        }
        Performer::Coroutines(..) => {
            let builder = Builder::new().stack_size(STACK_SIZE);
            let handle = builder.spawn(body).expect("a coroutine starts");
            Box::new(move || handle.join().expect("an actor does not panic"))
        }
    }
}

/// An empty directory. Its path is short, because sockets are bound in it.
fn fresh_dir() -> PathBuf {
    /// Numbers directories; static because the process's directories are.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let name = format!("oc-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = env::temp_dir().join(name);
        match fs::create_dir(&dir) {
            // Left by a process of this number that was aborted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result.expect("a directory for temporary files");
                return dir;
            }
        }
    }
}

/// Plays the part of `actor`.
fn play(script: &Script, world: &World, progress: &Progress, actor: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (index, round) in script.rounds.iter().enumerate() {
        progress.0[actor].store(index, Relaxed);
        if begins_by_meeting(script, index) {
            world.meeting.wait();
        }
        match round {
            Round::Solo { call, .. } => {
                if round.concerns(actor, script.actors) {
                    outcomes.push(perform_at_once(world, call));
                }
            }
            Round::Scene {
                first,
                setup,
                together,
            } => {
                let part = (actor + script.actors - first % script.actors) % script.actors;
                if part == 0 {
                    outcomes.extend(setup.iter().map(|call| perform(world, call)));
                }
                world.meeting.wait();
                if let Some(calls) = together.get(part) {
                    outcomes.extend(calls.iter().map(|call| perform(world, call)));
                }
                world.meeting.wait();
                if part == 0 {
                    world.close_scene();
                }
            }
        }
    }
    progress.0[actor].store(usize::MAX, Relaxed);
    outcomes
}

/// Whether a round is begun by others than ended the one before.
fn begins_by_meeting(script: &Script, index: usize) -> bool {
    let performer = |round: &Round| match round {
        Round::Solo { actor, .. } => actor % script.actors,
        Round::Scene { first, .. } => first % script.actors,
    };
    let Some(before) = index.checked_sub(1) else {
        return false;
    };
    performer(&script.rounds[before]) != performer(&script.rounds[index])
}
