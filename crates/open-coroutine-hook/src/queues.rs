//! Queues and semaphores of the kernel, and what else waits for others without a
//! descriptor: `mq_receive(3)`, `msgrcv(2)`, `semop(2)`, `tcdrain(3)`,
//! `aio_suspend(3)`.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

use libc::{aiocb, mqd_t, sembuf, sigevent, size_t, ssize_t, timespec};

offloaded! { WAITING, Others:
    /// `mq_receive(3)`
    fn mq_receive(queue: mqd_t, buf: *mut c_char, len: size_t, priority: *mut c_uint) -> ssize_t;
    /// `mq_send(3)`
    fn mq_send(queue: mqd_t, buf: *const c_char, len: size_t, priority: c_uint) -> c_int;
    /// `mq_timedreceive(3)`
    fn mq_timedreceive(
        queue: mqd_t,
        buf: *mut c_char,
        len: size_t,
        priority: *mut c_uint,
        until: *const timespec
    ) -> ssize_t;
    /// `mq_timedsend(3)`
    fn mq_timedsend(
        queue: mqd_t,
        buf: *const c_char,
        len: size_t,
        priority: c_uint,
        until: *const timespec
    ) -> c_int;
    /// `msgrcv(2)`
    fn msgrcv(
        queue: c_int,
        message: *mut c_void,
        len: size_t,
        kind: c_long,
        flags: c_int
    ) -> ssize_t;
    /// `msgsnd(2)`
    fn msgsnd(queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int;
    /// `semop(2)`
    fn semop(set: c_int, operations: *mut sembuf, count: size_t) -> c_int;
    /// `semtimedop(2)`
    fn semtimedop(
        set: c_int,
        operations: *mut sembuf,
        count: size_t,
        timeout: *const timespec
    ) -> c_int;
    /// `tcdrain(3)`
    fn tcdrain(fd: c_int) -> c_int;
    /// `aio_suspend(3)`
    fn aio_suspend(list: *const *const aiocb, count: c_int, timeout: *const timespec) -> c_int;
    /// `lio_listio(3)`
    fn lio_listio(
        mode: c_int,
        list: *const *mut aiocb,
        count: c_int,
        notification: *mut sigevent
    ) -> c_int;
}
