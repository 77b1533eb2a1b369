//! One scheduling thread: it takes what is runnable, resumes it, and acts on
//! the reason for which it suspended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

use crossbeam_deque as deque;

use super::local;
use super::scheduled::{Scheduled, Suspend, destroy};
use super::shared::{
    Message, NO_WATCHER, Outside, Runnable, Seat, Shared, TimerEvent, WATCHER_WANTED, retry,
};
use super::suspend::IoWait;
use crate::driver::{Driver, Op, Request};
use crate::task::{Failure, Run};
use crate::tls::ThreadTls;

/// Coroutines run between two looks at timers, inbox and driver.
const TURN: u32 = 61;
/// Every how many picks the global queues come first, so that nothing starves.
const FAIRNESS: u32 = 61;
/// How often in a row the run-next slot may come before the queue.
const RUN_NEXT_CHAIN: u32 = 16;
/// Idle coroutines that one worker keeps.
const CACHE: usize = 1024;
/// How long a run-next slot may wait before the watcher takes it over.
const WATCH_PERIOD: Duration = Duration::from_millis(1);

/// The thread's half of a worker. Only its own thread touches it; while a
/// coroutine runs, nothing of it is borrowed (invariant 4 of `sched`).
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    queue: deque::Worker<Runnable>,
    /// Restricted mode: started coroutines, which stay on this worker.
    pinned: RefCell<VecDeque<NonNull<Scheduled>>>,
    driver: RefCell<Driver>,
    thread: Option<ThreadTls>,
    cache: RefCell<Vec<Box<Scheduled>>>,
    /// Scratch space for coroutines that are woken under a lock.
    woken: RefCell<Vec<NonNull<Scheduled>>>,
    picks: Cell<u32>,
    chain: Cell<u32>,
    /// Whether it counts as searching in the sleep protocol.
    searching: Cell<bool>,
    random: Cell<u32>,
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
        cache: RefCell::new(Vec::new()),
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

    fn seat(&self) -> &Seat {
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
        // Pairs with the fence in `watch`: the watcher sees the slot, or we see
        // that there is no watcher any more.
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
        for coroutine in self.cache.take() {
            self.free(coroutine);
        }
    }

    fn has_local_work(&self) -> bool {
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
                1 => self.take_local(),
                _ => ordered.pop_last(),
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
        let pinned = self.pinned.borrow_mut().pop_front();
        pinned.map(Runnable::Coroutine).or_else(|| self.queue.pop())
    }

    fn execute(&self, runnable: Runnable) {
        match runnable {
            Runnable::Coroutine(coroutine) => self.resume(coroutine),
            Runnable::Task(task) => {
                if let Some(task) = self.shared.admit(task) {
                    self.begin(task);
                }
            }
        }
    }

    /// Gives `task` a coroutine and runs it.
    fn begin(&self, task: Arc<dyn Run>) {
        let size = self.shared.stack_size(&*task);
        let cached = (size == self.shared.settings().stack_size)
            .then(|| self.cache.borrow_mut().pop())
            .flatten();
        let coroutine = match cached.map_or_else(|| self.shared.new_coroutine(size), Ok) {
            Ok(coroutine) => coroutine,
            Err(error) => {
                task.fail(Failure::NotStarted(error));
                return self.end(&*task);
            }
        };
        coroutine.assign(task);
        self.resume(NonNull::from(Box::leak(coroutine)));
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
            Suspend::Yield => self.requeue(coroutine),
            Suspend::Park { deadline } => self.park(coroutine, deadline),
            Suspend::Io(wait) => self.submit(wait),
            Suspend::Done => self.recycle(coroutine),
        }
    }

    /// Queues a coroutine of this worker behind the others.
    fn requeue(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: alive, since it is in no queue yet.
        let target = unsafe { coroutine.as_ref() };
        let priority = target.priority();
        if !target.is_isolated() {
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
        // SAFETY: alive: until `commit_wait` below succeeds nobody resumes it.
        let target = unsafe { coroutine.as_ref() };
        let timers = &self.seat().timers;
        let timer = deadline.map(|at| timers.lock().insert(at, TimerEvent::Wake(coroutine)));
        target.set_timer(timer.map(|key| (self.index, key)));
        if !target.commit_wait() {
            self.requeue(coroutine);
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
    fn completed(&self, request: NonNull<Request>) {
        // SAFETY: `submit` set the owner; the frame is suspended until the
        // coroutine is queued below.
        let wait = unsafe { &*request.as_ref().owner.cast::<IoWait>() };
        if let Some(key) = wait.timer.take() {
            self.seat().timers.lock().remove(key);
        }
        self.requeue(wait.coroutine);
    }

    fn recycle(&self, coroutine: NonNull<Scheduled>) {
        // SAFETY: it was leaked by `begin`, is in no queue, and waits for its
        // next task.
        let coroutine = unsafe { Box::from_raw(coroutine.as_ptr()) };
        let task = coroutine.take_task().expect("set until the task has ended");
        let is_default = self.shared.stack_size(&*task) == self.shared.settings().stack_size;
        let is_clean = coroutine.reset();
        self.end(&*task);
        if is_default && is_clean && self.cache.borrow().len() < CACHE {
            self.cache.borrow_mut().push(coroutine);
        } else {
            self.free(coroutine);
        }
    }

    /// Tells whoever joins `task` that it has ended.
    fn end(&self, task: &dyn Run) {
        if let Some(word) = task.finish() {
            (self.shared.settings().wake_joiners)(word);
        }
        self.shared.release();
        self.shared.task_ended();
    }

    fn free(&self, coroutine: Box<Scheduled>) {
        self.shared.unregister(NonNull::from(&*coroutine));
        // SAFETY: it has no task; on the thread's own storage.
        unsafe { destroy(coroutine, self.thread.as_ref()) };
    }

    /// Looks at everything that can make a coroutine runnable, without waiting.
    fn drive(&self) {
        self.read_mail();
        self.fire_timers();
        let mut count = 0;
        self.driver.borrow_mut().poll(&mut |request| {
            count += 1;
            self.completed(request);
        });
        self.share(count);
    }

    /// After `count` coroutines became runnable at once: another worker may
    /// take some.
    fn share(&self, count: usize) {
        if count > 1 {
            self.shared.wake_one();
        }
    }

    fn read_mail(&self) {
        for message in self.shared.receive(self.index) {
            match message {
                Message::Ready(coroutine) => self.pinned.borrow_mut().push_back(coroutine),
                Message::Closed { fd, epoch } => self.close_notice(fd, epoch),
            }
        }
    }

    fn fire_timers(&self) {
        let mut timers = self.seat().timers.lock();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut woken = self.woken.borrow_mut();
        while let Some(event) = timers.pop_due(now) {
            match event {
                // SAFETY: the wait cannot return before it has had this lock
                // (invariant 3 of `sched`).
                TimerEvent::Wake(coroutine) if unsafe { coroutine.as_ref() }.notify() => {
                    woken.push(coroutine);
                }
                TimerEvent::Wake(_) => {}
                TimerEvent::Cancel(request) => {
                    // SAFETY: pending in this worker's driver: its completion
                    // removes the timer.
                    unsafe { self.driver.borrow_mut().cancel(request, libc::ETIME) };
                }
            }
        }
        drop(timers);
        let count = woken.len();
        for coroutine in woken.drain(..) {
            self.requeue(coroutine);
        }
        self.share(count);
    }

    /// Nothing to run here: look at the others' queues, then sleep. The wait
    /// also submits what the coroutines of this turn asked of the driver.
    fn idle(&self) {
        self.read_mail();
        self.fire_timers();
        if self.has_local_work() {
            return;
        }
        if self.searching.get()
            || self
                .shared
                .sleepers
                .start_searching(self.shared.seats().len())
        {
            self.searching.set(true);
            if let Some(runnable) = self.steal() {
                self.found_work();
                self.execute(runnable);
                return self.drive();
            }
            self.searching.set(false);
            // The last searcher's second look is step S2 below.
            let _ = self.shared.sleepers.stop_searching();
        }
        self.shared.sleepers.announce(self.index);
        let timeout = if self.shared.has_work_for(self.index) {
            Some(Duration::ZERO)
        } else {
            self.patience()
        };
        self.sleep(timeout);
        self.searching.set(self.shared.sleepers.retract(self.index));
    }

    /// How long to sleep at most: until the next deadline, or for a while if
    /// this worker watches the others' run-next slots.
    fn patience(&self) -> Option<Duration> {
        let next = self.seat().timers.lock().next_deadline();
        let until_next = next.map(|at| at.saturating_duration_since(Instant::now()));
        if !self.watch() {
            return until_next;
        }
        Some(until_next.map_or(WATCH_PERIOD, |left| left.min(WATCH_PERIOD)))
    }

    fn sleep(&self, timeout: Option<Duration>) {
        let before = self.slots_seen();
        let mut count = 0;
        self.driver.borrow_mut().wait(timeout, &mut |request| {
            count += 1;
            self.completed(request);
        });
        self.share(count);
        self.read_mail();
        self.fire_timers();
        if let Some(before) = before {
            self.take_stranded(&before);
        }
    }

    /// Steps W2 and W3 of the sleep protocol, for a worker that has work.
    #[inline]
    fn found_work(&self) {
        if self.searching.get() {
            self.searching.set(false);
            if self.shared.sleepers.stop_searching() {
                self.shared.wake_one();
            }
        }
    }

    fn steal(&self) -> Option<Runnable> {
        let seats = self.shared.seats();
        let first = self.next_random() as usize % seats.len();
        (0..seats.len())
            .map(|offset| (first + offset) % seats.len())
            .filter(|&victim| victim != self.index)
            .find_map(|victim| retry(|| seats[victim].stealer.steal_batch_and_pop(&self.queue)))
            .or_else(|| self.shared.take_injected(&self.queue))
    }

    fn next_random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        x
    }
}

/// The watcher's part, see "The run-next slot and the watcher" in `README.md`.
impl Worker {
    /// Whether this worker, about to sleep, watches the others' slots.
    fn watch(&self) -> bool {
        let watcher = &self.shared.watcher;
        let current = watcher.load(Acquire);
        if current == WATCHER_WANTED {
            let _ = watcher.compare_exchange(current, self.index, AcqRel, Relaxed);
        }
        if watcher.load(Acquire) != self.index {
            return false;
        }
        if self.shared.sleepers.asleep() < self.shared.seats().len() {
            return true;
        }
        watcher.store(NO_WATCHER, SeqCst);
        // Pairs with the fence in `push_next`: a slot that was filled by a
        // worker that still saw this watcher is seen here.
        fence(SeqCst);
        let stranded = self
            .others()
            .any(|seat| !seat.run_next.load(Relaxed).is_null());
        stranded
            && watcher
                .compare_exchange(NO_WATCHER, self.index, AcqRel, Relaxed)
                .is_ok()
    }

    fn others(&self) -> impl Iterator<Item = &Seat> {
        let seats = self.shared.seats().iter().enumerate();
        seats
            .filter(|&(index, _)| index != self.index)
            .map(|(_, seat)| &**seat)
    }

    /// What the watcher sees before it sleeps: per worker the slot and the
    /// number of resumes.
    fn slots_seen(&self) -> Option<Vec<(*mut Scheduled, u64)>> {
        if self.shared.watcher.load(Relaxed) != self.index {
            return None;
        }
        let seen = self.shared.seats().iter().map(|seat| {
            let slot = seat.run_next.load(Relaxed);
            (slot, seat.resumes.load(Relaxed))
        });
        Some(seen.collect())
    }

    /// Takes over slots whose worker has run one coroutine all the while.
    fn take_stranded(&self, before: &[(*mut Scheduled, u64)]) {
        for (index, seat) in self.shared.seats().iter().enumerate() {
            let (slot, resumes) = before[index];
            if index == self.index || slot.is_null() || seat.resumes.load(Relaxed) != resumes {
                continue;
            }
            // AcqRel: pairs with `push_next`. The content may have changed; any
            // coroutine in the slot is runnable and in no other queue.
            if let Some(stranded) = NonNull::new(seat.run_next.swap(ptr::null_mut(), AcqRel)) {
                self.requeue(stranded);
            }
        }
        if self.has_local_work() {
            // Busy from here on; another sleeper may be needed in its place.
            self.shared.watcher.store(NO_WATCHER, SeqCst);
        }
    }
}
