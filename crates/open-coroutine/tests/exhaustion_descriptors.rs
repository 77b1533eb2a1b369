//! Without descriptors calls fail as on threads, a runtime starts or says why
//! not, and with descriptors again everything works.

mod child;
mod limits;
mod runtimes;
mod workload;

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use limits::{leave_descriptors, open_descriptors};
use open_coroutine::{Config, Driver, InitError, capabilities, init, shutdown, spawn};
use runtimes::on_every_runtime;
use workload::works;

/// Opens the null device until there is no descriptor left.
fn use_up() -> Vec<File> {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => {
                assert_eq!(Some(libc::EMFILE), error.raw_os_error());
                return files;
            }
        }
    }
}

fn refuses<T>(what: &str, result: io::Result<T>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} worked"));
    assert_eq!(Some(libc::EMFILE), error.raw_os_error(), "{what}");
}

#[test]
fn calls_that_need_a_descriptor_fail_and_others_work() {
    child::succeeds("calls_that_need_a_descriptor_fail_and_others_work", || {
        on_every_runtime(|| {
            works();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let before = open_descriptors();
            let limit = leave_descriptors(20);
            let _client = TcpStream::connect(address).unwrap();
            let files = use_up();
            refuses("accept", listener.accept());
            refuses("socket", UdpSocket::bind("127.0.0.1:0"));
            refuses("connect", TcpStream::connect(address));
            refuses("socketpair", UnixStream::pair());
            refuses("pipe", io::pipe());
            refuses("dup", listener.try_clone());
            // What is open works, and so do tasks.
            let echo = spawn(move || io::Write::write_all(&mut far, b"x"));
            io::Read::read_exact(&mut near, &mut [0]).unwrap();
            echo.join().unwrap().unwrap();
            open_coroutine::sleep(Duration::from_millis(1));
            // A connection that could not be accepted waits for a descriptor.
            let accepted = spawn(move || {
                loop {
                    match listener.accept() {
                        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                            open_coroutine::sleep(Duration::from_millis(1));
                        }
                        other => return other.map(|_| ()),
                    }
                }
            });
            open_coroutine::sleep(Duration::from_millis(20));
            drop(files);
            accepted.join().unwrap().unwrap();
            drop(limit);
            works();
            drop((_client, near));
            assert!(open_descriptors() <= before);
        });
    });
}

#[test]
fn every_number_of_descriptors_is_enough_or_an_error_that_says_so() {
    child::succeeds(
        "every_number_of_descriptors_is_enough_or_an_error_that_says_so",
        || {
            for driver in [None, Some(Driver::IoUring), Some(Driver::Epoll)] {
                for workers in [1, 2] {
                    starts_or_says_why_not(driver, workers);
                }
            }
        },
    );
}

fn starts_or_says_why_not(driver: Option<Driver>, workers: usize) {
    let config = || {
        let config = Config::default().event_loop_size(workers);
        driver.map_or(config.clone(), |driver| config.driver(driver))
    };
    let mut failures = 0;
    for spare in 0..30 {
        let before = open_descriptors();
        let limit = leave_descriptors(spare);
        match init(config()) {
            Ok(()) => {
                let used = capabilities().driver;
                assert_eq!(5, spawn(|| 5).join().unwrap());
                drop(limit);
                works();
                shutdown().unwrap();
                assert_eq!(before, open_descriptors());
                assert_eq!(driver.unwrap_or(used), used);
                // There are enough, also of those that it needs for a while.
                if spare > 20 {
                    break;
                }
            }
            Err(error) => {
                drop(limit);
                failures += 1;
                assert_eq!(before, open_descriptors(), "{error}");
                says_what_to_do(&error);
            }
        }
    }
    assert!((1..20).contains(&failures), "{failures} failed starts");
}

fn says_what_to_do(error: &InitError) {
    let cause = std::error::Error::source(error).unwrap_or_else(|| panic!("no cause: {error}"));
    let cause = cause.to_string();
    assert!(cause.contains("RLIMIT_NOFILE"), "{error}: {cause}");
}

#[test]
fn the_runtime_itself_needs_no_more_descriptors_once_it_runs() {
    child::succeeds(
        "the_runtime_itself_needs_no_more_descriptors_once_it_runs",
        || {
            on_every_runtime(|| {
                let (reader, _writer) = io::pipe().unwrap();
                let files = {
                    let _limit = leave_descriptors(1);
                    let files = use_up();
                    let tasks: Vec<_> = (0..100)
                        .map(|number| {
                            let fd = reader.as_raw_fd();
                            spawn(move || {
                                let mut entry = libc::pollfd {
                                    fd,
                                    events: libc::POLLIN,
                                    revents: 0,
                                };
                                // SAFETY: one entry is alive for the call.
                                assert_eq!(0, unsafe {
                                    libc::poll(&raw mut entry, 1, number % 10)
                                });
                                open_coroutine::unblock(|| ());
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.join().unwrap();
                    }
                    files
                };
                let _: Vec<OwnedFd> = files.into_iter().map(OwnedFd::from).collect();
                works();
            });
        },
    );
}
