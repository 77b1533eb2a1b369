//! Which results differ.

use std::fmt::Write as _;

use crate::run::Record;
use crate::script::{Call, Round, Script};

/// What differs between two records, by actor and call; `None` if they are the
/// same.
pub(super) fn difference(script: &Script, threads: &Record, coroutines: &Record) -> Option<String> {
    let mut text = String::new();
    for (actor, (right, wrong)) in threads.iter().zip(coroutines).enumerate() {
        let calls = calls_of(script, actor);
        for (number, (right, wrong)) in right.iter().zip(wrong).enumerate() {
            if right != wrong {
                let call = calls.get(number).copied();
                // Writing to a string does not fail.
                let _ = writeln!(
                    text,
                    "actor {actor}, {}\n    threads:    {right:?}\n    coroutines: {wrong:?}",
                    call.map_or("SIGPIPE in all".to_owned(), |call| format!("{call:?}")),
                );
            }
        }
    }
    (threads != coroutines).then_some(text)
}

/// What `actor` does, in the order of its outcomes.
fn calls_of(script: &Script, actor: usize) -> Vec<&Call> {
    let mut calls = Vec::new();
    for round in &script.rounds {
        match round {
            Round::Solo { call, .. } if round.concerns(actor, script.actors) => calls.push(call),
            Round::Solo { .. } => {}
            Round::Scene {
                first,
                setup,
                together,
            } if actor < script.actors => {
                let part = (actor + script.actors - first % script.actors) % script.actors;
                if part == 0 {
                    calls.extend(setup);
                }
                calls.extend(together.get(part).into_iter().flatten());
            }
            Round::Scene { .. } => {}
        }
    }
    calls
}
