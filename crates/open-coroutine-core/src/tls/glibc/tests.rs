//! Tests of the blocks on this machine's glibc.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::{env, mem, ptr, thread};

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::*;
use crate::sys;

/// Runs `task` on `block`, as a worker runs one that never suspends.
fn run<R>(block: &Block, task: impl FnOnce() -> R) -> R {
    let isolation = isolation().unwrap();
    // SAFETY: the tests run on their threads' own TLS, and each uses its
    // blocks alone.
    unsafe {
        let thread = ThreadTls::current(isolation);
        call_with(Some(&thread.words), thread.pointer, block.thread_pointer(), || {
            begin(isolation);
            let result = task();
            end(isolation);
            result
        })
    }
}

fn new() -> Block {
    Block::new(isolation().unwrap()).unwrap()
}

/// Runs the test `name` in a process of its own. There, `work` is called.
fn in_child(name: &str, variables: &[(&str, &str)], work: fn()) {
    const MARK: &str = "OPEN_COROUTINE_TEST_CHILD";
    if env::var_os(MARK).is_some() {
        return work();
    }
    let name = format!("tls::glibc::tests::{name}");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(7) };
    static TEXT: RefCell<String> = RefCell::new("new".to_owned());
}

#[test]
fn thread_local_variables_are_separate_per_block() {
    let (first, second) = (new(), new());
    NUMBER.set(1);
    for block in [&first, &second] {
        run(block, || {
            assert_eq!(7, NUMBER.replace(8));
            TEXT.with_borrow_mut(|text| text.push_str(" and used"));
            assert_eq!("new and used", TEXT.with_borrow(String::clone));
        });
    }
    assert_eq!(1, NUMBER.get());
    assert_eq!("new", TEXT.with_borrow(String::clone));
}

#[test]
fn thread_local_variables_are_destroyed_once_when_the_task_ends() {
    struct Counted(Cell<Option<Rc<Cell<u32>>>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            if let Some(count) = self.0.take() {
                count.set(count.get() + 1);
            }
        }
    }
    thread_local!(static COUNTED: Counted = const { Counted(Cell::new(None)) });

    let count = Rc::new(Cell::new(0));
    let mut block = new();
    for round in 1..=3 {
        run(&block, || COUNTED.with(|counted| counted.0.set(Some(count.clone()))));
        assert_eq!(round, count.get());
        // SAFETY: nobody runs on the block.
        assert!(unsafe { block.reset() });
    }
    drop(block);
    assert_eq!(3, count.get());
}

#[test]
fn blocks_have_ids_of_their_own() {
    let (first, second) = (new(), new());
    let ids = [&first, &second].map(|block| run(block, || thread::current().id()));
    assert_ne!(ids[0], ids[1]);
    assert!(!ids.contains(&thread::current().id()));
    assert_ne!(first.thread_id(), second.thread_id());
    assert!(first.thread_id() >= 0x2000_0000);
    assert_ne!(first.thread_id(), sys::gettid());
}

#[test]
fn std_facilities_work_on_a_block() {
    run(&new(), || {
        println!("a line from a block");
        let map: HashMap<u32, String> = (0..100).map(|n| (n, n.to_string())).collect();
        assert_eq!("42", map[&42]);
        assert_eq!(5, thread::spawn(|| NUMBER.replace(0) - 2).join().unwrap());
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || sender.send(1).unwrap());
        });
        assert_eq!(1, receiver.recv().unwrap());
        let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(9)));
        assert_eq!(9, *caught.unwrap_err().downcast::<i32>().unwrap());
    });
}

#[test]
fn errno_is_separate_and_carried_to_the_thread_and_back() {
    let isolation = isolation().unwrap();
    let block = new();
    // SAFETY: this test runs on its thread's own TLS.
    let thread = unsafe { ThreadTls::current(isolation) };
    sys::set_errno(libc::EDOM);
    NUMBER.set(5);
    run(&block, || {
        assert_eq!(0, sys::errno());
        sys::set_errno(libc::EXDEV);
        // SAFETY: the block is installed on the thread of `thread`.
        let (number, errno) = unsafe {
            on_thread(&thread, &block, || {
                let seen = (NUMBER.get(), sys::errno());
                sys::set_errno(libc::ERANGE);
                seen
            })
        };
        assert_eq!((5, libc::EXDEV), (number, errno));
        assert_eq!(libc::ERANGE, sys::errno());
        assert_eq!(7, NUMBER.get());
    });
    assert_eq!(libc::ERANGE, sys::errno());
}

