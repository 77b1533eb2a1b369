//! `open-coroutine` as one peer of a side-by-side comparison of runtimes.
//!
//! Called as `bench-open-coroutine <workload> [--workers N] [--n N] [--sleep S] [--port P] ..`,
//! it runs one workload and prints its measurements as lines of JSON (see `report`). The code
//! of a workload is what a user would write for threads: `std` sockets, channels, files and
//! sleeps, with `spawn` in place of `std::thread::spawn`.
//!
//! Every workload but `switch` and the servers runs inside a root coroutine, as in the peers
//! whose tasks can only be awaited from a task.

mod channels;
mod diskread;
mod fileread;
mod http;
mod options;
mod preempt;
mod report;
mod schedule;
mod server;
mod sleepers;
mod switch;

use open_coroutine::Config;
use options::Options;
use report::Report;
use server::Unhooked;

fn main() {
    let options = Options::from_command_line();
    let report = Report::new(&options.workload);
    if options.workload == "switch" {
        return switch::round_trip(&options, &report);
    }
    start(&options);
    match options.workload.as_str() {
        "yield" => schedule::take_turns(&options, &report),
        "spawn" => schedule::spawn_and_join(&options, &report),
        "priority" => schedule::priorities(&options, &report),
        "pingpong" => channels::ping_pong(&options, &report),
        "mpmc" => channels::many_to_many(&options, &report),
        "sleepers" => sleepers::sleep_all(&options, &report),
        "fileread" => fileread::random_blocks(&options, &report),
        "diskread" => diskread::uncached_blocks(&options, &report),
        "preempt" => preempt::late_wakeups(&options, &report),
        "preempt-yield" => preempt::yields(&options, &report),
        "echo-server" => match options.is_set("hooked", true) {
            true => server::serve(&options, &report, server::echo),
            false => server::serve(&options, &report, |s| server::echo(Unhooked(s))),
        },
        "http" => match options.is_set("hooked", true) {
            true => server::serve(&options, &report, server::http),
            false => server::serve(&options, &report, |s| server::http(Unhooked(s))),
        },
        unknown => report.skip(&format!("unknown workload {unknown}")),
    }
    if let Err(error) = open_coroutine::shutdown() {
        eprintln!("{error}");
    }
}

/// Starts the runtime as the command line says.
fn start(options: &Options) {
    let mut config = Config::default()
        .event_loop_size(options.workers())
        .preemptive(options.is_set("preemptive", true));
    if let Some(bytes) = options.stack_size() {
        config = config.stack_size(bytes);
    }
    open_coroutine::init(config).expect("the runtime starts");
}

/// Runs `work` as a coroutine and waits for it. A panic inside ends the process with an error,
/// which the harness counts as a failed run.
fn in_root<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    open_coroutine::spawn(work)
        .join()
        .expect("the root coroutine ends")
}
