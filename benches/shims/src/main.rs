//! What a hooked function costs on a plain thread, over libc's own.
//!
//! Both are called in turn in short batches, so that whatever else the machine
//! does meets both; the medians are compared. Most calls fail at once in the
//! kernel (a descriptor of -1), which is the shortest that they can take.
//!
//! ```text
//! cargo run --release --manifest-path benches/shims/Cargo.toml
//! ```

use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::io::{Read, Write};
use std::mem;
use std::ptr;
use std::time::Instant;

const BATCHES: usize = 2001;
const CALLS: u32 = 500;

/// A function with libc's name, and the one behind it.
struct Pair<F> {
    name: &'static str,
    hooked: F,
    own: F,
}

/// The function of libc itself.
fn own<F: Copy>(name: &CStr) -> F {
    // SAFETY: looks names up in the library that is loaded already.
    let address = unsafe {
        let libc = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        assert!(!libc.is_null());
        libc::dlsym(libc, name.as_ptr())
    };
    assert!(!address.is_null());
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: the callers name the type of the function.
    unsafe { mem::transmute_copy(&address) }
}

/// Nanoseconds that one call takes.
fn time(call: impl Fn()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints what `call` costs with the hooked function and with libc's own.
fn compare<F: Copy>(pair: Pair<F>, call: impl Fn(F)) {
    let (mut hooked, mut own, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        // In turn the one and the other first.
        let order = if batch % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        let (mut with, mut without) = (0.0, 0.0);
        for is_hooked in order {
            let function = black_box(if is_hooked { pair.hooked } else { pair.own });
            let taken = time(|| call(function));
            *(if is_hooked { &mut with } else { &mut without }) = taken;
        }
        hooked.push(with);
        own.push(without);
        differences.push(with - without);
    }
    println!(
        "{:24} {:8.1} {:8.1} {:+8.1}",
        pair.name,
        median(own),
        median(hooked),
        median(differences)
    );
}

macro_rules! pair {
    ($name:ident: $kind:ty) => {
        Pair::<$kind> {
            name: stringify!($name),
            hooked: libc::$name,
            own: own(&std::ffi::CString::new(stringify!($name)).expect("a name")),
        }
    };
}

type Transfer = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
type Receive = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize;
type Position = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> isize;
type Poll = unsafe extern "C" fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Open = unsafe extern "C" fn(*const libc::c_char, c_int, ...) -> c_int;
type Stat = unsafe extern "C" fn(*const libc::c_char, *mut libc::stat) -> c_int;
type Call = unsafe extern "C" fn(libc::c_long, ...) -> libc::c_long;
type Mutex = unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> c_int;
type Condition = unsafe extern "C" fn(*mut libc::pthread_cond_t) -> c_int;
type Post = unsafe extern "C" fn(*mut libc::sem_t) -> c_int;
type Mask = unsafe extern "C" fn(c_int, *const libc::sigset_t, *mut libc::sigset_t) -> c_int;

/// From here on something is known of descriptors.
fn use_descriptors() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"x").expect("room in the pipe");
    reader.read_exact(&mut [0]).expect("a byte");
}

fn ignore<T>(_result: T) {}

// SAFETY of every call below: the arguments are valid for the function, or
// refused by it.
fn main() {
    let runtime = std::env::args().any(|argument| argument == "--runtime");
    if runtime {
        open_coroutine::spawn(use_descriptors)
            .join()
            .expect("a runtime");
    }
    println!(
        "nanoseconds per call{}",
        if runtime { ", beside a runtime" } else { "" }
    );
    println!("{:24} {:>8} {:>8} {:>8}", "", "libc", "hooked", "more");
    let null = ptr::null_mut();
    // SAFETY: all-zero bytes are a result to be filled in.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    let stat = &raw mut stat;
    compare(pair!(read: Transfer), |f| unsafe {
        ignore(black_box(f(-1, null, 0)))
    });
    compare(pair!(recv: Receive), |f| unsafe {
        ignore(black_box(f(-1, null, 0, 0)))
    });
    compare(pair!(pread: Position), |f| unsafe {
        ignore(black_box(f(-1, null, 0, 0)))
    });
    compare(pair!(poll: Poll), |f| unsafe {
        ignore(black_box(f(ptr::null_mut(), 0, 0)))
    });
    compare(pair!(close: Close), |f| unsafe { ignore(black_box(f(-1))) });
    compare(pair!(open: Open), |f| unsafe {
        ignore(black_box(f(c"".as_ptr(), 0)))
    });
    compare(pair!(stat: Stat), |f| unsafe {
        ignore(black_box(f(c"".as_ptr(), stat)))
    });
    compare(pair!(syscall: Call), |f| unsafe {
        let word = 0u32;
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        ignore(black_box(f(
            libc::SYS_futex,
            &raw const word,
            wake,
            1,
            0,
            0,
            0,
        )));
    });
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    let (lock, unlock) = (
        pair!(pthread_mutex_lock: Mutex),
        pair!(pthread_mutex_unlock: Mutex),
    );
    let both = Pair {
        name: "pthread_mutex lock+unlock",
        hooked: (lock.hooked, unlock.hooked),
        own: (lock.own, unlock.own),
    };
    let mutex = &raw mut mutex;
    compare(both, |(lock, unlock)| unsafe {
        black_box(lock(mutex));
        black_box(unlock(mutex));
    });
    let mut condition = libc::PTHREAD_COND_INITIALIZER;
    let condition = &raw mut condition;
    compare(pair!(pthread_cond_signal: Condition), |f| unsafe {
        ignore(black_box(f(condition)))
    });
    // SAFETY: all-zero bytes are a semaphore to be initialised.
    let mut semaphore: libc::sem_t = unsafe { mem::zeroed() };
    let semaphore = &raw mut semaphore;
    // SAFETY: a semaphore of this process.
    unsafe { libc::sem_init(semaphore, 0, 0) };
    compare(pair!(sem_post: Post), |f| unsafe {
        ignore(black_box(f(semaphore)))
    });
    compare(pair!(pthread_sigmask: Mask), |f| unsafe {
        ignore(black_box(f(libc::SIG_BLOCK, ptr::null(), ptr::null_mut())));
    });
}
