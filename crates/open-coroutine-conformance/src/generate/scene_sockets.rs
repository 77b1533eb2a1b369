//! Scenes of sockets.

use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::scene_connections::*;
use super::scene_streams::*;
use super::values::{flags, pause, sockets as kinds, stream_read, waits};
use crate::script::{Call, Flags, Kind, Named, Round, SCENE_SLOTS, Slot, Via};

const C: Slot = SCENE_SLOTS + 2;
const D: Slot = SCENE_SLOTS + 3;

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
        2 => urgent_byte(),
        2 => half_closed(),
        1 => reset(),
        1 => refused(),
        1 => two_readers(),
        1 => local_shutdown(),
        1 => full_backlog(),
        1 => listener_shut_down(),
        2 => flood(),
        1 => flood_by_address(),
    ])
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
    let kinds = select(&[Kind::Tcp, Kind::Tcp, Kind::Stream][..]);
    (waits(), pause(), 1..20_usize, kinds, any::<bool>())
        .prop_map(|(waits, pause, len, kind, is_inline)| {
            let poll = Call::Poll {
                slots: vec![(A, libc::POLLPRI)],
                timeout: -1,
                waits,
            };
            let total = if is_inline { len } else { len - 1 };
            let reader = vec![
                poll,
                Call::AtMark { slot: A },
                Call::Read {
                    slot: A,
                    pieces: vec![1],
                    via: Via::Socket(Flags(libc::MSG_OOB)),
                },
                Call::ReadAll {
                    slot: A,
                    total,
                    piece: 100,
                    via: Via::Plain,
                },
                Call::AtMark { slot: A },
            ];
            let mut writer = pause;
            let via = Via::Socket(Flags(libc::MSG_OOB));
            writer.push(Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via,
            });
            let set_inline = Call::SetOption {
                slot: A,
                option: libc::SO_OOBINLINE,
                value: is_inline.into(),
            };
            (vec![pair(kind), set_inline], vec![reader, writer])
        })
        .boxed()
}

/// A question, its end, the answer, its end, in any order of goodbyes.
fn half_closed() -> BoxedStrategy<Parts> {
    let ends = || select(&[None, Some(libc::SHUT_WR), Some(libc::SHUT_RDWR)][..]);
    (streams(), 1..5000_usize, 1..5000_usize, ends(), pause())
        .prop_flat_map(|parts| {
            let via = stream_read(parts.0);
            (Just(parts), via)
        })
        .prop_map(|((kind, question, answer, end, pause), via)| {
            let write = |slot, len: usize| Call::Write {
                slot,
                pieces: vec![len],
                seed: 6,
                via: Via::Plain,
            };
            let read = |slot, len: usize| Call::ReadAll {
                slot,
                total: len + 1,
                piece: 700,
                via,
            };
            let shut = |slot, how| Call::Shutdown { slot, how };
            let client = vec![
                write(A, question),
                shut(A, libc::SHUT_WR),
                write(A, 1),
                read(A, answer),
                shut(A, libc::SHUT_RD),
                read(A, 1),
            ];
            let mut server = vec![read(B, question), shut(B, libc::SHUT_RD)];
            server.extend(pause);
            server.push(write(B, answer));
            server.push(end.map_or(Call::Close { slot: B }, |how| shut(B, how)));
            (vec![pair(kind)], vec![client, server])
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

/// More equal messages than there is room for.
fn flood() -> BoxedStrategy<Parts> {
    let vias = &[
        Via::Plain,
        Via::Vector,
        Via::Message(Flags(0)),
        Via::Messages(Flags(0), 1),
    ][..];
    (
        select(&[Kind::Datagram, Kind::Packet][..]),
        12..40_usize,
        1..100_usize,
        select(vias),
        pause(),
    )
        .prop_map(|(kind, count, len, via, pause)| {
            let write = Call::Write {
                slot: B,
                pieces: vec![len],
                seed: 1,
                via,
            };
            let read = Call::Read {
                slot: A,
                pieces: vec![len + 1],
                via: Via::Plain,
            };
            let mut reader = pause;
            reader.extend(vec![read; count]);
            (vec![pair(kind)], vec![vec![write; count], reader])
        })
        .boxed()
}

/// As [`flood`], to an address: the sender's own socket always has room.
fn flood_by_address() -> BoxedStrategy<Parts> {
    (12..30_usize, 1..100_usize, pause())
        .prop_map(|(count, len, pause)| {
            let setup = vec![
                Call::Names {
                    what: Named::Unlink,
                    name: A % 5,
                    other: 0,
                },
                Call::Receiver {
                    slot: A,
                    unix: true,
                },
                Call::Socket {
                    slot: B,
                    domain: libc::AF_UNIX,
                    kind: libc::SOCK_DGRAM,
                },
            ];
            let send = Call::SendTo {
                slot: B,
                to: A,
                len,
                waits: true,
            };
            let read = Call::Read {
                slot: A,
                pieces: vec![len + 1],
                via: Via::Address(Flags(0)),
            };
            let mut reader = pause;
            reader.extend(vec![read; count]);
            (setup, vec![vec![send; count], reader])
        })
        .boxed()
}
