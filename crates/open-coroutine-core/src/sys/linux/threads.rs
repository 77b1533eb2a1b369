//! Threads that need nothing once they have been started.
//!
//! A thread of std maps a second stack before it runs anything, for the report of a
//! stack overflow, and ends the process if that fails: by then nobody can be told.

use std::env;
use std::ffi::{CStr, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::{page_size, syscall};

type Body = Box<dyn FnOnce() + Send>;

/// Runs `body` on a thread of its own, which the system knows by `name`, or by what it
/// takes of that. `body` must not unwind: the process would end.
///
/// To std it is a thread without a name; its stack is as large as that of std's threads.
///
/// # Errors
///
/// The error of `pthread_create(3)`. `body` is dropped.
pub fn start_thread(name: &'static CStr, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    extern "C" fn main(start: *mut c_void) -> *mut c_void {
        // SAFETY: `start_thread` leaves it to the thread.
        let (name, body) = *unsafe { Box::from_raw(start.cast::<(&CStr, Body)>()) };
        let args = [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: reads `name`, at most 16 bytes.
        unsafe { syscall(libc::SYS_prctl, args) };
        body();
        ptr::null_mut()
    }
    let body: Body = Box::new(body);
    let start = Box::into_raw(Box::new((name, body)));
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are made first and destroyed last; `start` is what `main`
    // expects. The thread is detached, so its id is not used.
    let error = unsafe {
        let attributes = attributes.as_mut_ptr();
        let mut error = libc::pthread_attr_init(attributes);
        if error == 0 {
            libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
            libc::pthread_attr_setstacksize(attributes, stack_size());
            error = libc::pthread_create(thread.as_mut_ptr(), attributes, main, start.cast());
            libc::pthread_attr_destroy(attributes);
        }
        error
    };
    if error == 0 {
        return Ok(());
    }
    // SAFETY: there is no thread that it was left to.
    drop(unsafe { Box::from_raw(start) });
    Err(io::Error::from_raw_os_error(error))
}

/// What std's threads have: 2 MiB, or what `RUST_MIN_STACK` says.
fn stack_size() -> usize {
    let asked = env::var_os("RUST_MIN_STACK").and_then(|size| size.to_str()?.parse().ok());
    let size = asked.unwrap_or(2 << 20).max(libc::PTHREAD_STACK_MIN);
    size.checked_next_multiple_of(page_size()).unwrap_or(size)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_thread_runs_its_body_under_its_name() {
        let (sender, receiver) = channel();
        let body = move || {
            let name = fs::read_to_string("/proc/thread-self/comm").unwrap();
            let deep = [1u8; 1 << 20];
            let sum = std::hint::black_box(&deep).iter().map(|&n| u32::from(n)).sum::<u32>();
            sender.send((name, sum, thread::current().id())).unwrap();
        };
        start_thread(c"a name that is too long", body).unwrap();
        let (name, sum, id) = receiver.recv().unwrap();
        assert_eq!("a name that is \n", name);
        assert_eq!(1 << 20, sum);
        assert_ne!(thread::current().id(), id);
    }

    #[test]
    fn what_a_thread_holds_is_dropped_with_it() {
        let (sender, receiver) = channel::<()>();
        start_thread(c"test", move || drop(sender)).unwrap();
        assert!(receiver.recv().is_err());
    }
}
