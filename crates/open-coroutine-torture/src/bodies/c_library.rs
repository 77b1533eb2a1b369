//! The C library: callbacks, formats, streams, times, character sets.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use libc::FILE;
use open_coroutine::yield_now;

use super::{Round, work};

unsafe extern "C" {
    fn open_memstream(text: *mut *mut c_char, length: *mut usize) -> *mut FILE;
    fn fmemopen(buffer: *mut c_void, size: usize, mode: *const c_char) -> *mut FILE;
}

/// How many lines of it there are at least, before no more are written: the file
/// is not to fill the disk.
const ENOUGH: u64 = 1_000_000;

/// A stream that all coroutines write to.
pub(super) struct Shared {
    stream: *mut FILE,
    written: AtomicU64,
}

// SAFETY: stdio's streams are locked by themselves.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Default for Shared {
    fn default() -> Self {
        // SAFETY: creates a file without a name.
        let stream = unsafe { libc::tmpfile() };
        assert!(!stream.is_null(), "no temporary file");
        Self {
            stream,
            written: AtomicU64::new(0),
        }
    }
}

impl Shared {
    /// Each line must be whole.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut lines = 0;
        // SAFETY: the stream is open, and its lines fit into the buffer.
        unsafe {
            libc::rewind(self.stream);
            let mut buffer = [0; 128];
            while !libc::fgets(buffer.as_mut_ptr(), buffer.len() as c_int, self.stream).is_null() {
                let line = CStr::from_ptr(buffer.as_ptr())
                    .to_string_lossy()
                    .into_owned();
                let numbers = line.trim_end().split(' ').map(str::parse::<u64>);
                match numbers.collect::<Result<Vec<_>, _>>().as_deref() {
                    Ok([a, b, sum]) if a + b == *sum => lines += 1,
                    _ => return Err(format!("torn line of stdio {line:?}")),
                }
            }
        }
        match self.written.load(Relaxed) {
            written if written == lines => Ok(()),
            written => Err(format!("{lines} lines of stdio instead of {written}")),
        }
    }
}

thread_local! {
    static COMPARISONS: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    let comparisons = COMPARISONS.get() + 1;
    COMPARISONS.set(comparisons);
    if comparisons.is_multiple_of(100) {
        // In the middle of libc's function.
        yield_now();
    }
    // SAFETY: `sort` and its search pass pointers to their numbers.
    let (a, b) = unsafe { (*a.cast::<u64>(), *b.cast::<u64>()) };
    a.cmp(&b) as c_int
}

pub(super) fn sort(round: &mut Round) {
    let mut numbers: Vec<u64> = (0..300).map(|_| round.below(10_000)).collect();
    let sum: u64 = numbers.iter().sum();
    COMPARISONS.set(0);
    // SAFETY: the elements are as many and as large as it says.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, Some(compare)) };
    assert!(numbers.is_sorted());
    assert_eq!(sum, numbers.iter().sum::<u64>());
    assert!(COMPARISONS.get() >= 299);
    let key = numbers[17];
    // SAFETY: as above.
    let found = unsafe {
        libc::bsearch(
            (&raw const key).cast(),
            numbers.as_ptr().cast(),
            numbers.len(),
            8,
            Some(compare),
        )
    };
    // SAFETY: it points to an element.
    assert_eq!(key, unsafe { *found.cast::<u64>() });
}

pub(super) fn text(round: &mut Round) {
    let number = round.below(1_000_000) as c_int;
    formats(number);
    times(i64::from(number) * 1000);
    character_sets();
    let mut fields = *b"alpha,beta,,gamma\0";
    let mut state = ptr::null_mut();
    let mut found = Vec::new();
    let mut start = fields.as_mut_ptr().cast::<c_char>();
    loop {
        // SAFETY: a terminated string, and a state that goes with it.
        let field = unsafe { libc::strtok_r(start, c",".as_ptr(), &raw mut state) };
        start = ptr::null_mut();
        if field.is_null() {
            break;
        }
        // SAFETY: `strtok_r` has terminated it.
        found.push(unsafe { CStr::from_ptr(field) }.to_bytes().to_vec());
        work(1);
    }
    assert_eq!(
        ["alpha", "beta", "gamma"].map(|field| field.as_bytes().to_vec()),
        *found
    );
    // SAFETY: nobody changes the environment.
    assert!(!unsafe { libc::getenv(c"PATH".as_ptr()) }.is_null());
}

