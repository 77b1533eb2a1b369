//! Scenes of sockets: those of their ends, and how these come about.

use proptest::prelude::*;
use proptest::sample::select;

use super::begun_by_any;
use super::scene_streams::*;
use super::values::{accept_flags, flags, pause, sockets as kinds, waits};
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
        1 => urgent_byte(),
        1 => two_readers(),
        1 => local_shutdown(),
        1 => full_backlog(),
        1 => listener_shut_down(),
        2 => flood(),
        1 => flood_by_address(),
    ])
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
                    backlog: 8,
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
                    backlog: 8,
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
    (waits(), pause(), 1..20_usize)
        .prop_map(|(waits, pause, len)| {
            let reader = vec![
                Call::Poll {
                    slots: vec![(A, libc::POLLPRI)],
                    timeout: -1,
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

/// What makes a listener in slot A, on a path if `unix`.
fn listen(unix: bool, backlog: i32) -> Vec<Call> {
    let name = A % 5;
    vec![
        Call::Names {
            what: Named::Unlink,
            name,
            other: 0,
        },
        Call::Listen {
            slot: A,
            unix,
            nonblock: false,
            backlog,
        },
    ]
}

fn accept(into: Slot) -> Call {
    Call::Accept {
        slot: A,
        into,
        flags: None,
        with_address: true,
    }
}

/// A UNIX socket waits for room in the listener's queue.
fn full_backlog() -> BoxedStrategy<Parts> {
    pause()
        .prop_map(|pause| {
            let connect = |slot| Call::Connect {
                slot,
                to: A,
                nonblock: false,
            };
            let mut setup = listen(true, 0);
            setup.push(connect(C));
            let mut acceptor = pause;
            acceptor.extend([accept(B), Call::Close { slot: B }, accept(B)]);
            (setup, vec![vec![connect(D)], acceptor])
        })
        .boxed()
}

fn listener_shut_down() -> BoxedStrategy<Parts> {
    (any::<bool>(), pause())
        .prop_map(|(unix, pause)| {
            let mut other = pause;
            other.push(Call::Shutdown {
                slot: A,
                how: libc::SHUT_RDWR,
            });
            (listen(unix, 1), vec![vec![accept(B)], other])
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
