//! What a program can see of a call.

use std::fmt;

/// An error number that no call gives: whoever sees it after a call knows that
/// `errno` was left alone.
const UNTOUCHED: i32 = 4000;

/// What a call gave.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) result: i64,
    /// 0 after a success.
    pub(crate) errno: i32,
    /// After a success: whether `errno` was changed all the same.
    pub(crate) changes_errno: bool,
    /// Whether the call was left out because it would have waited.
    pub(crate) is_skipped: bool,
    /// What else it told: lengths of addresses, `revents`, flags.
    pub(crate) notes: Vec<i64>,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_skipped {
            return f.write_str("would wait");
        }
        write!(f, "{}", self.result)?;
        if self.errno != 0 {
            let error = std::io::Error::from_raw_os_error(self.errno);
            write!(f, " ({error})")?;
        }
        if self.changes_errno {
            f.write_str(" and errno changed")?;
        }
        if !self.notes.is_empty() {
            write!(f, " notes {:?}", self.notes)?;
        }
        if !self.bytes.is_empty() {
            let head = &self.bytes[..self.bytes.len().min(12)];
            let (len, digest) = (self.bytes.len(), digest(&self.bytes));
            write!(f, " {len} bytes {head:x?}.. digest {digest:x}")?;
        }
        Ok(())
    }
}

impl Outcome {
    pub(crate) fn skipped() -> Self {
        Self {
            is_skipped: true,
            ..Self::default()
        }
    }

    /// Nothing but a number.
    pub(crate) fn number(result: i64) -> Self {
        Self {
            result,
            ..Self::default()
        }
    }

    pub(crate) fn note(mut self, note: impl Into<i64>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With the whole buffer, also what is beyond the result: nothing may be
    /// written there that a thread's call would not write.
    pub(crate) fn with_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.bytes = bytes;
        self
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.errno == 0 && !self.is_skipped
    }

    /// With 0 for whatever it gave, if that was a success.
    pub(crate) fn without_result(mut self) -> Self {
        if self.is_ok() {
            self.result = 0;
        }
        self
    }
}

/// FNV-1a.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn errno() -> i32 {
    // SAFETY: the address of the caller's own `errno`.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: i32) {
    // SAFETY: the address of the caller's own `errno`.
    unsafe { *libc::__errno_location() = errno };
}

/// The outcome of a call that returns -1 and sets `errno` if it fails.
pub(crate) fn observe<R: Into<i64>>(call: impl FnOnce() -> R) -> Outcome {
    set_errno(UNTOUCHED);
    let result = call().into();
    let errno = errno();
    if result < 0 {
        return Outcome {
            result,
            errno,
            ..Outcome::default()
        };
    }
    Outcome {
        result,
        changes_errno: errno != UNTOUCHED,
        ..Outcome::default()
    }
}

/// [`observe`], for calls that return a size.
pub(crate) fn observe_size(call: impl FnOnce() -> isize) -> Outcome {
    observe(|| call() as i64)
}

/// The outcome of a call that returns an error number.
pub(crate) fn observe_error(call: impl FnOnce() -> i32) -> Outcome {
    set_errno(UNTOUCHED);
    let error = call();
    Outcome {
        result: if error == 0 { 0 } else { -1 },
        errno: error,
        changes_errno: errno() != UNTOUCHED,
        ..Outcome::default()
    }
}
