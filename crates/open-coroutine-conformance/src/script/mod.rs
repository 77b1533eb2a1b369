//! What a script is: plain data, which one interpreter performs on threads and
//! on coroutines.
//!
//! # What makes every script valid
//!
//! 1. Rounds follow one another: no actor begins one before all who take part
//!    in the one before have ended it.
//! 2. In a [`Round::Solo`] one actor makes one call, which never waits for
//!    another actor: the interpreter asks the kernel before (`poll`), and skips
//!    a call that would. What the kernel said is part of the result.
//! 3. In a [`Round::Scene`] several actors act at once on descriptors of the
//!    scene's own. Each is built so that every call in it ends, and gives the
//!    same result however the actors are interleaved.
//!
//! So any rounds may be left out of a script, which is how it is shrunk.

mod ways;

pub(crate) use ways::{
    Checked, Flags, Guard, Kind, Meanwhile, Moves, Named, Numbered, Patience, Sleeps, Via, Waits,
};

/// Where the script keeps a descriptor. The interpreter has the number.
pub(crate) type Slot = u8;

/// Slots of solo rounds: smaller ones than these.
pub(crate) const SHARED_SLOTS: Slot = 6;
/// Slots of scenes start here.
pub(crate) const SCENE_SLOTS: Slot = SHARED_SLOTS;
/// The name of a FIFO, which only scenes use: opening it waits.
pub(crate) const FIFO: u8 = u8::MAX;
/// The name of a file that only scenes lock: what is locked in a solo round may
/// stay so.
pub(crate) const LOCKED: u8 = u8::MAX - 1;
/// How many slots there are.
pub(crate) const SLOTS: usize = 16;

/// Rounds for up to four actors.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// How many actors there are.
    pub(crate) actors: usize,
    /// What they do.
    pub(crate) rounds: Vec<Round>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) enum Round {
    /// One call of one actor.
    Solo {
        /// Who acts.
        actor: usize,
        /// What it does.
        call: Call,
    },
    /// Several actors act at once.
    Scene {
        /// The actor that prepares and plays the first part; the others follow.
        first: usize,
        /// What is done before, by the first.
        setup: Vec<Call>,
        /// What each does then.
        together: Vec<Vec<Call>>,
    },
}

impl Round {
    /// Whether `actor`, one of `actors`, takes part.
    pub(crate) fn concerns(&self, actor: usize, actors: usize) -> bool {
        match self {
            Self::Solo { actor: one, .. } => one % actors == actor,
            Self::Scene { .. } => true,
        }
    }
}

