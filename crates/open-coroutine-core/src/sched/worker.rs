//! One scheduling thread: it takes what is runnable, resumes it, and acts on
//! the reason for which it suspended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Instant;

use crossbeam_deque as deque;

use super::cache::Cache;
use super::local;
use super::scheduled::{Scheduled, Suspend, destroy};
use super::shared::{Message, Outside, Runnable, Seat, Shared, TimerEvent};
use super::suspend::IoWait;
use crate::driver::{Driver, Op, Request};
use crate::stack::Stack;
use crate::task::{Failure, Run};
use crate::tls::ThreadTls;

/// Coroutines run between two looks at timers, inbox and driver.
const TURN: u32 = 61;
/// Every how many picks the global queues come first, so that nothing starves.
const FAIRNESS: u32 = 61;
/// How often in a row the run-next slot may come before the queue.
const RUN_NEXT_CHAIN: u32 = 16;

/// The thread's half of a worker. Only its own thread touches it; while a
/// coroutine runs, nothing of it is borrowed (invariant 4 of `sched`).
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    pub(super) queue: deque::Worker<Runnable>,
    /// Restricted mode: started coroutines, which stay on this worker.
    pinned: RefCell<VecDeque<NonNull<Scheduled>>>,
    pub(super) driver: RefCell<Driver>,
    thread: Option<ThreadTls>,
    /// Coroutines without a task; it owns them.
    pub(super) cache: RefCell<Cache>,
    /// Whether a timer will look for what can be trimmed.
    pub(super) trim_armed: Cell<bool>,
    /// Whether it has freed coroutines whose stacks may still hold memory.
    pub(super) has_warm_stacks: Cell<bool>,
    /// Scratch space for coroutines that are woken under a lock.
    woken: RefCell<Vec<NonNull<Scheduled>>>,
    picks: Cell<u32>,
    chain: Cell<u32>,
    /// Whether it counts as searching in the sleep protocol.
    pub(super) searching: Cell<bool>,
    pub(super) random: Cell<u32>,
}

/// The run queue of a worker that has not started yet.
pub(crate) struct Queue(deque::Worker<Runnable>);

impl Queue {
    pub(crate) fn new() -> Self {
        Self(deque::Worker::new_fifo())
    }

    pub(super) fn stealer(&self) -> deque::Stealer<Runnable> {
        self.0.stealer()
    }
}

/// Runs a worker on the calling thread until the runtime stops. `ready` is told
/// first whether its driver could be made.
pub(crate) fn start(
    index: usize,
    shared: Arc<Shared>,
    queue: Queue,
    ready: impl FnOnce(io::Result<()>),
) {
    let driver = match Driver::new(shared.settings().driver) {
        Ok(driver) => driver,
        Err(error) => return ready(Err(error)),
    };
    let outside = Outside {
        waker: driver.waker().clone(),
        waiters: driver.waiters().clone(),
    };
    if shared.seats()[index].outside.set(outside).is_err() {
        unreachable!("each worker starts once");
    }
    // SAFETY: on the thread's own storage, before any coroutine runs here.
    let thread = shared
        .settings()
        .isolation
        .map(|isolation| unsafe { ThreadTls::current(isolation) });
    let worker = Worker {
        index,
        shared,
        queue: queue.0,
        pinned: RefCell::new(VecDeque::new()),
        driver: RefCell::new(driver),
        thread,
        cache: RefCell::default(),
        trim_armed: Cell::new(false),
        has_warm_stacks: Cell::new(false),
        woken: RefCell::new(Vec::new()),
        picks: Cell::new(0),
        chain: Cell::new(0),
        searching: Cell::new(false),
        random: Cell::new(0x9E37_79B9 ^ index as u32),
    };
    local::set_worker(&worker);
    ready(Ok(()));
    worker.run();
    local::set_worker(ptr::null());
}

impl Worker {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The storage of the worker's thread, in full mode.
    pub(super) fn thread(&self) -> Option<&ThreadTls> {
        self.thread.as_ref()
    }

