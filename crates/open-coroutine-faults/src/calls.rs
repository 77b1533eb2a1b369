//! The system calls of the runtime, and how each of them may fail.
//!
//! What is called from the program's own text is the runtime's: everything else
//! goes through libc. There only what the runtime alone asks for is of interest:
//! threads and rings.

use std::ffi::c_int;
use std::ops::Range;

use libc::{
    EACCES, EADDRNOTAVAIL, EAGAIN, EBUSY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, EINVAL,
    EIO, EMFILE, ENOBUFS, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM,
};

/// A system call, or those with certain arguments.
pub(crate) struct Call {
    /// How reports name it.
    pub(crate) name: &'static str,
    pub(crate) number: i64,
    site: Site,
    /// Looks at the arguments.
    is: fn(&[u64; 6]) -> bool,
    /// What it may fail with.
    pub(crate) errors: &'static [c_int],
    /// It is only made where this call always fails in this way.
    pub(crate) behind: Option<(&'static str, c_int)>,
}

/// Where a call comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// The program's text: a raw call of the runtime.
    Program,
    /// A shared library: a call through libc.
    Library,
    /// Either.
    Anywhere,
}

/// Error numbers and their names.
const ERRORS: [(c_int, &str); 17] = [
    (EACCES, "EACCES"),
    (EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (EAGAIN, "EAGAIN"),
    (EBUSY, "EBUSY"),
    (ECONNABORTED, "ECONNABORTED"),
    (ECONNREFUSED, "ECONNREFUSED"),
    (ECONNRESET, "ECONNRESET"),
    (EINTR, "EINTR"),
    (EINVAL, "EINVAL"),
    (EIO, "EIO"),
    (EMFILE, "EMFILE"),
    (ENOBUFS, "ENOBUFS"),
    (ENOMEM, "ENOMEM"),
    (ENOSPC, "ENOSPC"),
    (ENOSYS, "ENOSYS"),
    (EOPNOTSUPP, "EOPNOTSUPP"),
    (EPERM, "EPERM"),
];

/// The name of an error number of this module.
pub(crate) fn name_of(error: c_int) -> &'static str {
    let found = ERRORS.iter().find(|(number, _)| *number == error);
    found.expect("each error has a name here").1
}

/// The error number with this name.
pub(crate) fn error_named(name: &str) -> Option<c_int> {
    let found = ERRORS.iter().find(|(_, known)| *known == name);
    found.map(|(number, _)| *number)
}

const fn program(name: &'static str, number: i64, errors: &'static [c_int]) -> Call {
    Call {
        name,
        number,
        site: Site::Program,
        is: |_| true,
        errors,
        behind: None,
    }
}

impl Call {
    const fn behind(mut self, name: &'static str, error: c_int) -> Self {
        self.behind = Some((name, error));
        self
    }

    const fn with(mut self, is: fn(&[u64; 6]) -> bool) -> Self {
        self.is = is;
        self
    }

    const fn at(mut self, site: Site) -> Self {
        self.site = site;
        self
    }

    /// Whether this is the call with these arguments from `address`, of a program
    /// with this text.
    pub(crate) fn matches(
        &self,
        number: i64,
        args: &[u64; 6],
        address: u64,
        text: &Range<u64>,
    ) -> bool {
        let is_program = text.contains(&address);
        self.number == number
            && match self.site {
                Site::Program => is_program,
                Site::Library => !is_program,
                Site::Anywhere => true,
            }
            && (self.is)(args)
    }

    /// Whether calls from libraries matter too.
    pub(crate) fn is_seen_in_libraries(&self) -> bool {
        self.site != Site::Program
    }
}

const FUTEX_COMMAND: u64 = 0x7f;

fn is_futex_wait(args: &[u64; 6]) -> bool {
    matches!(args[1] & FUTEX_COMMAND, 0 | 9)
}

fn is_futex_wake(args: &[u64; 6]) -> bool {
    matches!(args[1] & FUTEX_COMMAND, 1 | 10)
}

