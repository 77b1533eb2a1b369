//! A worker: its queues, its driver, its coroutines.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Instant;

use crossbeam_deque as deque;

use super::cache::Cache;
use super::carrier::{Carrier, Lost};
use super::local;
use super::runnable::Runnable;
use super::scheduled::{Scheduled, destroy};
use super::seat::{Outside, Seat, TimerEvent};
use super::shared::{Shared, retry};
use super::suspend::IoWait;
use super::takeover;
use crate::driver::{Driver, MOVED, Request};
use crate::stack::Stack;
use crate::task::Run;
use crate::tls::ThreadTls;

/// Every how many picks the global queues come first, so that nothing starves.
const FAIRNESS: u32 = 61;
/// While a queue is not longer, nothing that is added to it at once has its memory grow.
const SHORT: usize = 30;
/// So often something is taken out of a short queue before its memory surely is as
/// small as it gets: each time it is too large it is halved.
const SETTLING: u32 = 32;
/// How often in a row the run-next slot may come before the queue.
const RUN_NEXT_CHAIN: u32 = 16;

/// Queue, driver and what else a worker is, without the thread. Only a thread that
/// holds it (see `carrier`) uses it; while a coroutine runs, nothing of it is
/// borrowed (invariant 4 of `sched`).
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    /// The thread that runs it.
    carrier: Cell<*const Carrier>,
    /// Whether its thread may cross from coroutine to coroutine (`run`).
    pub(super) may_cross: bool,
    pub(super) queue: deque::Worker<Runnable>,
    /// See [`settles`](Self::settles).
    unsettled: Cell<u32>,
    /// Restricted mode: started coroutines, which stay on this worker.
    pinned: RefCell<VecDeque<NonNull<Scheduled>>>,
    /// There until the worker stops.
    driver: RefCell<Option<Driver>>,
    /// Threads that it was taken away from, whose drivers are not empty.
    pub(super) left_behind: RefCell<Vec<Arc<Carrier>>>,
    /// Coroutines without a task; it owns them.
    pub(super) cache: RefCell<Cache>,
    /// Whether a timer will look for what can be trimmed.
    pub(super) trim_armed: Cell<bool>,
    /// Whether it has freed coroutines whose stacks may still hold memory.
    pub(super) has_warm_stacks: Cell<bool>,
    /// Scratch space for coroutines that are woken under a lock.
    pub(super) woken: RefCell<Vec<NonNull<Scheduled>>>,
    /// When it last ran something that computes.
    computed: Cell<Instant>,
    picks: Cell<u32>,
    /// What was picked already and comes first.
    pub(super) picked: Cell<Option<Runnable>>,
    /// Whether what it runs next is in no queue any more.
    pub(super) knows_next: Cell<bool>,
    chain: Cell<u32>,
    /// How many coroutines may still run in this turn.
    pub(super) left_of_turn: Cell<u32>,
    /// Whether it counts as searching in the sleep protocol.
    pub(super) searching: Cell<bool>,
    pub(super) random: Cell<u32>,
}

// SAFETY: only the thread that holds it uses what is not made for sharing, and
// `carrier` hands it over with the necessary order.
unsafe impl Send for Worker {}
// SAFETY: as above.
unsafe impl Sync for Worker {}

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
        support: driver.support(),
        fd: AtomicI32::new(driver.fd()),
    };
    if shared.seats()[index].outside.set(outside).is_err() {
        unreachable!("each worker starts once");
    }
    let isolation = shared.settings().isolation;
    let worker = Arc::new(Worker {
        index,
        shared,
        may_cross: isolation.is_some_and(|isolation| !isolation.has_foreign_allocator()),
        carrier: Cell::new(ptr::null()),
        queue: queue.0,
        unsettled: Cell::new(0),
        pinned: RefCell::new(VecDeque::new()),
        driver: RefCell::new(Some(driver)),
        left_behind: RefCell::default(),
        cache: RefCell::default(),
        trim_armed: Cell::new(false),
        has_warm_stacks: Cell::new(false),
        woken: RefCell::new(Vec::new()),
        computed: Cell::new(Instant::now()),
        picks: Cell::new(0),
        picked: Cell::new(None),
        knows_next: Cell::new(false),
        chain: Cell::new(0),
        left_of_turn: Cell::new(0),
        searching: Cell::new(false),
        random: Cell::new(0x9E37_79B9 ^ index as u32),
    });
    ready(Ok(()));
    serve(worker);
}

