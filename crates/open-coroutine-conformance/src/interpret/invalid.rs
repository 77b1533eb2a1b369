//! Calls with arguments that no call accepts. None has a pointer that cannot be
//! used: what the kernel answers to that is not a matter of the library.

use std::ffi::c_void;
use std::ptr;

use libc::{iovec, timespec};

use super::outcome::{Outcome, observe, observe_error, observe_size};
use super::world::World;

/// How many there are in the list.
pub(crate) const COUNT: u8 = 40;

pub(super) fn invalid(world: &World, which: u8) -> Outcome {
    match which % COUNT {
        which @ ..16 => on_nothing(which),
        which @ 16..30 => on_file(world, which),
        which => of_time(which),
    }
}

/// On a number that is no descriptor.
fn on_nothing(which: u8) -> Outcome {
    let mut buf = [0_u8; 8];
    let at = buf.as_mut_ptr().cast::<c_void>();
    let vector = [iovec {
        iov_base: at,
        iov_len: 8,
    }];
    let vector = vector.as_ptr();
    let none = ptr::null_mut::<i64>();
    // SAFETY: the buffer, and the vector that has it, live across the calls.
    observe_size(|| unsafe {
        match which {
            0 => libc::read(-1, at, 8),
            1 => libc::write(-1, at, 8),
            2 => libc::recv(-1, at, 8, 0),
            3 => libc::send(-1, at, 8, libc::MSG_NOSIGNAL),
            4 => libc::readv(-1, vector, 1),
            5 => libc::writev(1 << 28, vector, 1),
            6 => libc::pread(-1, at, 8, 0),
            7 => libc::accept(-1, ptr::null_mut(), ptr::null_mut()) as isize,
            8 => libc::connect(-1, at.cast(), 2) as isize,
            9 => libc::epoll_wait(-1, ptr::null_mut(), 1, 0) as isize,
            10 => libc::dup2(-1, 1 << 30) as isize,
            11 => libc::splice(-1, none, -1, none, 8, 0),
            12 => libc::sendfile(-1, -1, ptr::null_mut(), 8),
            13 => libc::fsync(-1) as isize,
            14 => libc::socketpair(libc::AF_INET, libc::SOCK_STREAM, 0, at.cast()) as isize,
            _ => libc::fcntl(-1, libc::F_GETFL) as isize,
        }
    })
}

/// On a file that is open.
fn on_file(world: &World, which: u8) -> Outcome {
    let path = world.path(0);
    let mut buf = [0_u8; 8];
    let at = buf.as_mut_ptr().cast::<c_void>();
    let vector = vec![
        iovec {
            iov_base: at,
            iov_len: 0
        };
        1100
    ];
    let vector = vector.as_ptr();
    // SAFETY: paths, the buffer and vectors live across the calls, and the
    // descriptor is of this call.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
        let outcome = observe_size(|| match which {
            16 => libc::readv(fd, vector, -1),
            17 => libc::readv(fd, vector, 1100),
            18 => libc::writev(fd, vector, 0),
            19 => libc::pread(fd, at, 8, -1),
            20 => libc::pwrite(fd, at, 8, -5),
            21 => libc::preadv(fd, vector, 1, -1),
            22 => libc::lseek(fd, 0, 99) as isize,
            23 => libc::recv(fd, at, 8, 0),
            24 => libc::send(fd, at, 8, 0),
            25 => libc::accept(fd, ptr::null_mut(), ptr::null_mut()) as isize,
            26 => libc::ftruncate(fd, -1) as isize,
            27 => libc::dup3(fd, fd, 0) as isize,
            28 => libc::epoll_wait(fd, at.cast(), 1, 0) as isize,
            _ => libc::preadv2(fd, vector, 1, 0, 0x4000_0000),
        });
        libc::close(fd);
        outcome
    }
}

/// Times, flags and counts.
fn of_time(which: u8) -> Outcome {
    let bad = timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000_000,
    };
    let negative = timespec {
        tv_sec: -1,
        tv_nsec: 0,
    };
    let (bad, negative) = (&raw const bad, &raw const negative);
    let none = ptr::null_mut();
    // SAFETY: times live across the calls; null pointers stand for nothing.
    unsafe {
        match which {
            30 => observe(|| libc::nanosleep(bad, ptr::null_mut())),
            31 => observe(|| libc::nanosleep(negative, ptr::null_mut())),
            32 => observe_error(|| libc::clock_nanosleep(99, 0, bad, ptr::null_mut())),
            33 => observe_error(|| {
                libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, bad, ptr::null_mut())
            }),
            34 => observe(|| libc::ppoll(ptr::null_mut(), 0, bad, ptr::null())),
            35 => observe(|| libc::pselect(0, none, none, none, bad, ptr::null())),
            36 => observe(|| libc::select(-1, none, none, none, ptr::null_mut())),
            37 => observe(|| libc::eventfd(0, -1)),
            38 => observe(|| libc::open(c"/".as_ptr(), libc::O_RDWR)),
            _ => observe_error(|| {
                let clock = libc::CLOCK_THREAD_CPUTIME_ID;
                libc::clock_nanosleep(clock, 0, negative, ptr::null_mut())
            }),
        }
    }
}
