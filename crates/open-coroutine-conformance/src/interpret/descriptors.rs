//! Making, duplicating, closing and setting up descriptors.

use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use super::outcome::{self, Outcome, observe};
use super::transfer::{address_of, loopback};
use super::world::World;
use crate::script::{Kind, Slot};

/// Puts the descriptor that a call has made into its slot; its number is not
/// compared.
fn keep(world: &World, slot: Slot, outcome: Outcome) -> Outcome {
    if outcome.is_ok() {
        world.put(slot, outcome.result as RawFd);
    }
    outcome.without_result()
}

/// Two connected descriptors.
pub(super) fn pair(world: &World, kind: Kind, slots: [Slot; 2], nonblock: bool) -> Outcome {
    let mut fds = [-1; 2];
    let flags = if nonblock { libc::SOCK_NONBLOCK } else { 0 };
    let unix = |kind: i32, fds: &mut [RawFd; 2]| {
        // SAFETY: `fds` has room for two descriptors.
        unsafe { libc::socketpair(libc::AF_UNIX, kind | flags, 0, fds.as_mut_ptr()) }
    };
    let outcome = observe(|| match kind {
        Kind::Stream => unix(libc::SOCK_STREAM, &mut fds),
        Kind::Datagram => unix(libc::SOCK_DGRAM, &mut fds),
        Kind::Packet => unix(libc::SOCK_SEQPACKET, &mut fds),
        Kind::Tcp => tcp_pair(flags, &mut fds),
        Kind::Udp => udp_pair(flags, &mut fds),
        // SAFETY: `fds` has room for two descriptors.
        Kind::Pipe => unsafe {
            libc::pipe2(
                fds.as_mut_ptr(),
                if nonblock { libc::O_NONBLOCK } else { 0 },
            )
        },
        Kind::RawTerminal | Kind::HastyTerminal | Kind::Terminal => terminal(kind, &mut fds),
    });
    if outcome.is_ok() {
        world.put(slots[0], fds[0]);
        world.put(slots[1], fds[1]);
    }
    // Several calls of glibc that need not leave it alone.
    Outcome {
        changes_errno: false,
        ..outcome
    }
}

fn bound(kind: i32) -> RawFd {
    let address = loopback(0);
    // SAFETY: the address lives across the call.
    unsafe {
        let fd = libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0);
        let len = size_of_val(&address) as libc::socklen_t;
        assert_eq!(
            0,
            libc::bind(fd, (&raw const address).cast(), len),
            "bind to a free port"
        );
        fd
    }
}

fn connect_to(fd: RawFd, to: RawFd) -> i32 {
    let (address, len) = address_of(to);
    // SAFETY: the address lives across the call.
    unsafe { libc::connect(fd, (&raw const address).cast(), len) }
}

fn tcp_pair(flags: i32, fds: &mut [RawFd; 2]) -> i32 {
    let listener = bound(libc::SOCK_STREAM);
    // SAFETY: these take descriptors of our own, or null.
    unsafe {
        libc::listen(listener, 1);
        fds[1] = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let connected = connect_to(fds[1], listener);
        fds[0] = libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags);
        let one = 1;
        let len = size_of_val(&one) as libc::socklen_t;
        for fd in *fds {
            let one = (&raw const one).cast();
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, one, len);
        }
        if flags != 0 {
            libc::fcntl(fds[1], libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK);
        }
        libc::close(listener);
        connected.min(fds[0].min(0))
    }
}

fn udp_pair(flags: i32, fds: &mut [RawFd; 2]) -> i32 {
    *fds = [
        bound(libc::SOCK_DGRAM | flags),
        bound(libc::SOCK_DGRAM | flags),
    ];
    connect_to(fds[0], fds[1]).min(connect_to(fds[1], fds[0]))
}