#[test]
fn reset_leaves_nothing_of_the_former_task() {
    let mut block = new();
    let pointer = block.thread_pointer();
    let template = isolation().unwrap().template();
    let copy = || {
        // SAFETY: the template covers a part of the block.
        unsafe { std::slice::from_raw_parts(pointer.offset(template.start), template.image.len()) }
    };
    let before = copy().to_vec();
    run(&block, || {
        NUMBER.set(99);
        TEXT.with_borrow_mut(String::clear);
        sys::set_errno(libc::EXDEV);
        let _ = thread::current();
    });
    assert!(copy() != before);
    // SAFETY: nobody runs on the block.
    assert!(unsafe { block.reset() });
    assert!(copy() == before);
    run(&block, || {
        assert_eq!((7, 0), (NUMBER.get(), sys::errno()));
        assert_eq!("new", TEXT.with_borrow(String::clone));
    });
}

#[test]
fn destructors_of_pthread_keys_run_at_most_four_times() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn again(value: *mut c_void) {
        CALLS.fetch_add(1, SeqCst);
        // SAFETY: `value` is the key.
        unsafe { libc::pthread_setspecific(value as usize as _, value) };
    }
    // More than one level of keys.
    let mut keys = [0; 40];
    for key in &mut keys {
        // SAFETY: writes the key.
        assert_eq!(0, unsafe { libc::pthread_key_create(key, Some(again)) });
    }
    let last = keys[39];
    assert!(last >= 32);
    let mut block = new();
    for round in 1..=2 {
        run(&block, || {
            // SAFETY: the key exists, and the block's values are not the thread's.
            unsafe {
                assert!(libc::pthread_getspecific(last).is_null());
                libc::pthread_setspecific(last, last as usize as *const c_void);
            }
        });
        assert_eq!(4 * round, CALLS.load(SeqCst));
        // SAFETY: nobody runs on the block.
        assert!(unsafe { block.reset() });
    }
    for key in keys {
        // SAFETY: created above.
        unsafe { libc::pthread_key_delete(key) };
    }
}

#[test]
fn noted_destructors_are_found_until_their_key_is_deleted() {
    unsafe extern "C" fn nothing(_: *mut c_void) {}
    // SAFETY: the tests have not as many keys: this one is never used.
    unsafe { key_created(1000, Some(nothing)) };
    assert!(task::noted_destructor(1000).is_some());
    key_deleted(1000);
    assert!(task::noted_destructor(1000).is_none());
}

/// A stack without a guard page, large enough for a test.
struct HeapStack(Box<[u128]>);

impl HeapStack {
    fn new() -> Self {
        Self(vec![0; 8192].into_boxed_slice())
    }
}

// SAFETY: the memory stays where it is, and is aligned to 16 bytes.
unsafe impl Stack for HeapStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.limit().get() + size_of_val(&*self.0)).unwrap()
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.as_ptr() as usize).unwrap()
    }
}

/// Resumes `coroutine` with `block` installed.
#[inline(never)]
fn resume<R>(
    thread: &ThreadTls,
    block: &Block,
    coroutine: &mut Coroutine<(), (), R, HeapStack>,
) -> CoroutineResult<(), R> {
    // SAFETY: the thread runs on its own TLS, and the coroutine comes back
    // before anything else runs.
    unsafe {
        enter(thread, block);
        let result = coroutine.resume(());
        leave(thread, block);
        result
    }
}

type Counting = (Block, Coroutine<(), (), (), HeapStack>);

