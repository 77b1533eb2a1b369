//! A C library with blocking sockets, pthread locks that it holds while it
//! blocks, and thread-local data. What it computes on coroutines must be what it
//! computes on threads.

mod blocking;

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use blocking::{Library, Line, Queue};
use open_coroutine_compatibility::{COROUTINES, Crowd, TemporaryFolder, on_every_driver};

/// What runs the library.
#[derive(Clone, Copy)]
enum Kind {
    Threads,
    Coroutines,
}

impl Kind {
    /// Runs `work(0)`, .. at once.
    fn run<R: Send + 'static>(self, work: impl Fn(usize) -> R + Send + Sync + 'static) -> Vec<R> {
        if let Self::Coroutines = self {
            return Crowd::start(work).join();
        }
        let work = Arc::new(work);
        let start = |n| {
            let work = work.clone();
            thread::spawn(move || work(n))
        };
        let threads = (0..COROUTINES).map(start).collect::<Vec<_>>();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    }

    /// Starts `work` beside; it ends by itself.
    fn start(self, work: impl FnOnce() + Send + 'static) {
        match self {
            Self::Threads => drop(thread::spawn(work)),
            Self::Coroutines => drop(open_coroutine::spawn(work)),
        }
    }
}

/// Both builds of the library give the same results on coroutines and threads.
fn assert_same(name: &str, exercise: fn(Library, Kind) -> Vec<i64>) {
    for library in Library::builds(name) {
        let expected = exercise(library, Kind::Threads);
        on_every_driver(move || assert_eq!(expected, exercise(library, Kind::Coroutines)));
    }
}

/// Runs `body` on coroutines with both builds.
fn on_coroutines(name: &str, body: fn(Library)) {
    for library in Library::builds(name) {
        on_every_driver(move || body(library));
    }
}

#[test]
fn a_mutex_may_be_held_over_blocking_calls() {
    assert_same("a_mutex", |library, kind| {
        let (near, far) = UnixStream::pair().unwrap();
        kind.start(move || library.line_serve(&far));
        let line = Line::new(library, near);
        let shared = line.clone();
        let mut answers = kind.run(move |n| {
            let answers = (0..5).map(|round| shared.ask(5 * n as i64 + round));
            answers.sum::<i64>()
        });
        answers.push(line.questions());
        answers
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_mutex() {
    on_coroutines("wait_for_a_mutex", |library| {
        let (near, far) = UnixStream::pair().unwrap();
        let server = open_coroutine::spawn(move || library.line_serve(&far));
        let line = Line::new(library, near);
        let shared = line.clone();
        let crowd = line.hold(|| {
            let crowd = Crowd::start(move |n| shared.ask(n as i64));
            crowd.tick();
            crowd
        });
        let squares = (0..COROUTINES as i64).map(|n| n * n + 1);
        assert_eq!(squares.collect::<Vec<_>>(), crowd.join());
        drop(line);
        server.join().unwrap();
    });
}

#[test]
fn condition_variables_wake_who_waits() {
    assert_same("condition_variables", |library, kind| {
        let queue = Queue::new(library);
        let shared = queue.clone();
        let numbers = kind.run(move |n| match n % 2 {
            0 => (0..10).map(|_| shared.put(n as i64)).map(|()| 0).sum(),
            _ => (0..10).map(|_| shared.take()).sum::<i64>(),
        });
        // Who takes which element is open.
        let mut results = vec![numbers.iter().sum()];
        results.extend(kind.run(move |n| i64::from(queue.give_up(n as i64 % 20))));
        results
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_condition() {
    on_coroutines("wait_for_a_condition", |library| {
        let queue = Queue::new(library);
        let shared = queue.clone();
        let crowd = Crowd::start(move |_| shared.take());
        crowd.tick();
        let elements = (0..COROUTINES as i64).collect::<Vec<_>>();
        elements.iter().for_each(|&element| queue.put(element));
        let mut taken = crowd.join();
        taken.sort();
        assert_eq!(elements, taken);
    });
}

#[test]
fn others_go_on_while_all_wait_for_sockets() {
    on_coroutines("wait_for_sockets", |library| {
        let pairs = (0..COROUTINES).map(|_| UnixStream::pair().unwrap());
        let (near, far): (Vec<_>, Vec<_>) = pairs.unzip();
        let near = Mutex::new(near.into_iter().map(Some).collect::<Vec<_>>());
        let crowd = Crowd::start(move |n| {
            let stream = near.lock().unwrap()[n].take().unwrap();
            let mut bytes = vec![n as u8; n + 2];
            assert_eq!(0, library.exchange(&stream, &mut bytes));
            assert!(vec![!(n as u8); n + 2] == bytes);
        });
        let mut requests = (0..COROUTINES).map(|n| vec![0; n + 2]).collect::<Vec<_>>();
        for (request, mut stream) in requests.iter_mut().zip(&far) {
            stream.read_exact(request).unwrap();
        }
        crowd.tick();
        // After the first byte, another function waits for the others.
        for (request, mut stream) in requests.iter().zip(&far) {
            stream.write_all(&[!request[0]]).unwrap();
        }
        crowd.tick();
        for (request, mut stream) in requests.iter().zip(&far) {
            stream
                .write_all(&vec![!request[0]; request.len() - 1])
                .unwrap();
        }
        crowd.join();
    });
}

#[test]
fn others_go_on_while_all_wait_for_the_other_end_of_a_pipe() {
    on_coroutines("wait_for_a_pipe", |library| {
        let folder = TemporaryFolder::new();
        let path = folder.path().join("pipe");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(0, unsafe { libc::mkfifo(name.as_ptr(), 0o600) });
        let crowd = Crowd::start(move |_| library.open_once(&name, libc::O_RDONLY));
        crowd.tick();
        let open = move || File::options().write(true).open(&path).unwrap();
        let writer = thread::spawn(open).join().unwrap();
        assert_eq!(vec![0; COROUTINES], crowd.join());
        drop(writer);
    });
}

#[test]
fn thread_local_data_and_errno_are_the_coroutines_own() {
    assert_same("thread_local_data", |library, kind| {
        kind.run(move |n| library.tally_add(n as i64 + 1, 5))
    });
}

#[test]
fn destructors_of_thread_specific_data_run_before_a_join_returns() {
    assert_same("destructors", |library, kind| {
        let mut results = kind.run(move |n| library.destroyed_later(n as i64 + 1).into());
        results.push(library.take_destroyed());
        results
    });
}
