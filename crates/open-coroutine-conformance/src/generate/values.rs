//! Flags, sizes, slots, ways to read and write.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::script::{
    Call, Checked, Flags, Kind, Meanwhile, Numbered, Patience, SHARED_SLOTS, Sleeps, Slot, Via,
    Waits,
};

/// A slot of solo rounds.
pub(super) fn slot() -> BoxedStrategy<Slot> {
    (0..SHARED_SLOTS).boxed()
}

/// Some of `flags` together, mostly none.
pub(super) fn flags(flags: &'static [i32]) -> BoxedStrategy<Flags> {
    let some = vec(select(flags), 0..3);
    prop_oneof![
        Just(Flags(0)),
        some.prop_map(|bits| Flags(bits.into_iter().fold(0, |all, bit| all | bit)))
    ]
    .boxed()
}

/// Sizes of the pieces of a buffer: up to 4096 bytes, which fit in where there
/// is room at all.
pub(super) fn pieces() -> BoxedStrategy<Vec<usize>> {
    prop_oneof![
        4 => vec(prop_oneof![0..40_usize, Just(1), Just(8)], 1..4),
        1 => vec(0..1300_usize, 1..4),
        1 => Just(vec![4096]),
        1 => Just(vec![0]),
        1 => Just(Vec::new()),
    ]
    .boxed()
}

/// Pieces with at least a byte.
pub(super) fn some_pieces() -> BoxedStrategy<Vec<usize>> {
    (1..1000_usize, pieces())
        .prop_map(|(first, mut pieces)| {
            pieces.insert(0, first);
            pieces
        })
        .boxed()
}

const READ_FLAGS: &[i32] = &[
    libc::MSG_PEEK,
    libc::MSG_TRUNC,
    libc::MSG_DONTWAIT,
    libc::MSG_WAITALL,
    libc::MSG_OOB,
    libc::MSG_ERRQUEUE,
    libc::MSG_NOSIGNAL,
    libc::MSG_CMSG_CLOEXEC,
];
const WRITE_FLAGS: &[i32] = &[
    libc::MSG_DONTWAIT,
    libc::MSG_NOSIGNAL,
    libc::MSG_OOB,
    libc::MSG_DONTROUTE,
    libc::MSG_EOR,
    libc::MSG_CONFIRM,
];
/// With which a read waits, and takes one message.
const WAITING_READ_FLAGS: &[i32] = &[libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_NOSIGNAL];

/// Offsets in files; negative ones are errors.
pub(super) fn offset() -> BoxedStrategy<i64> {
    prop_oneof![8 => 0..3000_i64, 1 => Just(-1), 1 => Just(-7), 1 => Just(i64::MAX), 1 => Just(5000)].boxed()
}

/// Any way to read.
pub(super) fn any_read() -> BoxedStrategy<Via> {
    prop_oneof![
        2 => Just(Via::Plain),
        2 => Just(Via::Vector),
        3 => flags(READ_FLAGS).prop_map(Via::Socket),
        2 => flags(READ_FLAGS).prop_map(Via::Address),
        2 => flags(READ_FLAGS).prop_map(Via::Message),
        1 => (flags(READ_FLAGS), 0..4_u8).prop_map(|(flags, count)| {
            Via::Messages(Flags(flags.0 | libc::MSG_DONTWAIT), count)
        }),
        1 => offset().prop_map(Via::At),
        1 => offset().prop_map(Via::VectorAt),
        1 => (offset(), select(&[0, libc::RWF_NOWAIT, libc::RWF_HIPRI][..]))
            .prop_map(|(at, flags)| Via::VectorAtFlags(at, flags)),
        3 => numbered(READ_FLAGS).prop_map(Via::Number),
        2 => checked().prop_map(Via::Checked),
    ]
    .boxed()
}

/// Any way to write.
pub(super) fn any_write() -> BoxedStrategy<Via> {
    prop_oneof![
        3 => Just(Via::Plain),
        2 => Just(Via::Vector),
        3 => flags(WRITE_FLAGS).prop_map(Via::Socket),
        2 => flags(WRITE_FLAGS).prop_map(Via::Address),
        2 => flags(WRITE_FLAGS).prop_map(Via::Message),
        1 => (flags(WRITE_FLAGS), 0..4_u8).prop_map(|(flags, count)| {
            Via::Messages(Flags(flags.0 | libc::MSG_DONTWAIT), count)
        }),
        1 => offset().prop_map(Via::At),
        1 => offset().prop_map(Via::VectorAt),
        1 => (offset(), select(&[0, libc::RWF_APPEND, libc::RWF_DSYNC, libc::RWF_NOWAIT][..]))
            .prop_map(|(at, flags)| Via::VectorAtFlags(at, flags)),
        3 => numbered(WRITE_FLAGS).prop_map(Via::Number),
    ]
    .boxed()
}

/// Any way by a number.
fn numbered(all: &'static [i32]) -> BoxedStrategy<Numbered> {
    prop_oneof![
        Just(Numbered::Plain),
        Just(Numbered::Vector),
        flags(all).prop_map(Numbered::Address),
        flags(all).prop_map(Numbered::Message),
        offset().prop_map(Numbered::At),
        offset().prop_map(|at| Numbered::VectorAtFlags(at, 0)),
    ]
    .boxed()
}

fn checked() -> BoxedStrategy<Checked> {
    prop_oneof![
        Just(Checked::Plain),
        flags(READ_FLAGS).prop_map(Checked::Socket),
        flags(READ_FLAGS).prop_map(Checked::Address),
        offset().prop_map(Checked::At),
    ]
    .boxed()
}