/// One step of an actor, mostly one call of libc.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Pair {
        kind: Kind,
        slots: [Slot; 2],
        nonblock: bool,
    },
    Socket {
        slot: Slot,
        domain: i32,
        kind: i32,
    },
    /// A socket that listens, over loopback or on a path.
    Listen {
        slot: Slot,
        unix: bool,
        nonblock: bool,
        backlog: i32,
    },
    /// A datagram socket, bound over loopback or on a path.
    Receiver {
        slot: Slot,
        unix: bool,
    },
    /// A new socket, connected to where `to` listens or is bound.
    Connect {
        slot: Slot,
        to: Slot,
        nonblock: bool,
        by_number: bool,
    },
    /// `accept(2)`, or `accept4(2)` with flags.
    Accept {
        slot: Slot,
        into: Slot,
        flags: Option<i32>,
        with_address: bool,
        by_number: bool,
    },
    Open {
        slot: Slot,
        name: u8,
        flags: i32,
        mode: u32,
    },
    Event {
        slot: Slot,
        value: u32,
        flags: i32,
    },
    /// Adds to an event counter.
    AddEvents {
        slot: Slot,
        value: u64,
    },
    /// A timer that fires once, after milliseconds; 0: never.
    Timer {
        slot: Slot,
        after: u8,
        flags: i32,
    },
    Epoll {
        slot: Slot,
    },
    EpollControl {
        set: Slot,
        operation: i32,
        slot: Slot,
        events: u32,
    },
    EpollWait {
        set: Slot,
        max: i32,
        timeout: i32,
    },
    Dup {
        from: Slot,
        to: Slot,
    },
    /// `F_DUPFD` or `F_DUPFD_CLOEXEC`
    DupAbove {
        from: Slot,
        to: Slot,
        cloexec: bool,
    },
    /// `dup2(2)`, or `dup3(2)` with flags, over an open descriptor
    DupOver {
        from: Slot,
        to: Slot,
        flags: Option<i32>,
    },
    Close {
        slot: Slot,
    },
    /// `SYS_close`
    CloseByNumber {
        slot: Slot,
    },
    CloseRange {
        slot: Slot,
    },
    /// Duplicates, and `close_range(2)` of the numbers of all copies, with flags;
    /// what is open afterwards.
    CloseCopies {
        slot: Slot,
        copies: u8,
        flags: i32,
    },
    /// `getsockname(2)` or `getpeername(2)`
    Address {
        slot: Slot,
        is_peer: bool,
    },
    /// `SO_LINGER`
    SetLinger {
        slot: Slot,
        on: bool,
        seconds: i32,
    },
    /// `sockatmark(3)`
    AtMark {
        slot: Slot,
    },
    Read {
        slot: Slot,
        pieces: Vec<usize>,
        via: Via,
    },
    /// Reads until so many bytes, the end, or an error: only the sum, the
    /// content and the end are compared, not the sizes in between.
    ReadAll {
        slot: Slot,
        total: usize,
        piece: usize,
        via: Via,
    },
    /// As `ReadAll`, but goes on after a time-out: no byte is lost by one.
    ReadPatiently {
        slot: Slot,
        total: usize,
        piece: usize,
        via: Via,
    },
    Write {
        slot: Slot,
        pieces: Vec<usize>,
        seed: u8,
        via: Via,
    },
    /// `write(2)` of a line, to a terminal.
    WriteLine {
        slot: Slot,
        len: usize,
    },
    /// Fills a buffer with writes that do not wait, until the kernel takes no
    /// more. How much that was is not compared.
    Fill {
        slot: Slot,
    },
    /// A write that runs into a time-out: how much was written is not compared.
    WriteInTime {
        slot: Slot,
        len: usize,
        timeout: u8,
    },
    /// A datagram to where `to` is bound.
    SendTo {
        slot: Slot,
        to: Slot,
        len: usize,
        waits: bool,
    },
    /// Sends a descriptor along with bytes.
    PassFd {
        slot: Slot,
        passed: Slot,
        len: usize,
    },
    /// Receives bytes, and a descriptor if there is one.
    TakeFd {
        slot: Slot,
        into: Slot,
        len: usize,
        flags: Flags,
    },
    Shutdown {
        slot: Slot,
        how: i32,
    },
    SetNonblock {
        slot: Slot,
        on: bool,
        by_ioctl: bool,
    },
    SetTimeout {
        slot: Slot,
        is_send: bool,
        milliseconds: u16,
    },
    SetOption {
        slot: Slot,
        option: i32,
        value: i32,
    },
    GetOption {
        slot: Slot,
        option: i32,
    },
    Control {
        slot: Slot,
        command: i32,
    },
    Poll {
        slots: Vec<(Slot, i16)>,
        timeout: i32,
        waits: Waits,
    },
    /// As `Poll` by `ppoll(2)`, `pselect(2)` or `epoll_pwait(2)` with a mask; and
    /// how often the signal came.
    MaskedPoll {
        slots: Vec<(Slot, i16)>,
        timeout: i32,
        waits: Waits,
        meanwhile: Meanwhile,
    },
    /// How many bytes there are to read.
    Pending {
        slot: Slot,
    },
    Move {
        from: Slot,
        to: Slot,
        len: usize,
        by: Moves,
    },
    VmSplice {
        slot: Slot,
        pieces: Vec<usize>,
    },
    Seek {
        slot: Slot,
        offset: i64,
        whence: i32,
    },
    Truncate {
        slot: Slot,
        len: i64,
    },
    Allocate {
        slot: Slot,
        mode: i32,
        offset: i64,
        len: i64,
    },
    FileStat {
        slot: Slot,
        by_statx: bool,
    },
    Sync {
        slot: Slot,
        data_only: bool,
    },
    Flock {
        slot: Slot,
        operation: i32,
    },
    /// `fcntl(2)` locks
    Lock {
        slot: Slot,
        command: i32,
        kind: i32,
        start: i64,
        len: i64,
    },
    Names {
        what: Named,
        name: u8,
        other: u8,
    },
    /// As `Names`, below the directory in a slot.
    NamesAt {
        dir: Slot,
        what: Named,
        name: u8,
        other: u8,
    },
    OpenAt {
        dir: Slot,
        slot: Slot,
        name: u8,
        flags: i32,
    },
    /// Reads a directory, makes and removes a file in it, and reads it again.
    ListTwice {
        name: u8,
    },
    Sleep {
        by: Sleeps,
        milliseconds: u8,
    },
    Yield,
    /// `raise(3)`, `pthread_kill(3)` of oneself, `kill(2)` with no signal, or
    /// `SYS_tgkill` of oneself; how often the handler ran
    Raise {
        by: u8,
    },
    /// `pthread_sigmask(3)` of `SIGUSR1`, or `SYS_rt_sigprocmask`
    Mask {
        blocks: bool,
        by_number: bool,
    },
    /// `sigpending(2)`
    PendingSignals,
    /// `sigwait(3)`, or `sigtimedwait(2)` for so many milliseconds
    WaitSignal {
        limit: Option<u8>,
        by_number: bool,
    },
    /// `signalfd(2)` of `SIGUSR2`, which nobody sends: a signal to a coroutine is
    /// none to its thread.
    SignalFd {
        slot: Slot,
        nonblock: bool,
    },
    /// Something invalid, of a list
    Invalid {
        which: u8,
    },
    /// Adds to a counter under a lock, so many times, and yields within.
    Add {
        guard: Guard,
        times: u8,
    },
    /// The counter, and resets it.
    Counter,
    /// Adds to the tickets, and wakes by `pthread_cond_signal(3)` or, if for
    /// several, `pthread_cond_broadcast(3)`.
    Signal {
        tickets: u8,
    },
    /// Waits for a ticket; a time-out, if there is one, is far away.
    WaitTicket {
        by: Patience,
    },
    /// A wait for a ticket that nobody gives: by whose time-out it ends.
    NoTicket {
        by: Patience,
        milliseconds: u8,
    },
    /// Adds to two numbers under the write lock, and yields within.
    WriteBoth {
        times: u8,
        is_timed: bool,
    },
    /// Whether the two numbers are always the same under the read lock.
    ReadBoth {
        times: u8,
        is_timed: bool,
    },
    /// What locks that one holds oneself answer to a second call, of a list.
    LockAgain {
        which: u8,
    },
    Notify,
    /// Waits for a [`Call::Notify`]; those of the scene before count.
    WaitNotified,
    ChannelSend {
        values: u8,
    },
    /// The sum of so many values.
    ChannelReceive {
        values: u8,
    },
}
