//! Lines that coroutines print through a full pipe arrive whole.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use open_coroutine::{Config, init, spawn};

/// Makes the child process print, with as many workers as it says.
const VARIABLE: &str = "OPEN_COROUTINE_PRINTING";
const TASKS: usize = 100;
const LINES: usize = 50;

#[test]
fn child() {
    let Ok(workers) = env::var(VARIABLE) else {
        return;
    };
    init(Config::default().event_loop_size(workers.parse().unwrap())).unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            spawn(move || {
                for line in 0..LINES {
                    println!("line {task} {line} {}", "x".repeat(line * 3));
                    eprintln!("error {task} {line}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
}

/// Checks that each task's lines are whole and in order.
fn check(output: &str, what: &str) {
    let mut next: HashMap<usize, usize> = HashMap::new();
    for line in output.lines().filter(|line| line.starts_with(what)) {
        let mut words = line.split(' ').skip(1);
        let task: usize = words.next().unwrap().parse().unwrap();
        let number: usize = words.next().unwrap().parse().unwrap();
        let expected = next.entry(task).or_default();
        assert_eq!(*expected, number, "{line}");
        *expected += 1;
        if what == "line" {
            assert_eq!("x".repeat(number * 3), words.next().unwrap(), "{line}");
        }
    }
    assert_eq!(TASKS, next.len());
    assert!(next.values().all(|&count| count == LINES));
}

#[test]
fn a_hundred_printing_coroutines_tear_no_line() {
    for driver in ["io_uring", "epoll"] {
        for workers in ["1", "2"] {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "child", "--nocapture"])
                .env(VARIABLE, workers)
                .env("OPEN_COROUTINE_DRIVER", driver)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut errors = child.stderr.take().unwrap();
            let errors = thread::spawn(move || {
                let mut text = String::new();
                errors.read_to_string(&mut text).unwrap();
                text
            });
            let mut output = String::new();
            let mut reader = BufReader::with_capacity(512, child.stdout.take().unwrap());
            // The pipe fills up before the first line is read.
            thread::sleep(Duration::from_millis(50));
            while reader.read_line(&mut output).unwrap() > 0 {}
            assert!(
                child.wait().unwrap().success(),
                "{driver}, {workers} workers"
            );
            check(&output, "line");
            let errors = errors.join().unwrap();
            assert!(!errors.contains("panicked"), "{errors}");
            check(&errors, "error");
        }
    }
}
