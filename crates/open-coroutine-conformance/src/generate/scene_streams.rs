//! Scenes of sockets, pipes and terminals: one actor waits in a call until
//! another has made its call.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::values::{
    accept_flags, flags, pause, sockets as kinds, some_pieces, stream_read, waiting_read,
    waiting_write,
};
use super::{Feature, begun_by_any, is_hooked};
use crate::script::{Call, FIFO, Flags, Kind, Moves, Named, Round, SCENE_SLOTS, Slot, Via};

/// The two ends that a scene begins with.
const A: Slot = SCENE_SLOTS;
const B: Slot = SCENE_SLOTS + 1;
const C: Slot = SCENE_SLOTS + 2;
const D: Slot = SCENE_SLOTS + 3;

type Parts = (Vec<Call>, Vec<Vec<Call>>);

fn pair(kind: Kind) -> Call {
    Call::Pair {
        kind,
        slots: [A, B],
        nonblock: false,
    }
}

fn streams() -> BoxedStrategy<Kind> {
    select(&[Kind::Stream, Kind::Tcp][..]).boxed()
}

pub(super) fn sockets() -> BoxedStrategy<Vec<Round>> {
    begun_by_any(prop_oneof![
        4 => kinds().prop_flat_map(one_message),
        2 => streams().prop_flat_map(end_of_stream),
        3 => streams().prop_flat_map(big_transfer),
        2 => streams().prop_flat_map(wait_for_all),
        2 => kinds().prop_flat_map(receive_timeout),
        2 => streams().prop_flat_map(send_timeout),
        2 => streams().prop_flat_map(patient),
        1 => streams().prop_flat_map(broken_midway),
        3 => connecting(),
        1 => accept_timeout(),
        2 => kinds().prop_flat_map(becomes_nonblocking),
        2 => passed_descriptor(),
        1 => urgent_byte(),
        1 => two_readers(),
        1 => local_shutdown(),
    ])
}

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
        2 => spliced(),
        2 => sent_file(),
    ])
}

/// More bytes than the buffers between two ends take.
fn more_than_fits(kind: Kind) -> usize {
    if kind == Kind::Tcp { 8_000_000 } else { 1_000_000 }
}

