//! Memory: patterns that must stay, in blocks that others free.

use std::sync::Mutex;

use super::{Round, work};

/// Blocks that whoever comes next checks and frees.
#[derive(Default)]
pub(super) struct Shared {
    blocks: Mutex<Vec<Vec<u8>>>,
}

/// How many blocks wait at most.
const WAITING: usize = 200;

pub(super) fn round(round: &mut Round) {
    let mut own: Vec<Vec<u8>> = Vec::new();
    for _ in 0..100 {
        let length = 1_usize << round.below(15);
        let length = length + round.below(length as u64) as usize;
        let mut block = vec![length as u8; length];
        if round.below(4) == 0 {
            block.resize(2 * length, length as u8);
            block.truncate(length);
        }
        own.push(block);
        if round.below(3) == 0 {
            let taken = own.swap_remove(round.below(own.len() as u64) as usize);
            check(&taken);
        }
    }
    work(1);
    own.iter().for_each(|block| check(block));
    let mut waiting = round
        .world
        .allocation
        .blocks
        .lock()
        .expect("nobody panics with it");
    waiting.append(&mut own);
    let excess = waiting.len().saturating_sub(WAITING);
    let foreign: Vec<_> = waiting.drain(..excess).collect();
    drop(waiting);
    foreign.iter().for_each(|block| check(block));
}

fn check(block: &[u8]) {
    let length = block.len() as u8;
    assert!(
        block.iter().all(|byte| *byte == length),
        "{length} bytes were changed"
    );
}
