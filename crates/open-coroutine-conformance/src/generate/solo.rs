//! Calls of one actor, on anything, in any state.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::Family;
use super::values::{
    accept_flags, any_read, any_write, flags, masked_waits, meanwhile, offset, patience, pieces,
    sleeps, slot, sockets, waits,
};
use crate::interpret::{invalid, locks};
use crate::script::{Call, Kind, Moves, Named, Slot};

/// A call that fits the family; sometimes one of another.
pub(super) fn call(family: Family) -> BoxedStrategy<Call> {
    let main = match family {
        Family::Sockets => socket().boxed(),
        Family::Pipes => pipe().boxed(),
        Family::Files => file().boxed(),
        Family::Waiting => waiting().boxed(),
        Family::Threads => other().boxed(),
    };
    prop_oneof![8 => main, 3 => transfer(), 2 => descriptor(), 1 => anything()].boxed()
}

fn anything() -> BoxedStrategy<Call> {
    prop_oneof![socket(), pipe(), file(), waiting(), other()].boxed()
}

fn transfer() -> BoxedStrategy<Call> {
    prop_oneof![
        (slot(), pieces(), any_read()).prop_map(|(slot, pieces, via)| Call::Read {
            slot,
            pieces,
            via
        }),
        (slot(), pieces(), any::<u8>(), any_write()).prop_map(|(slot, pieces, seed, via)| {
            Call::Write {
                slot,
                pieces,
                seed,
                via,
            }
        }),
    ]
    .boxed()
}

fn any<T: Arbitrary + 'static>() -> BoxedStrategy<T>
where
    T::Strategy: 'static,
{
    proptest::arbitrary::any::<T>().boxed()
}

/// Duplicates, closes, flags.
fn descriptor() -> BoxedStrategy<Call> {
    prop_oneof![
        2 => slot().prop_map(|slot| Call::Close { slot }),
        1 => slot().prop_map(|slot| Call::CloseByNumber { slot }),
        1 => slot().prop_map(|slot| Call::CloseRange { slot }),
        2 => (slot(), slot()).prop_map(|(from, to)| Call::Dup { from, to }),
        1 => (slot(), slot(), any())
            .prop_map(|(from, to, cloexec)| Call::DupAbove { from, to, cloexec }),
        2 => (slot(), slot(), proptest::option::of(select(&[0, libc::O_CLOEXEC, 1][..])))
            .prop_map(|(from, to, flags)| Call::DupOver { from, to, flags }),
        4 => (slot(), any(), any())
            .prop_map(|(slot, on, by_ioctl)| Call::SetNonblock { slot, on, by_ioctl }),
        1 => (slot(), select(&[libc::F_GETFL, libc::F_GETFD, libc::F_GETPIPE_SZ][..]))
            .prop_map(|(slot, command)| Call::Control { slot, command }),
        1 => slot().prop_map(|slot| Call::Pending { slot }),
        1 => (slot(), 0..5_u8, select(&[0, libc::CLOSE_RANGE_CLOEXEC as i32][..]))
            .prop_map(|(slot, copies, flags)| Call::CloseCopies { slot, copies, flags }),
    ]
    .boxed()
}

