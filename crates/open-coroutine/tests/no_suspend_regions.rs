//! What libc calls while it holds a lock of its own does not suspend: the next
//! coroutine that wants the lock would block the thread that must free it.

mod child;
mod runtimes;

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use open_coroutine::{spawn, yield_now};
use runtimes::{on_every_driver, on_every_runtime};

static TURNS: AtomicU64 = AtomicU64::new(0);
static DISTURBED: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Calls that would suspend, and what others did meanwhile.
fn wait_a_little() {
    let before = TURNS.load(SeqCst);
    // SAFETY: takes an integer.
    unsafe { libc::usleep(300) };
    DISTURBED.fetch_add(TURNS.load(SeqCst) - before, SeqCst);
    CALLS.fetch_add(1, SeqCst);
}

/// Runs `body` beside another coroutine, on one worker, which must not have had
/// a turn inside [`wait_a_little`].
fn undisturbed(body: impl FnOnce()) {
    DISTURBED.store(0, SeqCst);
    let is_over = Arc::new(AtomicBool::new(false));
    let until = is_over.clone();
    let other = spawn(move || {
        while !until.load(SeqCst) {
            TURNS.fetch_add(1, SeqCst);
            yield_now();
        }
    });
    yield_now();
    body();
    is_over.store(true, SeqCst);
    other.join().unwrap();
    assert!(TURNS.load(SeqCst) > 0);
    assert_eq!(0, DISTURBED.load(SeqCst));
}

/// `cookie_io_functions_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Functions {
    read: Option<extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: Functions,
    ) -> *mut libc::FILE;
}

/// The memory behind a stream.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    position: usize,
    is_closed: bool,
}

fn memory(cookie: *mut c_void) -> &'static mut Memory {
    // SAFETY: the cookie of these tests' streams, which outlives them and is
    // used by nobody else meanwhile.
    unsafe { &mut *cookie.cast() }
}

extern "C" fn read(cookie: *mut c_void, buf: *mut c_char, size: usize) -> isize {
    wait_a_little();
    let memory = memory(cookie);
    let rest = &memory.bytes[memory.position..];
    let length = rest.len().min(size);
    // SAFETY: stdio passes room for `size` bytes.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), buf.cast(), length) };
    memory.position += length;
    length as isize
}

extern "C" fn write(cookie: *mut c_void, buf: *const c_char, size: usize) -> isize {
    wait_a_little();
    // SAFETY: stdio passes `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), size) };
    memory(cookie).bytes.extend_from_slice(bytes);
    size as isize
}

extern "C" fn seek(cookie: *mut c_void, offset: *mut i64, whence: c_int) -> c_int {
    wait_a_little();
    assert_eq!(libc::SEEK_SET, whence);
    // SAFETY: stdio passes an offset.
    memory(cookie).position = unsafe { *offset } as usize;
    0
}

extern "C" fn close(cookie: *mut c_void) -> c_int {
    wait_a_little();
    memory(cookie).is_closed = true;
    0
}

const ALL: Functions = Functions {
    read: Some(read),
    write: Some(write),
    seek: Some(seek),
    close: Some(close),
};

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn streams_with_functions_of_the_program() {
    on_every_driver(1, || {
        undisturbed(|| {
            let mut memory = Memory::default();
            let cookie = (&raw mut memory).cast();
            CALLS.store(0, SeqCst);
            // SAFETY: the stream is used as C wants it, and closed.
            unsafe {
                let file = fopencookie(cookie, c"w+".as_ptr(), ALL);
                assert!(!file.is_null());
                assert_eq!(5, libc::fwrite(c"hello".as_ptr().cast(), 1, 5, file));
                assert_eq!(0, libc::fflush(file));
                assert_eq!(0, libc::fseek(file, 1, libc::SEEK_SET));
                let mut back = [0u8; 8];
                assert_eq!(4, libc::fread(back.as_mut_ptr().cast(), 1, 8, file));
                assert_eq!(b"ello", &back[..4]);
                assert_eq!(0, libc::fclose(file));
            }
            assert!(memory.is_closed && memory.bytes == b"hello");
            assert!(CALLS.load(SeqCst) >= 4);
        });
    });
}

