//! Which functions are replaced, and whether calls reach the replacements.

use std::ffi::{CStr, c_int, c_void};
use std::mem;

use libc::{nfds_t, pollfd};

use crate::real::{self, Replaced};
use crate::{Status, Symbol};

const LISTS: &[&[Replaced]] = &[
    real::CHECKED,
    real::UNCHECKED,
    real::LOCKS,
    real::LOCKS_UNCHECKED,
    real::LOCKS_UNWINDING,
    real::SIGNALS,
    real::SIGNALS_UNCHECKED,
];

/// Every replaced function, and whether calls reach the replacement.
pub fn symbols() -> Vec<Symbol> {
    LISTS.iter().copied().flatten().map(look_up).collect()
}

fn look_up(replaced: &Replaced) -> Symbol {
    // SAFETY: both only look a name up.
    let (first, next) = unsafe {
        (
            libc::dlsym(libc::RTLD_DEFAULT, replaced.name.as_ptr()),
            libc::dlsym(libc::RTLD_NEXT, replaced.name.as_ptr()),
        )
    };
    Symbol {
        // The names above are ASCII.
        name: replaced.name.to_str().unwrap_or_default(),
        status: if next.is_null() {
            Status::Missing
        } else if first == replaced.own as *mut c_void {
            Status::Live
        } else {
            Status::Shadowed(object_of(first))
        },
    }
}

/// Waits until `fd` can be read, by the `poll` that the dynamic linker finds: what
/// a shared library would call.
pub fn poll_as_a_library(fd: c_int) {
    type Poll = unsafe extern "C" fn(*mut pollfd, nfds_t, c_int) -> c_int;
    // SAFETY: looks a name up.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"poll".as_ptr()) };
    // SAFETY: libc, at least, has a function of this name and type.
    let function = unsafe { mem::transmute::<*mut c_void, Poll>(found) };
    let mut entry = pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry.
    unsafe { function(&raw mut entry, 1, -1) };
}

/// The file that `function` is in.
fn object_of(function: *mut c_void) -> String {
    // SAFETY: all-zero bytes are an answer to be filled in.
    let mut found: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: any address may be asked for.
    let result = unsafe { libc::dladdr(function, &raw mut found) };
    if result == 0 || found.dli_fname.is_null() {
        return "an unknown object".to_owned();
    }
    // SAFETY: the name of a loaded object, which stays as long as that does.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    name.to_string_lossy().into_owned()
}
