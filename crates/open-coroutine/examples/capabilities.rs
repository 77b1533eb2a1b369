//! Prints what works on this machine, and why not better.
//!
//!     cargo run -p open-coroutine --example capabilities

#[open_coroutine::main]
fn main() {
    println!("{}", open_coroutine::capabilities());
}
