//! A worker without work: it looks at the other queues, then sleeps.
//!
//! The comments cite the steps of `README.md`.

use std::time::Instant;

use super::carrier::Lost;
use super::runnable::Runnable;
use super::shared::retry;
use super::takeover;
use super::worker::Worker;

impl Worker {
    /// Nothing to run here: look at the others' queues, then sleep. The wait
    /// also submits what the coroutines of this turn asked of the driver.
    pub(super) fn idle(&self) -> Result<(), Lost> {
        self.read_mail();
        self.fire_timers();
        if self.has_local_work() {
            // Else deadlines that pass while the worker runs keep it from ever
            // asking the driver.
            self.drive();
            return Ok(());
        }
        if let Some(runnable) = self.search() {
            self.found_work();
            self.run_one(runnable)?;
            self.drive();
            return Ok(());
        }
        self.arm_trim();
        let sleepers = &self.shared().sleepers;
        sleepers.announce(self.index());
        if self.shared().has_work_for(self.index()) {
            if !sleepers.retract(self.index()) {
                sleepers.search_on();
            }
            self.searching.set(true);
            return Ok(());
        }
        self.sleep();
        self.searching.set(sleepers.retract(self.index()));
        self.shared().monitor.attend();
        self.read_mail();
        self.fire_timers();
        self.share();
        Ok(())
    }

    /// Steps W1 and W2: what the other queues have.
    fn search(&self) -> Option<Runnable> {
        let sleepers = &self.shared().sleepers;
        if !self.searching.get() && !sleepers.start_searching(self.shared().seats().len()) {
            return None;
        }
        self.searching.set(true);
        let found = self.steal();
        if found.is_none() {
            self.searching.set(false);
            // The last searcher's second look is step S2.
            let _ = sleepers.stop_searching();
        }
        found
    }

    /// Step S3: until the next deadline.
    fn sleep(&self) {
        let next = self.seat().timers.lock().next_deadline();
        let mut left = next.map(|at| at.saturating_duration_since(Instant::now()));
        if self.has_left_behind() {
            left = Some(left.map_or(takeover::PAUSE, |left| left.min(takeover::PAUSE)));
        }
        let mut driver = self.driver();
        self.receptive(|| driver.wait(left, &mut |request| self.completed(request)));
        self.seat().note_in_flight(driver.in_flight());
    }

    /// Steps W2 and W3 of the sleep protocol, for a worker that has work.
    #[inline]
    pub(super) fn found_work(&self) {
        if self.searching.get() {
            self.searching.set(false);
            if self.shared().sleepers.stop_searching() {
                self.shared().wake_one();
            }
        }
    }

    fn steal(&self) -> Option<Runnable> {
        let seats = self.shared().seats();
        let first = self.next_random() as usize % seats.len();
        let stolen = (0..seats.len())
            .map(|offset| (first + offset) % seats.len())
            .filter(|&victim| victim != self.index())
            .find_map(|victim| retry(|| seats[victim].stealer.steal_batch_and_pop(&self.queue)));
        self.note_length();
        stolen.or_else(|| self.take_injected())
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