/// What reads any descriptor, and waits for it.
fn plain_read() -> BoxedStrategy<Via> {
    select(
        &[
            Via::Plain,
            Via::Plain,
            Via::Vector,
            Via::Number(Numbered::Plain),
            Via::Number(Numbered::Vector),
            Via::Checked(Checked::Plain),
        ][..],
    )
    .boxed()
}

/// What writes to any descriptor, and waits for room.
fn plain_write() -> BoxedStrategy<Via> {
    select(
        &[
            Via::Plain,
            Via::Plain,
            Via::Vector,
            Via::Number(Numbered::Plain),
            Via::Number(Numbered::Vector),
        ][..],
    )
    .boxed()
}

/// A way to read that waits for another actor.
pub(super) fn waiting_read(kind: Kind) -> BoxedStrategy<Via> {
    if !is_socket(kind) {
        let current = Just(Via::VectorAtFlags(-1, 0));
        return prop_oneof![3 => plain_read(), 1 => current].boxed();
    }
    let flags = || flags(WAITING_READ_FLAGS);
    prop_oneof![
        plain_read(),
        flags().prop_map(Via::Socket),
        flags().prop_map(Via::Address),
        flags().prop_map(Via::Message),
        Just(Via::Messages(Flags(libc::MSG_WAITFORONE), 3)),
        flags().prop_map(|flags| Via::Number(Numbered::Address(flags))),
        flags().prop_map(|flags| Via::Number(Numbered::Message(flags))),
        flags().prop_map(|flags| Via::Checked(Checked::Socket(flags))),
        flags().prop_map(|flags| Via::Checked(Checked::Address(flags))),
    ]
    .boxed()
}

/// A way to write to `kind` that waits for room.
pub(super) fn waiting_write(kind: Kind) -> BoxedStrategy<Via> {
    if !is_socket(kind) {
        return plain_write();
    }
    let flags = || flags(&[libc::MSG_NOSIGNAL]);
    prop_oneof![
        plain_write(),
        flags().prop_map(Via::Socket),
        flags().prop_map(Via::Address),
        flags().prop_map(Via::Message),
        flags().prop_map(|flags| Via::Number(Numbered::Address(flags))),
        flags().prop_map(|flags| Via::Number(Numbered::Message(flags))),
    ]
    .boxed()
}

/// A way to read a stream of `kind`, piece by piece.
pub(super) fn stream_read(kind: Kind) -> BoxedStrategy<Via> {
    if !is_socket(kind) {
        return plain_read();
    }
    let flags = || flags(&[libc::MSG_WAITALL]);
    prop_oneof![
        2 => plain_read(),
        2 => flags().prop_map(Via::Socket),
        1 => flags().prop_map(|flags| Via::Number(Numbered::Address(flags))),
        1 => flags().prop_map(|flags| Via::Checked(Checked::Socket(flags))),
    ]
    .boxed()
}

pub(super) fn is_socket(kind: Kind) -> bool {
    !matches!(kind, Kind::Pipe | Kind::RawTerminal | Kind::Terminal)
}

/// What lets the other actors come first, sometimes.
pub(super) fn pause() -> BoxedStrategy<Vec<Call>> {
    let sleep =
        (sleeps(), 1..3_u8).prop_map(|(by, milliseconds)| vec![Call::Sleep { by, milliseconds }]);
    prop_oneof![Just(Vec::new()), sleep, Just(vec![Call::Yield])].boxed()
}

pub(super) fn sleeps() -> BoxedStrategy<Sleeps> {
    select(
        &[
            Sleeps::Std,
            Sleeps::Nano,
            Sleeps::Clock,
            Sleeps::ClockUntil,
            Sleeps::Micro,
            Sleeps::Poll,
            Sleeps::Number,
        ][..],
    )
    .boxed()
}

/// A function that waits for descriptors.
pub(super) fn waits() -> BoxedStrategy<Waits> {
    select(
        &[
            Waits::Poll,
            Waits::Epoll,
            Waits::PPoll,
            Waits::Select,
            Waits::PSelect,
            Waits::EpollPWait,
            Waits::EpollPWait2,
            Waits::PPollNumber,
            Waits::PSelectNumber,
            Waits::EpollNumber,
            Waits::CheckedPoll,
            Waits::CheckedPPoll,
        ][..],
    )
    .boxed()
}

/// A function that has a signal mask meanwhile.
pub(super) fn masked_waits() -> BoxedStrategy<Waits> {
    select(
        &[
            Waits::PPoll,
            Waits::PSelect,
            Waits::EpollPWait,
            Waits::EpollPWait2,
            Waits::PPollNumber,
            Waits::PSelectNumber,
            Waits::EpollNumber,
            Waits::CheckedPPoll,
        ][..],
    )
    .boxed()
}

pub(super) fn meanwhile() -> BoxedStrategy<Meanwhile> {
    select(&[Meanwhile::Own, Meanwhile::Unblocked, Meanwhile::Blocked][..]).boxed()
}

pub(super) fn patience() -> BoxedStrategy<Patience> {
    select(&[Patience::Timed, Patience::Clock][..]).boxed()
}

/// Flags of accept4, or accept.
pub(super) fn accept_flags() -> BoxedStrategy<Option<i32>> {
    let flags = &[
        0,
        libc::SOCK_NONBLOCK,
        libc::SOCK_CLOEXEC,
        libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        0x40,
    ];
    option::of(select(&flags[..])).boxed()
}

pub(super) fn sockets() -> BoxedStrategy<Kind> {
    select(
        &[
            Kind::Stream,
            Kind::Tcp,
            Kind::Datagram,
            Kind::Packet,
            Kind::Udp,
        ][..],
    )
    .boxed()
}
