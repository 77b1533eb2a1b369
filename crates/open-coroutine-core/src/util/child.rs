//! Whether the process has become the child of a fork.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// How often this process and its parents were forked off. Static because that is
/// a property of the process.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A number that changes in the child of a fork.
pub fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

/// To be called in the child of a fork, by its only thread.
pub fn begin() {
    GENERATION.fetch_add(1, Relaxed);
}
