//! While a coroutine waits for a process, or starts one, the others of its
//! worker go on.

mod runtimes;
mod waits;

use std::ffi::{CStr, c_char, c_int};
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{pid_t, siginfo_t};
use runtimes::on_every_driver;
use waits::ticks_during;

/// Starts a child that ends with status 7 when its standard input does.
fn child(input: &PipeReader) -> pid_t {
    let mut pid = 0;
    let arguments = [c"sh", c"-c", c"read line; exit 7"].map(|text| text.as_ptr().cast_mut());
    let arguments = [arguments[0], arguments[1], arguments[2], ptr::null_mut()];
    let environment = [c"PATH=/usr/bin:/bin".as_ptr().cast_mut(), ptr::null_mut()];
    // SAFETY: all pointers are to what the manual says, and live across the
    // calls.
    unsafe {
        let mut actions: libc::posix_spawn_file_actions_t = mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawn_file_actions_adddup2(&raw mut actions, input.as_raw_fd(), 0);
        let error = libc::posix_spawnp(
            &raw mut pid,
            c"sh".as_ptr(),
            &raw const actions,
            ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        assert_eq!(0, error);
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
    }
    pid
}

/// Runs `wait` for a child, which ends once the others have gone on for a while.
fn waits_for_a_child(wait: fn(pid_t)) {
    let (input, output): (PipeReader, PipeWriter) = pipe().unwrap();
    let pid = child(&input);
    drop(input);
    ticks_during(
        move || wait(pid),
        move || {
            let mut output = output;
            output.write_all(b"go\n").unwrap();
        },
    );
}

fn assert_status(status: c_int) {
    assert!(libc::WIFEXITED(status));
    assert_eq!(7, libc::WEXITSTATUS(status));
}

#[test]
fn during_each_kind_of_wait() {
    on_every_driver(1, || {
        waits_for_a_child(|pid| {
            let mut status = 0;
            // SAFETY: a status to write to.
            assert_eq!(pid, unsafe { libc::waitpid(pid, &raw mut status, 0) });
            assert_status(status);
        });
        waits_for_a_child(|pid| {
            // SAFETY: all-zero bytes are a usage to be filled in.
            let (mut status, mut usage) = (0, unsafe { mem::zeroed() });
            // SAFETY: a status and a usage to write to.
            let found = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
            assert_eq!(pid, found);
            assert_status(status);
        });
        waits_for_a_child(|pid| {
            // SAFETY: all-zero bytes are an answer to be filled in.
            let mut info: siginfo_t = unsafe { mem::zeroed() };
            // SAFETY: an answer to write to.
            let result =
                unsafe { libc::waitid(libc::P_PID, pid as u32, &raw mut info, libc::WEXITED) };
            assert_eq!(0, result);
            // SAFETY: the signal is SIGCHLD, so these fields are set.
            assert_eq!((pid, 7), unsafe { (info.si_pid(), info.si_status()) });
        });
    });
}

unsafe extern "C" {
    fn wait(status: *mut c_int) -> pid_t;
    fn wait3(status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> pid_t;
}

#[test]
fn during_waits_for_any_child() {
    // In a process of its own: other tests have children too.
    child::succeeds("during_waits_for_any_child", || {
        on_every_driver(1, || {
            waits_for_a_child(|pid| {
                let mut status = 0;
                // SAFETY: a status to write to.
                assert_eq!(pid, unsafe { wait(&raw mut status) });
                assert_status(status);
            });
            waits_for_a_child(|pid| {
                let mut status = 0;
                // SAFETY: a status to write to, no usage.
                assert_eq!(pid, unsafe { wait3(&raw mut status, 0, ptr::null_mut()) });
                assert_status(status);
            });
        });
    });
}

mod child;

/// A command line in which `%` is the number of a descriptor.
fn command(line: &str, fd: c_int) -> std::ffi::CString {
    std::ffi::CString::new(line.replace('%', &fd.to_string())).unwrap()
}

#[test]
fn during_system() {
    on_every_driver(1, || {
        let (input, mut output) = inherited_pipe();
        ticks_during(
            move || {
                let line = command("read line </dev/fd/%; exit 7", input.as_raw_fd());
                // SAFETY: a C string.
                assert_status(unsafe { libc::system(line.as_ptr()) });
            },
            move || output.write_all(b"go\n").unwrap(),
        );
    });
}

/// A pipe whose reading end children inherit.
fn inherited_pipe() -> (OwnedFd, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    // SAFETY: takes an integer, and returns a new descriptor.
    let reader = unsafe { OwnedFd::from_raw_fd(libc::dup(reader.as_raw_fd())) };
    (reader, writer)
}

#[test]
fn during_the_end_of_a_popen() {
    on_every_driver(1, || {
        let (input, mut output) = inherited_pipe();
        let line = command(
            "echo ready; read line </dev/fd/%; exit 7",
            input.as_raw_fd(),
        );
        ticks_during(
            move || {
                let mut answer = [0 as c_char; 16];
                // SAFETY: C strings, and a stream that is closed once.
                unsafe {
                    let stream = libc::popen(line.as_ptr(), c"r".as_ptr());
                    assert!(!stream.is_null());
                    assert!(!libc::fgets(answer.as_mut_ptr(), 16, stream).is_null());
                    assert_eq!(c"ready\n", CStr::from_ptr(answer.as_ptr()));
                    assert_status(libc::pclose(stream));
                }
                drop(input);
            },
            move || output.write_all(b"go\n").unwrap(),
        );
    });
}

#[test]
fn a_child_on_a_terminal_of_its_own_ends_well() {
    on_every_driver(1, || {
        let mut leader = -1;
        let none = ptr::null_mut();
        // SAFETY: a number to write to; the child only ends.
        let pid = unsafe { libc::forkpty(&raw mut leader, none, ptr::null(), ptr::null()) };
        if pid == 0 {
            // SAFETY: takes an integer.
            let is_terminal = unsafe { libc::isatty(0) == 1 && libc::isatty(2) == 1 };
            // SAFETY: ends the child without anything of the parent's.
            unsafe { libc::_exit(if is_terminal { 7 } else { 1 }) };
        }
        assert!(pid > 0, "{}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: a status to write to.
        assert_eq!(pid, unsafe { libc::waitpid(pid, &raw mut status, 0) });
        assert_status(status);
        // SAFETY: opened above, and owned by nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(leader) });
    });
}

#[test]
fn a_daemon_goes_on_in_a_session_of_its_own() {
    on_every_driver(1, || {
        let (mut reader, writer) = pipe().unwrap();
        // SAFETY: the child only makes itself a daemon, reports and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes integers; one byte of the array.
            unsafe {
                let is_daemon = libc::daemon(0, 0) == 0 && libc::getsid(0) == libc::getpid();
                let report = [u8::from(is_daemon)];
                libc::write(writer.as_raw_fd(), report.as_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        drop(writer);
        let mut report = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut report).unwrap();
        assert_eq!(vec![1], report);
        // SAFETY: the child of above.
        assert_eq!(pid, unsafe { libc::waitpid(pid, ptr::null_mut(), 0) });
    });
}