fn socket() -> BoxedStrategy<Call> {
    let options = &[
        libc::SO_ERROR,
        libc::SO_TYPE,
        libc::SO_ACCEPTCONN,
        libc::SO_RCVLOWAT,
    ][..];
    let domains = &[libc::AF_UNIX, libc::AF_INET, 4711][..];
    let kinds = &[
        libc::SOCK_STREAM,
        libc::SOCK_DGRAM,
        libc::SOCK_SEQPACKET,
        77,
    ][..];
    prop_oneof![
        6 => pair(sockets()),
        1 => (slot(), select(domains), select(kinds))
            .prop_map(|(slot, domain, kind)| Call::Socket { slot, domain, kind }),
        2 => (slot(), any(), any())
            .prop_map(|(slot, unix, nonblock)| Call::Listen { slot, unix, nonblock, backlog: 64 }),
        1 => (slot(), any()).prop_map(|(slot, unix)| Call::Receiver { slot, unix }),
        2 => (slot(), slot(), any(), any()).prop_map(|(slot, to, nonblock, by_number)| {
            Call::Connect { slot, to, nonblock, by_number }
        }),
        2 => (slot(), slot(), accept_flags(), any(), any())
            .prop_map(|(slot, into, flags, with_address, by_number)| {
                Call::Accept { slot, into, flags, with_address, by_number }
            }),
        8 => transfer(),
        1 => (slot(), slot(), 0..300_usize).prop_map(|(slot, to, len)| Call::SendTo { slot, to, len, waits: false }),
        1 => (slot(), slot(), 0..100_usize)
            .prop_map(|(slot, passed, len)| Call::PassFd { slot, passed, len }),
        1 => (slot(), slot(), 0..100_usize, flags(&[libc::MSG_CMSG_CLOEXEC, libc::MSG_PEEK]))
            .prop_map(|(slot, into, len, flags)| Call::TakeFd { slot, into, len, flags }),
        3 => (slot(), select(&[0, 1, 2, 3][..])).prop_map(|(slot, how)| Call::Shutdown { slot, how }),
        1 => (slot(), any(), 1..500_u16).prop_map(|(slot, is_send, milliseconds)| {
            Call::SetTimeout { slot, is_send, milliseconds }
        }),
        2 => (slot(), any()).prop_map(|(slot, is_peer)| Call::Address { slot, is_peer }),
        1 => (slot(), any(), 0..2).prop_map(|(slot, on, seconds)| Call::SetLinger { slot, on, seconds }),
        1 => slot().prop_map(|slot| Call::AtMark { slot }),
        2 => (slot(), select(options)).prop_map(|(slot, option)| Call::GetOption { slot, option }),
        1 => (slot(), select(&[libc::SO_OOBINLINE, libc::SO_KEEPALIVE, libc::SO_PASSCRED][..]), 0..2)
            .prop_map(|(slot, option, value)| Call::SetOption { slot, option, value }),
    ]
    .boxed()
}

fn pair(kind: BoxedStrategy<Kind>) -> BoxedStrategy<Call> {
    (kind, slot(), slot(), proptest::bool::weighted(0.3))
        .prop_filter("two slots", |(_, first, second, _)| first != second)
        .prop_map(|(kind, first, second, nonblock)| Call::Pair {
            kind,
            slots: [first, second],
            nonblock,
        })
        .boxed()
}

fn moved() -> BoxedStrategy<Call> {
    let splice = &[
        0,
        libc::SPLICE_F_NONBLOCK,
        libc::SPLICE_F_MOVE,
        libc::SPLICE_F_MORE,
        64,
    ][..];
    let by = prop_oneof![
        3 => select(splice).prop_map(Moves::Splice),
        2 => select(splice).prop_map(Moves::Tee),
        1 => select(splice).prop_map(Moves::SpliceNumber),
        1 => select(splice).prop_map(Moves::TeeNumber),
        1 => Just(Moves::SendFileNumber),
        2 => offset().prop_map(Moves::SendFile),
        2 => (offset(), offset()).prop_map(|(from, to)| Moves::CopyRange(from, to)),
    ];
    (slot(), slot(), 0..4096_usize, by)
        .prop_map(|(from, to, len, by)| Call::Move { from, to, len, by })
        .boxed()
}

fn pipe() -> BoxedStrategy<Call> {
    prop_oneof![
        4 => pair(Just(Kind::Pipe).boxed()),
        6 => transfer(),
        4 => moved(),
        1 => (slot(), pieces()).prop_map(|(slot, pieces)| Call::VmSplice { slot, pieces }),
        1 => slot().prop_map(|slot| Call::Fill { slot }),
        1 => pair(sockets()),
        1 => open(),
    ]
    .boxed()
}

fn name() -> BoxedStrategy<u8> {
    (0..8_u8).boxed()
}

