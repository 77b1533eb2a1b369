//! Atomics, as the model checker can replace them.
//!
//! Protocols between threads import from here instead of from `std::sync`, so
//! that building with `--cfg loom` checks every interleaving of the same code.

cfg_select! {
    loom => {
        pub use loom::sync::atomic;
        pub use loom::sync::Arc;
    }
    _ => {
        pub use std::sync::atomic;
        pub use std::sync::Arc;
    }
}
