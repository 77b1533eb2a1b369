//! Lets system calls fail.
//!
//! The filter of the thread that [`supervise`] is called on, and of all threads that
//! it starts, asks about each call of [`CALLS`]. A thread that was there before, and
//! so has no filter, answers: go on, or fail.
//!
//! # Invariants
//!
//! 1. The supervisor neither allocates nor locks nor panics while a call waits for
//!    its answer: the waiting thread may be inside of malloc.
//! 2. A `close` that fails has closed all the same, as it has under Linux; so the
//!    supervisor, which shares the descriptors, closes.

use std::ffi::{c_int, c_long, c_uint, c_ulong};
use std::fs;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::thread;
use std::time::Duration;

use crate::calls::{CALLS, Call};

/// What fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Index in [`CALLS`].
    pub(crate) call: usize,
    pub(crate) error: c_int,
    /// The how manyeth call it is, counted from 1; 0 for none.
    pub(crate) occurrence: u32,
}

/// How often each call was made. Static because the supervisor outlives all who
/// ask.
static COUNTS: [AtomicU32; CALLS.len()] = [const { AtomicU32::new(0) }; CALLS.len()];
/// What the supervisor reads questions from, or [`NONE`] until then.
static LISTENER: AtomicI32 = AtomicI32::new(NONE);
const NONE: RawFd = -1;
/// The error that was given, or 0 until then.
static GIVEN: AtomicI32 = AtomicI32::new(0);

/// How often each of [`CALLS`] was made.
pub(crate) fn counts() -> impl Iterator<Item = u32> {
    COUNTS.iter().map(|count| count.load(Relaxed))
}

/// The error that a call was made to fail with, if it has by now.
pub(crate) fn given() -> Option<c_int> {
    Some(GIVEN.load(SeqCst)).filter(|error| *error != 0)
}

/// Has `fault` happen to the calling thread or to those that it starts; without
/// one, only counts.
///
/// # Errors
///
/// The kernel or the sandbox does not let a filter ask.
pub(crate) fn supervise(fault: Option<Fault>) -> io::Result<()> {
    let text = program_text();
    thread::Builder::new()
        .name("supervisor".into())
        .spawn(move || answer(listener(), &text, fault))?;
    let fd = install(&filter())?;
    LISTENER.store(fd, SeqCst);
    Ok(())
}

/// What the supervisor reads questions from. It does not sleep until there is one:
/// to wake it would be the first question.
fn listener() -> RawFd {
    loop {
        match LISTENER.load(SeqCst) {
            NONE => thread::sleep(Duration::from_micros(100)),
            fd => return fd,
        }
    }
}

/// Where the program's own instructions are.
fn program_text() -> Range<u64> {
    let own = program_text as *const () as u64;
    let maps = fs::read_to_string("/proc/self/maps").expect("there is /proc");
    let range = maps.lines().find_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        range.contains(&own).then_some(range)
    });
    range.expect("this function lies in a mapping")
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    jump(code, value, 0, 0)
}

fn jump(code: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k: value,
    }
}

/// Asks about the numbers of [`CALLS`]. Those that libraries make all the time
/// are only of interest near the program's text: libraries are far from it.
fn filter() -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let text = program_text();
    let of = |wanted: fn(&Call) -> bool| {
        let mut numbers: Vec<u32> = CALLS
            .iter()
            .filter(|call| wanted(call))
            .map(|call| call.number as u32)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let anywhere = of(Call::is_seen_in_libraries);
    let program = of(|call| !call.is_seen_in_libraries());
    let total = anywhere.len() + program.len();
    // Behind the list: allow, four statements that look at the address, ask.
    let address = mem::offset_of!(libc::seccomp_data, instruction_pointer) as u32;
    let mut filter = vec![statement(
        LOAD,
        mem::offset_of!(libc::seccomp_data, nr) as u32,
    )];
    for (index, number) in anywhere.iter().chain(&program).enumerate() {
        let to_end = (total - index - 1) as u8;
        let target = if index < anywhere.len() { 4 } else { 1 };
        filter.push(jump(EQUAL, *number, to_end + target, 0));
    }
    filter.extend([
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(LOAD, address + 4),
        jump(EQUAL, (text.start >> 32) as u32, 1, 0),
        jump(EQUAL, (text.end >> 32) as u32, 0, 1),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
    filter
}

/// Gives the calling thread the filter. Returns the descriptor that answers.
fn install(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // A call that the supervisor has heard of is not begun again for a signal.
    let best =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let mut result = -1;
    for flags in [best, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER] {
        // SAFETY: the program and its filter are alive for the calls.
        result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(
                libc::SYS_seccomp,
                c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
                flags,
                ptr::from_ref(&program),
            )
        };
        if result >= 0 {
            break;
        }
    }
    match result {
        ..0 => Err(io::Error::last_os_error()),
        fd => Ok(fd as RawFd),
    }
}

/// `_IOWR('!', number, T)`
const fn request<T>(number: c_ulong) -> c_ulong {
    3 << 30 | (size_of::<T>() as c_ulong) << 16 | (b'!' as c_ulong) << 8 | number
}

const RECEIVE: c_ulong = request::<libc::seccomp_notif>(0);
const SEND: c_ulong = request::<libc::seccomp_notif_resp>(1);

/// Answers for as long as the process lives.
fn answer(listener: RawFd, text: &Range<u64>, fault: Option<Fault>) {
    loop {
        // SAFETY: all-zero bytes are what the kernel wants to fill in.
        let mut question: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the structure is alive for the call.
        if unsafe { libc::ioctl(listener, RECEIVE, &raw mut question) } != 0 {
            // The one who asked is gone, or a signal came.
            continue;
        }
        let error = decide(&question.data, text, fault);
        let mut response = libc::seccomp_notif_resp {
            id: question.id,
            val: 0,
            error: -error,
            flags: if error == 0 {
                libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as c_uint
            } else {
                0
            },
        };
        // SAFETY: as above. Fails if the one who asked is gone.
        unsafe { libc::ioctl(listener, SEND, &raw mut response) };
    }
}

/// The error that this call gets, or 0.
fn decide(data: &libc::seccomp_data, text: &Range<u64>, fault: Option<Fault>) -> c_int {
    let mut error = 0;
    for (index, call) in CALLS.iter().enumerate() {
        if !call.matches(
            c_long::from(data.nr),
            &data.args,
            data.instruction_pointer,
            text,
        ) {
            continue;
        }
        let count = COUNTS[index].fetch_add(1, Relaxed) + 1;
        if let Some(fault) = fault {
            if (fault.call, fault.occurrence) == (index, count) {
                error = fault.error;
                GIVEN.store(error, SeqCst);
            } else if let Some((name, always)) = CALLS[fault.call].behind
                && name == call.name
            {
                error = always;
            }
        }
    }
    if error != 0 && i64::from(data.nr) == libc::SYS_close {
        // SAFETY: invariant 2: the caller has given the descriptor up.
        unsafe { libc::close(data.args[0] as c_int) };
    }
    error
}