fn open() -> BoxedStrategy<Call> {
    let access = &[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR][..];
    let more = &[
        libc::O_CREAT,
        libc::O_CREAT,
        libc::O_CREAT,
        libc::O_EXCL | libc::O_CREAT,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_CLOEXEC,
        libc::O_DIRECTORY,
        libc::O_NOFOLLOW,
        libc::O_NONBLOCK,
        libc::O_PATH,
        libc::O_TMPFILE,
        libc::O_SYNC,
    ][..];
    (
        slot(),
        name(),
        select(access),
        vec(select(more), 0..3),
        select(&[0o600, 0o644, 0o444, 0o200][..]),
    )
        .prop_map(|(slot, name, access, more, mode)| Call::Open {
            slot,
            name,
            flags: more.into_iter().fold(access, |all, flag| all | flag),
            mode,
        })
        .boxed()
}

fn file() -> BoxedStrategy<Call> {
    let locks = &[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN][..];
    let modes = &[
        0,
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_ZERO_RANGE,
        0x4000,
    ][..];
    prop_oneof![
        6 => open(),
        8 => transfer(),
        2 => (slot(), offset(), select(&[0, 1, 2, libc::SEEK_DATA, libc::SEEK_HOLE, 9][..]))
            .prop_map(|(slot, offset, whence)| Call::Seek { slot, offset, whence }),
        1 => (slot(), prop_oneof![0..5000_i64, Just(-1)])
            .prop_map(|(slot, len)| Call::Truncate { slot, len }),
        1 => (slot(), select(modes), -1..3000_i64, -1..3000_i64)
            .prop_map(|(slot, mode, offset, len)| Call::Allocate { slot, mode, offset, len }),
        2 => (slot(), any()).prop_map(|(slot, by_statx)| Call::FileStat { slot, by_statx }),
        1 => (slot(), any()).prop_map(|(slot, data_only)| Call::Sync { slot, data_only }),
        1 => (slot(), select(locks)).prop_map(|(slot, lock)| {
            Call::Flock { slot, operation: lock | libc::LOCK_NB }
        }),
        1 => file_lock(),
        2 => moved(),
        6 => names(),
        2 => Just(Call::Open { slot: 0, name: 5, flags: libc::O_DIRECTORY, mode: 0 }),
        4 => names_at(),
        2 => (directory(), slot(), name(), select(&[libc::O_RDONLY, libc::O_RDWR | libc::O_CREAT][..]))
            .prop_map(|(dir, slot, name, flags)| Call::OpenAt { dir, slot, name, flags }),
        1 => name().prop_map(|name| Call::ListTwice { name }),
    ]
    .boxed()
}

/// Mostly where a directory is opened.
fn directory() -> BoxedStrategy<Slot> {
    prop_oneof![3 => Just(0), 1 => slot()].boxed()
}

fn names_at() -> BoxedStrategy<Call> {
    (directory(), names())
        .prop_map(|(dir, call)| match call {
            Call::Names { what, name, other } => Call::NamesAt {
                dir,
                what,
                name,
                other,
            },
            call => call,
        })
        .boxed()
}

fn file_lock() -> BoxedStrategy<Call> {
    let commands = &[
        libc::F_SETLK,
        libc::F_GETLK,
        libc::F_OFD_SETLK,
        libc::F_OFD_GETLK,
    ][..];
    let kinds = &[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK][..];
    (
        slot(),
        select(commands),
        select(kinds),
        0..20_i64,
        0..20_i64,
    )
        .prop_map(|(slot, command, kind, start, len)| Call::Lock {
            slot,
            command,
            kind,
            start,
            len,
        })
        .boxed()
}

fn names() -> BoxedStrategy<Call> {
    let what = prop_oneof![
        2 => Just(Named::MakeDir),
        1 => Just(Named::RemoveDir),
        1 => Just(Named::Unlink),
        1 => select(&[0, libc::AT_REMOVEDIR, 1][..]).prop_map(Named::UnlinkAt),
        2 => Just(Named::Rename),
        1 => select(&[0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE, 64][..])
            .prop_map(Named::RenameAt),
        1 => Just(Named::Link),
        1 => Just(Named::Symlink),
        1 => Just(Named::ReadLink),
        1 => Just(Named::Stat),
        1 => Just(Named::LinkStat),
        1 => Just(Named::StatX),
        1 => select(&[0o600, 0o755, 0o000][..]).prop_map(Named::ChangeMode),
        1 => (0..8).prop_map(Named::Access),
        1 => (-1..3000_i64).prop_map(Named::Truncate),
        1 => Just(Named::List),
        1 => Just(Named::RealPath),
    ];
    (what, name(), name())
        .prop_map(|(what, name, other)| Call::Names { what, name, other })
        .boxed()
}

