//! The decision: everything is looked up, the allocator's words are found by
//! watching it on a fresh block, and a block is tried out.

use std::alloc;
use std::cell::Cell;
use std::hint::black_box;
use std::panic;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::block::{Block, Memory, Registry};
use super::layout::{Layout, find};
use super::modules::Template;
use super::{Isolation, MAX_WORDS, Refusal, ThreadTls, Words, adapter, arch, call_with, task};
use crate::sys;
use crate::util::lock::Lock;

/// Sizes to allocate: one for malloc's per-thread cache, one for its arena.
const SIZES: [usize; 2] = [24, 2000];

/// Symbols that only an instrumented process has.
const INSTRUMENTS: [(&std::ffi::CStr, &str); 3] = [
    (c"__asan_init", "AddressSanitizer"),
    (c"__tsan_init", "ThreadSanitizer"),
    (c"__msan_init", "MemorySanitizer"),
];

/// Decides whether coroutines can have TLS of their own. Call it on a thread
/// that `pthread_create` made.
pub(super) fn decide() -> Result<&'static Isolation, Refusal> {
    if let Some((_, name)) = INSTRUMENTS.iter().find(|(symbol, _)| find(symbol).is_some()) {
        return Err(Refusal::Instrumented(name));
    }
    if arch::is_on_valgrind() {
        return Err(Refusal::Instrumented("valgrind"));
    }
    if arch::has_shadow_stack() {
        return Err(Refusal::Instrumented("a shadow stack"));
    }
    if !arch::can_switch() {
        return Err(Refusal::SlowSwitch);
    }
    let layout = Layout::discover()?;
    let template = template(&layout)?;
    let (words, mut transient) = probe_words(&layout, &template)?;
    probe_specific(&layout)?;
    let foreign_allocator = !adapter::is_in_use() && probe_allocator(&layout, &template, &words)?;
    transient.extend(layout.personal_words());
    transient.extend(words.0);
    transient.sort_unstable();
    transient.dedup();
    // Leaked also when the test fails: it happens once per process.
    let isolation: &'static Isolation = Box::leak(Box::new(Isolation {
        layout,
        words,
        transient,
        foreign_allocator,
        template: AtomicPtr::new(Box::into_raw(Box::new(template))),
        adoption: Lock::new(()),
        adoptions: AtomicUsize::new(0),
        live: Registry::new(),
    }));
    self_test(isolation)?;
    Ok(isolation)
}

fn fresh(layout: &Layout) -> Result<Memory, Refusal> {
    let memory = Memory::allocate(layout).ok_or(Refusal::Exhausted("memory"))?;
    // SAFETY: `memory` was just made.
    unsafe { layout.personalise(memory.thread_pointer(), sys::gettid()) };
    Ok(memory)
}

fn template(layout: &Layout) -> Result<Template, Refusal> {
    let memory = fresh(layout)?;
    // SAFETY: the block was just made.
    let template = unsafe { Template::of(layout, memory.thread_pointer()) };
    memory.free(layout);
    let (below, above) = layout.span();
    if template.start < -(below as isize)
        || template.start + template.image.len() as isize > above as isize
    {
        return Err(Refusal::Layout("span of the modules"));
    }
    Ok(template)
}

/// A copy of what a template covers.
fn snapshot(template: &Template, block: *const u8, copy: &mut [u8]) {
    // SAFETY: the template covers a part of each block.
    unsafe { ptr::copy(block.offset(template.start), copy.as_mut_ptr(), copy.len()) };
}

/// The words in which two copies differ.
fn differences(template: &Template, before: &[u8], after: &[u8]) -> Vec<isize> {
    let words = before.chunks_exact(8).zip(after.chunks_exact(8)).enumerate();
    let changed = words.filter(|(_, (before, after))| before != after);
    changed.map(|(index, _)| template.start + 8 * index as isize).collect()
}

/// The words of malloc and getrandom, and those of `__ctype_init`.
fn probe_words(layout: &Layout, template: &Template) -> Result<(Words, Vec<isize>), Refusal> {
    let memory = fresh(layout)?;
    let block = memory.thread_pointer();
    let mut copies = [(); 3].map(|()| template.image.to_vec());
    let [fresh, before, after] = &mut copies;
    // SAFETY: the calling thread runs on its own TLS and goes back to it. What
    // runs on the block is C code that works on any thread.
    unsafe {
        call_with(None, arch::thread_pointer(), block, || {
            snapshot(template, block, fresh);
            (layout.ctype_init)();
            snapshot(template, block, before);
            for size in SIZES {
                libc::free(black_box(libc::malloc(size)));
            }
            let mut bytes = [0u8; 8];
            libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0);
            snapshot(template, block, after);
        });
    }
    // The block is not freed: its words point to memory that malloc would
    // give back only if a thread ended on it. It happens once.
    let (libc_start, libc_size) = template
        .module_at(layout.errno)
        .ok_or(Refusal::Layout("no TLS of the C library"))?;
    let libc = libc_start..libc_start + libc_size as isize;
    let descriptor = arch::descriptor(layout.descriptor_size);
    let descriptor = descriptor..descriptor + layout.descriptor_size as isize;
    let mut words = differences(template, before, after);
    words.retain(|word| *word != layout.errno & !7);
    if !words.iter().all(|word| libc.contains(word) || descriptor.contains(word)) {
        return Err(Refusal::Probe("words outside the C library"));
    }
    let Some(&last) = words.last() else {
        return Err(Refusal::Probe("no word"));
    };
    if words.len() > MAX_WORDS {
        return Err(Refusal::Probe("too many words"));
    }
    words.resize(MAX_WORDS, last);
    let words = words.try_into().map_err(|_| Refusal::Probe("no word"))?;
    Ok((Words(words), differences(template, fresh, before)))
}

