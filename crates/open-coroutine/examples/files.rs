//! Coroutines write and read files with `std::fs`.
//!
//!     cargo run --release -p open-coroutine --example files
//!
//! With io_uring the kernel does it while other coroutines run; with epoll a
//! pool of threads does.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

const FILES: usize = 50;
const LINES: usize = 1000;

#[open_coroutine::main]
fn main() -> io::Result<()> {
    let name = format!("open-coroutine-files-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder)?;
    let outcome = write_and_read(&folder);
    fs::remove_dir_all(&folder)?;
    println!("{FILES} files held {} bytes", outcome?);
    Ok(())
}

fn write_and_read(folder: &Path) -> io::Result<usize> {
    let tasks: Vec<_> = (0..FILES)
        .map(|number| {
            let path = folder.join(format!("{number}.txt"));
            open_coroutine::spawn(move || one_file(&path, number))
        })
        .collect();
    tasks
        .into_iter()
        .map(|task| task.join().expect("it does not panic"))
        .sum()
}

/// Writes a file, reads it back, and returns its length.
fn one_file(path: &Path, number: usize) -> io::Result<usize> {
    let content: String = (0..LINES)
        .map(|line| format!("line {line} of file {number}\n"))
        .collect();
    let mut file = File::create_new(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_data()?;
    assert_eq!(content, fs::read_to_string(path)?);

    let mut file = File::open(path)?;
    file.seek_relative(5)?;
    let mut digit = [0];
    file.read_exact(&mut digit)?;
    assert_eq!(b"0", &digit);
    Ok(content.len())
}