fn terminal(kind: Kind, fds: &mut [RawFd; 2]) -> i32 {
    let [master, slave] = fds;
    // SAFETY: all-zero bytes are settings to be filled in; all pointers live
    // across the calls, and null asks for defaults.
    unsafe {
        let mut settings: libc::termios = mem::zeroed();
        let none = ptr::null_mut();
        let result = libc::openpty(master, slave, none, ptr::null(), ptr::null());
        libc::tcgetattr(*slave, &raw mut settings);
        if kind == Kind::Terminal {
            settings.c_lflag &= !(libc::ECHO | libc::ECHONL);
        } else {
            libc::cfmakeraw(&raw mut settings);
        }
        if kind == Kind::HastyTerminal {
            settings.c_cc[libc::VMIN] = 0;
        }
        libc::tcsetattr(*slave, libc::TCSANOW, &raw const settings);
        result
    }
}

pub(super) fn socket(world: &World, slot: Slot, domain: i32, kind: i32) -> Outcome {
    // SAFETY: takes integers.
    keep(
        world,
        slot,
        observe(|| unsafe { libc::socket(domain, kind, 0) }),
    )
}

/// A path as an address.
fn unix_address(world: &World, slot: Slot) -> libc::sockaddr_un {
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let path = world.path(slot % 5);
    for (to, from) in address.sun_path.iter_mut().zip(path.as_bytes()) {
        *to = *from as libc::c_char;
    }
    address
}

/// Binds a new socket to a path; -1 if there is something.
fn bound_to_path(world: &World, slot: Slot, kind: i32) -> RawFd {
    let address = unix_address(world, slot);
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address lives across the calls, which take a socket of our own.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        if libc::bind(fd, (&raw const address).cast(), len) == 0 {
            return fd;
        }
        let errno = outcome::errno();
        libc::close(fd);
        outcome::set_errno(errno);
        -1
    }
}

pub(super) fn listen(
    world: &World,
    slot: Slot,
    unix: bool,
    (nonblock, backlog): (bool, i32),
) -> Outcome {
    let flags = if nonblock { libc::SOCK_NONBLOCK } else { 0 };
    let kind = libc::SOCK_STREAM | flags;
    let outcome = observe(|| {
        let fd = if unix {
            bound_to_path(world, slot, kind)
        } else {
            bound(kind)
        };
        if fd >= 0 {
            // SAFETY: a socket of our own.
            unsafe { libc::listen(fd, backlog) };
        }
        fd
    });
    keep(world, slot, outcome)
}

pub(super) fn receiver(world: &World, slot: Slot, unix: bool) -> Outcome {
    let kind = libc::SOCK_DGRAM;
    let outcome = observe(|| {
        if unix {
            bound_to_path(world, slot, kind)
        } else {
            bound(kind)
        }
    });
    keep(world, slot, outcome)
}

