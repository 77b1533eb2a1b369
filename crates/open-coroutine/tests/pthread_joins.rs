//! Joining threads with a limit, from coroutines.

mod foreign;
mod runtimes;
mod ticker;
mod timing;

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use foreign::after;
use libc::{clockid_t, pthread_t, timespec};
use runtimes::on_every_runtime;
use ticker::Ticker;
use timing::assert_takes;

unsafe extern "C" {
    fn pthread_clockjoin_np(
        thread: pthread_t,
        value: *mut *mut c_void,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
}

/// A thread that ends when the sender is dropped, with the value 42.
fn thread() -> (pthread_t, Sender<()>) {
    extern "C" fn start(receiver: *mut c_void) -> *mut c_void {
        // SAFETY: `thread` made it of a box, for this function.
        let receiver = unsafe { Box::from_raw(receiver.cast::<Receiver<()>>()) };
        let _ = receiver.recv();
        ptr::without_provenance_mut(42)
    }
    let (sender, receiver) = mpsc::channel();
    let argument = Box::into_raw(Box::new(receiver)).cast();
    let mut thread = 0;
    // SAFETY: the thread takes the box.
    let result = unsafe { libc::pthread_create(&mut thread, ptr::null(), start, argument) };
    assert_eq!(0, result);
    (thread, sender)
}

#[test]
fn a_join_with_a_limit_ends_in_time_or_with_the_thread() {
    on_every_runtime(|| {
        let ticker = Ticker::start();
        let limit = Duration::from_millis(10);
        let monotonic = libc::CLOCK_MONOTONIC;
        let mut value = ptr::null_mut();
        let (first, end_first) = thread();
        let (second, end_second) = thread();
        // SAFETY: threads that are not joined yet, and valid times.
        unsafe {
            assert_takes(limit, || {
                let at = after(libc::CLOCK_REALTIME, limit);
                let result = libc::pthread_timedjoin_np(first, &mut value, &at);
                assert_eq!(libc::ETIMEDOUT, result);
            });
            assert_takes(limit, || {
                let at = after(monotonic, limit);
                let result = pthread_clockjoin_np(second, &mut value, monotonic, &at);
                assert_eq!(libc::ETIMEDOUT, result);
            });
            assert_eq!(libc::EBUSY, libc::pthread_tryjoin_np(first, &mut value));
            let ends = open_coroutine::spawn(move || {
                ticker.wait();
                drop((end_first, end_second));
                ticker.wait();
            });
            let at = after(libc::CLOCK_REALTIME, Duration::from_secs(3600));
            assert_eq!(0, libc::pthread_timedjoin_np(first, &mut value, &at));
            assert_eq!(42, value as usize);
            let at = after(monotonic, Duration::from_secs(3600));
            let result = pthread_clockjoin_np(second, &mut value, monotonic, &at);
            assert_eq!((0, 42), (result, value as usize));
            ends.join().unwrap();
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn coroutines_are_refused() {
    on_every_runtime(|| {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let other = open_coroutine::spawn(move || {
            // SAFETY: it has no requirements.
            sender.send(unsafe { libc::pthread_self() }).unwrap();
            let _ = stopped.recv();
        });
        let other_id = receiver.recv().unwrap();
        let at = after(libc::CLOCK_REALTIME, Duration::from_secs(3600));
        // SAFETY: both live; all calls refuse.
        unsafe {
            for (id, error) in [
                (libc::pthread_self(), libc::EDEADLK),
                (other_id, libc::ESRCH),
            ] {
                let null = ptr::null_mut();
                assert_eq!(error, libc::pthread_timedjoin_np(id, null, &at));
                assert_eq!(error, pthread_clockjoin_np(id, null, 0, &at));
                assert_eq!(error, libc::pthread_tryjoin_np(id, null));
            }
        }
        drop(stop);
        other.join().unwrap();
    });
}
