//! Small building blocks without any knowledge of coroutines.

pub mod child;
pub mod handler;
pub mod lock;
pub mod preempt;
pub mod sync;
