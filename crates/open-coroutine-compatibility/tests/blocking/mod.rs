//! The library of `tests/c/blocking.c`: compiled, loaded, and its functions.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use open_coroutine_compatibility::installed;

/// As it is written, and as distributions build packages.
const BUILDS: [(&str, &[&str]); 2] = [
    ("plain", &["-O0"]),
    (
        "fortified",
        &["-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"],
    ),
];

/// A build of the library. It stays loaded.
#[derive(Clone, Copy)]
pub(crate) struct Library(*mut c_void);

// SAFETY: what `dlopen` returns belongs to the process, not to a thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Compiles and loads each build, if there is a compiler. Tests that run at
    /// the same time have files of their own, by their `name`.
    pub(crate) fn builds(name: &str) -> Vec<Self> {
        let Some(compiler) = installed("cc", &[]) else {
            return Vec::new();
        };
        let build = |(build, flags): (&str, &[&str])| {
            let file = format!("{}/{name}-{build}.so", env!("CARGO_TARGET_TMPDIR"));
            let mut command = Command::new(&compiler);
            command.args(["-shared", "-fPIC", "-pthread", "-Wall", "-Werror"]);
            command
                .args(flags)
                .args(["-o", &file, "tests/c/blocking.c"]);
            assert!(command.status().unwrap().success(), "{command:?}");
            Self::load(Path::new(&file))
        };
        BUILDS.map(build).into()
    }

    fn load(file: &Path) -> Self {
        let path = CString::new(file.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a C string; the library has no constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{file:?} does not load");
        Self(handle)
    }

    /// The function `name`.
    ///
    /// # Safety
    ///
    /// `F` is a pointer to a function of the type that `blocking.c` gives it.
    unsafe fn function<F: Copy>(self, name: &CStr) -> F {
        // SAFETY: the handle is that of a library that stays loaded.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?} is not in the library");
        assert_eq!(mem::size_of::<F>(), mem::size_of_val(&address));
        // SAFETY: the caller's contract.
        unsafe { mem::transmute_copy(&address) }
    }

    /// Sends `bytes` and replaces them by as many received ones.
    pub(crate) fn exchange(self, stream: &UnixStream, bytes: &mut [u8]) -> c_int {
        type Function = unsafe extern "C" fn(c_int, *mut u8, usize, usize, libc::nfds_t) -> c_int;
        let (fd, length) = (stream.as_raw_fd(), bytes.len());
        assert!(length <= 512);
        // SAFETY: the type is that of the definition.
        let function: Function = unsafe { self.function(c"exchange") };
        // SAFETY: `bytes` and the function's buffer are not smaller than the
        // numbers, and it waits for two entries.
        unsafe { function(fd, bytes.as_mut_ptr(), length, length / 2 + 1, 2) }
    }

    /// Opens and closes `path`; an error is negative.
    pub(crate) fn open_once(self, path: &CStr, flags: c_int) -> c_int {
        type Function = unsafe extern "C" fn(*const c_char, c_int) -> c_int;
        // SAFETY: the type is that of the definition; the path is a C string.
        unsafe { self.function::<Function>(c"open_once")(path.as_ptr(), flags) }
    }

    /// Answers questions until the other end closes.
    pub(crate) fn line_serve(self, stream: &UnixStream) {
        // SAFETY: the type is that of the definition, and takes an integer.
        unsafe { self.function::<unsafe extern "C" fn(c_int)>(c"line_serve")(stream.as_raw_fd()) }
    }

    /// Adds `number` that often to the thread's own sum.
    pub(crate) fn tally_add(self, number: i64, times: c_int) -> i64 {
        type Function = unsafe extern "C" fn(i64, c_int) -> i64;
        // SAFETY: the type is that of the definition, and takes integers.
        unsafe { self.function::<Function>(c"tally_add")(number, times) }
    }

    /// Leaves `number` to the destructor of the thread.
    pub(crate) fn destroyed_later(self, number: i64) -> c_int {
        type Function = unsafe extern "C" fn(i64) -> c_int;
        // SAFETY: the type is that of the definition, and takes an integer.
        unsafe { self.function::<Function>(c"destroyed_later")(number) }
    }

    /// The sum of what destructors got since the last call.
    pub(crate) fn take_destroyed(self) -> i64 {
        // SAFETY: the type is that of the definition.
        unsafe { self.function::<unsafe extern "C" fn() -> i64>(c"take_destroyed")() }
    }
}

