//! Files and directories.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;
use std::time::SystemTime;

use super::{Outcome, Patient, beside, check, pattern, tried};

/// A directory that goes with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Outcome<Self> {
        // One that was killed may have left its own, and had this process's id.
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
        let name = format!("open-coroutine-faults-{}-{now}", process::id());
        let path = std::env::temp_dir().join(name);
        tried("create_dir", || fs::create_dir(&path))?;
        Ok(Self(path))
    }

    /// # Errors
    ///
    /// Those of the removal, but for the injected one.
    fn remove(self) -> Outcome {
        Ok(tried("remove_dir_all", || fs::remove_dir_all(&self.0))?)
    }
}

fn create(path: &PathBuf) -> io::Result<File> {
    tried("open", || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    })
}

pub(super) fn files() -> Outcome {
    let directory = Directory::new()?;
    let path = directory.0.join("file");
    let bytes = pattern(100_000);
    let file = create(&path)?;
    {
        use std::io::Write;
        Patient(&file).write_all(&bytes)?;
    }
    write_all_at(&file, &bytes, 100_000)?;
    tried("sync_all", || file.sync_all())?;
    tried("sync_data", || file.sync_data())?;
    tried("set_len", || file.set_len(150_000))?;
    (&file).seek(SeekFrom::Start(0))?;
    let mut read = vec![0; 100_000];
    Patient(&file).read_exact(&mut read)?;
    check(read == bytes, "other bytes were read")?;
    read_exact_at(&file, &mut read[..50_000], 100_000)?;
    check(read[..50_000] == bytes[..50_000], "others are further on")?;
    let metadata = tried("metadata", || fs::metadata(&path))?;
    check(metadata.len() == 150_000, "the file has another length")?;
    tried("rename", || fs::rename(&path, directory.0.join("other")))?;
    tried("remove_file", || fs::remove_file(directory.0.join("other")))?;
    directory.remove()
}

fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = tried("write_at", || file.write_at(bytes, offset))?;
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = tried("read_at", || file.read_at(bytes, offset))?;
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

pub(super) fn copies() -> Outcome {
    let directory = Directory::new()?;
    let (from, to) = (directory.0.join("from"), directory.0.join("to"));
    let bytes = pattern(50_000);
    tried("write", || fs::write(&from, &bytes))?;
    tried("copy", || fs::copy(&from, &to))?;
    let copied = tried("read", || fs::read(&to))?;
    check(copied == bytes, "other bytes were copied")?;
    directory.remove()
}

/// One waits for a lock that the other one holds.
pub(super) fn locks() -> Outcome {
    let directory = Directory::new()?;
    let path = directory.0.join("lock");
    let (one, other) = (create(&path)?, create(&path)?);
    tried("lock", || one.lock())?;
    let waiting = move || Ok(tried("lock", || other.lock())?);
    beside(waiting, || {
        open_coroutine::yield_now();
        Ok(tried("unlock", || one.unlock())?)
    })?;
    directory.remove()
}