    /// `fd` is closed: what waits on it ends.
    pub(super) fn close_notice(&self, fd: RawFd, epoch: u64) {
        self.driver.borrow_mut().close_notice(fd, epoch);
    }

    /// Whether the driver performs `op` itself.
    pub(super) fn supports(&self, op: &Op) -> bool {
        self.driver.borrow().supports(op)
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.shared.seats()[self.index]
    }

    /// Queues something that has no priority, last.
    pub(super) fn push(&self, runnable: Runnable) {
        self.queue.push(runnable);
    }

    /// Queues a woken coroutine first: it runs when the current one suspends.
    pub(super) fn push_next(&self, coroutine: NonNull<Scheduled>) {
        // AcqRel: a thief reads what the slot's owner wrote, and the reverse.
        let displaced = self.seat().run_next.swap(coroutine.as_ptr(), AcqRel);
        if let Some(displaced) = NonNull::new(displaced) {
            self.queue.push(Runnable::Coroutine(displaced));
            self.shared.wake_one();
        }
        // Step R1. Pairs with the fences of a worker that goes to sleep: it sees
        // the slot, or we see that it sleeps and that nobody watches.
        if self.shared.seats().len() > 1 {
            fence(SeqCst);
            self.shared.want_watcher();
        }
    }

    fn run(&self) {
        while !self.shared.is_stopping() {
            let mut ran = 0;
            while ran < TURN
                && let Some(runnable) = self.pick()
            {
                self.found_work();
                self.execute(runnable);
                ran += 1;
            }
            if self.has_local_work() {
                self.drive();
            } else {
                self.idle();
            }
        }
        let cached = self.cache.borrow_mut().take();
        for coroutine in cached {
            self.free(coroutine).release();
        }
        // What was on its way between two queues when the runtime stopped.
        self.shared.cancel_unstarted();
    }

