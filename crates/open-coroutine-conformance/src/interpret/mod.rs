//! Performs one step, and notes what a program can see of it.
//!
//! Every call goes through the `libc` crate, so on a coroutine it reaches the
//! replacement. The questions of `ready` go by number and do not wait, so they
//! are answered by the kernel.

mod descriptors;
mod entries;
mod files;
pub(crate) mod invalid;
pub(crate) mod locks;
mod outcome;
mod properties;
mod ready;
pub(crate) mod threads;
mod transfer;
mod waits;
mod world;

use std::time::Duration;

pub(crate) use outcome::Outcome;
pub(crate) use world::World;

use crate::script::Call;

/// Performs a call that may wait for other actors.
pub(crate) fn perform(world: &World, call: &Call) -> Outcome {
    match call {
        Call::Pair { .. }
        | Call::Socket { .. }
        | Call::Listen { .. }
        | Call::Receiver { .. }
        | Call::SignalFd { .. }
        | Call::Connect { .. }
        | Call::Accept { .. }
        | Call::Open { .. }
        | Call::OpenAt { .. }
        | Call::Event { .. }
        | Call::Timer { .. }
        | Call::Epoll { .. } => make(world, call),
        Call::Dup { .. }
        | Call::DupAbove { .. }
        | Call::DupOver { .. }
        | Call::Close { .. }
        | Call::CloseByNumber { .. }
        | Call::CloseRange { .. }
        | Call::CloseCopies { .. }
        | Call::Address { .. }
        | Call::SetLinger { .. }
        | Call::AtMark { .. }
        | Call::SetNonblock { .. }
        | Call::SetTimeout { .. }
        | Call::SetOption { .. }
        | Call::GetOption { .. }
        | Call::Control { .. }
        | Call::Shutdown { .. }
        | Call::Pending { .. } => change(world, call),
        Call::Read { .. }
        | Call::ReadAll { .. }
        | Call::ReadPatiently { .. }
        | Call::Write { .. }
        | Call::WriteLine { .. }
        | Call::Fill { .. }
        | Call::WriteInTime { .. }
        | Call::SendTo { .. }
        | Call::AddEvents { .. }
        | Call::PassFd { .. }
        | Call::TakeFd { .. } => transfer(world, call),
        Call::Poll { .. }
        | Call::MaskedPoll { .. }
        | Call::EpollControl { .. }
        | Call::EpollWait { .. }
        | Call::Sleep { .. } => wait(world, call),
        _ => file(world, call),
    }
}

/// Performs a call that must not wait for other actors: it is skipped if it
/// would.
pub(crate) fn perform_at_once(world: &World, call: &Call) -> Outcome {
    if ready::would_wait(world, call) {
        return Outcome::skipped();
    }
    perform(world, call)
}

fn make(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Pair {
            kind,
            slots,
            nonblock,
        } => descriptors::pair(world, kind, slots, nonblock),
        Call::Socket { slot, domain, kind } => descriptors::socket(world, slot, domain, kind),
        Call::Listen {
            slot,
            unix,
            nonblock,
            backlog,
        } => descriptors::listen(world, slot, unix, (nonblock, backlog)),
        Call::Receiver { slot, unix } => descriptors::receiver(world, slot, unix),
        Call::SignalFd { slot, nonblock } => threads::signal_fd(world, slot, nonblock),
        Call::Connect {
            slot,
            to,
            nonblock,
            by_number,
        } => descriptors::connect(world, slot, to, (nonblock, by_number)),
        Call::Accept {
            slot,
            into,
            flags,
            with_address,
            by_number,
        } => descriptors::accept(world, [slot, into], (flags, by_number), with_address),
        Call::Open {
            slot,
            name,
            flags,
            mode,
        } => descriptors::open(world, slot, name, flags, mode),
        Call::OpenAt {
            dir,
            slot,
            name,
            flags,
        } => descriptors::open_at(world, dir, slot, name, flags),
        Call::Event { slot, value, flags } => descriptors::event(world, slot, value, flags),
        Call::Timer { slot, after, flags } => descriptors::timer(world, slot, after, flags),
        Call::Epoll { slot } => descriptors::epoll(world, slot),
        _ => unreachable!("{call:?} makes no descriptor"),
    }
}

fn change(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Dup { from, to } => descriptors::dup(world, from, to),
        Call::DupAbove { from, to, cloexec } => descriptors::dup_above(world, from, to, cloexec),
        Call::DupOver { from, to, flags } => descriptors::dup_over(world, from, to, flags),
        Call::Close { slot } => descriptors::close(world, slot),
        Call::CloseByNumber { slot } => descriptors::close_by_number(world, slot),
        Call::CloseRange { slot } => descriptors::close_range(world, slot),
        Call::CloseCopies {
            slot,
            copies,
            flags,
        } => descriptors::close_copies(world, slot, copies, flags),
        Call::Address { slot, is_peer } => properties::address(world, slot, is_peer),
        Call::SetLinger { slot, on, seconds } => {
            properties::set_linger(world, slot, i32::from(on), seconds)
        }
        Call::AtMark { slot } => properties::at_mark(world, slot),
        Call::SetNonblock { slot, on, by_ioctl } => {
            descriptors::set_nonblock(world, slot, on, by_ioctl)
        }
        Call::SetTimeout {
            slot,
            is_send,
            milliseconds,
        } => descriptors::set_timeout(world, slot, is_send, milliseconds),
        Call::SetOption {
            slot,
            option,
            value,
        } => descriptors::set_option(world, slot, option, value),
        Call::GetOption { slot, option } => descriptors::get_option(world, slot, option),
        Call::Control { slot, command } => descriptors::control(world, slot, command),
        Call::Shutdown { slot, how } => descriptors::shutdown(world, slot, how),
        Call::Pending { slot } => descriptors::pending(world, slot),
        _ => unreachable!("{call:?} changes no descriptor"),
    }
}

