//! Files: what was written is read, by every way there is.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process;

use super::Round;
use crate::lines::sum;

pub(super) fn round(round: &mut Round) {
    let name = format!("open-coroutine-torture-{}-{}", process::id(), round.index);
    let path = std::env::temp_dir().join(name);
    let bytes: Vec<u8> = (0..4096 + round.below(8192))
        .map(|index| (index * 7 % 251) as u8)
        .collect();
    let mut file = File::create(&path).expect("the directory can be written");
    file.write_all(&bytes).expect("there is space");
    drop(file);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("it is there");
    assert_eq!(
        bytes.len() as u64,
        file.metadata().expect("it is open").len()
    );
    let mut again = Vec::new();
    file.read_to_end(&mut again).expect("it can be read");
    assert_eq!(sum(&bytes), sum(&again));
    file.write_all_at(b"middle", 100).expect("there is space");
    file.seek(SeekFrom::Start(100))
        .expect("it can be positioned");
    let mut middle = [0; 6];
    file.read_exact(&mut middle).expect("it is long enough");
    assert_eq!(b"middle", &middle);
    file.set_len(10).expect("it can be cut");
    assert_eq!(bytes[..10], fs::read(&path).expect("it is there"));
    let moved = path.with_extension("moved");
    fs::rename(&path, &moved).expect("it can be moved");
    assert!(fs::metadata(&path).is_err());
    fs::write(&moved, "one\ntwo\nthree\n").expect("there is space");
    let lines = BufReader::new(File::open(&moved).expect("it is there")).lines();
    let lines: Result<Vec<_>, _> = lines.collect();
    assert_eq!(["one", "two", "three"], *lines.expect("it can be read"));
    fs::remove_file(&moved).expect("it can be removed");
}
