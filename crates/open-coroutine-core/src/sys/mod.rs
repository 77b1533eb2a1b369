//! System calls that no hook can see.
//!
//! The hook crate replaces libc's functions for the whole program, the runtime
//! included. What the runtime itself asks of the kernel goes through here: raw
//! system calls that touch neither libc's symbols nor `errno`.

cfg_select! {
    target_os = "linux" => {
        mod linux;
        pub use linux::*;
    }
    _ => { compile_error!("no system call layer for this platform"); }
}