    pub(super) fn has_local_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.pinned.borrow().is_empty()
            || !self.seat().run_next.load(Relaxed).is_null()
    }

    /// The next thing to run, from the own queues and the global ones.
    fn pick(&self) -> Option<Runnable> {
        let picks = self.picks.get().wrapping_add(1);
        self.picks.set(picks);
        let ordered = &self.shared.ordered;
        if picks.is_multiple_of(FAIRNESS) {
            let fair = match picks / FAIRNESS % 3 {
                0 => self.shared.take_injected(&self.queue),
                1 => self.take_next().or_else(|| self.take_local()),
                _ => ordered.pop_fair(),
            };
            if fair.is_some() {
                return fair;
            }
        }
        if !ordered.is_empty()
            && let Some(urgent) = ordered.pop_below(0)
        {
            return Some(urgent);
        }
        self.take_next()
            .or_else(|| self.take_local())
            .or_else(|| {
                if ordered.is_empty() {
                    None
                } else {
                    ordered.pop()
                }
            })
            .or_else(|| self.shared.take_injected(&self.queue))
    }

    fn take_next(&self) -> Option<Runnable> {
        if self.chain.get() >= RUN_NEXT_CHAIN && !self.queue.is_empty() {
            self.chain.set(0);
            return None;
        }
        let slot = &self.seat().run_next;
        if slot.load(Relaxed).is_null() {
            self.chain.set(0);
            return None;
        }
        self.chain.set(self.chain.get() + 1);
        // AcqRel: pairs with `push_next` and with a watcher's swap.
        NonNull::new(slot.swap(ptr::null_mut(), AcqRel)).map(Runnable::Coroutine)
    }

    fn take_local(&self) -> Option<Runnable> {
        let pinned = || self.pinned.borrow_mut().pop_front();
        // In turn: neither those that yield all the time nor new tasks starve.
        if self.picks.get().is_multiple_of(2) {
            let first = pinned().map(Runnable::Coroutine);
            first.or_else(|| self.queue.pop())
        } else {
            let first = self.queue.pop();
            first.or_else(|| pinned().map(Runnable::Coroutine))
        }
    }

    pub(super) fn execute(&self, runnable: Runnable) {
        match runnable {
            Runnable::Coroutine(coroutine) => self.resume(coroutine),
            Runnable::Task(task) => {
                if let Some(task) = self.shared.limit.admit(task) {
                    self.begin(task);
                }
            }
        }
    }

    /// Gives `task` a coroutine and runs it.
    fn begin(&self, task: Arc<dyn Run>) {
        match self.assign(task) {
            Ok(coroutine) => self.resume(coroutine),
            Err(failed) => self.end(failed),
        }
    }

    /// Gives `task` a coroutine; returns it failed if there is none for it.
    fn assign(&self, task: Arc<dyn Run>) -> Result<NonNull<Scheduled>, Arc<dyn Run>> {
        let size = self.shared.stack_size(&*task);
        let cached = (size == self.shared.settings().stack_size)
            .then(|| self.cache.borrow_mut().pop())
            .flatten();
        match cached.map_or_else(|| self.shared.new_coroutine(size), Ok) {
            Ok(coroutine) => {
                // SAFETY: the cache's, or new: nobody else knows it.
                unsafe { coroutine.as_ref() }.assign(task);
                Ok(coroutine)
            }
            Err(error) => {
                task.fail(Failure::NotStarted(error));
                Err(task)
            }
        }
    }

    /// Runs `coroutine` and acts on the reason for which it comes back.
    fn resume(&self, coroutine: NonNull<Scheduled>) {
        let resumes = &self.seat().resumes;
        // Only this thread writes it.
        resumes.store(resumes.load(Relaxed).wrapping_add(1), Relaxed);
        // SAFETY: taken out of a queue just now, or new (invariant 1); alive
        // until it is queued again or done.
        let target = unsafe { coroutine.as_ref() };
        // SAFETY: on the worker's own stack; `thread` is this thread's.
        let reason = unsafe { target.resume(self, self.thread.as_ref()) };
        match reason {
            Suspend::Yield => {
                self.requeue(coroutine);
                self.share();
            }
            Suspend::Park { deadline } => self.park(coroutine, deadline),
            Suspend::Io(wait) => self.submit(wait),
            Suspend::Done => self.recycle(coroutine),
        }
    }

    /// Queues a coroutine of this worker behind the others.
    pub(super) fn requeue(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: alive, since it is in no queue yet.
        let target = unsafe { coroutine.as_ref() };
        let priority = target.priority();
        if self.shared.settings().migrates && target.is_isolated() {
            self.shared.migrate(coroutine);
        } else if !target.is_isolated() {
            self.pinned.borrow_mut().push_back(coroutine);
        } else if priority == 0 {
            self.queue.push(Runnable::Coroutine(coroutine));
        } else {
            self.shared
                .ordered
                .push(priority, Runnable::Coroutine(coroutine));
        }
    }

    fn park(&self, coroutine: NonNull<Scheduled>, deadline: Option<Instant>) {
        // SAFETY: alive: until `commit` below succeeds nobody resumes it.
        let target = unsafe { coroutine.as_ref() };
        let timers = &self.seat().timers;
        let timer = deadline.map(|at| timers.lock().insert(at, TimerEvent::Wake(coroutine)));
        target.set_timer(timer.map(|key| (self.index, key)));
        // SAFETY: as above; once this succeeds it is not touched any more.
        if !unsafe { &*Scheduled::wait_state(coroutine) }.commit() {
            self.requeue(coroutine);
            self.share();
        }
    }

    fn submit(&self, wait: NonNull<IoWait>) {
        // SAFETY: the frame that holds it is suspended until its completion,
        // which only this worker's driver delivers.
        let wait_ref = unsafe { &mut *wait.as_ptr() };
        wait_ref.request.owner = wait.as_ptr().cast::<()>();
        let request = NonNull::from(&mut wait_ref.request);
        let deadline = wait_ref.deadline;
        if let Some(at) = deadline {
            let key = self
                .seat()
                .timers
                .lock()
                .insert(at, TimerEvent::Cancel(request));
            wait_ref.timer.set(Some(key));
        }
        // SAFETY: as above: it stays in place until it completes.
        unsafe { self.driver.borrow_mut().submit(request) };
    }

    /// A completion of the driver: its coroutine may go on.
    pub(super) fn completed(&self, request: NonNull<Request>) {
        // SAFETY: `submit` set the owner; the frame is suspended until the
        // coroutine is queued below.
        let wait = unsafe { &*request.as_ref().owner.cast::<IoWait>() };
        if let Some(key) = wait.timer.take() {
            self.seat().timers.lock().remove(key);
        }
        self.requeue(wait.coroutine);
    }

    fn recycle(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: it has ended its task and is in no queue.
        let target = unsafe { coroutine.as_ref() };
        let task = target.take_task().expect("set until the task has ended");
        let is_default = self.shared.stack_size(&*task) == self.shared.settings().stack_size;
        let is_reusable = is_default && target.reset();
        if !is_reusable || !self.cache.borrow_mut().push(coroutine) {
            drop(self.free(coroutine));
            self.has_warm_stacks.set(true);
        }
        self.end(task);
    }

    /// Tells whoever joins `task` that it has ended, and passes its place on.
    fn end(&self, task: Arc<dyn Run>) {
        let mut ended = task;
        loop {
            // First, so that whoever has joined it knows whether he is alone.
            self.shared.task_ended();
            self.shared.announce_end(&*ended);
            let next = self.shared.limit.release();
            match next.map(|task| self.assign(task)) {
                None => return,
                Some(Ok(coroutine)) => {
                    self.requeue(coroutine);
                    return self.share();
                }
                Some(Err(failed)) => ended = failed,
            }
        }
    }

    /// Frees a coroutine of the cache, or one that does not go there.
    pub(super) fn free(&self, coroutine: NonNull<Scheduled>) -> Stack {
        self.shared.unregister(coroutine);
        // SAFETY: it has run a task and has none now; on the thread's own
        // storage.
        unsafe { destroy(coroutine, self.thread.as_ref()) }
    }

    /// Looks at everything that can make a coroutine runnable, without waiting.
    pub(super) fn drive(&self) {
        self.read_mail();
        self.fire_timers();
        let mut driver = self.driver.borrow_mut();
        self.receptive(|| driver.poll(&mut |request| self.completed(request)));
        drop(driver);
        self.share();
    }

    /// After something was queued: if there is more than this worker can do
    /// next, another one may take it.
    pub(super) fn share(&self) {
        let stealable = self.queue.len() + self.shared.ordered.len();
        let has_next = || !self.seat().run_next.load(Relaxed).is_null();
        if stealable > 1 || (stealable == 1 && has_next()) {
            self.shared.wake_one();
        }
    }

    pub(super) fn read_mail(&self) {
        self.follow_signal_mask();
        for coroutine in self.seat().handled.take() {
            self.requeue(coroutine);
        }
        for message in self.shared.receive(self.index) {
            match message {
                Message::Ready(coroutine) => self.pinned.borrow_mut().push_back(coroutine),
                Message::Closed { fd, epoch } => self.close_notice(fd, epoch),
            }
        }
    }

    pub(super) fn fire_timers(&self) {
        let mut timers = self.seat().timers.lock();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut must_trim = false;
        let mut woken = self.woken.borrow_mut();
        while let Some(event) = timers.pop_due(now) {
            match event {
                TimerEvent::Wake(coroutine) => {
                    // SAFETY: the wait cannot return before it has had this
                    // lock (invariant 3 of `sched`).
                    if unsafe { &*Scheduled::wait_state(coroutine) }.notify() {
                        woken.push(coroutine);
                    }
                }
                TimerEvent::Trim => must_trim = true,
                TimerEvent::Cancel(request) => {
                    // SAFETY: pending in this worker's driver: its completion
                    // removes the timer.
                    unsafe { self.driver.borrow_mut().cancel(request, libc::ETIME) };
                }
            }
        }
        drop(timers);
        for coroutine in woken.drain(..) {
            self.requeue(coroutine);
        }
        drop(woken);
        self.share();
        if must_trim {
            self.trim();
        }
    }
}
