use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::*;

/// Set in a process that a test started to run itself in.
const CHILD: &str = "OPEN_COROUTINE_STACK_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `test` of this module alone in a process of its own.
fn run_in_child(test: &str) -> Output {
    Command::new(std::env::current_exe().expect("a test binary knows its path"))
        .args([&format!("stack::tests::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("the test binary can be run")
}

/// Runs `body` in a process of its own and fails when it does.
fn isolated(test: &str, body: fn()) {
    if is_child() {
        return body();
    }
    let output = run_in_child(test);
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("1 passed"), "no such test: {output:?}");
}

/// Writes the lowest and the highest usable byte.
fn touch_ends(stack: &Stack) {
    let usable = stack.usable();
    for address in [usable.start, usable.end - 1] {
        // SAFETY: nobody else uses the stack, whose addresses these are.
        unsafe { (address as *mut u8).write_volatile(1) };
    }
}

fn resident_pages(range: Range<usize>) -> usize {
    let page = sys::page_size();
    let mut residency = vec![0u8; range.len().div_ceil(page)];
    // SAFETY: mincore writes one byte per page, which `residency` has.
    let result = unsafe {
        libc::mincore(
            range.start as *mut _,
            range.len(),
            residency.as_mut_ptr().cast(),
        )
    };
    assert_eq!(0, result, "{}", io::Error::last_os_error());
    residency.iter().filter(|&&byte| byte & 1 == 1).count()
}

fn is_guarded(stack: &Stack) -> bool {
    let guard = stack.guard();
    !memory::is_readable(guard.start)
        && !memory::is_readable(guard.end - 4)
        && memory::is_readable(guard.end)
}

#[test]
fn a_stack_has_at_least_the_requested_size() {
    static POOL: StackPool = StackPool::new();
    for size in [0, 1, MIN_STACK_SIZE, 100_000, DEFAULT_STACK_SIZE, 5 << 20] {
        let stack = POOL.allocate(size).unwrap();
        assert!(stack.usable_size() >= size.max(MIN_STACK_SIZE));
        assert!(stack.usable_size() < size.max(MIN_STACK_SIZE) + 8 * sys::page_size());
        assert_eq!(stack.guard().end, stack.usable().start);
        assert_eq!(stack.base(), stack.usable().end);
        assert_eq!(0, stack.base() % 128);
        touch_ends(&stack);
        assert!(is_guarded(&stack));
    }
}

#[test]
fn strides_are_odd_numbers_of_pages() {
    for size in [0, DEFAULT_STACK_SIZE, DEFAULT_STACK_SIZE + 1, 1 << 30] {
        let layout = Layout::of(size).unwrap();
        assert_eq!(1, layout.stride / sys::page_size() % 2);
        assert_eq!(0, layout.stride % sys::page_size());
    }
}

#[test]
fn stacks_start_at_all_colours() {
    static POOL: StackPool = StackPool::new();
    let stacks: Vec<_> = (0..256).map(|_| POOL.allocate(0).unwrap()).collect();
    let mut colours: Vec<_> = stacks.iter().map(|s| s.base() % 2048).collect();
    colours.sort_unstable();
    colours.dedup();
    assert_eq!(COLOURS, colours.len());
}

#[test]
fn live_stacks_do_not_overlap() {
    static POOL: StackPool = StackPool::new();
    let sizes = [0, DEFAULT_STACK_SIZE, 1 << 20, 9 << 20];
    let stacks: Vec<_> = (0..400)
        .map(|i| POOL.allocate(sizes[i % sizes.len()]).unwrap())
        .collect();
    let mut ranges: Vec<_> = stacks.iter().map(|s| (s.guard().start, s.base())).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:x?}");
    }
}

