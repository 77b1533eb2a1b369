//! A folder that goes with its value.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The user, and the group, that has no rights of its own.
pub(super) const NOBODY: u32 = 65534;

/// A new folder below the system's for temporary files.
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Creates a folder that a server may write to.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    #[expect(clippy::new_without_default, reason = "it creates something")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        let name = format!("open-coroutine-{}-{id}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            chown(&folder.0, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this process may do everything.
pub(super) fn is_root() -> bool {
    // SAFETY: has no preconditions.
    unsafe { libc::geteuid() == 0 }
}
