//! Replacements of blocking libc functions that suspend the calling coroutine.