/// One message, which somebody may wait for already.
fn one_message(kind: Kind) -> BoxedStrategy<Parts> {
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

fn end_of_stream(kind: Kind) -> BoxedStrategy<Parts> {
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
fn big_transfer(kind: Kind) -> BoxedStrategy<Parts> {
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
fn wait_for_all(kind: Kind) -> BoxedStrategy<Parts> {
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
fn receive_timeout(kind: Kind) -> BoxedStrategy<Parts> {
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
fn send_timeout(kind: Kind) -> BoxedStrategy<Parts> {
    (1..6_u8, any::<bool>(), waiting_write(kind))
        .prop_map(move |(timeout, is_full, via)| {
            let limit = Call::SetTimeout {
                slot: B,
                is_send: true,
                milliseconds: timeout.into(),
            };
            let parts = if is_full {
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
fn patient(kind: Kind) -> BoxedStrategy<Parts> {
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
fn broken_midway(kind: Kind) -> BoxedStrategy<Parts> {
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

/// Accepted and connected at once.
fn connecting() -> BoxedStrategy<Parts> {
    (
        any::<bool>(),
        accept_flags(),
        any::<bool>(),
        pause(),
        pause(),
        0..1000_usize,
    )
        .prop_map(|(unix, flags, with_address, first, second, len)| {
            let setup = vec![
                Call::Names {
                    what: Named::Unlink,
                    name: A % 5,
                    other: 0,
                },
                Call::Listen {
                    slot: A,
                    unix,
                    nonblock: false,
                },
            ];
            let mut server = first;
            // What a flag that is refused leaves behind is accepted without.
            server.push(Call::Accept {
                slot: A,
                into: B,
                flags: flags.filter(|flags| *flags != 0x40),
                with_address,
            });
            server.push(Call::SetNonblock {
                slot: B,
                on: false,
                by_ioctl: false,
            });
            server.push(Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via: Via::Plain,
            });
            server.push(Call::Shutdown {
                slot: B,
                how: libc::SHUT_WR,
            });
            let mut client = second;
            client.push(Call::Connect {
                slot: C,
                to: A,
                nonblock: false,
            });
            client.push(Call::ReadAll {
                slot: C,
                total: len + 1,
                piece: len + 1,
                via: Via::Plain,
            });
            (setup, vec![server, client])
        })
        .boxed()
}

fn accept_timeout() -> BoxedStrategy<Parts> {
    (any::<bool>(), accept_flags(), 1..5_u16)
        .prop_map(|(unix, flags, milliseconds)| {
            let setup = vec![
                Call::Names {
                    what: Named::Unlink,
                    name: A % 5,
                    other: 0,
                },
                Call::Listen {
                    slot: A,
                    unix,
                    nonblock: false,
                },
                Call::SetTimeout {
                    slot: A,
                    is_send: false,
                    milliseconds,
                },
            ];
            let accept = Call::Accept {
                slot: A,
                into: B,
                flags,
                with_address: true,
            };
            (setup, vec![vec![accept]])
        })
        .boxed()
}

/// A call that waits already goes on waiting.
fn becomes_nonblocking(kind: Kind) -> BoxedStrategy<Parts> {
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

fn passed_descriptor() -> BoxedStrategy<Parts> {
    let kinds = select(&[Kind::Stream, Kind::Datagram, Kind::Packet][..]);
    (
        kinds,
        pause(),
        1..50_usize,
        flags(&[libc::MSG_CMSG_CLOEXEC]),
    )
        .prop_map(|(kind, pause, len, flags)| {
            let setup = vec![
                pair(kind),
                Call::Event {
                    slot: C,
                    value: 5,
                    flags: 0,
                },
            ];
            let reader = vec![
                Call::TakeFd {
                    slot: A,
                    into: D,
                    len,
                    flags,
                },
                Call::Read {
                    slot: D,
                    pieces: vec![8],
                    via: Via::Plain,
                },
            ];
            let mut writer = pause;
            writer.push(Call::PassFd {
                slot: B,
                passed: C,
                len,
            });
            (setup, vec![reader, writer])
        })
        .boxed()
}

/// Out-of-band data.
fn urgent_byte() -> BoxedStrategy<Parts> {
    (super::values::suspending_waits(), pause(), 1..20_usize)
        .prop_map(|(waits, pause, len)| {
            let reader = vec![
                Call::Poll {
                    slots: vec![(A, libc::POLLPRI)],
                    timeout: 900,
                    waits,
                },
                Call::Read {
                    slot: A,
                    pieces: vec![1],
                    via: Via::Socket(Flags(libc::MSG_OOB)),
                },
                Call::ReadAll {
                    slot: A,
                    total: len - 1,
                    piece: 100,
                    via: Via::Plain,
                },
            ];
            let mut writer = pause;
            let via = Via::Socket(Flags(libc::MSG_OOB));
            writer.push(Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via,
            });
            (vec![pair(Kind::Tcp)], vec![reader, writer])
        })
        .boxed()
}

/// Two wait on one socket, for two equal messages.
fn two_readers() -> BoxedStrategy<Parts> {
    let kinds = select(&[Kind::Datagram, Kind::Packet, Kind::Udp][..]);
    (kinds, pause(), 1..500_usize, pause())
        .prop_map(|(kind, first, len, second)| {
            let reader = vec![Call::Read {
                slot: A,
                pieces: vec![len],
                via: Via::Plain,
            }];
            let write = Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via: Via::Plain,
            };
            let mut writer = first;
            writer.push(write.clone());
            writer.extend(second);
            writer.push(write);
            // The same actor reads again where there are only two.
            let mut reader_and_writer = writer;
            reader_and_writer.extend(reader.clone());
            (vec![pair(kind)], vec![reader, reader_and_writer])
        })
        .boxed()
}

/// The reader's own end is shut down by another.
fn local_shutdown() -> BoxedStrategy<Parts> {
    let kinds = select(&[Kind::Stream, Kind::Tcp, Kind::Packet][..]);
    (
        kinds,
        pause(),
        select(&[libc::SHUT_RD, libc::SHUT_RDWR][..]),
    )
        .prop_map(|(kind, pause, how)| {
            let reader = vec![Call::Read {
                slot: A,
                pieces: vec![100],
                via: Via::Plain,
            }];
            let mut other = pause;
            other.push(Call::Shutdown { slot: A, how });
            (vec![pair(kind)], vec![reader, other])
        })
        .boxed()
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
    let by = if is_hooked(Feature::Tee) {
        prop_oneof![Just(Moves::Splice(0)), Just(Moves::Tee(0))].boxed()
    } else {
        Just(Moves::Splice(0)).boxed()
    };
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
