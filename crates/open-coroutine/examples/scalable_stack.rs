//! A recursion far deeper than its stack.
//!
//!     cargo run --release -p open-coroutine --example scalable_stack

use std::hint::black_box;
use std::thread;

const PAGE: usize = 10 * 1024;
const DEPTH: u32 = 5000;

/// Goes `n` calls deep; each has a page of its own in its frame.
fn depth(n: u32, page: &mut [u8; PAGE]) -> u32 {
    black_box(&page);
    if n == 0 {
        return 0;
    }
    // Goes on on a fresh stack when this one is nearly full. It is given back
    // as soon as the closure returns.
    open_coroutine::maybe_grow!(|| 1 + depth(n - 1, &mut [0; PAGE])).expect("no memory for a stack")
}

#[open_coroutine::main(stack_size = 128 * 1024)]
fn main() {
    let task = open_coroutine::task!(|n| depth(n, &mut [0; PAGE]), DEPTH);
    assert_eq!(DEPTH, task.join().expect("it does not panic"));
    println!("a coroutine with a stack of 128 KiB went {DEPTH} pages of 10 KiB deep");

    // It does not need a coroutine.
    let thread = thread::spawn(|| depth(DEPTH, &mut [0; PAGE]));
    assert_eq!(DEPTH, thread.join().expect("it does not panic"));
    println!("so did a thread");
}