/// A coroutine that counts in its variables, and checks that they are its own.
fn counting(number: u32) -> Counting {
    let body = move |yielder: &Yielder<(), ()>, ()| {
        let isolation = isolation().unwrap();
        // SAFETY: the coroutine runs on its block.
        unsafe { begin(isolation) };
        for round in 0..100 {
            let expected = if round == 0 { 7 } else { 1000 * number + round };
            assert_eq!(expected, NUMBER.replace(1000 * number + round + 1));
            let text = Box::new(NUMBER.get().to_string());
            yielder.suspend(());
            assert_eq!(*text, NUMBER.get().to_string());
        }
        // SAFETY: as above.
        unsafe { end(isolation) };
    };
    (new(), Coroutine::with_stack(HeapStack::new(), body))
}

#[test]
fn interleaved_coroutines_keep_their_own_variables() {
    // SAFETY: this test runs on its thread's own TLS.
    let thread = unsafe { ThreadTls::current(isolation().unwrap()) };
    let mut coroutines: Vec<_> = (0..4).map(counting).collect();
    let mut finished = 0;
    while finished < coroutines.len() {
        for (block, coroutine) in &mut coroutines {
            if !coroutine.done() && resume(&thread, block, coroutine).as_return().is_some() {
                finished += 1;
            }
        }
    }
}

/// Resumes all, one after the other, without the thread's own TLS in between.
#[inline(never)]
fn resume_in_a_row(thread: &ThreadTls, coroutines: &mut [Counting]) {
    let mut installed: Option<&Block> = None;
    for (block, coroutine) in coroutines {
        // SAFETY: as in `resume`; the thread runs on the block that is left.
        unsafe {
            match installed.replace(block) {
                Some(from) => cross(thread, from, block),
                None => enter(thread, block),
            }
        }
        coroutine.resume(());
    }
    if let Some(block) = installed {
        // SAFETY: as above.
        unsafe { leave(thread, block) };
    }
}

#[test]
fn a_thread_that_crosses_from_block_to_block_takes_its_allocator_along() {
    // SAFETY: this test runs on its thread's own TLS.
    let thread = unsafe { ThreadTls::current(isolation().unwrap()) };
    let words = |pointer: *mut u8| {
        // SAFETY: the words lie in every block, and in the thread's own TLS.
        thread.words.0.map(|offset| unsafe { pointer.offset(offset).cast::<usize>().read() })
    };
    let before = words(thread.pointer);
    NUMBER.set(1);
    let mut coroutines: Vec<_> = (0..4).map(counting).collect();
    while !coroutines[0].1.done() {
        resume_in_a_row(&thread, &mut coroutines);
        for (block, _) in &coroutines {
            assert_eq!(before, words(block.thread_pointer()));
        }
        assert_eq!(before, words(thread.pointer));
    }
    assert!(coroutines.iter().all(|(_, coroutine)| coroutine.done()));
    assert_eq!(1, NUMBER.get());
}

