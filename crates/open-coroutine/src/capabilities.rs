//! What works in this program, and why not better.

use std::fmt;

pub use open_coroutine_core::runtime::Mode;
use open_coroutine_core::runtime::{self, Driver};
use open_coroutine_core::sched::Hooks;
use open_coroutine_hook::{Status, Symbol};

/// What works in this program.
///
/// Its `Display` is a few lines for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether coroutines have thread-local storage of their own.
    pub mode: Mode,
    /// How the runtime talks to the kernel.
    pub driver: Driver,
    /// Why the driver is not io_uring, if nobody asked for another one.
    pub no_uring: Option<String>,
    /// Which hooked functions suspend the coroutine that calls them.
    pub diverts: Hooks,
    /// Whether the global allocator keeps state per thread, of which every
    /// coroutine has its own: wrap it in [`OnThread`](crate::OnThread).
    pub foreign_allocator: bool,
    /// Whether a coroutine that computes for long is suspended when others wait.
    pub preemptive: bool,
    /// The functions of libc that this crate replaces, and whether calls reach
    /// the replacements here.
    pub hooks: Vec<Symbol>,
}

/// What the running runtime can do, or what one that is started now with the
/// default configuration could.
///
/// # Examples
///
/// ```
/// let capabilities = open_coroutine::capabilities();
/// println!("{capabilities}");
/// assert!(capabilities.hooks.iter().all(|hook| hook.is_live()));
/// ```
pub fn capabilities() -> Capabilities {
    let runtime = runtime::capabilities();
    Capabilities {
        mode: runtime.mode,
        driver: runtime.driver,
        no_uring: runtime.no_uring,
        diverts: runtime.diverts,
        foreign_allocator: runtime.foreign_allocator,
        preemptive: runtime.preemptive,
        hooks: open_coroutine_hook::symbols(),
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            Mode::Restricted(reason) => writeln!(f, "mode: restricted ({reason})")?,
            _ => writeln!(f, "mode: full")?,
        }
        match &self.no_uring {
            None => writeln!(f, "driver: {}", self.driver)?,
            Some(reason) => writeln!(f, "driver: {} ({reason})", self.driver)?,
        }
        let preemption = if self.preemptive { "on" } else { "off" };
        writeln!(f, "preemption: {preemption}")?;
        let live = self.hooks.iter().filter(|hook| hook.is_live()).count();
        write!(f, "hooks: {live} of {} functions", self.hooks.len())?;
        match self.diverts {
            Hooks::ALL => f.write_str(", which suspend")?,
            Hooks::NONE => f.write_str(", which block")?,
            some => write!(f, "; those that suspend: {some}")?,
        }
        let is_shadowed = |hook: &&Symbol| matches!(hook.status, Status::Shadowed(_));
        let shadowed: Vec<_> = self.hooks.iter().filter(is_shadowed).collect();
        if !shadowed.is_empty() {
            let names: Vec<_> = shadowed.iter().map(|hook| hook.name).collect();
            write!(f, "; not reached: {}", names.join(", "))?;
        }
        if self.foreign_allocator {
            f.write_str("\nallocator: has state for every coroutine; see OnThread")?;
        }
        Ok(())
    }
}
