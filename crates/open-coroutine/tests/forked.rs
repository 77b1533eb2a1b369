//! What the child of a fork does is none of its parent's business, and the other
//! way round.

mod child;
mod forks;
mod runtimes;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use forks::in_child;
use open_coroutine::{Config, init, shutdown, spawn};
use runtimes::on_every_runtime;

fn start_and_talk() {
    init(Config::default().event_loop_size(2)).unwrap();
    let (ask, asked) = channel();
    let (answer, answered) = channel();
    let other = spawn(move || {
        for number in asked {
            answer.send(number + 1).unwrap();
        }
    });
    let task = spawn(move || {
        for number in 0..100 {
            ask.send(number).unwrap();
            assert_eq!(number + 1, answered.recv().unwrap());
        }
    });
    task.join().unwrap();
    other.join().unwrap();
}

#[test]
fn a_child_has_a_runtime_of_its_own() {
    // In a process of its own, which has none while it forks.
    child::succeeds("a_child_has_a_runtime_of_its_own", || {
        in_child(start_and_talk);
        start_and_talk();
        shutdown().unwrap();
        in_child(start_and_talk);
    });
}

#[test]
fn a_child_that_closes_descriptors_ends_no_wait_of_its_parent() {
    type Close = fn(c_int);
    const WAYS: [Close; 3] = [
        // SAFETY: the child uses no descriptor but this one.
        |fd| assert_eq!(0, unsafe { libc::close(fd) }),
        // SAFETY: as above.
        |fd| assert_eq!(fd, unsafe { libc::dup2(0, fd) }),
        // SAFETY: as above.
        |_| assert_eq!(0, unsafe { libc::close_range(3, u32::MAX, 0) }),
    ];
    on_every_runtime(|| {
        for close in WAYS {
            let (mut writer, mut reader) = UnixStream::pair().unwrap();
            let fd = reader.as_raw_fd();
            let reader = spawn(move || {
                let mut byte = [0];
                reader.read(&mut byte).map(|count| (count, byte))
            });
            // By then it surely waits.
            open_coroutine::sleep(Duration::from_millis(5));
            in_child(|| close(fd));
            assert!(!reader.is_finished());
            writer.write_all(b"x").unwrap();
            assert_eq!((1, *b"x"), reader.join().unwrap().unwrap());
        }
    });
}