#[test]
fn absurd_sizes_are_refused() {
    static POOL: StackPool = StackPool::new();
    for size in [MAX_STACK_SIZE + 1, isize::MAX as usize, usize::MAX] {
        let error = POOL.allocate(size).unwrap_err();
        assert!(matches!(error, StackError::TooLarge { size: s, .. } if s == size));
        assert!(error.to_string().contains(&size.to_string()));
        assert_eq!(io::ErrorKind::InvalidInput, io::Error::from(error).kind());
    }
    assert_eq!(StackStats::default(), POOL.stats());
}

#[test]
fn the_last_stack_given_back_is_the_first_reused() {
    static POOL: StackPool = StackPool::new();
    let [a, b, c] = [(); 3].map(|()| POOL.allocate(DEFAULT_STACK_SIZE).unwrap());
    let [first, second] = [a.base(), b.base()];
    drop(b);
    drop(a);
    assert_eq!(StackStats { live: 1, idle: 2 }, POOL.stats());
    let again = POOL.allocate(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(first, again.base());
    assert_eq!(second, POOL.allocate(DEFAULT_STACK_SIZE).unwrap().base());
    drop(c);
}

#[test]
fn sizes_are_not_mixed_up_by_reuse() {
    static POOL: StackPool = StackPool::new();
    let small = POOL.allocate(0).unwrap().base();
    let large = POOL.allocate(1 << 20).unwrap();
    assert_ne!(small, large.base());
    assert!(large.usable_size() >= 1 << 20);
    assert_eq!(small, POOL.allocate(1).unwrap().base());
}

#[test]
fn trimming_gives_pages_back_and_keeps_guards() {
    static MARKS: StackPool = StackPool::new();
    static PROTECTION: StackPool = StackPool::with_protected_guards();
    for pool in [&MARKS, &PROTECTION] {
        let stack = pool.allocate(DEFAULT_STACK_SIZE).unwrap();
        touch_ends(&stack);
        // The end of the page in which the base lies.
        let end = stack.base().next_multiple_of(sys::page_size());
        let pages = stack.usable().start..end;
        let base = stack.base();
        drop(stack);
        assert_eq!(2, resident_pages(pages.clone()));
        assert_eq!(1, pool.trim(Duration::ZERO));
        assert_eq!(0, resident_pages(pages));
        assert_eq!(0, pool.trim(Duration::ZERO));
        assert_eq!(StackStats { live: 0, idle: 0 }, pool.stats());
        let again = pool.allocate(DEFAULT_STACK_SIZE).unwrap();
        assert_eq!(base, again.base());
        assert!(is_guarded(&again));
        touch_ends(&again);
    }
}

#[test]
fn trimming_spares_recent_stacks() {
    static POOL: StackPool = StackPool::new();
    let hour = Duration::from_secs(3600);
    assert_eq!(None, POOL.next_trim(hour));
    let before = Instant::now();
    drop(POOL.allocate(0).unwrap());
    assert_eq!(0, POOL.trim(hour));
    assert_eq!(0, POOL.trim(Duration::MAX));
    let due = POOL.next_trim(hour).unwrap();
    // The clock of time stamps is up to 10 ms behind.
    assert!(due > before + hour - Duration::from_millis(20));
    assert!(due <= Instant::now() + hour);
    assert_eq!(None, POOL.next_trim(Duration::MAX));
    assert_eq!(1, POOL.stats().idle);
}

#[test]
fn a_trim_at_the_announced_time_has_work() {
    static POOL: StackPool = StackPool::new();
    drop(POOL.allocate(0).unwrap());
    let idle_for = Duration::from_millis(30);
    let due = POOL.next_trim(idle_for).unwrap();
    while Instant::now() < due {
        std::thread::yield_now();
    }
    assert_eq!(1, POOL.trim(idle_for));
}

#[test]
fn trimming_unmaps_huge_stacks() {
    // Elsewhere other tests might map the addresses again.
    isolated("trimming_unmaps_huge_stacks", || {
        static POOL: StackPool = StackPool::new();
        let stack = POOL.allocate(64 << 20).unwrap();
        let usable = stack.usable();
        touch_ends(&stack);
        drop(stack);
        assert!(memory::is_readable(usable.start));
        assert_eq!(1, POOL.trim(Duration::ZERO));
        assert!(!memory::is_readable(usable.start));
        assert_eq!(0, POOL.trim(Duration::ZERO));
    });
}

#[test]
fn releasing_gives_pages_back_at_once() {
    static POOL: StackPool = StackPool::new();
    for size in [DEFAULT_STACK_SIZE, 64 << 20] {
        let stack = POOL.allocate(size).unwrap();
        touch_ends(&stack);
        stack.release();
        assert_eq!(StackStats::default(), POOL.stats());
        assert_eq!(None, POOL.next_trim(Duration::ZERO));
    }
    let again = POOL.allocate(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(
        0,
        resident_pages(again.usable().start..again.usable().start + 4096)
    );
    assert!(is_guarded(&again));
}

#[test]
fn threads_share_a_pool_without_sharing_a_stack() {
    static POOL: StackPool = StackPool::new();
    std::thread::scope(|scope| {
        for id in 1..=4u64 {
            scope.spawn(move || {
                for round in 0..2_000 {
                    let stack = POOL
                        .allocate(if round % 3 == 0 { 0 } else { 3 << 20 })
                        .unwrap();
                    let word = (stack.base() - 8) as *mut u64;
                    // SAFETY: the highest word of a stack that this thread owns.
                    unsafe {
                        word.write_volatile(id);
                        std::hint::spin_loop();
                        assert_eq!(id, word.read_volatile());
                    }
                    if round % 64 == 0 {
                        POOL.trim(Duration::ZERO);
                    }
                }
            });
        }
    });
    assert_eq!(0, POOL.stats().live);
}

#[test]
fn guards_hold_in_a_forked_process() {
    static POOL: StackPool = StackPool::new();
    let stack = POOL.allocate(0).unwrap();
    // SAFETY: the child makes raw system calls only, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the process without running anything.
        unsafe { libc::_exit(if is_guarded(&stack) { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child and writes `status`.
    assert_eq!(child, unsafe { libc::waitpid(child, &raw mut status, 0) });
    assert_eq!(7, libc::WEXITSTATUS(status));
}

fn overflow(pool: &'static StackPool, test: &str) {
    if is_child() {
        let stack = pool.allocate(DEFAULT_STACK_SIZE).unwrap();
        touch_ends(&stack);
        println!("all of the stack is writable");
        // SAFETY: not safe at all, that is the point: it must end the process.
        unsafe { ((stack.guard().end - 1) as *mut u8).write_volatile(1) };
        println!("and more");
        return;
    }
    let output = run_in_child(test);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(Some(libc::SIGSEGV), output.status.signal(), "{output:?}");
    assert!(stdout.contains("all of the stack is writable"), "{stdout}");
    assert!(!stdout.contains("and more"), "{stdout}");
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn a_write_below_a_marked_stack_is_a_fault() {
    static POOL: StackPool = StackPool::new();
    overflow(&POOL, "a_write_below_a_marked_stack_is_a_fault");
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn a_write_below_a_protected_stack_is_a_fault() {
    static POOL: StackPool = StackPool::with_protected_guards();
    overflow(&POOL, "a_write_below_a_protected_stack_is_a_fault");
}

#[test]
fn stacks_with_marked_guards_are_not_limited_by_mappings() {
    isolated(
        "stacks_with_marked_guards_are_not_limited_by_mappings",
        || {
            static POOL: StackPool = StackPool::new();
            let first = POOL.allocate(DEFAULT_STACK_SIZE).unwrap();
            if POOL.is_limited_by_mappings() {
                println!("this kernel has no guard marks: nothing to check");
                return;
            }
            let stacks: Vec<_> = (0..40_000)
                .map(|_| POOL.allocate(DEFAULT_STACK_SIZE).unwrap())
                .collect();
            for stack in stacks.iter().step_by(1_000).chain([&first]) {
                touch_ends(stack);
                assert!(is_guarded(stack));
            }
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(maps.lines().count() < 1_000);
        },
    );
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn memory_that_takes_no_marks_is_guarded_by_protection() {
    isolated(
        "memory_that_takes_no_marks_is_guarded_by_protection",
        || {
            static POOL: StackPool = StackPool::new();
            // The kernel refuses marks (and trimming) in locked memory.
            // SAFETY: only affects where later mappings of this process live.
            if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
                println!("this process may not lock memory: nothing to check");
                return;
            }
            let stack = POOL.allocate(0).unwrap();
            assert!(POOL.is_limited_by_mappings());
            assert!(is_guarded(&stack));
            touch_ends(&stack);
            let base = stack.base();
            drop(stack);
            assert_eq!(0, POOL.trim(Duration::ZERO));
            assert_eq!(base, POOL.allocate(0).unwrap().base());
        },
    );
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn running_out_of_mappings_is_an_error_that_passes() {
    isolated("running_out_of_mappings_is_an_error_that_passes", || {
        static POOL: StackPool = StackPool::with_protected_guards();
        // Room for what a stack in use must not need, nor this test.
        let mut stacks = Vec::with_capacity(1 << 20);
        let error = loop {
            match POOL.allocate(DEFAULT_STACK_SIZE) {
                Ok(stack) if stacks.len() < 1 << 20 => stacks.push(stack),
                Ok(_) => return, // the machine allows two million mappings
                Err(error) => break error,
            }
        };
        assert!(stacks.len() > 1_000);
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
        assert!(error.source().is_some());
        assert!(POOL.allocate(DEFAULT_STACK_SIZE).is_err());
        assert_eq!(stacks.len(), POOL.stats().live);
        let last = stacks.pop().map(|stack| stack.base());
        let stack = POOL.allocate(DEFAULT_STACK_SIZE).unwrap();
        assert_eq!(last, Some(stack.base()));
        assert!(is_guarded(&stack));
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn running_out_of_memory_is_an_error_that_passes() {
    isolated("running_out_of_memory_is_an_error_that_passes", || {
        static POOL: StackPool = StackPool::new();
        let set_limit = |soft| {
            let limit = libc::rlimit {
                rlim_cur: soft,
                rlim_max: libc::RLIM_INFINITY,
            };
            // SAFETY: reads `limit`.
            assert_eq!(0, unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) });
        };
        set_limit(256 << 20);
        let error = POOL.allocate(1 << 30).unwrap_err();
        assert!(matches!(error, StackError::OutOfMemory { .. }));
        assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
        assert_eq!(io::ErrorKind::OutOfMemory, io::Error::from(error).kind());
        // Slabs shrink towards the limit instead of failing far from it.
        let mut stacks = Vec::with_capacity(4_096);
        while let Ok(stack) = POOL.allocate(DEFAULT_STACK_SIZE) {
            stacks.push(stack);
        }
        assert!(stacks.len() > 200, "{}", stacks.len());
        set_limit(libc::RLIM_INFINITY);
        stacks.push(POOL.allocate(DEFAULT_STACK_SIZE).unwrap());
        touch_ends(&POOL.allocate(1 << 30).unwrap());
        assert_eq!(stacks.len(), POOL.stats().live);
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer has the faults and the memory"
)]
fn a_coroutine_runs_on_a_stack() {
    static POOL: StackPool = StackPool::new();
    let stack = POOL.allocate(0).unwrap();
    let usable = stack.usable();
    let mut coroutine = corosensei::Coroutine::with_stack(stack, move |yielder, (): ()| {
        let local = 0u8;
        yielder.suspend(usable.contains(&(&raw const local as usize)));
    });
    assert_eq!(Some(true), coroutine.resume(()).as_yield());
    assert!(coroutine.resume(()).as_return().is_some());
    drop(coroutine);
    assert_eq!(StackStats { live: 0, idle: 1 }, POOL.stats());
}
