//! Scenes of pipes, FIFOs and terminals, and of copies within the kernel.

use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::scene_streams::*;
use super::values::pause;
use crate::script::{Call, FIFO, Kind, Moves, Named, Round, SCENE_SLOTS, Slot, Via};

const C: Slot = SCENE_SLOTS + 2;
const D: Slot = SCENE_SLOTS + 3;

pub(super) fn pipes() -> BoxedStrategy<Vec<Round>> {
    let pipe = Kind::Pipe;
    begun_by_any(prop_oneof![
        4 => one_message(pipe),
        3 => big_transfer(pipe),
        2 => end_of_stream(pipe),
        2 => patient(pipe),
        1 => broken_midway(pipe),
        1 => becomes_nonblocking(pipe),
        2 => fifo(),
        2 => raw_terminal(),
        2 => terminal(),
        1 => hasty_terminal(),
        2 => spliced(),
        2 => sent_file(),
    ])
}

/// Opening a FIFO waits for the other side.
fn fifo() -> BoxedStrategy<Parts> {
    (pause(), pause(), 0..3000_usize)
        .prop_map(|(first, second, len)| {
            let open = |slot, flags| Call::Open {
                slot,
                name: FIFO,
                flags,
                mode: 0,
            };
            let mut reader = first;
            reader.push(open(A, libc::O_RDONLY));
            reader.push(Call::ReadAll {
                slot: A,
                total: len + 1,
                piece: 999,
                via: Via::Plain,
            });
            let mut writer = second;
            writer.push(open(B, libc::O_WRONLY));
            writer.push(Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 3,
                via: Via::Vector,
            });
            writer.push(Call::Close { slot: B });
            let make = Call::Names {
                what: Named::MakeFifo,
                name: FIFO,
                other: 0,
            };
            (vec![make], vec![reader, writer])
        })
        .boxed()
}

fn raw_terminal() -> BoxedStrategy<Parts> {
    (1..900_usize, pause(), any::<bool>())
        .prop_map(|(total, pause, is_master)| {
            let (from, to) = if is_master { (A, B) } else { (B, A) };
            let reader = vec![Call::ReadAll {
                slot: to,
                total,
                piece: 100,
                via: Via::Plain,
            }];
            let mut writer = pause;
            writer.push(Call::Write {
                slot: from,
                pieces: vec![total],
                seed: 3,
                via: Via::Plain,
            });
            (vec![pair(Kind::RawTerminal)], vec![reader, writer])
        })
        .boxed()
}

/// Lines typed at the master come one by one; and one end goes away.
fn terminal() -> BoxedStrategy<Parts> {
    (1..40_usize, pause(), 1..60_usize)
        .prop_map(|(len, pause, size)| {
            let total = len + 1;
            let reader = vec![Call::ReadAll {
                slot: B,
                total,
                piece: size,
                via: Via::Plain,
            }];
            let mut writer = pause;
            writer.push(Call::WriteLine { slot: A, len });
            (vec![pair(Kind::Terminal)], vec![reader, writer])
        })
        .boxed()
}

/// A copy within the kernel that waits for its input.
fn spliced() -> BoxedStrategy<Parts> {
    let by = select(
        &[
            Moves::Splice(0),
            Moves::Tee(0),
            Moves::SpliceNumber(0),
            Moves::TeeNumber(0),
        ][..],
    );
    (by, pause(), 1..3000_usize)
        .prop_map(|(by, pause, len)| {
            let setup = vec![
                pair(Kind::Pipe),
                Call::Pair {
                    kind: Kind::Pipe,
                    slots: [C, D],
                    nonblock: false,
                },
            ];
            let mover = vec![Call::Move {
                from: A,
                to: D,
                len: 4096,
                by,
            }];
            let mut writer = pause;
            writer.push(Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via: Via::Plain,
            });
            writer.push(Call::ReadAll {
                slot: C,
                total: len,
                piece: 700,
                via: Via::Plain,
            });
            (setup, vec![mover, writer])
        })
        .boxed()
}

/// A file that is larger than what its receiver has room for.
fn sent_file() -> BoxedStrategy<Parts> {
    (streams(), pause(), 1..300_000_usize)
        .prop_map(|(kind, pause, len)| {
            let flags = libc::O_RDWR | libc::O_TMPFILE;
            let setup = vec![
                pair(kind),
                Call::Open {
                    slot: C,
                    name: 5,
                    flags,
                    mode: 0o600,
                },
                Call::Write {
                    slot: C,
                    pieces: vec![len],
                    seed: 8,
                    via: Via::Plain,
                },
            ];
            let sender = vec![Call::Move {
                from: C,
                to: B,
                len,
                by: Moves::SendFile(0),
            }];
            let mut reader = pause;
            reader.push(Call::ReadAll {
                slot: A,
                total: len,
                piece: 9000,
                via: Via::Plain,
            });
            (setup, vec![sender, reader])
        })
        .boxed()
}

/// A terminal from which a read does not wait.
fn hasty_terminal() -> BoxedStrategy<Parts> {
    any::<bool>()
        .prop_map(|is_vectored| {
            let via = if is_vectored { Via::Vector } else { Via::Plain };
            let read = Call::Read {
                slot: B,
                pieces: vec![10],
                via,
            };
            (vec![pair(Kind::HastyTerminal)], vec![vec![read]])
        })
        .boxed()
}