fn waiting() -> BoxedStrategy<Call> {
    let events = &[
        libc::EFD_SEMAPHORE,
        0,
        libc::EFD_NONBLOCK,
        libc::EFD_CLOEXEC,
        0x10,
    ][..];
    let polled = prop_oneof![
        Just(libc::POLLIN),
        Just(libc::POLLOUT),
        Just(libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP),
        Just(0),
    ];
    let wanted = &[
        libc::EPOLLIN,
        libc::EPOLLOUT,
        libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET,
        libc::EPOLLIN | libc::EPOLLONESHOT,
        0,
    ][..];
    prop_oneof![
        4 => (slot(), 0..3_u32, select(events)).prop_map(|(slot, value, flags)| Call::Event { slot, value, flags }),
        // One that may fire at any time is for scenes.
        1 => (slot(), select(&[0, libc::TFD_NONBLOCK, 3][..]))
            .prop_map(|(slot, flags)| Call::Timer { slot, after: 0, flags }),
        1 => (slot(), prop_oneof![0..3_u64, Just(u64::MAX), Just(u64::MAX - 1)])
            .prop_map(|(slot, value)| Call::AddEvents { slot, value }),
        2 => slot().prop_map(|slot| Call::Epoll { slot }),
        4 => (slot(), 1..5_i32, slot(), select(wanted)).prop_map(|(set, operation, slot, events)| {
            Call::EpollControl { set, operation, slot, events: events as u32 }
        }),
        3 => (slot(), prop_oneof![4 => Just(16), 1 => -1..2], 0..2_i32)
            .prop_map(|(set, max, timeout)| Call::EpollWait { set, max, timeout }),
        6 => (vec((slot(), polled), 0..4), 0..3_i32, waits())
            .prop_map(|(slots, timeout, waits)| Call::Poll { slots, timeout, waits }),
        6 => transfer(),
        3 => pair(prop_oneof![sockets(), Just(Kind::Pipe)].boxed()),
        2 => (slot(), 0..3_i32).prop_map(|(slot, how)| Call::Shutdown { slot, how }),
        1 => (sleeps(), 0..3_u8).prop_map(|(by, milliseconds)| Call::Sleep { by, milliseconds }),
    ]
    .boxed()
}

fn signals() -> BoxedStrategy<Call> {
    prop_oneof![
        2 => any().prop_map(|[blocks, by_number]: [bool; 2]| Call::Mask { blocks, by_number }),
        1 => Just(Call::PendingSignals),
        2 => (proptest::option::of(0..3_u8), any())
            .prop_map(|(limit, by_number)| Call::WaitSignal { limit, by_number }),
        2 => (vec((slot(), Just(libc::POLLIN)), 0..2), 0..3_i32, masked_waits(), meanwhile())
            .prop_map(|(slots, timeout, waits, meanwhile)| {
                Call::MaskedPoll { slots, timeout, waits, meanwhile }
            }),
        1 => (slot(), any()).prop_map(|(slot, nonblock)| Call::SignalFd { slot, nonblock }),
    ]
    .boxed()
}

fn other() -> BoxedStrategy<Call> {
    prop_oneof![
        3 => signals(),
        4 => (0..invalid::COUNT).prop_map(|which| Call::Invalid { which }),
        2 => (0..4_u8).prop_map(|by| Call::Raise { by }),
        1 => (sleeps(), 0..3_u8).prop_map(|(by, milliseconds)| Call::Sleep { by, milliseconds }),
        1 => Just(Call::Counter),
        3 => (0..locks::AGAIN).prop_map(|which| Call::LockAgain { which }),
        1 => (patience(), 0..3_u8)
            .prop_map(|(by, milliseconds)| Call::NoTicket { by, milliseconds }),
        2 => pair(sockets()),
    ]
    .boxed()
}
