//! Functions that take a `pthread_t` work on a coroutine's own, or refuse it.

mod child;
mod runtimes;

use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::thread;

use libc::pthread_t;
use open_coroutine::{Builder, JoinHandle, spawn};
use runtimes::on_every_runtime;

fn own() -> pthread_t {
    // SAFETY: it has no requirements.
    unsafe { libc::pthread_self() }
}

/// A coroutine that lives until the sender is dropped, and its `pthread_t`.
fn other() -> (pthread_t, Sender<()>, JoinHandle<()>) {
    let ((sender, receiver), (stop, stopped)) = (mpsc::channel(), mpsc::channel::<()>());
    let task = spawn(move || {
        sender.send(own()).unwrap();
        let _ = stopped.recv();
    });
    (receiver.recv().unwrap(), stop, task)
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn the_stack_is_that_of_the_coroutine() {
    on_every_runtime(|| {
        let tasks: Vec<_> = [64 << 10, 256 << 10, 1 << 20]
            .map(|size| {
                let task = Builder::new().stack_size(size).spawn(move || {
                    let here = 0u8;
                    // SAFETY: the attributes are initialised by the first call.
                    unsafe {
                        let mut attributes = mem::zeroed();
                        assert_eq!(0, libc::pthread_getattr_np(own(), &raw mut attributes));
                        let (mut start, mut length) = (ptr::null_mut(), 0);
                        libc::pthread_attr_getstack(&raw const attributes, &mut start, &mut length);
                        libc::pthread_attr_destroy(&raw mut attributes);
                        assert!((size..2 * size).contains(&length), "{length} of {size}");
                        let stack = start as usize..start as usize + length;
                        assert!(stack.contains(&(&raw const here as usize)));
                    }
                });
                task.unwrap()
            })
            .into();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn processors_and_scheduling_are_those_of_the_worker() {
    on_every_runtime(|| {
        // SAFETY: all out-parameters are local variables.
        unsafe {
            let mut set: libc::cpu_set_t = mem::zeroed();
            let size = size_of_val(&set);
            assert_eq!(0, libc::pthread_getaffinity_np(own(), size, &raw mut set));
            assert!(libc::CPU_COUNT(&set) > 0);
            assert_eq!(0, libc::pthread_setaffinity_np(own(), size, &raw const set));
            let mut policy = -1;
            let mut parameters: libc::sched_param = mem::zeroed();
            let get = libc::pthread_getschedparam(own(), &mut policy, &raw mut parameters);
            assert_eq!((0, libc::SCHED_OTHER), (get, policy));
            let set = libc::pthread_setschedparam(own(), policy, &raw const parameters);
            assert_eq!(0, set);
            assert_eq!(0, libc::pthread_setschedprio(own(), 0));
        }
    });
}

#[test]
fn the_clock_of_a_coroutine_can_be_read() {
    on_every_runtime(|| {
        // SAFETY: all out-parameters are local variables.
        unsafe {
            let mut clock = 0;
            assert_eq!(0, libc::pthread_getcpuclockid(own(), &mut clock));
            let mut time: libc::timespec = mem::zeroed();
            assert_eq!(0, libc::clock_gettime(clock, &raw mut time));
        }
    });
}

fn name() -> String {
    let mut name = [0; 16];
    // SAFETY: the buffer has the size that is told.
    unsafe {
        assert_eq!(0, libc::pthread_getname_np(own(), name.as_mut_ptr(), 16));
        CStr::from_ptr(name.as_ptr()).to_str().unwrap().into()
    }
}

/// The name that the kernel has for the OS thread.
fn kernel_name() -> String {
    let mut name = [0u8; 16];
    // SAFETY: the kernel writes 16 bytes at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    CStr::from_bytes_until_nul(&name)
        .unwrap()
        .to_str()
        .unwrap()
        .into()
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_name_is_kept_by_its_coroutine_alone() {
    on_every_runtime(|| {
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let task = Builder::new().name("a task with a long name");
                let task = task.spawn(move || {
                    assert_eq!("a task with a l", name());
                    let new = format!("task {number}\0");
                    let new = CStr::from_bytes_with_nul(new.as_bytes()).unwrap();
                    // SAFETY: a C string.
                    assert_eq!(0, unsafe { libc::pthread_setname_np(own(), new.as_ptr()) });
                    thread::yield_now();
                    assert_eq!(format!("task {number}"), name());
                    assert!(
                        kernel_name().starts_with("open-coroutine"),
                        "{}",
                        kernel_name()
                    );
                    let long = c"sixteen letters!";
                    // SAFETY: a C string.
                    let result = unsafe { libc::pthread_setname_np(own(), long.as_ptr()) };
                    assert_eq!(libc::ERANGE, result);
                });
                task.unwrap()
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(spawn(name).join().unwrap().starts_with("open-coroutine"));
    });
}

/// What the handler saw: the sum of the values, or 1 for a plain signal.
static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo; `sigqueue` set a value.
    let value = unsafe {
        if (*info).si_code == libc::SI_QUEUE {
            (*info).si_value().sival_ptr as usize
        } else {
            1
        }
    };
    SEEN.fetch_add(value, SeqCst);
}

#[test]
fn a_coroutine_signals_itself() {
    // SAFETY: the handler does what a handler may.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(
            0,
            libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut())
        );
    }
    on_every_runtime(|| {
        SEEN.store(0, SeqCst);
        let value = libc::sigval {
            sival_ptr: ptr::without_provenance_mut(6),
        };
        // SAFETY: the signal has a handler.
        unsafe {
            assert_eq!(0, libc::pthread_kill(own(), libc::SIGUSR1));
            assert_eq!(1, SEEN.load(SeqCst));
            assert_eq!(0, libc::pthread_sigqueue(own(), libc::SIGUSR1, value));
            assert_eq!(7, SEEN.load(SeqCst));
            assert_eq!(0, libc::raise(libc::SIGUSR1));
            assert_eq!(8, SEEN.load(SeqCst));
        }
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn other_coroutines_are_not_found_by_their_thread_id() {
    on_every_runtime(|| {
        let check = |other: pthread_t| {
            // SAFETY: the coroutine is alive; nothing is written.
            unsafe {
                let mut clock = 0;
                assert_eq!(libc::ESRCH, libc::pthread_kill(other, 0));
                assert_eq!(libc::ESRCH, libc::pthread_cancel(other));
                assert_eq!(libc::ESRCH, libc::pthread_join(other, ptr::null_mut()));
                assert_eq!(libc::ESRCH, libc::pthread_getcpuclockid(other, &mut clock));
                assert_eq!(libc::ESRCH, libc::pthread_setname_np(other, c"x".as_ptr()));
            }
        };
        let (id, stop, task) = other();
        check(id);
        thread::spawn(move || check(id)).join().unwrap();
        drop(stop);
        task.join().unwrap();
    });
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "needs thread-local storage of its own"
)]
fn a_coroutine_neither_joins_nor_cancels_itself() {
    on_every_runtime(|| {
        // SAFETY: both refuse.
        unsafe {
            assert_eq!(libc::EDEADLK, libc::pthread_join(own(), ptr::null_mut()));
            assert_eq!(libc::ENOTSUP, libc::pthread_cancel(own()));
        }
        thread::yield_now();
    });
}

#[test]
fn mutexes_whose_owner_the_kernel_must_know_are_refused() {
    fn check(expected: c_int) {
        // SAFETY: the attributes are initialised by the first call.
        unsafe {
            let mut attributes: libc::pthread_mutexattr_t = mem::zeroed();
            let attributes = &raw mut attributes;
            libc::pthread_mutexattr_init(attributes);
            let inherit = libc::PTHREAD_PRIO_INHERIT;
            let result = libc::pthread_mutexattr_setprotocol(attributes, inherit);
            assert_eq!(expected, result);
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            let result = libc::pthread_mutexattr_setrobust(attributes, robust);
            assert_eq!(expected, result);
            let none = libc::PTHREAD_PRIO_NONE;
            assert_eq!(0, libc::pthread_mutexattr_setprotocol(attributes, none));
            libc::pthread_mutexattr_destroy(attributes);
        }
    }
    on_every_runtime(|| {
        check(libc::ENOTSUP);
        thread::spawn(|| check(0)).join().unwrap();
    });
}

#[test]
fn a_thread_still_exits_and_is_cancelled() {
    extern "C" fn exit(_: *mut c_void) -> *mut c_void {
        // SAFETY: no frame of this thread has a destructor.
        unsafe { libc::pthread_exit(ptr::without_provenance_mut(42)) }
    }
    extern "C" fn wait(_: *mut c_void) -> *mut c_void {
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }
    on_every_runtime(|| {
        // SAFETY: the threads use nothing of this one.
        unsafe {
            let (mut thread, mut value) = (0, ptr::null_mut());
            libc::pthread_create(&mut thread, ptr::null(), exit, ptr::null_mut());
            assert_eq!(0, libc::pthread_join(thread, &mut value));
            assert_eq!(42, value as usize);
            libc::pthread_create(&mut thread, ptr::null(), wait, ptr::null_mut());
            assert_eq!(0, libc::pthread_cancel(thread));
            assert_eq!(0, libc::pthread_join(thread, &mut value));
            // PTHREAD_CANCELED
            assert_eq!(usize::MAX, value as usize);
        }
    });
}

#[test]
fn the_exit_of_a_coroutine_as_a_thread_ends_the_process_with_a_message() {
    let output = child::output(
        "the_exit_of_a_coroutine_as_a_thread_ends_the_process_with_a_message",
        || {
            let task = Builder::new().name("leaver");
            // SAFETY: it does not return.
            let task = task.spawn(|| unsafe { libc::pthread_exit(ptr::null_mut()) });
            let _: Result<(), _> = task.unwrap().join();
        },
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(Some(libc::SIGABRT), output.status.signal(), "{text}");
    assert!(
        text.contains("coroutine 'leaver' has called pthread_exit"),
        "{text}"
    );
}
