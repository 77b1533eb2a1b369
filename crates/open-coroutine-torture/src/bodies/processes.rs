//! Processes: their output, their status, and pipes between them.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Round;

pub(super) fn round(round: &mut Round) {
    let code = (round.number % 100) as i32;
    let script = format!("exit {code}");
    let status = Command::new("sh")
        .args(["-c", &script])
        .status()
        .expect("there is a shell");
    assert_eq!(Some(code), status.code());
    let mut cat = Command::new("cat");
    let mut cat = cat
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is cat");
    let mut input = cat.stdin.take().expect("it is piped");
    let text = format!("{script}\n").repeat(5000);
    let sent = text.clone();
    let writes = open_coroutine::spawn(move || input.write_all(sent.as_bytes()));
    let output = cat.wait_with_output().expect("it is a child");
    assert!(output.stdout == text.as_bytes());
    writes
        .join()
        .expect("it only writes")
        .expect("somebody reads");
}