/// An object of the library, freed with its last copy.
struct Object {
    library: Library,
    address: *mut c_void,
    free: &'static CStr,
}

// SAFETY: the library locks its objects.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// # Safety
    ///
    /// `F` is the type of the function `name`.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> F {
        // SAFETY: the caller's contract.
        unsafe { self.library.function(name) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the type is that of the definitions, and this is the last use.
        unsafe {
            self.function::<unsafe extern "C" fn(*mut c_void)>(self.free)(self.address);
        }
    }
}

/// A connection that is locked while somebody asks.
#[derive(Clone)]
pub(crate) struct Line {
    object: Arc<Object>,
    _stream: Arc<UnixStream>,
}

impl Line {
    pub(crate) fn new(library: Library, stream: UnixStream) -> Self {
        type Function = unsafe extern "C" fn(c_int) -> *mut c_void;
        // SAFETY: the type is that of the definition; the descriptor stays open
        // as long as the line.
        let address = unsafe { library.function::<Function>(c"line_new")(stream.as_raw_fd()) };
        let object = Object {
            library,
            address,
            free: c"line_free",
        };
        Self {
            object: object.into(),
            _stream: stream.into(),
        }
    }

    pub(crate) fn ask(&self, question: i64) -> i64 {
        type Function = unsafe extern "C" fn(*mut c_void, i64) -> i64;
        // SAFETY: the type is that of the definition; the line is alive.
        unsafe { self.object.function::<Function>(c"line_ask")(self.object.address, question) }
    }

    /// How many questions were asked.
    pub(crate) fn questions(&self) -> i64 {
        type Function = unsafe extern "C" fn(*mut c_void) -> i64;
        // SAFETY: the type is that of the definition; the line is alive.
        unsafe { self.object.function::<Function>(c"line_questions")(self.object.address) }
    }

    /// Locks it for the time of `body`.
    pub(crate) fn hold<R>(&self, body: impl FnOnce() -> R) -> R {
        type Function = unsafe extern "C" fn(*mut c_void);
        // SAFETY: the type is that of the definition; the line is alive.
        unsafe { self.object.function::<Function>(c"line_hold")(self.object.address) };
        let result = body();
        // SAFETY: as above, and this thread holds it.
        unsafe { self.object.function::<Function>(c"line_release")(self.object.address) };
        result
    }
}

/// A queue with condition variables.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Object>);

impl Queue {
    pub(crate) fn new(library: Library) -> Self {
        type Function = unsafe extern "C" fn() -> *mut c_void;
        // SAFETY: the type is that of the definition.
        let address = unsafe { library.function::<Function>(c"queue_new")() };
        Self(Arc::new(Object {
            library,
            address,
            free: c"queue_free",
        }))
    }

    pub(crate) fn put(&self, element: i64) {
        type Function = unsafe extern "C" fn(*mut c_void, i64);
        // SAFETY: the type is that of the definition; the queue is alive.
        unsafe { self.0.function::<Function>(c"queue_put")(self.0.address, element) }
    }

    pub(crate) fn take(&self) -> i64 {
        type Function = unsafe extern "C" fn(*mut c_void) -> i64;
        // SAFETY: the type is that of the definition; the queue is alive.
        unsafe { self.0.function::<Function>(c"queue_take")(self.0.address) }
    }

    /// Waits in vain for an element; the error of the wait.
    pub(crate) fn give_up(&self, milliseconds: c_long) -> c_int {
        type Function = unsafe extern "C" fn(*mut c_void, c_long) -> c_int;
        // SAFETY: the type is that of the definition; the queue is alive.
        unsafe { self.0.function::<Function>(c"queue_give_up")(self.0.address, milliseconds) }
    }
}
