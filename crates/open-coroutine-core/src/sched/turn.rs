//! What a worker looks at between its coroutines: mail, deadlines, the driver.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::scheduled::Scheduled;
use super::seat::{Message, TimerEvent};
use super::suspend::IoWait;
use super::takeover;
use super::worker::Worker;
use crate::driver::Request;
use crate::timer::Timers;

impl Worker {
    /// Looks at everything that can make a coroutine runnable, without waiting.
    pub(super) fn drive(&self) {
        self.read_mail();
        self.fire_timers();
        let mut driver = self.driver();
        self.receptive(|| driver.poll(&mut |request| self.completed(request)));
        self.seat().note_in_flight(driver.in_flight());
        drop(driver);
        self.share();
    }

    /// After something was queued: if there is more than this worker can do
    /// next, another one may take it.
    pub(super) fn share(&self) {
        if !self.has_others() {
            return;
        }
        let shared = self.shared();
        let stealable = self.queue.len() + shared.ordered.len() + shared.computing.len();
        let has_next = || self.knows_next.get() || !self.seat().run_next.load(Relaxed).is_null();
        if stealable > 1 || (stealable == 1 && has_next()) {
            shared.wake_one();
        }
    }

    pub(super) fn read_mail(&self) {
        self.follow_signal_mask();
        if self.has_left_behind() {
            self.harvest();
        }
        for coroutine in self.seat().handled.take() {
            self.requeue(coroutine);
        }
        for message in self.seat().take_mail() {
            match message {
                Message::Ready(coroutine) => self.pin(coroutine),
                Message::Closed { fd, epoch } => self.close_notice(fd, epoch),
                Message::Submit(wait) => self.submit(wait),
                Message::Sleep(coroutine, deadline) => self.sleep_until(coroutine, deadline),
                Message::Cancel(task) => self.cancel(&task),
            }
        }
    }

    /// The deadline of `request` has come.
    ///
    /// # Safety
    ///
    /// It is pending, in this worker's driver or in one that was left behind.
    unsafe fn time_out(
        &self,
        request: NonNull<Request>,
        timers: &mut Timers<TimerEvent>,
        now: Instant,
    ) {
        let mut driver = self.driver();
        // SAFETY: the caller's promise.
        unsafe {
            if driver.has(request) {
                return driver.cancel(request, libc::ETIME);
            }
            // As soon as it has been moved here.
            let key = timers.insert(now + takeover::PAUSE, TimerEvent::Cancel(request));
            let wait = &*request.as_ref().owner.cast::<IoWait>();
            wait.timer.set(Some(key));
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
                        // SAFETY: suspended, and this worker alone has woken it.
                        unsafe { coroutine.as_ref() }.cancellation().end_wait();
                        woken.push(coroutine);
                    }
                }
                TimerEvent::Trim => must_trim = true,
                TimerEvent::Cancel(request) => {
                    // SAFETY: pending in this worker's driver, or in one that was
                    // left behind: its completion removes the timer.
                    unsafe { self.time_out(request, &mut timers, now) };
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
