//! Scenes of anything that has two ends: one actor waits in a call until another
//! has made its call.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::values::{flags, pause, some_pieces, stream_read, waiting_read, waiting_write};
use crate::script::{Call, Flags, Kind, SCENE_SLOTS, Slot, Via};

/// The two ends that a scene begins with.
pub(super) const A: Slot = SCENE_SLOTS;
pub(super) const B: Slot = SCENE_SLOTS + 1;

pub(super) type Parts = (Vec<Call>, Vec<Vec<Call>>);

pub(super) fn pair(kind: Kind) -> Call {
    Call::Pair {
        kind,
        slots: [A, B],
        nonblock: false,
    }
}

pub(super) fn streams() -> BoxedStrategy<Kind> {
    select(&[Kind::Stream, Kind::Tcp][..]).boxed()
}

/// More bytes than the buffers between two ends take.
fn more_than_fits(kind: Kind) -> usize {
    if kind == Kind::Tcp {
        8_000_000
    } else {
        1_000_000
    }
}

/// One message, which somebody may wait for already.
pub(super) fn one_message(kind: Kind) -> BoxedStrategy<Parts> {
    (
        some_pieces(),
        waiting_read(kind),
        pause(),
        some_pieces(),
        waiting_write(kind),
        any::<bool>(),
    )
        .prop_map(move |(sizes, read, pause, pieces, write, has_limit)| {
            let mut setup = vec![pair(kind)];
            if has_limit {
                setup.push(Call::SetTimeout {
                    slot: A,
                    is_send: false,
                    milliseconds: 900,
                });
            }
            let reader = vec![Call::Read {
                slot: A,
                pieces: sizes,
                via: read,
            }];
            let mut writer = pause;
            writer.push(Call::Write {
                slot: B,
                pieces,
                seed: 2,
                via: write,
            });
            (setup, vec![reader, writer])
        })
        .boxed()
}

/// How the other end goes away.
fn farewell(kind: Kind) -> BoxedStrategy<Call> {
    let close = Just(Call::Close { slot: B });
    if kind == Kind::Pipe {
        return close.boxed();
    }
    let shutdown = select(&[libc::SHUT_WR, libc::SHUT_RDWR][..]);
    prop_oneof![
        close,
        shutdown.prop_map(|how| Call::Shutdown { slot: B, how })
    ]
    .boxed()
}

pub(super) fn end_of_stream(kind: Kind) -> BoxedStrategy<Parts> {
    (
        some_pieces(),
        stream_read(kind),
        pause(),
        farewell(kind),
        0..900_usize,
    )
        .prop_map(move |(sizes, via, pause, farewell, len)| {
            let total = sizes.iter().sum::<usize>() + 1000;
            let reader = vec![
                Call::ReadAll {
                    slot: A,
                    total,
                    piece: sizes[0],
                    via,
                },
                Call::Read {
                    slot: A,
                    pieces: sizes,
                    via: Via::Plain,
                },
            ];
            let mut writer = vec![Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via: Via::Plain,
            }];
            writer.extend(pause);
            writer.push(farewell);
            (vec![pair(kind)], vec![reader, writer])
        })
        .boxed()
}

/// More than fits into any buffer at once: the writer's calls write all.
pub(super) fn big_transfer(kind: Kind) -> BoxedStrategy<Parts> {
    (
        1..400_000_usize,
        1..4_usize,
        500..70_000_usize,
        waiting_write(kind),
        stream_read(kind),
        pause(),
    )
        .prop_map(move |(len, parts, piece, write, read, pause)| {
            let mut reader = pause;
            reader.push(Call::ReadAll {
                slot: A,
                total: len * parts,
                piece,
                via: read,
            });
            let pieces = vec![len / 2, 0, len - len / 2];
            let part = Call::Write {
                slot: B,
                pieces,
                seed: 4,
                via: write,
            };
            (vec![pair(kind)], vec![reader, vec![part; parts]])
        })
        .boxed()
}

/// `MSG_WAITALL` gets all, in however many pieces it comes.
pub(super) fn wait_for_all(kind: Kind) -> BoxedStrategy<Parts> {
    let flags = flags(&[libc::MSG_NOSIGNAL]).prop_map(|flags| Flags(flags.0 | libc::MSG_WAITALL));
    let via = (flags, 0..3).prop_map(|(flags, by)| match by {
        0 => Via::Socket(flags),
        1 => Via::Address(flags),
        _ => Via::Message(flags),
    });
    (vec(1..9000_usize, 1..4), pause(), via, 0..2000_usize)
        .prop_map(move |(sizes, pause, via, missing)| {
            let total: usize = sizes.iter().sum();
            let reader = vec![Call::Read {
                slot: A,
                pieces: vec![total / 3, total - total / 3 + missing],
                via,
            }];
            let mut writer = Vec::new();
            for size in sizes {
                writer.push(Call::Write {
                    slot: B,
                    pieces: vec![size],
                    seed: 7,
                    via: Via::Plain,
                });
                writer.extend(pause.iter().cloned());
            }
            if missing > 0 {
                writer.push(Call::Shutdown {
                    slot: B,
                    how: libc::SHUT_WR,
                });
            }
            (vec![pair(kind)], vec![reader, writer])
        })
        .boxed()
}