fn formats(number: c_int) {
    let mut buffer = [0; 64];
    let fraction = f64::from(number) / 8.0;
    // SAFETY: the format goes with the arguments, and the size is the buffer's.
    let length = unsafe {
        libc::snprintf(
            buffer.as_mut_ptr(),
            buffer.len(),
            c"%d|%08.3f|%s".as_ptr(),
            number,
            fraction,
            c"end".as_ptr(),
        )
    };
    // SAFETY: `snprintf` has terminated it.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    let expected = format!("{number}|{fraction:08.3}|end");
    assert_eq!(expected, text.to_str().expect("it is ASCII"));
    assert_eq!(expected.len(), length as usize);
    let mut end = ptr::null_mut();
    // SAFETY: terminated strings.
    let read = unsafe { libc::strtod(c"12.625rest".as_ptr(), &raw mut end) };
    assert_eq!(12.625, read);
    // SAFETY: `strtod` has set it to within the string.
    assert_eq!(c"rest", unsafe { CStr::from_ptr(end) });
}

fn times(time: i64) {
    let mut parts = MaybeUninit::uninit();
    // SAFETY: valid times.
    let (back, length) = unsafe {
        libc::gmtime_r(&raw const time, parts.as_mut_ptr());
        let mut text = [0; 64];
        let length = libc::strftime(
            text.as_mut_ptr(),
            text.len(),
            c"%Y-%m-%d %H:%M:%S".as_ptr(),
            parts.as_ptr(),
        );
        libc::localtime_r(&raw const time, parts.as_mut_ptr());
        let local = libc::mktime(parts.as_mut_ptr());
        assert_eq!(time, local);
        libc::gmtime_r(&raw const time, parts.as_mut_ptr());
        (libc::timegm(parts.as_mut_ptr()), length)
    };
    assert_eq!((time, 19), (back, length));
}

fn character_sets() {
    let mut input = *b"gr\xfc\xdfe";
    let mut output = [0_u8; 16];
    // SAFETY: the pointers and lengths are those of the buffers.
    let left = unsafe {
        let converter = libc::iconv_open(c"UTF-8".as_ptr(), c"ISO-8859-1".as_ptr());
        assert_ne!(usize::MAX as *mut c_void, converter);
        let (mut from, mut from_left) = (input.as_mut_ptr().cast(), input.len());
        let (mut to, mut to_left) = (output.as_mut_ptr().cast(), output.len());
        let result = libc::iconv(
            converter,
            &raw mut from,
            &raw mut from_left,
            &raw mut to,
            &raw mut to_left,
        );
        assert_eq!(0, result);
        assert_eq!(0, libc::iconv_close(converter));
        to_left
    };
    assert_eq!("grüße".as_bytes(), &output[..output.len() - left]);
}

pub(super) fn stdio(round: &mut Round) {
    let number = round.below(1000);
    let mut text = ptr::null_mut();
    let mut length = 0;
    // SAFETY: the streams are closed before their memory goes away, and formats
    // go with their arguments.
    unsafe {
        let stream = open_memstream(&raw mut text, &raw mut length);
        for index in 0..50_u64 {
            assert!(libc::fprintf(stream, c"%lu;".as_ptr(), index * number) > 0);
        }
        assert_eq!(0, libc::fclose(stream));
        let sum: u64 = CStr::from_ptr(text)
            .to_str()
            .expect("it is ASCII")
            .split_terminator(';')
            .map(|part| part.parse::<u64>().expect("digits"))
            .sum();
        assert_eq!(number * (0..50).sum::<u64>(), sum);
        let stream = fmemopen(text.cast(), length, c"r".as_ptr());
        let (mut first, mut second) = (0_u64, 0_u64);
        let count = libc::fscanf(
            stream,
            c"%lu;%lu;".as_ptr(),
            &raw mut first,
            &raw mut second,
        );
        assert_eq!((2, 0, number), (count, first, second));
        libc::fclose(stream);
        libc::free(text.cast());
    }
    let shared = &round.world.c_library;
    if shared.written.load(Relaxed) > ENOUGH {
        return;
    }
    for index in 0..20_u64 {
        // SAFETY: the stream is open as long as `shared` lives.
        let written = unsafe {
            libc::fprintf(
                shared.stream,
                c"%lu %lu %lu\n".as_ptr(),
                index,
                number,
                index + number,
            )
        };
        assert!(written > 0);
        shared.written.fetch_add(1, Relaxed);
    }
}