pub(super) fn connect(
    world: &World,
    slot: Slot,
    to: Slot,
    (nonblock, by_number): (bool, bool),
) -> Outcome {
    let (address, len) = address_of(world.fd(to));
    let kind = libc::SOCK_STREAM | if nonblock { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: takes integers.
    let fd = unsafe { libc::socket(address.ss_family.into(), kind, 0) };
    let at = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the address lives across the call.
    let outcome = observe(|| unsafe {
        if by_number {
            libc::syscall(libc::SYS_connect, fd, at, len) as i32
        } else {
            libc::connect(fd, at, len)
        }
    });
    world.put(slot, fd);
    outcome
}

pub(super) fn accept(
    world: &World,
    [slot, into]: [Slot; 2],
    (flags, by_number): (Option<i32>, bool),
    with_address: bool,
) -> Outcome {
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    let (address_at, len_at) = if with_address {
        ((&raw mut address).cast::<libc::sockaddr>(), &raw mut len)
    } else {
        (ptr::null_mut(), ptr::null_mut())
    };
    let fd = world.fd(slot);
    // SAFETY: address and length live across the call, or are null.
    let outcome = observe(|| unsafe {
        match flags {
            Some(flags) if by_number => {
                libc::syscall(libc::SYS_accept4, fd, address_at, len_at, flags) as i32
            }
            None if by_number => libc::syscall(libc::SYS_accept, fd, address_at, len_at) as i32,
            Some(flags) => libc::accept4(fd, address_at, len_at, flags),
            None => libc::accept(fd, address_at, len_at),
        }
    });
    let outcome = keep(world, into, outcome).note(len).note(address.ss_family);
    if outcome.is_ok() {
        outcome.note(status(world.fd(into)))
    } else {
        outcome
    }
}

/// The flags of a descriptor and of its file.
fn status(fd: RawFd) -> i32 {
    // SAFETY: asks for flags.
    unsafe { libc::fcntl(fd, libc::F_GETFL) << 1 | libc::fcntl(fd, libc::F_GETFD) }
}

pub(super) fn open(world: &World, slot: Slot, name: u8, flags: i32, mode: u32) -> Outcome {
    let path = world.path(name);
    // SAFETY: the path lives across the call.
    let outcome = keep(
        world,
        slot,
        observe(|| unsafe { libc::open(path.as_ptr(), flags, mode) }),
    );
    if outcome.is_ok() {
        outcome.note(status(world.fd(slot)))
    } else {
        outcome
    }
}

pub(super) fn open_at(world: &World, dir: Slot, slot: Slot, name: u8, flags: i32) -> Outcome {
    let (dir, path) = (world.fd(dir), World::name(name));
    // SAFETY: the path lives across the call.
    let outcome = observe(|| unsafe { libc::openat(dir, path.as_ptr(), flags, 0o600) });
    let outcome = keep(world, slot, outcome);
    if outcome.is_ok() {
        outcome.note(status(world.fd(slot)))
    } else {
        outcome
    }
}

pub(super) fn event(world: &World, slot: Slot, value: u32, flags: i32) -> Outcome {
    // SAFETY: takes integers.
    keep(
        world,
        slot,
        observe(|| unsafe { libc::eventfd(value, flags) }),
    )
}

pub(super) fn timer(world: &World, slot: Slot, after: u8, flags: i32) -> Outcome {
    let outcome = observe(|| {
        // SAFETY: takes integers.
        unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) }
    });
    let outcome = keep(world, slot, outcome);
    // SAFETY: all-zero bytes are times of zero.
    let mut times: libc::itimerspec = unsafe { mem::zeroed() };
    times.it_value.tv_nsec = i64::from(after) * 1_000_000;
    // SAFETY: the times live across the call.
    unsafe { libc::timerfd_settime(world.fd(slot), 0, &raw const times, ptr::null_mut()) };
    outcome
}

pub(super) fn epoll(world: &World, slot: Slot) -> Outcome {
    // SAFETY: takes an integer.
    keep(world, slot, observe(|| unsafe { libc::epoll_create1(0) }))
}

pub(super) fn dup(world: &World, from: Slot, to: Slot) -> Outcome {
    // SAFETY: takes an integer.
    keep(world, to, observe(|| unsafe { libc::dup(world.fd(from)) }))
}

pub(super) fn dup_above(world: &World, from: Slot, to: Slot, cloexec: bool) -> Outcome {
    let command = if cloexec {
        libc::F_DUPFD_CLOEXEC
    } else {
        libc::F_DUPFD
    };
    // SAFETY: takes integers.
    let outcome = observe(|| unsafe { libc::fcntl(world.fd(from), command, 300) });
    let is_above = outcome.result >= 300;
    let outcome = keep(world, to, outcome).note(is_above);
    if outcome.is_ok() {
        outcome.note(status(world.fd(to)))
    } else {
        outcome
    }
}

/// Over an open descriptor only: another number might be somebody else's.
pub(super) fn dup_over(world: &World, from: Slot, to: Slot, flags: Option<i32>) -> Outcome {
    let (from, to) = (world.fd(from), world.fd(to));
    // SAFETY: `to` is a slot's own, or invalid.
    let outcome = observe(|| unsafe {
        match flags {
            Some(flags) => libc::dup3(from, to, flags),
            None => libc::dup2(from, to),
        }
    });
    let is_there = outcome.result == i64::from(to);
    outcome.without_result().note(is_there).note(status(to))
}

pub(super) fn close(world: &World, slot: Slot) -> Outcome {
    let fd = world.take(slot);
    // SAFETY: the slot owned it.
    observe(|| unsafe { libc::close(fd) })
}