/// Whether glibc's flag for values of pthread keys is where it is expected.
fn probe_specific(layout: &Layout) -> Result<(), Refusal> {
    let memory = fresh(layout)?;
    let block = memory.thread_pointer();
    let mut key = 0;
    // SAFETY: writes the key.
    if unsafe { libc::pthread_key_create(&mut key, None) } != 0 {
        return Err(Refusal::Probe("no pthread key"));
    }
    // SAFETY: the flag is in the descriptor; else as in `probe_words`.
    let flags = unsafe {
        let flag = block.offset(layout.specific_used());
        let before = flag.read();
        call_with(None, arch::thread_pointer(), block, || {
            libc::pthread_setspecific(key, block.cast());
        });
        libc::pthread_key_delete(key);
        [before, flag.read()]
    };
    memory.free(layout);
    if flags == [0, 1] {
        Ok(())
    } else {
        Err(Refusal::Layout("flag of thread-specific data"))
    }
}

/// Whether Rust's global allocator keeps other state in TLS.
fn probe_allocator(layout: &Layout, template: &Template, words: &Words) -> Result<bool, Refusal> {
    let memory = fresh(layout)?;
    let block = memory.thread_pointer();
    let mut copies = [(); 2].map(|()| template.image.to_vec());
    let [before, after] = &mut copies;
    // SAFETY: as in `probe_words`; a global allocator works on any thread.
    unsafe {
        call_with(Some(words), arch::thread_pointer(), block, || {
            (layout.ctype_init)();
            snapshot(template, block, before);
            for size in SIZES {
                let layout = alloc::Layout::array::<u8>(size).expect("the size is small");
                let memory = black_box(alloc::alloc(layout));
                if !memory.is_null() {
                    alloc::dealloc(memory, layout);
                }
            }
            snapshot(template, block, after);
            task::end_thread(layout);
        });
    }
    memory.free(layout);
    let mut changed = differences(template, before, after);
    changed.retain(|word| !words.0.contains(word) && *word != layout.errno & !7);
    Ok(!changed.is_empty())
}

/// How many of the test's thread-local variables were destroyed.
static DESTROYED: AtomicUsize = AtomicUsize::new(0);

struct Tracked(Cell<u32>);

impl Drop for Tracked {
    fn drop(&mut self) {
        DESTROYED.fetch_add(1, Relaxed);
    }
}

thread_local! {
    static TRACKED: Tracked = const { Tracked(Cell::new(1)) };
}

/// What the trial task saw.
#[derive(Default)]
struct Report {
    value: u32,
    address: usize,
    is_panic_caught: bool,
    thread: usize,
    errno: i32,
}

const ERRNO_OF_TASK: i32 = libc::EXDEV;
const ERRNO_OF_THREAD: i32 = libc::EDOM;

fn trial(report: &mut Report) {
    report.errno = sys::errno();
    sys::set_errno(ERRNO_OF_TASK);
    TRACKED.with(|tracked| {
        report.value = tracked.0.replace(3);
        report.address = ptr::from_ref(tracked) as usize;
    });
    // Without unwinding the first panic ends the process anyway.
    report.is_panic_caught = cfg!(not(panic = "unwind"))
        || panic::catch_unwind(|| panic::resume_unwind(Box::new(()))).is_err()
            && !std::thread::panicking();
    // SAFETY: pthread_self has no requirements.
    report.thread = unsafe { libc::pthread_self() } as usize;
}

/// Runs a task on a block as a worker would, twice.
fn self_test(isolation: &'static Isolation) -> Result<(), Refusal> {
    let check = |holds: bool, what| if holds { Ok(()) } else { Err(Refusal::SelfTest(what)) };
    TRACKED.with(|tracked| tracked.0.set(2));
    let own = TRACKED.with(|tracked| ptr::from_ref(tracked) as usize);
    let mut block = Block::new(isolation).map_err(|_| Refusal::Exhausted("memory"))?;
    let pointer = block.thread_pointer();
    let descriptor = pointer.wrapping_offset(arch::descriptor(isolation.layout.descriptor_size));
    let task = black_box(trial as fn(&mut Report));
    for _ in 0..2 {
        let mut report = Report::default();
        let destroyed = DESTROYED.load(Relaxed);
        sys::set_errno(ERRNO_OF_THREAD);
        // SAFETY: this thread runs on its own TLS, and on nothing else's but
        // the block that nobody else knows.
        unsafe {
            call_with(Some(&isolation.words), arch::thread_pointer(), pointer, || {
                task::begin(isolation);
                task(&mut report);
                task::end(isolation);
            });
        }
        check(report.value == 1 && report.address != own, "thread-local variable")?;
        check(report.errno == 0 && sys::errno() == ERRNO_OF_THREAD, "errno")?;
        check(report.is_panic_caught, "panic")?;
        check(report.thread == descriptor as usize, "pthread_self")?;
        check(DESTROYED.load(Relaxed) == destroyed + 1, "destructor")?;
        check(TRACKED.with(|tracked| tracked.0.get()) == 2, "thread's own variable")?;
        // SAFETY: nobody runs on the block.
        check(unsafe { block.reset() }, "reset")?;
    }
    // SAFETY: this thread runs on its own TLS.
    let thread = unsafe { ThreadTls::current(isolation) };
    check(thread.pointer == arch::thread_pointer(), "thread pointer")
}
