//! Coroutines see of the C library what threads see.

use open_coroutine_conformance::{Family, conform, is_child, run_child};

fn check(test: &str, family: Family) {
    if is_child() {
        run_child();
    }
    conform(test, family);
}

#[test]
fn sockets_are_as_on_threads() {
    check("sockets_are_as_on_threads", Family::Sockets);
}

#[test]
fn pipes_are_as_on_threads() {
    check("pipes_are_as_on_threads", Family::Pipes);
}

#[test]
fn files_are_as_on_threads() {
    check("files_are_as_on_threads", Family::Files);
}

#[test]
fn waits_are_as_on_threads() {
    check("waits_are_as_on_threads", Family::Waiting);
}

#[test]
fn locks_and_signals_are_as_on_threads() {
    check("locks_and_signals_are_as_on_threads", Family::Threads);
}
