//! Pipes: anonymous ones, named ones, and those of child processes.

mod runtimes;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write, pipe};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use runtimes::on_every_runtime;

#[test]
fn a_reader_waits_for_the_writer() {
    on_every_runtime(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let task = open_coroutine::spawn(move || {
            let mut buffer = [0; 16];
            let count = reader.read(&mut buffer).unwrap();
            assert_eq!(b"first", &buffer[..count]);
            assert_eq!(0, reader.read(&mut buffer).unwrap());
        });
        open_coroutine::yield_now();
        assert_eq!(5, writer.write(b"first").unwrap());
        open_coroutine::sleep(Duration::from_millis(5));
        drop(writer);
        task.join().unwrap();
    });
}

#[test]
fn a_megabyte_waits_for_a_slow_reader() {
    on_every_runtime(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n ^ n >> 8) as u8).collect();
        let expected = bytes.clone();
        let task = open_coroutine::spawn(move || {
            // A blocking pipe takes all of it.
            assert_eq!(bytes.len(), writer.write(&bytes).unwrap());
        });
        let mut all = Vec::new();
        let mut buffer = [0; 50_000];
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
            open_coroutine::sleep(Duration::from_millis(1));
        }
        assert_eq!(expected, all);
        task.join().unwrap();
    });
}

#[test]
fn writers_share_a_pipe_without_tearing_small_writes() {
    on_every_runtime(|| {
        let (mut reader, writer) = pipe().unwrap();
        let tasks: Vec<_> = (0..20_u8)
            .map(|id| {
                let mut writer = writer.try_clone().unwrap();
                open_coroutine::spawn(move || {
                    for _ in 0..50 {
                        writer.write_all(&[id; 4096]).unwrap();
                    }
                })
            })
            .collect();
        drop(writer);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(20 * 50 * 4096, all.len());
        assert!(
            all.chunks(4096)
                .all(|chunk| chunk.iter().all(|byte| *byte == chunk[0]))
        );
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn a_writer_without_reader_gets_broken_pipe() {
    on_every_runtime(|| {
        let (reader, mut writer) = pipe().unwrap();
        let task = open_coroutine::spawn(move || {
            // It fills the pipe, and waits when the reader goes away.
            let error = writer.write_all(&vec![0; 1 << 20]).unwrap_err();
            assert_eq!(ErrorKind::BrokenPipe, error.kind());
            assert_eq!(
                ErrorKind::BrokenPipe,
                writer.write(b"x").unwrap_err().kind()
            );
        });
        open_coroutine::sleep(Duration::from_millis(10));
        drop(reader);
        task.join().unwrap();
    });
}

#[test]
fn a_fifo_connects_two_coroutines_of_a_worker() {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    on_every_runtime(|| {
        let name = format!(
            "open-coroutine-fifo-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(0, unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) });
        let to_read = path.clone();
        // Opening waits for the other side.
        let reader = open_coroutine::spawn(move || fs::read_to_string(to_read).unwrap());
        open_coroutine::sleep(Duration::from_millis(5));
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"hello ").unwrap();
        open_coroutine::sleep(Duration::from_millis(5));
        writer.write_all(b"world").unwrap();
        drop(writer);
        assert_eq!("hello world", reader.join().unwrap());
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_child_process_talks_through_its_pipes() {
    on_every_runtime(|| {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = open_coroutine::spawn(move || input.write_all(&vec![b'x'; 1 << 20]).unwrap());
        let mut output = Vec::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut output)
            .unwrap();
        writer.join().unwrap();
        assert_eq!(vec![b'x'; 1 << 20], output);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn both_outputs_of_a_child_are_collected() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..10)
            .map(|id| {
                open_coroutine::spawn(move || {
                    let script = format!("echo {id}; sleep 0.05; echo error {id} >&2; exit {id}");
                    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
                    assert_eq!(format!("{id}\n").as_bytes(), output.stdout);
                    assert_eq!(format!("error {id}\n").as_bytes(), output.stderr);
                    assert_eq!(Some(id), output.status.code());
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}
