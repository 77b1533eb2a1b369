//! Every system call of the runtime may fail once.

use open_coroutine::Driver;
use open_coroutine_faults::{is_child, run_child, try_faults, try_rings};

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

#[test]
fn epoll_takes_over_where_a_ring_cannot_be_made_for_each_worker() {
    if is_child() {
        run_child();
    }
    try_rings("epoll_takes_over_where_a_ring_cannot_be_made_for_each_worker");
}
