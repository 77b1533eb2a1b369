//! Whether the global allocator is wrapped in the adapter for coroutines: it is
//! asked by an allocation, because nothing else tells what a program has chosen.

use std::hint::black_box;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// Nobody asks.
const QUIET: u8 = 0;
/// The adapter is to answer the next allocation of a thread.
const ASKED: u8 = 1;
/// It has.
const ANSWERED: u8 = 2;

/// Static because the allocator is the process's. Relaxed: whoever asks allocates
/// himself, and other threads could only give the same answer.
static STATE: AtomicU8 = AtomicU8::new(QUIET);

/// To be called by the adapter whenever a thread allocates.
#[inline(always)]
pub fn answer_allocation() {
    if STATE.load(Relaxed) == ASKED {
        STATE.store(ANSWERED, Relaxed);
    }
}

/// Whether the adapter is in use. Call it on a plain thread.
pub(super) fn is_in_use() -> bool {
    STATE.store(ASKED, Relaxed);
    drop(black_box(Box::new(0_u8)));
    STATE.swap(QUIET, Relaxed) == ANSWERED
}
