//! Scenes of files: appends, locks, one position for several actors.

use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::values::pause;
use crate::script::{Call, LOCKED, Round, SCENE_SLOTS, Slot, Via};

const A: Slot = SCENE_SLOTS;
const B: Slot = SCENE_SLOTS + 1;

type Parts = (Vec<Call>, Vec<Vec<Call>>);

pub(super) fn scene() -> BoxedStrategy<Vec<Round>> {
    begun_by_any(prop_oneof![
        shared_position(libc::O_RDWR),
        shared_position(libc::O_RDWR | libc::O_APPEND),
        own_ranges(),
        file_lock(),
    ])
}

fn open(slot: Slot, flags: i32) -> Call {
    open_name(slot, 4, flags)
}

fn open_name(slot: Slot, name: u8, flags: i32) -> Call {
    Call::Open {
        slot,
        name,
        flags: flags | libc::O_CREAT,
        mode: 0o600,
    }
}

/// Equal blocks, written by several at the position that they share: none is
/// lost.
fn shared_position(flags: i32) -> BoxedStrategy<Parts> {
    (
        1..3000_usize,
        1..4_usize,
        select(&[Via::Plain, Via::Vector][..]),
    )
        .prop_map(move |(len, times, via)| {
            let write = Call::Write {
                slot: A,
                pieces: vec![len],
                seed: 3,
                via,
            };
            let part = vec![write; times];
            (vec![open(A, flags)], vec![part.clone(), part])
        })
        .boxed()
}

/// Each has a range of its own.
fn own_ranges() -> BoxedStrategy<Parts> {
    (1..2000_usize, any::<bool>())
        .prop_map(|(len, is_synced)| {
            let part = |seed: u8, at: i64| {
                let pieces = vec![len];
                let mut calls = vec![Call::Write {
                    slot: A,
                    pieces: pieces.clone(),
                    seed,
                    via: Via::At(at),
                }];
                if is_synced {
                    calls.push(Call::Sync {
                        slot: A,
                        data_only: true,
                    });
                }
                calls.push(Call::Read {
                    slot: A,
                    pieces,
                    via: Via::VectorAt(at),
                });
                calls
            };
            (vec![open(A, libc::O_RDWR)], vec![part(1, 0), part(2, 5000)])
        })
        .boxed()
}

/// The lock that one holds is waited for by another.
fn file_lock() -> BoxedStrategy<Parts> {
    let kinds = select(&[libc::F_RDLCK, libc::F_WRLCK][..]);
    (any::<bool>(), kinds, pause())
        .prop_map(|(is_flock, kind, pause)| {
            let lock = |slot, is_shared| match (is_flock, is_shared) {
                (true, true) => Call::Flock {
                    slot,
                    operation: libc::LOCK_SH,
                },
                (true, false) => Call::Flock {
                    slot,
                    operation: libc::LOCK_EX,
                },
                (false, _) => {
                    let kind = if is_shared { kind } else { libc::F_WRLCK };
                    Call::Lock {
                        slot,
                        command: libc::F_OFD_SETLKW,
                        kind,
                        start: 0,
                        len: 9,
                    }
                }
            };
            let setup = vec![
                open_name(A, LOCKED, libc::O_RDWR),
                open_name(B, LOCKED, libc::O_RDWR),
                lock(A, false),
            ];
            let waiter = vec![lock(B, kind == libc::F_RDLCK)];
            let mut holder = pause;
            holder.push(Call::Close { slot: A });
            (setup, vec![holder, waiter])
        })
        .boxed()
}