/// It is made accessible later, unlike stacks for signal handlers, without which
/// std's threads do not start but abort.
fn is_stack_of_thread(args: &[u64; 6]) -> bool {
    args[3] & libc::MAP_STACK as u64 != 0 && args[2] == libc::PROT_NONE as u64
}

fn is_queue_of_ring(args: &[u64; 6]) -> bool {
    args[3] & libc::MAP_POPULATE as u64 != 0
}

fn has_advice<const ADVICE: u64>(args: &[u64; 6]) -> bool {
    args[2] == ADVICE
}

fn has_command<const COMMAND: u64>(args: &[u64; 6]) -> bool {
    args[1] == COMMAND
}

const ADD: u64 = libc::EPOLL_CTL_ADD as u64;
const MODIFY: u64 = libc::EPOLL_CTL_MOD as u64;
const GET_FLAGS: u64 = libc::F_GETFL as u64;
const SET_FLAGS: u64 = libc::F_SETFL as u64;
const GUARD: u64 = 102;
const DISCARD: u64 = libc::MADV_DONTNEED as u64;
const SMALL_PAGES: u64 = libc::MADV_NOHUGEPAGE as u64;

/// What fails, and how. Left out is what cannot fail with arguments that are
/// right: getpid, gettid, sched_yield, rt_sigprocmask, rt_sigpending, and the usual
/// clocks, which are no system calls.
pub(crate) const CALLS: &[Call] = &[
    // Threads and rings.
    program("clone3", libc::SYS_clone3, &[EAGAIN, ENOMEM]).at(Site::Library),
    program("mmap of a thread", libc::SYS_mmap, &[ENOMEM, EAGAIN])
        .at(Site::Library)
        .with(is_stack_of_thread),
    program("mmap of a ring", libc::SYS_mmap, &[ENOMEM, EAGAIN])
        .at(Site::Library)
        .with(is_queue_of_ring),
    program(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        &[ENOMEM, EMFILE, EPERM, EINVAL],
    )
    .at(Site::Anywhere),
    program(
        "io_uring_register",
        libc::SYS_io_uring_register,
        &[ENOMEM, EINVAL, EBUSY],
    )
    .at(Site::Anywhere),
    program(
        "io_uring_enter",
        libc::SYS_io_uring_enter,
        &[EINTR, EAGAIN, EBUSY, ENOMEM, EPERM, EIO],
    ),
    // The readiness driver, and sets for one wait.
    program("epoll_create1", libc::SYS_epoll_create1, &[EMFILE, ENOMEM]),
    program("epoll_ctl add", libc::SYS_epoll_ctl, &[ENOMEM, ENOSPC]).with(has_command::<ADD>),
    program("epoll_ctl mod", libc::SYS_epoll_ctl, &[ENOMEM]).with(has_command::<MODIFY>),
    program(
        "epoll_pwait2",
        libc::SYS_epoll_pwait2,
        &[EINTR, ENOSYS, EPERM, ENOMEM],
    ),
    program("epoll_pwait", libc::SYS_epoll_pwait, &[EINTR, ENOMEM]).behind("epoll_pwait2", ENOSYS),
    // Wake-ups.
    program("eventfd2", libc::SYS_eventfd2, &[EMFILE, ENOMEM]),
    program("futex wait", libc::SYS_futex, &[EINTR, EAGAIN, ENOMEM]).with(is_futex_wait),
    program("futex wake", libc::SYS_futex, &[EINTR, ENOMEM]).with(is_futex_wake),
    // Interruptions, and threads that take over.
    program(
        "rt_tgsigqueueinfo",
        libc::SYS_rt_tgsigqueueinfo,
        &[EAGAIN, EPERM],
    ),
    program("membarrier", libc::SYS_membarrier, &[ENOMEM, EPERM]),
    program("clock_gettime", libc::SYS_clock_gettime, &[EINVAL]),
    program("prctl", libc::SYS_prctl, &[EINVAL]),
    // Memory.
    program("mmap", libc::SYS_mmap, &[ENOMEM]),
    program("munmap", libc::SYS_munmap, &[ENOMEM]),
    program("mprotect", libc::SYS_mprotect, &[ENOMEM]).behind("madvise guard", EINVAL),
    program(
        "madvise guard",
        libc::SYS_madvise,
        &[ENOMEM, EINVAL, EAGAIN],
    )
    .with(has_advice::<GUARD>),
    program("madvise discard", libc::SYS_madvise, &[EAGAIN, EINVAL]).with(has_advice::<DISCARD>),
    program("madvise pages", libc::SYS_madvise, &[EINVAL, ENOMEM]).with(has_advice::<SMALL_PAGES>),
    program("sigaltstack", libc::SYS_sigaltstack, &[ENOMEM, EPERM]).at(Site::Anywhere),
    // Descriptors.
    program("close", libc::SYS_close, &[EINTR, EIO]),
    program("fcntl getfl", libc::SYS_fcntl, &[ENOMEM, EACCES]).with(has_command::<GET_FLAGS>),
    program("fcntl setfl", libc::SYS_fcntl, &[ENOMEM, EPERM]).with(has_command::<SET_FLAGS>),
    program("fstat", libc::SYS_fstat, &[ENOMEM, EIO]),
    program("getsockopt", libc::SYS_getsockopt, &[ENOMEM, ENOBUFS]),
    program("ppoll", libc::SYS_ppoll, &[EINTR, ENOMEM]),
    program("pselect6", libc::SYS_pselect6, &[EINTR, ENOMEM]),
    // Transfers.
    program(
        "accept4",
        libc::SYS_accept4,
        &[EMFILE, ENOMEM, ECONNABORTED],
    ),
    program(
        "connect",
        libc::SYS_connect,
        &[ENOMEM, ECONNREFUSED, EADDRNOTAVAIL],
    ),
    program("recvfrom", libc::SYS_recvfrom, &[ENOMEM, ECONNRESET]),
    program("sendto", libc::SYS_sendto, &[ENOMEM, ENOBUFS, ECONNRESET]),
    program("recvmsg", libc::SYS_recvmsg, &[ENOMEM]),
    program("sendmsg", libc::SYS_sendmsg, &[ENOMEM, ENOBUFS]),
    program("read", libc::SYS_read, &[EIO, ENOMEM]),
    program("write", libc::SYS_write, &[EINTR, EIO, ENOMEM]),
    program("preadv2", libc::SYS_preadv2, &[EIO, ENOMEM, EOPNOTSUPP]),
    program("pwritev2", libc::SYS_pwritev2, &[EIO, ENOSPC, EOPNOTSUPP]),
    program("pread64", libc::SYS_pread64, &[EIO, ENOMEM]),
    program("pwrite64", libc::SYS_pwrite64, &[EIO, ENOSPC]),
    program("splice", libc::SYS_splice, &[EIO, ENOMEM]).at(Site::Anywhere),
    program("sendfile", libc::SYS_sendfile, &[EIO, ENOMEM]).at(Site::Anywhere),
    program("copy_file_range", libc::SYS_copy_file_range, &[EIO, ENOSPC]).at(Site::Anywhere),
    // Files.
    program("openat", libc::SYS_openat, &[EMFILE, ENOMEM, EACCES]),
    program("statx", libc::SYS_statx, &[EIO, EACCES]),
    program("fsync", libc::SYS_fsync, &[EIO, ENOSPC]).at(Site::Anywhere),
    program("fdatasync", libc::SYS_fdatasync, &[EIO]).at(Site::Anywhere),
    program("ftruncate", libc::SYS_ftruncate, &[EIO, ENOSPC]).at(Site::Anywhere),
    program("flock", libc::SYS_flock, &[EINTR, ENOMEM]).at(Site::Anywhere),
    // Processes and signals.
    program("waitid", libc::SYS_waitid, &[EINTR]).at(Site::Anywhere),
    program("wait4", libc::SYS_wait4, &[EINTR]).at(Site::Anywhere),
    program("signalfd4", libc::SYS_signalfd4, &[EMFILE, ENOMEM]),
    program("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, &[EINTR]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_name() {
        for call in CALLS {
            for &error in call.errors {
                assert_eq!(Some(error), error_named(name_of(error)));
            }
        }
    }
}
