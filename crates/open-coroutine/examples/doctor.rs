//! What works in a program that is built like this one, what does not, and what
//! to do about it. Ends with status 1 if something could be better.

use std::process::ExitCode;

fn main() -> ExitCode {
    let report = open_coroutine::doctor();
    println!("{report}");
    ExitCode::from(u8::from(!report.is_healthy()))
}
