//! Limits of resources, for a process of its own.

/// A lowered soft limit, which is raised again on drop.
pub(crate) struct Limit {
    resource: libc::__rlimit_resource_t,
    before: libc::rlimit,
}

impl Limit {
    pub(crate) fn lower(resource: libc::__rlimit_resource_t, soft: u64) -> Self {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: writes to `before`.
        assert_eq!(0, unsafe { libc::getrlimit(resource, &raw mut before) });
        let limit = Self { resource, before };
        limit.set(libc::rlimit {
            rlim_cur: soft,
            ..before
        });
        limit
    }

    fn set(&self, limit: libc::rlimit) {
        // SAFETY: sets a limit of this process.
        assert_eq!(0, unsafe {
            libc::setrlimit(self.resource, &raw const limit)
        });
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.set(self.before);
    }
}

/// How many descriptors this process has open, besides the one that looks.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Lets only `spare` more descriptors be opened.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn leave_descriptors(spare: u64) -> Limit {
    // SAFETY: duplicates a descriptor to the lowest free number and closes it.
    let lowest = unsafe {
        let lowest = libc::dup(2);
        libc::close(lowest);
        lowest
    };
    Limit::lower(libc::RLIMIT_NOFILE, lowest as u64 + spare)
}

/// The number in a line of `/proc/self/status`.
#[allow(dead_code, reason = "not every test file uses every function")]
pub(crate) fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}
