//! Signals that libc sends to change credentials disturb no coroutine.

mod runtimes;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use open_coroutine::spawn;
use runtimes::on_every_runtime;

#[test]
fn a_change_of_credentials_leaves_errno_alone() {
    on_every_runtime(|| {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let task = spawn(move || {
            // SAFETY: errno of the calling coroutine.
            unsafe { *libc::__errno_location() = libc::EXDEV };
            while !until.load(SeqCst) {
                for _ in 0..100 {
                    let errno = io::Error::last_os_error().raw_os_error();
                    assert_eq!(Some(libc::EXDEV), errno);
                }
                // Else the runtime with one worker would end nothing.
                thread::yield_now();
            }
        });
        thread::spawn(move || {
            for _ in 0..200 {
                // SAFETY: sets what is set already.
                assert_eq!(0, unsafe { libc::setegid(libc::getegid()) });
            }
            is_over.store(true, SeqCst);
        })
        .join()
        .unwrap();
        task.join().unwrap();
    });
}
