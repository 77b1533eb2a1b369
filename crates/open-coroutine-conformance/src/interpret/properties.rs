//! What sockets tell about themselves.

use std::mem;

use super::files::below;
use super::outcome::{Outcome, observe};
use super::world::World;
use crate::script::Slot;

/// One's own address, or the other's: ports are not compared, and paths only
/// below the directory of the run.
pub(super) fn address(world: &World, slot: Slot, is_peer: bool) -> Outcome {
    // SAFETY: all-zero bytes are a valid, empty address.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    let (fd, at) = (world.fd(slot), (&raw mut address).cast());
    // SAFETY: address and length live across the call.
    let outcome = observe(|| unsafe {
        if is_peer {
            libc::getpeername(fd, at, &raw mut len)
        } else {
            libc::getsockname(fd, at, &raw mut len)
        }
    });
    if !outcome.is_ok() {
        return outcome;
    }
    let outcome = outcome.note(address.ss_family);
    let bytes = (&raw const address).cast::<u8>();
    match i32::from(address.ss_family) {
        libc::AF_UNIX => {
            // SAFETY: the kernel has filled in so much of the storage.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, len as usize) };
            let path = bytes.get(2..).unwrap_or_default();
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            outcome.with_bytes(below(world, path).to_vec())
        }
        _ => {
            // SAFETY: the storage is larger than an address of IPv4.
            let address = unsafe { *bytes.cast::<libc::sockaddr_in>() };
            let has_port = address.sin_port != 0;
            outcome
                .note(len)
                .note(has_port)
                .note(address.sin_addr.s_addr)
        }
    }
}

pub(super) fn set_linger(world: &World, slot: Slot, on: i32, seconds: i32) -> Outcome {
    let linger = libc::linger {
        l_onoff: on,
        l_linger: seconds,
    };
    let len = size_of_val(&linger) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    let (fd, linger) = (world.fd(slot), (&raw const linger).cast());
    // SAFETY: the value lives across the call.
    observe(|| unsafe { libc::setsockopt(fd, level, option, linger, len) })
}

/// Whether the next byte is the one behind urgent data.
pub(super) fn at_mark(world: &World, slot: Slot) -> Outcome {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let mut is_there = -1_i32;
    // SAFETY: the number lives across the call.
    let outcome = observe(|| unsafe { libc::ioctl(world.fd(slot), SIOCATMARK, &raw mut is_there) });
    outcome.note(is_there)
}
