//! `std::process::Command`, and pipelines of the programs that every system has.

use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;

use open_coroutine_compatibility::{COROUTINES, Crowd, on_every_driver};

/// Starts a program that reads from `input`.
fn start(program: &str, arguments: &[&str], input: Stdio) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command.stdin(input).stdout(Stdio::piped()).spawn().unwrap()
}

fn output(child: &mut Child) -> ChildStdout {
    child.stdout.take().unwrap()
}

/// Numbers in disorder, more than a pipe holds.
fn lines(n: usize) -> Vec<String> {
    let numbers = (0..15_000).map(|i| (i * 7919 + n) % 15_013);
    numbers.map(|number| format!("{number:05}")).collect()
}

#[test]
fn pipelines_give_their_output_to_the_coroutine_that_started_them() {
    on_every_driver(|| {
        let crowd = Crowd::start(|n| {
            let mut first = start("cat", &[], Stdio::piped());
            let mut second = start("sort", &["-r"], output(&mut first).into());
            let mut third = start("tr", &["0-9", "a-j"], output(&mut second).into());
            let mut input = first.stdin.take().unwrap();
            let writer = open_coroutine::spawn(move || {
                let text = lines(n).join("\n") + "\n";
                input.write_all(text.as_bytes()).unwrap();
            });
            let mut text = String::new();
            output(&mut third).read_to_string(&mut text).unwrap();
            writer.join().unwrap();
            for mut child in [first, second, third] {
                assert!(child.wait().unwrap().success());
            }
            let mut expected = lines(n);
            expected.sort();
            let digits = |line: &String| {
                line.bytes()
                    .map(|digit| char::from(digit - b'0' + b'a'))
                    .collect()
            };
            let expected: Vec<String> = expected.iter().rev().map(digits).collect();
            assert!(text == expected.join("\n") + "\n");
        });
        crowd.join();
    });
}

#[test]
fn output_and_status_are_those_of_the_own_child() {
    on_every_driver(|| {
        let crowd = Crowd::start(|n| {
            for round in 0..2 {
                let script = format!("echo out {n}; echo error {round} >&2; exit {}", n % 100);
                let output = Command::new("sh").args(["-c", &script]).output().unwrap();
                assert_eq!(format!("out {n}\n").as_bytes(), output.stdout);
                assert_eq!(format!("error {round}\n").as_bytes(), output.stderr);
                assert_eq!(Some(n as i32 % 100), output.status.code());
            }
        });
        crowd.join();
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_child() {
    on_every_driver(|| {
        let (sender, inputs) = mpsc::channel();
        let crowd = Crowd::start(move |_| {
            let mut child = start("cat", &[], Stdio::piped());
            sender.send(child.stdin.take().unwrap()).unwrap();
            assert!(child.wait().unwrap().success());
        });
        let inputs = inputs.into_iter().take(COROUTINES).collect::<Vec<_>>();
        crowd.tick();
        drop(inputs);
        crowd.join();
    });
}
