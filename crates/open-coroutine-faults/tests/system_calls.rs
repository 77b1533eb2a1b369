//! Every system call of the runtime may fail once.

use open_coroutine::Driver;
use open_coroutine_faults::{is_child, run_child, try_faults};

fn check(test: &str, driver: Driver) {
    if is_child() {
        run_child();
    }
    try_faults(test, driver);
}

#[test]
fn every_system_call_may_fail_once_under_io_uring() {
    check(
        "every_system_call_may_fail_once_under_io_uring",
        Driver::IoUring,
    );
}

#[test]
fn every_system_call_may_fail_once_under_epoll() {
    check("every_system_call_may_fail_once_under_epoll", Driver::Epoll);
}