#[test]
fn a_coroutine_keeps_its_variables_and_memory_on_other_threads() {
    struct Moving(Coroutine<(), (), (), HeapStack>);
    // SAFETY: what the coroutine holds across suspensions is its own.
    unsafe impl Send for Moving {}

    let isolation = isolation().unwrap();
    let body = move |yielder: &Yielder<(), ()>, ()| {
        // SAFETY: the coroutine runs on its block.
        unsafe { begin(isolation) };
        let id = thread::current().id();
        let mut kept = Vec::new();
        for round in 0..50 {
            TEXT.with_borrow_mut(|text| text.push('!'));
            kept.push(vec![round; 100 * round]);
            yielder.suspend(());
            assert_eq!(id, thread::current().id());
            assert_eq!(3 + round + 1, TEXT.with_borrow(String::len));
            if round % 2 == 1 {
                kept.swap_remove(0);
            }
        }
        // SAFETY: as above.
        unsafe { end(isolation) };
    };
    let mut moving = (new(), Moving(Coroutine::with_stack(HeapStack::new(), body)));
    let mut is_done = false;
    while !is_done {
        (moving, is_done) = thread::spawn(move || {
            let mut moving = moving;
            let whole: &mut (Block, Moving) = &mut moving;
            // SAFETY: this thread runs on its own TLS.
            let thread = unsafe { ThreadTls::current(isolation) };
            let result = resume(&thread, &whole.0, &mut whole.1.0);
            (moving, result.as_return().is_some())
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_block_outlives_the_thread_that_made_it() {
    let block = thread::spawn(|| {
        let block = new();
        run(&block, || TEXT.with_borrow_mut(String::clear));
        block
    })
    .join()
    .unwrap();
    run(&block, || assert_eq!(7, NUMBER.get()));
}

#[test]
fn creating_and_destroying_blocks_leaks_nothing() {
    in_child("creating_and_destroying_blocks_leaks_nothing", &[], || {
        // SAFETY: only reads.
        let in_use = || unsafe { libc::mallinfo2() }.uordblks;
        let cycle = || {
            run(&new(), || {
                TEXT.with_borrow_mut(|text| text.push('!'));
                drop(thread::current());
                // SAFETY: both names are C strings.
                let missing = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"no such".as_ptr()) };
                assert!(missing.is_null());
                drop(std::hint::black_box(vec![0u8; 100]));
            });
        };
        (0..100).for_each(|_| cycle());
        let before = in_use();
        (0..100_000).for_each(|_| cycle());
        let after = in_use();
        assert!(after < before + 100_000, "{before} bytes became {after}");
        // Ids are used again.
        assert!(new().thread_id() < 0x2000_0000 + 1000);
    });
}

#[test]
fn the_environment_forces_restricted_mode() {
    let variables = [("OPEN_COROUTINE_MODE", "restricted")];
    in_child("the_environment_forces_restricted_mode", &variables, || {
        assert_eq!(Refusal::Forced, isolation().unwrap_err());
    });
}

#[test]
fn the_system_allocator_is_not_foreign() {
    assert!(!isolation().unwrap().has_foreign_allocator());
}

/// Builds a shared library with a variable of `model`, and its getter.
fn build_library(model: &str) -> CString {
    let directory = env::temp_dir();
    let base = format!("open-coroutine-{}-{model}", std::process::id());
    let (source, library) = (
        directory.join(format!("{base}.c")),
        directory.join(format!("{base}.so")),
    );
    let code = "__thread int value = 42; int *get(void) { return &value; }";
    std::fs::write(&source, code).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", &format!("-ftls-model={model}"), "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::remove_file(source).unwrap();
    CString::new(library.to_str().unwrap()).unwrap()
}

/// Loads the library, with its getter.
fn load(library: &CString) -> extern "C" fn() -> *mut i32 {
    let isolation = isolation().unwrap();
    // SAFETY: the thread runs on its own TLS; the library has the function.
    unsafe {
        isolation.around_dlopen(|| {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null());
            libc::unlink(library.as_ptr());
            mem::transmute(libc::dlsym(handle, c"get".as_ptr()))
        })
    }
}

#[test]
fn variables_of_a_library_loaded_later_are_initialised_in_live_blocks() {
    let mut block = new();
    let get = load(&build_library("initial-exec"));
    // SAFETY: each flow of control uses its own variable.
    let increment = || unsafe {
        *get() += 1;
        *get()
    };
    assert_eq!(43, increment());
    assert_eq!(43, run(&block, increment));
    assert_eq!(44, run(&block, increment));
    // SAFETY: nobody runs on the block.
    assert!(unsafe { block.reset() });
    assert_eq!(43, run(&block, increment));
    assert_eq!(43, run(&new(), increment));
}

#[test]
fn a_block_with_variables_allocated_on_demand_is_not_reused() {
    let mut block = new();
    let get = load(&build_library("global-dynamic"));
    // SAFETY: nobody runs on the block.
    assert!(unsafe { block.reset() });
    // SAFETY: each flow of control uses its own variable.
    run(&block, || unsafe {
        assert_eq!(42, ptr::replace(get(), 1));
    });
    // SAFETY: nobody runs on the block.
    assert!(!unsafe { block.reset() });
}
