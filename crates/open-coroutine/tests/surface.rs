//! What users copy from the documentation works together.

use std::io;
use std::time::Duration;

use open_coroutine::{
    InitError, JoinError, any_join, any_timeout_join, current, maybe_grow, park, sleep, spawn, task,
};

fn depth(n: u32, page: &mut [u8; 10 * 1024]) -> u32 {
    std::hint::black_box(&page);
    if n == 0 {
        return 0;
    }
    maybe_grow!(|| 1 + depth(n - 1, &mut [0; 10 * 1024])).expect("no memory for a stack")
}

#[open_coroutine::test]
fn a_task_has_an_argument_and_a_priority() {
    let sum = task!(|(a, b)| a + b, (20, 22), -1);
    assert_eq!(-1, sum.task().priority());
    assert_eq!(
        42,
        sum.timeout_join(Duration::from_secs(1)).expect("timeout")
    );
    assert!(matches!(sum.join(), Err(JoinError::Taken)));
    assert_eq!(0, task!(drop, ()).task().priority());
}

#[open_coroutine::test]
fn recursion_outgrows_a_coroutine_and_a_thread() {
    assert_eq!(
        500,
        task!(|n| depth(n, &mut [0; 10 * 1024]), 500)
            .join()
            .unwrap()
    );
    let thread = std::thread::spawn(|| depth(500, &mut [0; 10 * 1024]));
    assert_eq!(500, thread.join().unwrap());
}

#[open_coroutine::test]
fn a_coroutine_suspends_on_a_grown_stack() {
    let sleepers: Vec<_> = (0..100u32)
        .map(|n| {
            task!(
                |n| maybe_grow!(usize::MAX, 32 * 1024, move || {
                    sleep(Duration::from_millis(1));
                    n
                }),
                n
            )
        })
        .collect();
    let sum: u32 = sleepers
        .into_iter()
        .map(|task| task.join().unwrap().unwrap())
        .sum();
    assert_eq!(4950, sum);
}

#[test]
fn a_small_segment_does_not_grow_at_once_again() {
    let nested = maybe_grow!(usize::MAX, 32 * 1024, || {
        let here = 0u8;
        let outer = &raw const here as usize;
        maybe_grow!(32 * 1024, move || {
            let here = 0u8;
            outer.abs_diff(&raw const here as usize)
        })
    });
    assert!(nested.unwrap().unwrap() < 16 * 1024);
}

#[test]
fn a_panic_of_a_grown_closure_goes_on_in_the_caller() {
    let grown = || maybe_grow!(usize::MAX, 64 * 1024, || std::panic::panic_any(7u8));
    let payload = std::panic::catch_unwind(grown).unwrap_err();
    assert_eq!(7, *payload.downcast::<u8>().unwrap());
}

#[open_coroutine::test]
fn any_join_gives_results_in_the_order_of_their_ends() {
    let mut first = spawn(|| {
        park();
        1
    });
    let mut second = spawn(|| {
        park();
        2
    });
    let none = any_timeout_join!(Duration::from_millis(1), first, second);
    assert!(matches!(none, Err(JoinError::TimedOut)));
    second.task().unpark();
    assert_eq!(2, any_join!(first, second).unwrap());
    first.task().unpark();
    assert_eq!(1, any_join!(first, second).unwrap());
    assert!(matches!(any_join!(first, second), Err(JoinError::Taken)));
}

#[test]
fn any_join_on_a_plain_thread_reports_a_panic() {
    let mut parked = spawn(park);
    let mut panics = spawn(|| panic!("on purpose"));
    assert!(any_join!(parked, panics).unwrap_err().is_panic());
    parked.task().unpark();
    parked.join().unwrap();
}

#[open_coroutine::test(event_loop_size = 2, hook = true, keep_alive_time = Duration::from_secs(1))]
fn tests_run_as_coroutines_and_can_return_results() -> io::Result<()> {
    let name = current().expect("a coroutine").name().map(str::to_owned);
    assert_eq!(
        Some("tests_run_as_coroutines_and_can_return_results"),
        name.as_deref()
    );
    let not_send = std::rc::Rc::new(());
    std::thread::yield_now();
    drop(not_send);
    Ok(())
}

#[open_coroutine::test]
#[should_panic(expected = "on purpose")]
fn a_panic_fails_the_test() {
    panic!("on purpose");
}

#[open_coroutine::test]
fn a_second_runtime_is_refused() {
    let again = open_coroutine::init(open_coroutine::Config::default());
    assert!(matches!(again, Err(InitError::AlreadyRunning)));
}