#[test]
fn streams_do_without_functions_as_before() {
    let check: fn() = || {
        let mut memory = Memory::default();
        let cookie = (&raw mut memory).cast();
        // SAFETY: as above.
        unsafe {
            let file = fopencookie(cookie, c"w+".as_ptr(), Functions::default());
            assert_eq!(5, libc::fwrite(c"hello".as_ptr().cast(), 1, 5, file));
            assert_eq!(libc::EOF, libc::fflush(file));
            libc::clearerr(file);
            libc::fclose(file);
            let file = fopencookie(cookie, c"r".as_ptr(), Functions::default());
            assert_eq!(libc::EOF, libc::fgetc(file));
            assert_eq!(0, libc::fclose(file));
            // A mode that stdio refuses.
            assert!(fopencookie(cookie, c"x".as_ptr(), ALL).is_null());
        }
        assert!(!memory.is_closed);
    };
    check();
    on_every_runtime(check);
}

#[test]
fn what_runs_at_a_quick_exit() {
    unsafe extern "C" {
        fn at_quick_exit(function: extern "C" fn()) -> c_int;
        fn quick_exit(status: c_int) -> !;
    }
    extern "C" fn last() {
        wait_a_little();
        let status = if DISTURBED.load(SeqCst) == 0 { 7 } else { 8 };
        // SAFETY: ends the process.
        unsafe { libc::_exit(status) };
    }
    let output = child::output("what_runs_at_a_quick_exit", || {
        on_every_driver(1, || {
            undisturbed(|| {
                // SAFETY: ends the process.
                unsafe {
                    assert_eq!(0, at_quick_exit(last));
                    quick_exit(3);
                }
            });
        });
    });
    assert_eq!(Some(7), output.status.code());
}

#[test]
fn what_runs_before_a_fork() {
    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> c_int;
    }
    extern "C" fn waits() {
        wait_a_little();
    }
    child::succeeds("what_runs_before_a_fork", || {
        // SAFETY: the functions do what they may.
        assert_eq!(0, unsafe { pthread_atfork(Some(waits), Some(waits), None) });
        on_every_driver(1, || {
            undisturbed(|| {
                CALLS.store(0, SeqCst);
                // SAFETY: the child ends at once.
                unsafe {
                    let child = libc::fork();
                    if child == 0 {
                        libc::_exit(0);
                    }
                    assert_eq!(2, CALLS.load(SeqCst));
                    assert_eq!(child, libc::waitpid(child, ptr::null_mut(), 0));
                }
            });
        });
    });
}

/// A library whose initialiser and finaliser call the function at the address
/// that the environment has.
const LIBRARY: &str = r#"
#include <stdlib.h>
static void call(void) { ((void (*)(void)) strtoul(getenv("TEST_CALL"), 0, 10))(); }
__attribute__((constructor)) static void begin(void) { call(); }
__attribute__((destructor)) static void end(void) { call(); }
"#;

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn what_runs_when_a_library_is_loaded_or_unloaded() {
    extern "C" fn waits() {
        wait_a_little();
    }
    child::succeeds("what_runs_when_a_library_is_loaded_or_unloaded", || {
        let path = std::env::temp_dir().join(format!("no-suspend-{}.so", std::process::id()));
        let mut compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "-o"])
            .args([path.as_os_str(), "-".as_ref()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = compiler.stdin.take().unwrap();
        input.write_all(LIBRARY.as_bytes()).unwrap();
        drop(input);
        assert!(compiler.wait().unwrap().success());
        let address = waits as *const () as usize;
        // SAFETY: no other thread runs yet that looks at the environment.
        unsafe { std::env::set_var("TEST_CALL", address.to_string()) };
        let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        LIBRARY_PATH.set(path.clone()).unwrap();
        on_every_driver(1, || {
            undisturbed(|| {
                CALLS.store(0, SeqCst);
                let path = LIBRARY_PATH.get().unwrap().as_ptr();
                // SAFETY: the library only calls `waits`.
                unsafe {
                    let library = libc::dlopen(path, libc::RTLD_NOW);
                    assert!(!library.is_null());
                    assert_eq!(0, libc::dlclose(library));
                    assert_eq!(2, CALLS.load(SeqCst));
                    let library = libc::dlmopen(libc::LM_ID_BASE, path, libc::RTLD_NOW);
                    assert!(!library.is_null());
                    assert_eq!(0, libc::dlclose(library));
                    assert_eq!(4, CALLS.load(SeqCst));
                }
            });
        });
        std::fs::remove_file(path.to_str().unwrap()).unwrap();
    });
}

static LIBRARY_PATH: OnceLock<CString> = OnceLock::new();
