//! How many system calls a message costs, counted by strace.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{self, Command, Stdio};
use std::sync::Mutex;

use open_coroutine::{Config, Driver, init};

const CONNECTIONS: usize = 64;
/// Messages per round that are there before they are received: so many that what
/// comes once or twice does not matter.
const READY: usize = 50;
/// Says what the process that is traced is to do.
const VARIABLE: &str = "OPEN_COROUTINE_TRACED";

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends `rounds` messages there and back over each of many connections.
fn echo<S: Read + Write + Send + 'static>(pair: fn() -> (S, S), rounds: usize) {
    // All of them before the first message: a change of any mode has what is known of
    // descriptors asked anew.
    let pairs: Vec<_> = (0..CONNECTIONS).map(|_| pair()).collect();
    let tasks: Vec<_> = pairs
        .into_iter()
        .flat_map(|(mut client, mut server)| {
            let server = open_coroutine::spawn(move || {
                let mut buffer = [0; 64];
                for _ in 0..rounds {
                    let count = server.read(&mut buffer).unwrap();
                    server.write_all(&buffer[..count]).unwrap();
                }
            });
            let client = open_coroutine::spawn(move || {
                for _ in 0..rounds {
                    client.write_all(b"message").unwrap();
                    // With room for more, as buffered readers have.
                    assert_eq!(7, client.read(&mut [0; 64]).unwrap());
                }
            });
            [server, client]
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
}

/// A socket as libpq and tokio use it: `O_NONBLOCK`, with a `poll` before each receive.
struct Polled(TcpStream);

fn polled_pair() -> (Polled, Polled) {
    let (client, server) = tcp_pair();
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    (Polled(client), Polled(server))
}

impl Read for Polled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut entry = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry is alive for the call.
        assert_eq!(1, unsafe { libc::poll(&raw mut entry, 1, -1) });
        assert_eq!(libc::POLLIN, entry.revents);
        self.0.read(buffer)
    }
}

impl Write for Polled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives [`READY`] bytes per round, one by one, all of which are there.
fn receive_ready(rounds: usize) {
    let count = rounds * READY;
    let (mut client, mut server) = tcp_pair();
    client.write_all(&vec![0; count]).unwrap();
    server.set_nodelay(true).unwrap();
    while server.peek(&mut vec![0; count]).unwrap() < count {}
    for _ in 0..count {
        server.read_exact(&mut [0]).unwrap();
    }
}

/// The process that is traced runs this test, and does what the variable says.
#[test]
fn traced() {
    let Ok(job) = env::var(VARIABLE) else { return };
    let [driver, kind, rounds] = *job.split(' ').collect::<Vec<_>>() else {
        panic!("{job}")
    };
    let driver = match driver {
        "epoll" => Driver::Epoll,
        _ => Driver::IoUring,
    };
    // A time slice is short to who is traced, and what a preemption costs comes once
    // per slice, not once per message.
    let config = Config::default().event_loop_size(1).preemptive(false);
    init(config.driver(driver)).unwrap();
    let (kind, rounds) = (kind.to_owned(), rounds.parse().unwrap());
    let task = open_coroutine::spawn(move || match &*kind {
        "tcp" => echo(tcp_pair, rounds),
        "polled" => echo(polled_pair, rounds),
        "unix" => echo(|| std::os::unix::net::UnixStream::pair().unwrap(), rounds),
        _ => receive_ready(rounds),
    });
    task.join().unwrap();
}

/// How often each system call is made in `rounds` rounds.
fn trace(driver: &str, kind: &str, rounds: usize) -> HashMap<String, f64> {
    let name = format!("open-coroutine-strace-{}", process::id());
    let path = env::temp_dir().join(name);
    let status = Command::new("strace")
        .args(["-f", "-o"])
        .args([path.as_os_str(), env::current_exe().unwrap().as_os_str()])
        .args(["--exact", "traced"])
        .env(VARIABLE, format!("{driver} {kind} {rounds}"))
        .env_remove("OPEN_COROUTINE_DRIVER")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let log = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    let calls = || log.lines().filter_map(call);
    // It looks so many times per second, whatever the others do.
    let monitor = calls().find(|(_, _, rest)| rest.starts_with("PR_SET_TIMERSLACK"));
    let monitor = monitor.map(|(thread, _, _)| thread);
    let mut counts = HashMap::new();
    for (_, name, _) in calls().filter(|&(thread, _, _)| Some(thread) != monitor) {
        *counts.entry(name.to_owned()).or_default() += 1.0;
    }
    counts
}

/// The thread, the name and the arguments of a call in a log of strace.
fn call(line: &str) -> Option<(&str, &str, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, rest) = rest.trim_start().split_once('(')?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((thread, name, rest))
}

/// System calls per message: the difference between few and many rounds, so
/// that start and end do not count. `None`, with a message, without strace.
fn cost(driver: &str, kind: &str, messages: usize) -> Option<HashMap<String, f64>> {
    // They would slow down each other's processes.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let has_strace = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if !has_strace.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace to count system calls with");
        return None;
    }
    let few = trace(driver, kind, 20);
    let many = trace(driver, kind, 120);
    let messages = (100 * messages) as f64;
    let differences = many.into_iter().map(|(name, count)| {
        let before = few.get(&name).copied().unwrap_or(0.0);
        (name, (count - before) / messages)
    });
    let cost: HashMap<_, _> = differences
        .filter(|(_, count)| count.abs() > 0.005)
        .collect();
    eprintln!("{driver}, {kind}: {cost:.2?}");
    Some(cost)
}

/// Checks that each call costs at most what `limits` says, and that no other
/// calls are made.
fn assert_within(cost: &HashMap<String, f64>, limits: &[(&str, f64)]) {
    for (name, &count) in cost {
        let limit = limits.iter().find(|limit| limit.0 == name);
        let limit = limit.map_or(0.02, |limit| limit.1);
        assert!(count <= limit, "{count:.2} calls of {name} per message");
    }
}

/// Messages per round of an echo: each goes there and back.
const ECHO: usize = 2 * CONNECTIONS;

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer makes system calls too"
)]
fn a_ready_receive_costs_one_system_call_on_epoll() {
    if let Some(cost) = cost("epoll", "ready", READY) {
        assert_within(&cost, &[("recvfrom", 1.05)]);
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer makes system calls too"
)]
fn a_message_costs_a_transfer_on_epoll() {
    let limits = [
        // Once in a while it is tried before the wait.
        ("recvfrom", 1.15),
        ("sendto", 1.05),
        // It is armed for good after the first ones.
        ("epoll_ctl", 0.1),
        ("epoll_pwait2", 0.1),
    ];
    if let Some(cost) = cost("epoll", "tcp", ECHO) {
        assert_within(&cost, &limits);
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer makes system calls too"
)]
fn a_message_costs_no_system_call_of_its_own_on_io_uring() {
    for kind in ["tcp", "unix"] {
        if let Some(cost) = cost("io_uring", kind, ECHO) {
            assert_within(&cost, &[("io_uring_enter", 0.1)]);
        }
    }
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer makes system calls too"
)]
fn who_polls_looks_before_and_after_the_wait() {
    let limits = [
        ("ppoll", 2.05),
        ("recvfrom", 1.05),
        ("sendto", 1.05),
        ("epoll_ctl", 1.1),
        ("epoll_pwait2", 0.1),
        ("io_uring_enter", 0.1),
    ];
    for driver in ["epoll", "io_uring"] {
        if let Some(cost) = cost(driver, "polled", ECHO) {
            assert_within(&cost, &limits);
        }
    }
}
