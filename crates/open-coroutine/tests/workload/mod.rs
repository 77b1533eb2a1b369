//! A little of everything that coroutines do, to see that all of it works.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use open_coroutine::{Builder, JoinHandle, maybe_grow, spawn, unblock};

/// More than any part of it takes, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);

/// Does a little of everything, with the help of coroutines. Panics if
/// something does not work.
pub(crate) fn works() {
    let parts: [(&str, fn()); 7] = [
        ("connections", connections),
        ("streams", streams),
        ("files", files),
        ("channels and locks", channels_and_locks),
        ("timers", timers),
        ("panics", panics),
        ("deep recursion", deep_recursion),
    ];
    let tasks = parts.map(|(name, body)| Builder::new().name(name).spawn(body).unwrap());
    for task in &tasks {
        let name = task.name().unwrap();
        if let Err(error) = task.timeout_join(LIMIT) {
            panic!("{name}: {error:?}");
        }
    }
}

fn join_all<R>(tasks: impl IntoIterator<Item = JoinHandle<R>>) {
    for task in tasks {
        task.join().unwrap();
    }
}

fn connections() {
    const CLIENTS: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        for _ in 0..CLIENTS {
            let (mut connection, _) = listener.accept().unwrap();
            spawn(move || {
                let mut bytes = [0; 4];
                connection.read_exact(&mut bytes).unwrap();
                connection.write_all(&bytes).unwrap();
            });
        }
    });
    join_all((0..CLIENTS).map(|_| {
        spawn(move || {
            let mut connection = TcpStream::connect(address).unwrap();
            connection.write_all(b"ping").unwrap();
            let mut bytes = [0; 4];
            connection.read_exact(&mut bytes).unwrap();
            assert_eq!(b"ping", &bytes);
        })
    }));
    server.join().unwrap();
    ("localhost", 1).to_socket_addrs().unwrap();
}

fn streams() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let limit = Some(Duration::from_millis(5));
    near.set_read_timeout(limit).unwrap();
    assert!(near.read(&mut [0]).is_err());
    near.set_read_timeout(None).unwrap();
    let reader = spawn(move || near.read_exact(&mut [0; 100_000]).unwrap());
    far.write_all(&[7; 100_000]).unwrap();
    reader.join().unwrap();
}

fn files() {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let name = format!("open-coroutine-workload-{}-{number}", process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, "text").unwrap();
    assert_eq!("text", fs::read_to_string(&path).unwrap());
    fs::remove_file(&path).unwrap();
    assert_eq!(4, unblock(|| 2 + 2));
}

fn channels_and_locks() {
    let (sender, receiver) = channel();
    let sum = Arc::new(Mutex::new(0));
    let tasks = (0..20).map(|number| {
        let (sender, sum) = (sender.clone(), sum.clone());
        spawn(move || {
            open_coroutine::yield_now();
            *sum.lock().unwrap() += number;
            sender.send(number).unwrap();
        })
    });
    join_all(tasks);
    let thread = thread::spawn(move || sender.send(0).unwrap());
    assert_eq!(190, receiver.iter().sum::<i32>());
    assert_eq!(190, *sum.lock().unwrap());
    thread.join().unwrap();
}

fn timers() {
    join_all(
        (0..50).map(|number| spawn(move || thread::sleep(Duration::from_micros(number * 50)))),
    );
}

fn panics() {
    let task = spawn(|| std::panic::resume_unwind(Box::new("a panic")));
    assert!(task.join().unwrap_err().is_panic());
}

fn deep_recursion() {
    fn depth(left: u32, page: &mut [u8; 10 * 1024]) -> u32 {
        std::hint::black_box(&page);
        if left == 0 {
            return 0;
        }
        maybe_grow!(|| 1 + depth(left - 1, &mut [0; 10 * 1024])).expect("memory for a stack")
    }
    assert_eq!(200, depth(200, &mut [0; 10 * 1024]));
}
