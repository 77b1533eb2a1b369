//! What all workers of a runtime see of each other: queues, sleepers, limits.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam_deque::{Injector, Steal};
use crossbeam_utils::CachePadded;

use super::carrier::with_worker;
use super::ending::Ending;
use super::hooks::Hooks;
use super::limit::Limit;
use super::monitor::Monitor;
use super::ordered::Ordered;
use super::process_signals::ProcessSignals;
use super::runnable::Runnable;
use super::scheduled::Scheduled;
use super::seat::{Message, Seat};
use super::sleep::Sleepers;
use super::wait::Turn;
use super::worker::{Queue, Worker};
use crate::driver::{self, Op};
use crate::pool::Pool;
use crate::stack;
use crate::task::{Failure, Run, Waiters};
use crate::tls::Isolation;
use crate::util::lock::Lock;
use crate::util::preempt;

/// How a runtime schedules. See `runtime::Config` for what users set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Bytes of stack of a coroutine that does not ask for more.
    pub stack_size: usize,
    /// Idle coroutines that are kept however long they are idle.
    pub min_size: usize,
    /// Coroutines alive at once; tasks beyond that wait for one to end.
    pub max_size: Option<usize>,
    /// How long an idle coroutine or stack is kept.
    pub keep_alive_time: Duration,
    /// Which driver each worker uses.
    pub driver: driver::Kind,
    /// Per-coroutine thread-local storage, in full mode.
    pub isolation: Option<&'static Isolation>,
    /// The hooked functions that suspend the coroutine that calls them.
    pub hooks: Hooks,
    /// For tests: isolated coroutines change their worker at each switch.
    pub migrates: bool,
    /// Whether coroutines that run for long are preempted.
    pub preemptive: bool,
    /// How long a coroutine may run while another one could.
    pub time_slice: Duration,
    /// Whether another thread takes over from one that a coroutine blocks.
    pub take_over: bool,
    /// Calls its argument with what a thread needs that runs coroutines.
    pub on_thread: fn(&mut dyn FnMut()),
    /// Wakes whoever waits for the word of a task that has ended. The futex
    /// table belongs to a layer above this one.
    pub wake_joiners: fn(&AtomicU32, Waiters),
}

/// One runtime's scheduler, shared by its workers.
pub struct Shared {
    settings: Settings,
    seats: Box<[CachePadded<Seat>]>,
    injector: Injector<Runnable>,
    pub(super) ordered: Ordered,
    /// Coroutines without a priority that were preempted.
    pub(super) computing: Injector<Runnable>,
    pub(super) sleepers: Sleepers,
    pub(super) monitor: Monitor,
    pub(super) process_signals: ProcessSignals,
    /// Tasks spawned and not yet ended.
    pub(super) tasks: AtomicUsize,
    pub(super) ending: Ending,
    pub(super) limit: Limit,
    /// Every coroutine object there is, to name what is left at shutdown.
    pub(super) all: Lock<Vec<NonNull<Scheduled>>>,
    pool: Pool,
    waits: Pool,
    spares: Pool,
    pub(super) takeovers: AtomicU64,
    /// How often a coroutine was suspended against its will.
    pub(super) preemptions: AtomicU64,
}