/// Nobody sends, or not enough.
pub(super) fn receive_timeout(kind: Kind) -> BoxedStrategy<Parts> {
    (1..6_u16, waiting_read(kind), 0..20_usize, any::<bool>())
        .prop_map(move |(milliseconds, via, sent, is_rest)| {
            let is_stream = matches!(kind, Kind::Stream | Kind::Tcp);
            let mut setup = vec![
                pair(kind),
                Call::SetTimeout {
                    slot: A,
                    is_send: false,
                    milliseconds,
                },
            ];
            let via = match (is_rest && is_stream, via) {
                (true, Via::Message(_)) => Via::Message(Flags(libc::MSG_WAITALL)),
                (true, _) => Via::Socket(Flags(libc::MSG_WAITALL)),
                (false, via) => via,
            };
            if is_rest && is_stream {
                setup.push(Call::Write {
                    slot: B,
                    pieces: vec![sent],
                    seed: 7,
                    via: Via::Plain,
                });
            }
            (
                setup,
                vec![vec![Call::Read {
                    slot: A,
                    pieces: vec![100, 30],
                    via,
                }]],
            )
        })
        .boxed()
}

/// There is no room, and there will be none.
pub(super) fn send_timeout(kind: Kind) -> BoxedStrategy<Parts> {
    (1..6_u8, any::<bool>(), waiting_write(kind))
        .prop_map(move |(timeout, is_full, via)| {
            let limit = Call::SetTimeout {
                slot: B,
                is_send: true,
                milliseconds: timeout.into(),
            };
            // What TCP has on its way may make room a moment later.
            let parts = if is_full && kind != Kind::Tcp {
                vec![
                    Call::Fill { slot: B },
                    Call::Write {
                        slot: B,
                        pieces: vec![4096],
                        seed: 1,
                        via,
                    },
                ]
            } else {
                vec![Call::WriteInTime {
                    slot: B,
                    len: more_than_fits(kind),
                    timeout,
                }]
            };
            (vec![pair(kind), limit], vec![parts])
        })
        .boxed()
}

/// A time-out races with data: whatever wins, no byte is lost or repeated.
pub(super) fn patient(kind: Kind) -> BoxedStrategy<Parts> {
    (
        1..3_u16,
        vec((1..3000_usize, pause()), 1..8),
        stream_read(kind),
        any::<bool>(),
    )
        .prop_map(move |(milliseconds, sizes, via, is_message)| {
            let via = if is_message && kind != Kind::Pipe {
                Via::Message(Flags(0))
            } else {
                via
            };
            let total = sizes.iter().map(|(size, _)| size).sum();
            let mut setup = vec![pair(kind)];
            if kind != Kind::Pipe {
                setup.push(Call::SetTimeout {
                    slot: A,
                    is_send: false,
                    milliseconds,
                });
            }
            let reader = vec![Call::ReadPatiently {
                slot: A,
                total,
                piece: 5000,
                via,
            }];
            let mut writer = Vec::new();
            for (size, pause) in sizes {
                writer.push(Call::Write {
                    slot: B,
                    pieces: vec![size],
                    seed: 7,
                    via: Via::Plain,
                });
                writer.extend(pause);
            }
            (setup, vec![reader, writer])
        })
        .boxed()
}

/// The reader goes away while the writer waits for room.
pub(super) fn broken_midway(kind: Kind) -> BoxedStrategy<Parts> {
    (1..1000_usize, pause())
        .prop_map(move |(len, pause)| {
            let mut reader = vec![Call::ReadAll {
                slot: A,
                total: len,
                piece: len,
                via: Via::Plain,
            }];
            reader.extend(pause);
            reader.push(Call::Close { slot: A });
            let writer = vec![Call::WriteInTime {
                slot: B,
                len: more_than_fits(kind),
                timeout: 0,
            }];
            (vec![pair(kind)], vec![reader, writer])
        })
        .boxed()
}

/// A call that waits already goes on waiting.
pub(super) fn becomes_nonblocking(kind: Kind) -> BoxedStrategy<Parts> {
    (some_pieces(), waiting_read(kind), any::<bool>())
        .prop_map(move |(sizes, via, by_ioctl)| {
            let reader = vec![Call::Read {
                slot: A,
                pieces: sizes,
                via,
            }];
            let pause = Call::Sleep {
                by: crate::script::Sleeps::Std,
                milliseconds: 5,
            };
            let writer = vec![
                pause.clone(),
                Call::SetNonblock {
                    slot: A,
                    on: true,
                    by_ioctl,
                },
                pause,
                Call::Write {
                    slot: B,
                    pieces: vec![50],
                    seed: 1,
                    via: Via::Plain,
                },
            ];
            (vec![pair(kind)], vec![reader, writer])
        })
        .boxed()
}
