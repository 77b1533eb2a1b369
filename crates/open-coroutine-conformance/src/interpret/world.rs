//! What the actors of one run share.

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Barrier, Condvar, Mutex, RwLock, mpsc};

use crate::script::{FIFO, LOCKED, SCENE_SLOTS, SLOTS, Slot};

/// How many names there are, before those in directories.
const TOP_NAMES: u8 = 5;

/// See the [module](self).
pub(crate) struct World {
    fds: [AtomicI32; SLOTS],
    dir: PathBuf,
    /// Where rounds begin and end.
    pub(crate) meeting: Barrier,
    pub(crate) locks: Locks,
}

/// What [`crate::script::Guard`] names, and the counters behind.
pub(crate) struct Locks {
    pub(crate) counter: AtomicI32,
    pub(crate) mutex: Mutex<()>,
    pub(crate) rw_lock: RwLock<()>,
    pub(crate) pthread_mutex: UnsafeCell<libc::pthread_mutex_t>,
    pub(crate) pthread_rw_lock: UnsafeCell<libc::pthread_rwlock_t>,
    pub(crate) semaphore: UnsafeCell<libc::sem_t>,
    pub(crate) ticket_mutex: UnsafeCell<libc::pthread_mutex_t>,
    pub(crate) ticket_condition: UnsafeCell<libc::pthread_cond_t>,
    /// Guarded by `ticket_mutex`.
    pub(crate) tickets: AtomicI32,
    /// Guarded by `pthread_rw_lock`.
    pub(crate) both: [AtomicI32; 2],
    pub(crate) notices: Mutex<u32>,
    pub(crate) noticed: Condvar,
    pub(crate) sender: mpsc::Sender<u8>,
    pub(crate) receiver: Mutex<mpsc::Receiver<u8>>,
}

// SAFETY: the cells hold locks of the C library, which any thread may use at
// any time; nothing but its functions touches them.
unsafe impl Sync for Locks {}

impl Locks {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        // SAFETY: all-zero bytes are a semaphore to be initialised.
        let mut semaphore = unsafe { mem::zeroed() };
        // SAFETY: `semaphore` is not in use yet. It may move afterwards: a
        // semaphore that nobody waits for is its value, nothing else.
        unsafe { libc::sem_init(&raw mut semaphore, 0, 1) };
        Self {
            counter: AtomicI32::new(0),
            mutex: Mutex::new(()),
            rw_lock: RwLock::new(()),
            pthread_mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            pthread_rw_lock: UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER),
            semaphore: UnsafeCell::new(semaphore),
            ticket_mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            ticket_condition: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            tickets: AtomicI32::new(0),
            both: [const { AtomicI32::new(0) }; 2],
            notices: Mutex::new(0),
            noticed: Condvar::new(),
            sender,
            receiver: Mutex::new(receiver),
        }
    }
}

impl World {
    /// For `actors`, in the empty directory `dir`.
    pub(crate) fn new(actors: usize, dir: &Path) -> Self {
        Self {
            fds: [const { AtomicI32::new(-1) }; SLOTS],
            dir: dir.to_owned(),
            meeting: Barrier::new(actors),
            locks: Locks::new(),
        }
    }

    /// The descriptor in `slot`, or -1.
    pub(crate) fn fd(&self, slot: Slot) -> i32 {
        self.fds[slot as usize].load(SeqCst)
    }

    /// Puts a new descriptor into a slot; what was there is closed.
    pub(crate) fn put(&self, slot: Slot, fd: i32) {
        let old = self.fds[slot as usize].swap(fd, SeqCst);
        if old >= 0 {
            // SAFETY: the slot owned it.
            unsafe { libc::close(old) };
        }
    }

    /// Takes the descriptor out of a slot: the caller closes it.
    pub(crate) fn take(&self, slot: Slot) -> i32 {
        self.fds[slot as usize].swap(-1, SeqCst)
    }

    /// Closes what a scene has left.
    pub(crate) fn close_scene(&self) {
        for slot in SCENE_SLOTS..SLOTS as Slot {
            self.put(slot, -1);
        }
    }

    /// The path of a name; see [`crate::script::Named`].
    pub(crate) fn path(&self, name: u8) -> CString {
        let name = text_of(name);
        let path = self.dir.join(name).into_os_string().into_encoded_bytes();
        CString::new(path).expect("no zero in a name")
    }

    /// A name alone.
    pub(crate) fn name(name: u8) -> CString {
        CString::new(text_of(name)).expect("no zero in a name")
    }
}

fn text_of(name: u8) -> String {
    let name = match name {
        FIFO => return "fifo".to_owned(),
        LOCKED => return "locked".to_owned(),
        name => name % (TOP_NAMES + 3),
    };
    match name {
        ..TOP_NAMES => format!("n{name}"),
        TOP_NAMES => ".".to_owned(),
        _ => format!("n{}/in", name - TOP_NAMES - 1),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for slot in 0..SLOTS as Slot {
            self.put(slot, -1);
        }
        // What is not there need not be removed; a name left behind is in the
        // directory of temporary files.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