pub(super) fn close_by_number(world: &World, slot: Slot) -> Outcome {
    let fd = world.take(slot);
    // SAFETY: the slot owned it.
    observe(|| unsafe { libc::syscall(libc::SYS_close, fd) as i32 })
}

pub(super) fn close_range(world: &World, slot: Slot) -> Outcome {
    let Ok(fd) = u32::try_from(world.take(slot)) else {
        return Outcome::skipped();
    };
    // SAFETY: the slot owned it.
    observe(|| unsafe { libc::close_range(fd, fd, 0) })
}

/// Closes copies of a descriptor, or sets `FD_CLOEXEC` for them.
pub(super) fn close_copies(world: &World, slot: Slot, copies: u8, flags: i32) -> Outcome {
    /// Above all other numbers of the process.
    const FIRST: i32 = 700;
    // SAFETY: takes integers.
    let copy = |_| unsafe { libc::fcntl(world.fd(slot), libc::F_DUPFD, FIRST) };
    let fds: Vec<RawFd> = (0..copies).map(copy).filter(|fd| *fd >= 0).collect();
    let (Some(&first), Some(&last)) = (fds.first(), fds.last()) else {
        return Outcome::skipped();
    };
    // SAFETY: nobody else has numbers in this range.
    let outcome = observe(|| unsafe { libc::close_range(first as u32, last as u32, flags) });
    fds.into_iter().fold(outcome, |outcome, fd| {
        let status = status(fd);
        // SAFETY: still the copy, or closed already.
        let closed = observe(|| unsafe { libc::close(fd) });
        outcome.note(status).note(closed.errno)
    })
}

pub(super) fn set_nonblock(world: &World, slot: Slot, on: bool, by_ioctl: bool) -> Outcome {
    let fd = world.fd(slot);
    let value = i32::from(on);
    // SAFETY: changes flags; `value` lives across the call.
    let outcome = observe(|| unsafe {
        if by_ioctl {
            return libc::ioctl(fd, libc::FIONBIO, &raw const value);
        }
        match (libc::fcntl(fd, libc::F_GETFL), on) {
            (-1, _) => -1,
            (flags, true) => libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK),
            (flags, false) => libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK),
        }
    });
    outcome.note(status(fd))
}

pub(super) fn set_timeout(world: &World, slot: Slot, is_send: bool, milliseconds: u16) -> Outcome {
    let option = if is_send {
        libc::SO_SNDTIMEO
    } else {
        libc::SO_RCVTIMEO
    };
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(milliseconds) * 1000,
    };
    let len = size_of_val(&time) as libc::socklen_t;
    let time = (&raw const time).cast();
    // SAFETY: the time lives across the call.
    observe(|| unsafe { libc::setsockopt(world.fd(slot), libc::SOL_SOCKET, option, time, len) })
}

pub(super) fn set_option(world: &World, slot: Slot, option: i32, value: i32) -> Outcome {
    let len = size_of_val(&value) as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: the value lives across the call.
    observe(|| unsafe { libc::setsockopt(world.fd(slot), libc::SOL_SOCKET, option, value, len) })
}

pub(super) fn get_option(world: &World, slot: Slot, option: i32) -> Outcome {
    let mut value = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length live across the call.
    let outcome = observe(|| unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(
            world.fd(slot),
            libc::SOL_SOCKET,
            option,
            value,
            &raw mut len,
        )
    });
    outcome.note(value).note(len)
}

/// `fcntl(2)` commands that only ask.
pub(super) fn control(world: &World, slot: Slot, command: i32) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::fcntl(world.fd(slot), command) })
}

pub(super) fn shutdown(world: &World, slot: Slot, how: i32) -> Outcome {
    // SAFETY: takes integers.
    observe(|| unsafe { libc::shutdown(world.fd(slot), how) })
}

pub(super) fn pending(world: &World, slot: Slot) -> Outcome {
    let mut bytes = -1;
    // SAFETY: the number lives across the call.
    let outcome =
        observe(|| unsafe { libc::ioctl(world.fd(slot), libc::FIONREAD, &raw mut bytes) });
    outcome.note(bytes)
}