/// Runs `worker` on the calling thread, until the runtime stops or another thread
/// takes it over.
pub(super) fn serve(worker: Arc<Worker>) {
    let isolation = worker.shared.settings().isolation;
    // SAFETY: on the thread's own storage, before any coroutine runs here.
    let tls = isolation.map(|isolation| unsafe { ThreadTls::current(isolation) });
    let carrier = Arc::new(Carrier::new(tls, worker.clone()));
    local::set_carrier(&*carrier);
    worker.run_on(&carrier);
    local::set_carrier(ptr::null());
}

impl Worker {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether there are workers besides this one.
    #[inline]
    pub(super) fn has_others(&self) -> bool {
        self.shared.seats().len() > 1
    }

    pub(super) fn driver(&self) -> RefMut<'_, Driver> {
        RefMut::map(self.driver.borrow_mut(), |driver| {
            driver.as_mut().expect("there until the worker stops")
        })
    }

    /// The thread that runs it.
    pub(super) fn carrier(&self) -> &Carrier {
        // SAFETY: called by the thread that holds the worker, whose carrier was
        // noted by `run_on` and lives as long as that.
        unsafe { &*self.carrier.get() }
    }

    /// `fd` is closed: what waits on it ends.
    pub(super) fn close_notice(&self, fd: RawFd, epoch: u64) {
        self.driver().close_notice(fd, epoch);
        self.close_notice_left(fd, epoch);
    }

    /// The driver of another thread takes the place of this one's.
    pub(super) fn exchange_driver(&self, driver: Driver) -> Driver {
        if let Some(outside) = self.seat().outside.get() {
            outside.fd.store(driver.fd(), Relaxed);
        }
        let old = self.driver.borrow_mut().replace(driver);
        old.expect("there until the worker stops")
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.shared.seats()[self.index]
    }

    /// Queues something that has no priority, last.
    pub(super) fn push(&self, runnable: Runnable) {
        self.queue.push(runnable);
        self.note_length();
    }

    /// Called whenever something was added to the queue.
    #[inline]
    pub(super) fn note_length(&self) {
        if self.queue.len() > SHORT {
            self.unsettled.set(SETTLING);
        }
    }

    /// Whether the queue's memory keeps its size for now, whatever is taken or added.
    ///
    /// When that changes, crossbeam needs something in thread-local storage. A coroutine
    /// that has it ends with a destructor for which its stack may be too small.
    #[inline]
    pub(super) fn settles(&self) -> bool {
        self.unsettled.get() == 0
    }

    fn pop(&self) -> Option<Runnable> {
        let first = self.queue.pop();
        let unsettled = self.unsettled.get();
        if unsettled != 0 && first.is_some() && self.queue.len() < SHORT / 2 {
            self.unsettled.set(unsettled - 1);
        }
        first
    }

    /// Queues a woken coroutine first: it runs when the current one suspends.
    pub(super) fn push_next(&self, coroutine: NonNull<Scheduled>) {
        // AcqRel: a thief reads what the slot's owner wrote, and the reverse.
        let displaced = self.seat().run_next.swap(coroutine.as_ptr(), AcqRel);
        if let Some(displaced) = NonNull::new(displaced) {
            self.push(Runnable::coroutine(displaced));
            if self.has_others() {
                self.shared.wake_one();
            }
        }
    }

    fn run_on(self: &Arc<Self>, carrier: &Arc<Carrier>) {
        self.carrier.set(Arc::as_ptr(carrier));
        *self.seat().carrier.lock() = Some(carrier.clone());
        match self.run() {
            Ok(()) => {
                self.stop();
                carrier.give_up();
            }
            Err(Lost) => takeover::end(&self.shared, self.index, carrier),
        }
    }

    fn stop(&self) {
        let cached = self.cache.borrow_mut().take();
        for coroutine in cached {
            self.free(coroutine).release();
        }
        // What was on its way between two queues when the runtime stopped.
        self.shared.cancel_unstarted();
        drop(self.driver.borrow_mut().take());
        self.shared.worker_stopped(self.index);
    }

    pub(super) fn has_local_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.pinned.borrow().is_empty()
            || !self.seat().run_next.load(Relaxed).is_null()
    }

    /// The next thing to run, from the own queues and the global ones.
    pub(super) fn pick(&self) -> Option<Runnable> {
        let picks = self.picks.get().wrapping_add(1);
        self.picks.set(picks);
        let ordered = &self.shared.ordered;
        if picks.is_multiple_of(FAIRNESS) {
            let fair = match picks / FAIRNESS % 3 {
                0 => self.take_injected(),
                1 => self.take_next().or_else(|| self.take_local()),
                _ => ordered.pop_fair(),
            };
            if fair.is_some() {
                return fair;
            }
        }
        if let Some(patient) = self.take_patient() {
            return Some(patient);
        }
        if !ordered.is_empty()
            && let Some(urgent) = ordered.pop_below(0)
        {
            return Some(urgent);
        }
        self.take_next()
            .or_else(|| self.take_local())
            .or_else(|| self.take_injected())
            .or_else(|| {
                if ordered.is_empty() {
                    None
                } else {
                    ordered.pop()
                }
            })
            .or_else(|| self.take_computing())
    }

    pub(super) fn take_injected(&self) -> Option<Runnable> {
        let first = self.shared.take_injected(&self.queue)?;
        self.note_length();
        Some(first)
    }

    /// Somebody who computes, once per time slice.
    fn take_patient(&self) -> Option<Runnable> {
        let is_time = || self.computed.get().elapsed() >= self.shared.settings().time_slice;
        if self.shared.computing.is_empty() || !is_time() {
            return None;
        }
        self.take_computing()
    }

    fn take_computing(&self) -> Option<Runnable> {
        let taken = retry(|| self.shared.computing.steal());
        if taken.is_some() {
            self.note_computation();
        }
        taken
    }

    /// Something that computes runs, or has run.
    pub(super) fn note_computation(&self) {
        self.computed.set(Instant::now());
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
        // AcqRel: pairs with `push_next` and with the monitor's swap.
        NonNull::new(slot.swap(ptr::null_mut(), AcqRel)).map(Runnable::coroutine)
    }

    fn take_local(&self) -> Option<Runnable> {
        let pinned = || self.take_pinned();
        // In turn: neither those that yield all the time nor new tasks starve.
        if self.picks.get().is_multiple_of(2) {
            let first = pinned().map(Runnable::coroutine);
            first.or_else(|| self.pop())
        } else {
            let first = self.pop();
            first.or_else(|| pinned().map(Runnable::coroutine))
        }
    }

    pub(super) fn pin(&self, coroutine: NonNull<Scheduled>) {
        self.pinned.borrow_mut().push_back(coroutine);
        self.seat().has_pinned.store(true, Relaxed);
    }

    fn take_pinned(&self) -> Option<NonNull<Scheduled>> {
        let mut pinned = self.pinned.borrow_mut();
        let first = pinned.pop_front()?;
        self.seat().has_pinned.store(!pinned.is_empty(), Relaxed);
        Some(first)
    }

    /// Gives `task` a coroutine. If there is none for it, it fails, and is returned
    /// if nobody else tells of its end.
    pub(super) fn assign(
        &self,
        task: Arc<dyn Run>,
    ) -> Result<NonNull<Scheduled>, Option<Arc<dyn Run>>> {
        let size = self.shared.stack_size(&*task);
        let cached = (size == self.shared.settings().stack_size)
            .then(|| self.cache.borrow_mut().pop())
            .flatten();
        self.shared.assign(task, cached)
    }

    /// Queues a coroutine of this worker behind the others; one that was preempted also
    /// behind all that will be queued: who computes runs while nobody else does, and once
    /// per time slice.
    pub(super) fn requeue(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: alive, since it is in no queue yet.
        let target = unsafe { coroutine.as_ref() };
        let priority = target.priority();
        if self.shared.settings().migrates && target.is_isolated() {
            self.shared.migrate(coroutine);
        } else if !target.is_isolated() {
            self.pin(coroutine);
        } else if priority == 0 && target.computes().get() {
            self.shared.computing.push(Runnable::coroutine(coroutine));
        } else if priority == 0 {
            self.push(Runnable::coroutine(coroutine));
        } else {
            self.shared
                .ordered
                .push(priority, Runnable::coroutine(coroutine));
        }
    }

    pub(super) fn park(&self, coroutine: NonNull<Scheduled>, deadline: Option<Instant>) {
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

    #[inline(never)]
    pub(super) fn submit(&self, wait: NonNull<IoWait>) {
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
        // SAFETY: it has just been switched from.
        let target = unsafe { wait_ref.coroutine.as_ref() };
        let mut driver = self.driver();
        // SAFETY: as above: it stays in place until it completes.
        unsafe { driver.submit(request) };
        self.seat().note_submission(driver.is_batching());
        drop(driver);
        if target.cancellation().begin_wait(wait) {
            self.end_io(wait);
        }
    }

    /// A completion of the driver: its coroutine may go on.
    pub(super) fn completed(&self, request: NonNull<Request>) {
        // SAFETY: `submit` set the owner; the frame is suspended until the
        // coroutine is queued below.
        let wait = unsafe { &*request.as_ref().owner.cast::<IoWait>() };
        if wait.request.result() == -MOVED {
            // SAFETY: as when it was submitted first.
            unsafe { self.driver().resubmit(request) };
            // SAFETY: it waits until it is queued.
            if unsafe { wait.coroutine.as_ref() }
                .cancellation()
                .is_requested()
            {
                self.end_io(NonNull::from(wait));
            }
            return;
        }
        if let Some(key) = wait.timer.take() {
            self.seat().timers.lock().remove(key);
        }
        // SAFETY: it waits until it is queued.
        unsafe { wait.coroutine.as_ref() }.cancellation().end_wait();
        self.requeue(wait.coroutine);
    }

    /// After a task: keeps or frees the coroutine. Tells of the task's end if it
    /// `ran`, and was not claimed by somebody else.
    #[inline(never)]
    pub(super) fn recycle(&self, coroutine: NonNull<Scheduled>, ran: bool) {
        // SAFETY: it has ended its task and is in no queue.
        let target = unsafe { coroutine.as_ref() };
        let task = target.take_task().expect("set until the task has ended");
        let is_default = self.shared.stack_size(&*task) == self.shared.settings().stack_size;
        let is_reusable = is_default && target.reset();
        if !is_reusable || !self.cache.borrow_mut().push(coroutine) {
            drop(self.free(coroutine));
            self.has_warm_stacks.set(true);
        }
        self.end(ran.then_some(task));
    }

    /// Tells whoever joins `task` that it has ended, and passes its place on.
    pub(super) fn end(&self, task: Option<Arc<dyn Run>>) {
        let queue = |next| {
            self.requeue(next);
            self.share();
        };
        self.shared.end(task, |next| self.assign(next), queue);
    }

    /// Frees a coroutine of the cache, or one that does not go there.
    pub(super) fn free(&self, coroutine: NonNull<Scheduled>) -> Stack {
        self.shared.unregister(coroutine);
        // SAFETY: it has run a task and has none now; on the thread's own
        // storage.
        unsafe { destroy(coroutine, self.carrier().tls()) }
    }
}
