//! Every example does what it says, on every driver of this machine.
//!
//! The examples are run as the programs that cargo built beside this test, so
//! that each has a process and a runtime of its own.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

/// What `OPEN_COROUTINE_DRIVER` can be here.
fn drivers() -> Vec<&'static str> {
    match open_coroutine::capabilities().no_uring {
        None => vec!["io_uring", "epoll"],
        Some(_) => vec!["epoll"],
    }
}

/// The command that runs example `name` on `driver`.
fn example(name: &str, driver: &str) -> Command {
    let test = env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/examples-<hash> -> target/<profile>/examples/<name>
    let profile = test
        .ancestors()
        .nth(2)
        .expect("cargo puts tests two levels down");
    let path: PathBuf = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --examples",
        path.display()
    );
    let mut command = Command::new(path);
    command.env("OPEN_COROUTINE_DRIVER", driver);
    command
}

/// Runs example `name` on every driver; each must print all of `expected`.
fn assert_prints(name: &str, expected: &[&str]) {
    for driver in drivers() {
        let output = example(name, driver)
            .output()
            .expect("the example can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{driver}: {}\n{text}{errors}",
            output.status
        );
        assert_eq!("", errors, "{driver}");
        for part in expected {
            assert!(text.contains(part), "{driver}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn echo_brings_every_message_back() {
    assert_prints("echo", &["100 clients got 20 messages back each\n"]);
}

#[test]
fn ten_thousand_coroutines_sleep_together() {
    assert_prints("sleep", &["10000 coroutines slept 100ms each"]);
}

#[test]
fn channels_and_locks_of_std_connect_coroutines() {
    let expected = [
        "10 producers sent numbers that add up to 49995000\n",
        "a thread let 10 coroutines through a gate\n",
    ];
    assert_prints("channels", &expected);
}

#[test]
fn files_are_written_and_read() {
    assert_prints("files", &["50 files held 984500 bytes\n"]);
}

#[test]
fn recursion_goes_deeper_than_the_stack() {
    let expected = ["went 5000 pages of 10 KiB deep\n", "so did a thread\n"];
    assert_prints("scalable_stack", &expected);
}

#[test]
fn a_coroutine_can_be_resumed_by_hand() {
    let expected = [
        "average: ready -> running\naverage: running -> suspended\nthe average is 1\n",
        "the average is 3\n",
        "average: running -> complete\nof 3 numbers\n",
        "unwound\n",
    ];
    assert_prints("low_level", &expected);
}

#[test]
fn the_mode_can_be_forced_and_is_reported() {
    for driver in drivers() {
        let mut command = example("capabilities", driver);
        command.env("OPEN_COROUTINE_MODE", "restricted");
        let output = command.output().expect("the example can be run");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.starts_with("mode: restricted (OPEN_COROUTINE_MODE"),
            "{text}"
        );
        assert!(text.contains(&format!("\ndriver: {driver}\n")), "{text}");
    }
}

/// A running `http_server`, killed when it is dropped.
struct Server {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(driver: &str, arguments: &[&str]) -> Self {
        let mut command = example("http_server", driver);
        command.args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the example can be run");
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the output is text");
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.expect(&line).parse().expect("it is an address");
        Self {
            process,
            output,
            address,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("the server listens")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads one answer; returns its first line and its body.
fn answer(stream: &mut impl BufRead) -> (String, String) {
    let mut lines = stream
        .by_ref()
        .lines()
        .map(|line| line.expect("the answer is text"));
    let status = lines.next().expect("the connection is open");
    let mut length = 0;
    for header in lines.take_while(|line| !line.is_empty()) {
        if let Some(value) = header.strip_prefix("Content-Length: ") {
            length = value.parse().expect("it is a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body is complete");
    (status, String::from_utf8(body).expect("the body is text"))
}

fn assert_hello(stream: &mut impl BufRead) {
    let (status, body) = answer(stream);
    assert_eq!(("HTTP/1.1 200 OK", "Hello, World!"), (&*status, &*body));
}

#[test]
fn http_connections_stay_open_and_are_served_side_by_side() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    for driver in drivers() {
        let server = Server::start(driver, &["--workers", "1"]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut stream = BufReader::new(server.connect());
                    for _ in 0..50 {
                        stream
                            .get_mut()
                            .write_all(REQUEST.as_bytes())
                            .expect("it is open");
                        assert_hello(&mut stream);
                    }
                });
            }
        });
    }
}

#[test]
fn http_requests_can_be_pipelined_and_cut_anywhere() {
    const REQUEST: &str = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    for driver in drivers() {
        let server = Server::start(driver, &[]);
        let mut stream = BufReader::new(server.connect());
        stream.get_mut().set_nodelay(true).expect("it is a socket");
        let bytes = REQUEST.repeat(16);
        for part in bytes.as_bytes().chunks(100) {
            stream.get_mut().write_all(part).expect("it is open");
        }
        for _ in 0..16 {
            assert_hello(&mut stream);
        }
    }
}

#[test]
fn http_connections_are_closed_when_asked_for_or_not_understood() {
    let cases = [
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 413 Content Too Large",
        ),
    ];
    for driver in drivers() {
        let server = Server::start(driver, &[]);
        for (request, expected) in cases {
            let mut stream = BufReader::new(server.connect());
            stream
                .get_mut()
                .write_all(request.as_bytes())
                .expect("it is open");
            assert_eq!(expected, answer(&mut stream).0, "{driver}: {request}");
            let mut rest = Vec::new();
            stream
                .read_to_end(&mut rest)
                .expect("it was closed in order");
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn the_http_server_ends_after_as_many_requests_as_it_was_told() {
    for driver in drivers() {
        let mut server = Server::start(driver, &["--requests", "2"]);
        let mut stream = BufReader::new(server.connect());
        for _ in 0..2 {
            stream
                .get_mut()
                .write_all(b"GET / HTTP/1.1\r\n\r\n")
                .expect("it is open");
            assert_hello(&mut stream);
        }
        let mut output = String::new();
        server
            .output
            .read_to_string(&mut output)
            .expect("the output is text");
        assert!(output.contains(&format!("driver: {driver}")), "{output}");
        assert!(output.ends_with("served 2 requests\n"), "{output}");
        assert!(server.process.wait().expect("it is our child").success());
    }
}