// SAFETY: the pointers in `all` and `Seat` are handed over as `Scheduled` says.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(settings: Settings, queues: &[Queue]) -> Self {
        let seats = queues
            .iter()
            .map(|queue| CachePadded::new(Seat::new(queue)));
        Self {
            seats: seats.collect(),
            injector: Injector::new(),
            ordered: Ordered::new(),
            computing: Injector::new(),
            sleepers: Sleepers::new(settings.workers),
            monitor: Monitor::new(),
            process_signals: ProcessSignals::new(settings.workers),
            tasks: AtomicUsize::new(0),
            ending: Ending::new(queues.len()),
            limit: Limit::new(settings.max_size),
            all: Lock::new(Vec::new()),
            pool: Pool::default(),
            waits: Pool::new(Pool::UNLIMITED, Pool::KEEP_ALIVE),
            spares: Pool::new(Pool::UNLIMITED, Pool::KEEP_ALIVE),
            takeovers: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            settings,
        }
    }

    /// What the runtime was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The threads for calls that end by themselves and no driver can do.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The threads for calls that end when somebody else acts, who may need a
    /// thread himself to do so. Hence their number has no limit.
    pub fn waits(&self) -> &Pool {
        &self.waits
    }

    /// The threads that take workers over.
    pub(super) fn spares(&self) -> &Pool {
        &self.spares
    }

    pub(super) fn seats(&self) -> &[CachePadded<Seat>] {
        &self.seats
    }

    /// Makes `task` run some time soon. False if the runtime is shutting down;
    /// the task is then dropped without having run.
    pub fn spawn(&self, task: Arc<dyn Run>) -> bool {
        self.tasks.fetch_add(1, SeqCst);
        if self.ending.is_closing() {
            self.task_ended();
            return false;
        }
        let priority = task.meta().priority;
        self.enqueue(Runnable::task(task), priority);
        true
    }

    /// Puts a runnable where every worker can find it, and wakes one.
    pub(super) fn enqueue(&self, runnable: Runnable, priority: i64) {
        if priority != 0 {
            // In a section: others spin while an entry is half inserted.
            preempt::no_preempt(|| self.ordered.push(priority, runnable));
        } else {
            self.with_own_worker(|worker| match worker {
                Some(worker) => worker.push(runnable),
                None => self.injector.push(runnable),
            });
        }
        self.wake_one();
    }

    /// Calls `body` with the worker that the caller runs on, if it is one of this
    /// runtime's: it may be one of a former runtime that did not stop in time.
    #[inline]
    fn with_own_worker<R>(&self, body: impl FnOnce(Option<&Worker>) -> R) -> R {
        with_worker(|worker| body(worker.filter(|worker| ptr::eq(&**worker.shared(), self))))
    }

    /// Whether the workers' drivers perform `op` themselves.
    pub(super) fn driver_supports(&self, op: &Op) -> bool {
        let outside = self.seats[0].outside.get();
        outside.is_some_and(|outside| outside.support.includes(op))
    }

    /// Wakes a sleeping worker, unless one is looking for work already.
    #[inline]
    pub(super) fn wake_one(&self) {
        if let Some(worker) = self.sleepers.choose_sleeper() {
            self.wake(worker);
        }
    }

    pub(super) fn wake_all(&self) {
        for index in 0..self.seats.len() {
            self.wake(index);
        }
    }

    pub(super) fn wake(&self, worker: usize) {
        if let Some(outside) = self.seats[worker].outside.get() {
            outside.waker.wake();
        }
    }

    /// Makes a coroutine that was woken run again, as `turn` says.
    ///
    /// # Safety
    ///
    /// It is suspended, in no queue, and the caller alone has woken it.
    pub(super) unsafe fn make_runnable(coroutine: NonNull<Scheduled>, turn: Turn) {
        // SAFETY: it cannot end before it is in a queue.
        let target = unsafe { coroutine.as_ref() };
        if target.is_isolated() && target.shared().settings.migrates {
            return target.shared().clone().migrate(coroutine);
        }
        let (priority, is_isolated, home) =
            (target.priority(), target.is_isolated(), target.home());
        let shared = Arc::as_ptr(target.shared());
        with_worker(|worker| {
            match worker.filter(|worker| ptr::eq(Arc::as_ptr(worker.shared()), shared)) {
                Some(worker) if is_isolated && priority == 0 => match turn {
                    Turn::Next => worker.push_next(coroutine),
                    Turn::Last => {
                        worker.push(Runnable::coroutine(coroutine));
                        worker.share();
                    }
                },
                Some(worker) if !is_isolated && worker.index() == home => worker.requeue(coroutine),
                // SAFETY: the caller's promise, and it is in no queue yet.
                _ => unsafe { Self::make_runnable_elsewhere(coroutine) },
            }
        });
    }

    /// [`make_runnable`](Self::make_runnable), where others find it.
    ///
    /// # Safety
    ///
    /// As for `make_runnable`.
    #[cold]
    unsafe fn make_runnable_elsewhere(coroutine: NonNull<Scheduled>) {
        // SAFETY: it cannot end before it is in a queue. Then it may, and drop its
        // reference.
        let target = unsafe { coroutine.as_ref() };
        let shared = target.shared().clone();
        if target.is_isolated() {
            shared.enqueue(Runnable::coroutine(coroutine), target.priority());
        } else {
            shared.send(target.home(), Message::Ready(coroutine));
        }
    }

    /// Sends `message` to worker `index` and wakes it.
    pub(super) fn send(&self, index: usize, message: Message) {
        self.seats[index].post(message);
        self.wake(index);
    }

    /// Work that belongs to no worker yet; some of it moves to `local`.
    pub(super) fn take_injected(
        &self,
        local: &crossbeam_deque::Worker<Runnable>,
    ) -> Option<Runnable> {
        retry(|| self.injector.steal_batch_and_pop(local))
    }

    /// Work that belongs to no worker yet.
    pub(super) fn take_injected_only(&self) -> Option<Runnable> {
        retry(|| self.injector.steal())
    }

    /// Whether any worker may take something that has no worker.
    pub(super) fn has_global_work(&self) -> bool {
        !self.injector.is_empty() || !self.ordered.is_empty() || !self.computing.is_empty()
    }

    /// Step S2 of the sleep protocol: whether any queue has work for `index`.
    pub(super) fn has_work_for(&self, index: usize) -> bool {
        self.has_global_work()
            || self.seats[index].has_mail()
            || self.seats.iter().any(|seat| !seat.stealer.is_empty())
            || self.is_stopping()
    }

    /// Tells every worker that `fd` is about to be closed. Operations that wait
    /// on it end with `EBADF`.
    pub fn notify_close(&self, fd: RawFd) {
        let mut epoch = None;
        for (index, seat) in self.seats.iter().enumerate() {
            let Some(outside) = seat.outside.get() else {
                continue;
            };
            if outside.waiters.count(fd) == 0 {
                continue;
            }
            let epoch = *epoch.get_or_insert_with(driver::begin_close);
            self.with_own_worker(|worker| match worker {
                // At once, so that what is queued there still meets the file.
                Some(worker) if worker.index() == index => worker.close_notice(fd, epoch),
                _ => self.send(index, Message::Closed { fd, epoch }),
            });
        }
    }

    /// [`notify_close`](Self::notify_close) of all descriptors from `first` to
    /// `last`.
    pub fn notify_close_range(&self, first: RawFd, last: RawFd) {
        let outsides = self.seats.iter().filter_map(|seat| seat.outside.get());
        let highest = outsides.map(|outside| outside.waiters.highest()).max();
        for fd in first..=last.min(highest.unwrap_or(-1)) {
            self.notify_close(fd);
        }
    }

    /// Counts `task` as ended, and tells whoever joins it; once per task.
    pub(super) fn tell_end(&self, task: &dyn Run) {
        // First, so that whoever has joined it knows whether he is alone.
        self.task_ended();
        if let Some((word, waiters)) = task.finish() {
            (self.settings.wake_joiners)(word, waiters);
        }
    }

    /// One task fewer, if it was the last one that a shutdown waits for.
    fn task_ended(&self) {
        // SeqCst: pairs with `wait_drained`, which sets `closing` first.
        if self.tasks.fetch_sub(1, SeqCst) == 1 && self.ending.is_closing() {
            self.ending.drain();
        }
    }

    /// How many tasks have been spawned and have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(SeqCst)
    }

    /// Whether one task is alive. What has been joined is not.
    pub(super) fn is_last_task(&self) -> bool {
        self.tasks.load(SeqCst) == 1
    }

    /// Gives `task` a coroutine, `cached` or a new one. If there is none for it, it
    /// fails, and is returned if nobody else tells of its end.
    pub(super) fn assign(
        self: &Arc<Self>,
        task: Arc<dyn Run>,
        cached: Option<NonNull<Scheduled>>,
    ) -> Result<NonNull<Scheduled>, Option<Arc<dyn Run>>> {
        let new = || self.new_coroutine(self.stack_size(&*task));
        match cached.map_or_else(new, Ok) {
            Ok(coroutine) => {
                // SAFETY: the cache's, or new: nobody else knows it.
                unsafe { coroutine.as_ref() }.assign(task);
                Ok(coroutine)
            }
            Err(error) => {
                let is_ours = task.fail(Failure::NotStarted(error));
                Err(is_ours.then_some(task))
            }
        }
    }

    /// Tells of the end of `task`, if there is one to tell of, and passes its place
    /// on: the next task is given to `start`, and the coroutine that it gets to
    /// `queue`.
    pub(super) fn end(
        &self,
        task: Option<Arc<dyn Run>>,
        start: impl Fn(Arc<dyn Run>) -> Result<NonNull<Scheduled>, Option<Arc<dyn Run>>>,
        queue: impl FnOnce(NonNull<Scheduled>),
    ) {
        let mut ended = task;
        loop {
            if let Some(task) = ended {
                self.tell_end(&*task);
            }
            let next = self.limit.release();
            if let Some(task) = next.as_ref().filter(|_| self.is_cancelling()) {
                // It has a place, which it passes on at once.
                ended = task.fail(Failure::Cancelled).then(|| task.clone());
                continue;
            }
            match next.map(&start) {
                None => return,
                Some(Ok(coroutine)) => return queue(coroutine),
                Some(Err(failed)) => ended = failed,
            }
        }
    }

    fn register(&self, coroutine: NonNull<Scheduled>) {
        let mut all = self.all.lock();
        // SAFETY: the caller has just made it.
        unsafe { coroutine.as_ref() }.listed_at().set(all.len());
        all.push(coroutine);
    }

    pub(super) fn unregister(&self, coroutine: NonNull<Scheduled>) {
        let mut all = self.all.lock();
        // SAFETY: listed objects are alive.
        let index = unsafe { coroutine.as_ref() }.listed_at().get();
        all.swap_remove(index);
        if let Some(moved) = all.get(index) {
            // SAFETY: as above.
            unsafe { moved.as_ref() }.listed_at().set(index);
        }
    }

    /// The stack size for `task`.
    pub(super) fn stack_size(&self, task: &dyn Run) -> usize {
        task.meta().stack_size.unwrap_or(self.settings.stack_size)
    }

    pub(super) fn new_coroutine(self: &Arc<Self>, size: usize) -> io::Result<NonNull<Scheduled>> {
        let stack = stack::pool().allocate(size)?;
        let coroutine = Scheduled::new(self, self.settings.isolation, stack)?;
        self.register(coroutine);
        Ok(coroutine)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

/// Repeats a steal that lost a race.
pub(super) fn retry(mut steal: impl FnMut() -> Steal<Runnable>) -> Option<Runnable> {
    loop {
        match steal() {
            Steal::Success(runnable) => return Some(runnable),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
