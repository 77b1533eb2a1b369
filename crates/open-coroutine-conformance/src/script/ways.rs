//! In which ways a step is done: by which function, with which flags.

use std::fmt;

/// Flags of socket calls, printed by name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) i32);

const FLAG_NAMES: [(i32, &str); 9] = [
    (libc::MSG_OOB, "OOB"),
    (libc::MSG_PEEK, "PEEK"),
    (libc::MSG_TRUNC, "TRUNC"),
    (libc::MSG_DONTWAIT, "DONTWAIT"),
    (libc::MSG_WAITALL, "WAITALL"),
    (libc::MSG_NOSIGNAL, "NOSIGNAL"),
    (libc::MSG_WAITFORONE, "WAITFORONE"),
    (libc::MSG_CMSG_CLOEXEC, "CMSG_CLOEXEC"),
    (libc::MSG_ERRQUEUE, "ERRQUEUE"),
];

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = FLAG_NAMES.iter().filter(|(bit, _)| self.0 & bit != 0);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        write!(f, "Flags({})", names.join("|"))
    }
}

/// Two connected descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `socketpair(2)`, a stream.
    Stream,
    /// `socketpair(2)`, datagrams.
    Datagram,
    /// `socketpair(2)`, packets.
    Packet,
    /// Connected over loopback; the first end is the accepted one.
    Tcp,
    /// Connected over loopback.
    Udp,
    /// The first end is read, the second written.
    Pipe,
    /// The master and the slave of a terminal without line editing.
    RawTerminal,
    /// As `RawTerminal`, whose slave reads what there is, also nothing.
    HastyTerminal,
    /// The master and the slave of a terminal that edits lines, without echo.
    Terminal,
}

/// How bytes are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    /// `read(2)` or `write(2)`
    Plain,
    /// `readv(2)` or `writev(2)`
    Vector,
    /// `recv(2)` or `send(2)`
    Socket(Flags),
    /// `recvfrom(2)` or `sendto(2)`, the latter without an address
    Address(Flags),
    /// `recvmsg(2)` or `sendmsg(2)`
    Message(Flags),
    /// `recvmmsg(2)` or `sendmmsg(2)` of some messages
    Messages(Flags, u8),
    /// `pread(2)` or `pwrite(2)`
    At(i64),
    /// `preadv(2)` or `pwritev(2)`
    VectorAt(i64),
    /// `preadv2(2)` or `pwritev2(2)`, with flags; an offset of -1 is the
    /// current position
    VectorAtFlags(i64, i32),
    /// `syscall(2)`
    Number(Numbered),
    /// What programs compiled with `_FORTIFY_SOURCE` read by
    Checked(Checked),
}

/// How bytes are taken by `syscall(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbered {
    /// `SYS_read` or `SYS_write`
    Plain,
    /// `SYS_readv` or `SYS_writev`
    Vector,
    /// `SYS_recvfrom` or `SYS_sendto`, without an address
    Address(Flags),
    /// `SYS_recvmsg` or `SYS_sendmsg`
    Message(Flags),
    /// `SYS_pread64` or `SYS_pwrite64`
    At(i64),
    /// `SYS_preadv2` or `SYS_pwritev2`
    VectorAtFlags(i64, i32),
}

/// How bytes are read by functions that check the size of the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Checked {
    /// `__read_chk`
    Plain,
    /// `__recv_chk`
    Socket(Flags),
    /// `__recvfrom_chk`, without an address
    Address(Flags),
    /// `__pread_chk`
    At(i64),
}

impl Via {
    /// The flags, where there can be any.
    pub(crate) fn flags(self) -> Option<Flags> {
        match self {
            Self::Socket(flags)
            | Self::Address(flags)
            | Self::Message(flags)
            | Self::Messages(flags, _)
            | Self::Number(Numbered::Address(flags) | Numbered::Message(flags))
            | Self::Checked(Checked::Socket(flags) | Checked::Address(flags)) => Some(flags),
            _ => None,
        }
    }
}

/// Which function waits for descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waits {
    /// `poll(2)`
    Poll,
    /// `ppoll(2)`
    PPoll,
    /// `select(2)`
    Select,
    /// `pselect(2)`
    PSelect,
    /// `epoll_wait(2)` on a set made for the call
    Epoll,
    /// `epoll_pwait(2)` on a set made for the call
    EpollPWait,
    /// `epoll_pwait2(2)` on a set made for the call
    EpollPWait2,
    /// `SYS_ppoll`
    PPollNumber,
    /// `SYS_pselect6`
    PSelectNumber,
    /// `SYS_epoll_pwait` on a set made for the call
    EpollNumber,
    /// `__poll_chk`
    CheckedPoll,
    /// `__ppoll_chk`
    CheckedPPoll,
}

/// Which signal mask a wait has meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// The caller's own.
    Own,
    /// `SIGUSR1` comes.
    Unblocked,
    /// `SIGUSR1` does not.
    Blocked,
}

/// Which function sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sleeps {
    /// `nanosleep(2)`
    Nano,
    /// `clock_nanosleep(2)`
    Clock,
    /// `clock_nanosleep(2)` until a time
    ClockUntil,
    /// `usleep(3)`
    Micro,
    /// `std::thread::sleep`
    Std,
    /// `poll(2)` of nothing
    Poll,
    /// `SYS_clock_nanosleep`
    Number,
}

/// Which lock guards a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guard {
    /// `std::sync::Mutex`
    Mutex,
    /// `std::sync::RwLock`
    RwLock,
    /// `pthread_mutex_lock(3)`
    PthreadMutex,
    /// `pthread_rwlock_wrlock(3)`
    PthreadRwLock,
    /// `sem_wait(3)`
    Semaphore,
}

/// How long a condition is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// `pthread_cond_wait(3)`
    Endless,
    /// `pthread_cond_timedwait(3)`, by the clock of the day
    Timed,
    /// `pthread_cond_clockwait(3)`, by the monotonic clock
    Clock,
}

/// What is done with a name. Names are small numbers; the last two are in a
/// directory of another one's name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {
    /// `mkdir(2)`
    MakeDir,
    /// `mkfifo(3)`
    MakeFifo,
    /// `rmdir(2)`
    RemoveDir,
    /// `unlink(2)`
    Unlink,
    /// `unlinkat(2)` with these flags
    UnlinkAt(i32),
    /// `rename(2)`
    Rename,
    /// `renameat2(2)` with these flags
    RenameAt(u32),
    /// `link(2)`
    Link,
    /// `symlink(2)`
    Symlink,
    /// `readlink(2)`
    ReadLink,
    /// `stat(2)`
    Stat,
    /// `lstat(2)`
    LinkStat,
    /// `statx(2)`
    StatX,
    /// `chmod(2)`
    ChangeMode(u32),
    /// `access(2)`
    Access(i32),
    /// `truncate(2)`
    Truncate(i64),
    /// `opendir(3)` and `readdir(3)` to the end
    List,
    /// `realpath(3)`
    RealPath,
}

/// A copy within the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moves {
    /// `splice(2)` with these flags
    Splice(u32),
    /// `tee(2)` with these flags
    Tee(u32),
    /// `SYS_splice`
    SpliceNumber(u32),
    /// `SYS_tee`
    TeeNumber(u32),
    /// `sendfile(2)`, from an offset if it is not negative
    SendFile(i64),
    /// `SYS_sendfile`, at the current position
    SendFileNumber,
    /// `copy_file_range(2)`, between offsets if they are not negative
    CopyRange(i64, i64),
}