fn transfer(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Read {
            slot,
            ref pieces,
            via,
        } => transfer::read(world, slot, pieces, via),
        Call::ReadAll {
            slot,
            total,
            piece,
            via,
        } => transfer::read_all(world, slot, (total, piece), via, |_| true),
        Call::ReadPatiently {
            slot,
            total,
            piece,
            via,
        } => transfer::read_all(world, slot, (total, piece), via, |errno| {
            errno != libc::EAGAIN
        }),
        Call::Write {
            slot,
            ref pieces,
            seed,
            via,
        } => transfer::write(world, slot, pieces, seed, via),
        Call::WriteLine { slot, len } => transfer::write_line(world, slot, len),
        Call::Fill { slot } => transfer::fill(world, slot),
        Call::WriteInTime { slot, len, timeout } => {
            transfer::write_in_time(world, slot, len, Duration::from_millis(timeout.into()))
        }
        Call::SendTo {
            slot,
            to,
            len,
            waits,
        } => transfer::send_to(world, slot, to, len, waits),
        Call::AddEvents { slot, value } => transfer::add_events(world, slot, value),
        Call::PassFd { slot, passed, len } => transfer::pass_fd(world, slot, passed, len),
        Call::TakeFd {
            slot,
            into,
            len,
            flags,
        } => transfer::take_fd(world, slot, into, len, flags.0),
        _ => unreachable!("{call:?} transfers nothing"),
    }
}

fn wait(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Poll {
            ref slots,
            timeout,
            waits,
        } => waits::poll(world, slots, timeout, waits),
        Call::MaskedPoll {
            ref slots,
            timeout,
            waits,
            meanwhile,
        } => waits::masked_poll(world, slots, timeout, waits, meanwhile),
        Call::EpollControl {
            set,
            operation,
            slot,
            events,
        } => waits::epoll_control(world, set, operation, slot, events),
        Call::EpollWait { set, max, timeout } => waits::epoll_wait(world.fd(set), max, timeout),
        Call::Sleep { by, milliseconds } => waits::sleep(by, milliseconds),
        _ => unreachable!("{call:?} waits for nothing"),
    }
}

fn file(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Move { from, to, len, by } => files::move_bytes(world, from, to, len, by),
        Call::VmSplice { slot, ref pieces } => files::vm_splice(world, slot, pieces),
        Call::Seek {
            slot,
            offset,
            whence,
        } => files::seek(world, slot, offset, whence),
        Call::Truncate { slot, len } => files::truncate(world, slot, len),
        Call::Allocate {
            slot,
            mode,
            offset,
            len,
        } => files::allocate(world, slot, mode, offset, len),
        Call::FileStat { slot, by_statx } => files::file_stat(world, slot, by_statx),
        Call::Sync { slot, data_only } => files::sync(world, slot, data_only),
        Call::Flock { slot, operation } => files::flock(world, slot, operation),
        Call::Lock {
            slot,
            command,
            kind,
            start,
            len,
        } => files::lock(world, slot, command, kind, [start, len]),
        Call::Names { what, name, other } => files::names(world, what, name, other),
        Call::NamesAt {
            dir,
            what,
            name,
            other,
        } => files::names_at(world, dir, what, [name, other]),
        Call::ListTwice { name } => files::list_twice(world, name),
        _ => thread(world, call),
    }
}

fn thread(world: &World, call: &Call) -> Outcome {
    match *call {
        Call::Yield => {
            std::thread::yield_now();
            Outcome::default()
        }
        Call::Raise { by } => threads::raise(by),
        Call::Mask { blocks, by_number } => threads::mask(blocks, by_number),
        Call::PendingSignals => threads::pending(),
        Call::WaitSignal { limit, by_number } => threads::wait_signal(limit, by_number),
        Call::Signal { tickets } => locks::signal(world, tickets),
        Call::WaitTicket { by } => locks::wait_ticket(world, by),
        Call::NoTicket { by, milliseconds } => locks::no_ticket(world, by, milliseconds),
        Call::WriteBoth { times, is_timed } => locks::write_both(world, times, is_timed),
        Call::ReadBoth { times, is_timed } => locks::read_both(world, times, is_timed),
        Call::LockAgain { which } => locks::again(which),
        Call::Invalid { which } => invalid::invalid(world, which),
        Call::Add { guard, times } => threads::add(world, guard, times),
        Call::Counter => threads::counter(world),
        Call::Notify => threads::notify(world),
        Call::WaitNotified => threads::wait_notified(world),
        Call::ChannelSend { values } => threads::send(world, values),
        Call::ChannelReceive { values } => threads::receive(world, values),
        _ => unreachable!("{call:?} is performed elsewhere"),
    }
}
