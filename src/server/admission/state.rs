//! The calls there are.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::backoff::Backoffs;
use super::deadline::Deadline;
use super::{Expire, Kind, Limits, Permit, Target};

/// Work that is done under a permit; returns whether the process answered.
pub(super) type Job = Box<dyn FnOnce(&Permit) -> bool + Send>;

/// A call that can wait.
pub(super) struct Call {
    /// Whom it may wait for; `None` for a survey between two processes.
    pub(super) target: Option<Target>,
    /// The user who asks, where that is not the mounter.
    pub(super) user: Option<u32>,
    pub(super) kind: Kind,
    /// Whether its deadline was shortened by a backoff.
    pub(super) reduced: bool,
    /// When it was asked for.
    pub(super) begun: Duration,
    pub(super) deadline: Deadline,
    /// Who makes it; `None` while it waits in the queue.
    pub(super) thread: Option<i32>,
    /// Whether that is a serving thread, which holds a permit.
    pub(super) on_serving_thread: bool,
    /// `None` once it is past its deadline, and has been answered in its stead.
    pub(super) expire: Option<Expire>,
}

impl Call {
    fn is_of(&self, target: Target) -> bool {
        self.target.is_some_and(|own| own.is(target))
    }

    /// Whether this user asks, and is not the mounter.
    fn is_for(&self, user: u32) -> bool {
        self.user == Some(user)
    }

    /// Whether it is past its deadline and has not returned.
    pub(super) fn is_stuck(&self) -> bool {
        self.thread.is_some() && self.expire.is_none()
    }

    /// Whether it asks something of the process, and does not only close what was opened of it.
    fn asks(&self, target: Target) -> bool {
        self.kind != Kind::Closing && self.is_of(target)
    }

    /// Whether it takes a place that another one could have.
    fn takes_place(&self) -> bool {
        !matches!(self.kind, Kind::Closing | Kind::Ahead)
    }
}

/// A call that waits for room.
pub(super) struct Waiting {
    pub(super) call: Call,
    pub(super) job: Job,
    pub(super) bytes: usize,
}

/// Capacity for one more call in a process.
#[derive(Debug)]
pub(super) enum Capacity {
    Now,
    Later,
    None,
}

#[derive(Default)]
pub(super) struct State {
    next: u64,
    /// Calls that a thread makes, by the numbers of their permits.
    pub(super) inside: HashMap<u64, Call>,
    /// Serving threads among those inside, and those that work the queue off.
    pub(super) serving: usize,
    /// Workers there are, and how many of them have nothing to do.
    pub(super) workers: usize,
    pub(super) idle_workers: usize,
    /// Until when none is started, since the system had no thread left.
    pub(super) no_worker_until: Duration,
    /// Calls in the queue, the oldest first: no thread makes one of them.
    pub(super) waiting: VecDeque<Waiting>,
    /// The bytes of all that wait.
    pub(super) queued_bytes: usize,
    pub(super) backoffs: Backoffs,
    /// Until when the watchdog sleeps; `None` while it is at work.
    pub(super) asleep_until: Option<Duration>,
    /// When to close what has not been used for long; `None` where nothing is kept.
    pub(super) sweep_due: Option<Duration>,
    /// Threads that close what has not been used.
    pub(super) sweepers: usize,
    pub(super) ended: bool,
}

impl State {
    pub(super) fn admit(&mut self, call: Call) -> Permit {
        let number = self.next;
        self.next += 1;
        self.inside.insert(number, call);
        Permit(number)
    }

    /// Counts a call out that has returned, and notes what that says of its process.
    pub(super) fn returned(
        &mut self,
        Permit(number): Permit,
        answered: bool,
        now: Duration,
        limits: &Limits,
    ) {
        let Some(call) = self.inside.remove(&number) else {
            return;
        };
        let (Some(target), Kind::Probe | Kind::Ahead) = (call.target, call.kind) else {
            return;
        };
        match (call.expire, answered) {
            (Some(_), true) => self.backoffs.answered(target, limits),
            (None, true) => self.backoffs.answered_late(target),
            // By somebody whom it waits for: a mount that shows another one's memory.
            (Some(_), false) => self.backoffs.missed(target, call.reduced, now, limits),
            (None, false) => (),
        }
    }

    pub(super) fn capacity(&self, target: Target, limits: &Limits) -> Capacity {
        let stuck = self.stuck(|call| call.asks(target));
        if stuck > 0 && stuck >= limits.stuck_per_process(self.stuck(|_| true)) {
            return Capacity::None;
        }
        let stuck = target.user.map_or(0, |user| {
            self.stuck(|call| call.kind != Kind::Closing && call.is_for(user))
        });
        if stuck > 0 && stuck >= limits.stuck_per_user {
            Capacity::None
        } else if self.has_room_in(target, limits) {
            Capacity::Now
        } else {
            Capacity::Later
        }
    }

    /// Whether neither the process nor the user who asks has as many calls as they may.
    fn has_room_in(&self, target: Target, limits: &Limits) -> bool {
        self.inside_of(target) < limits.per_process && self.has_room_for(target.user, limits)
    }

    /// Whether a user has fewer calls than they may.
    pub(super) fn has_room_for(&self, user: Option<u32>, limits: &Limits) -> bool {
        let of_user = |user| {
            let calls = self.inside.values();
            let asking = calls.filter(|call| call.takes_place() && !call.is_stuck());
            asking.filter(|call| call.is_for(user)).count()
        };
        user.is_none_or(|user| of_user(user) < limits.per_user)
    }

    fn inside_of(&self, target: Target) -> usize {
        let calls = self.inside.values();
        let asking = calls.filter(|call| call.asks(target));
        asking
            .filter(|call| call.takes_place() || call.is_stuck())
            .count()
    }

    /// Whether a process is known not to answer, or may be.
    pub(super) fn is_doubtful(&self, target: Target) -> bool {
        self.backoffs.knows(target) || self.stuck(|call| call.asks(target)) > 0
    }

    /// Whether something of this process is being closed: one thread at a time does that.
    pub(super) fn is_closing(&self, target: Target) -> bool {
        let mut calls = self.inside.values();
        calls.any(|call| call.kind == Kind::Closing && call.is_of(target))
    }

    pub(super) fn stuck(&self, which: impl Fn(&Call) -> bool) -> usize {
        let calls = self.inside.values();
        calls.filter(|call| call.is_stuck() && which(call)).count()
    }

    /// Whether every serving thread that has a permit is stuck: none will work the queue off.
    pub(super) fn nobody_returns(&self) -> bool {
        self.serving <= self.stuck(|call| call.on_serving_thread)
    }

    /// Whether the queue takes a job of so many bytes.
    pub(super) fn has_place(&self, target: Target, bytes: usize, limits: &Limits) -> bool {
        self.has_share(|call| call.is_of(target), bytes, limits)
            && self.has_place_for(target.user, bytes, limits)
    }

    /// Whether the queue takes a job of so many bytes from a user.
    pub(super) fn has_place_for(&self, user: Option<u32>, bytes: usize, limits: &Limits) -> bool {
        user.is_none_or(|user| self.has_share(|call| call.is_for(user), bytes, limits))
            && self.waiting.len() < limits.queued
            && self.queued_bytes + bytes <= limits.queued_bytes
    }

    /// Whether one more job of so many bytes leaves half of the queue to others.
    fn has_share(&self, is_own: impl Fn(&Call) -> bool, bytes: usize, limits: &Limits) -> bool {
        let own = self.waiting.iter().filter(|waiting| is_own(&waiting.call));
        let (number, held) = own.fold((0, 0), |(number, held), waiting| {
            (number + 1, held + waiting.bytes)
        });
        number < limits.queued / 2 && held + bytes <= limits.queued_bytes / 2
    }

    fn has_room(&self, call: &Call, limits: &Limits) -> bool {
        match (call.target, call.kind) {
            (None, _) => self.has_room_for(call.user, limits),
            (Some(target), Kind::Closing) => !self.is_closing(target),
            (Some(target), _) => self.has_room_in(target, limits),
        }
    }

    /// Whether a job waits that could be done now.
    pub(super) fn has_work(&self, limits: &Limits) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|waiting| self.has_room(&waiting.call, limits))
    }

    /// Whether another worker would find work.
    pub(super) fn can_use_worker(&self, limits: &Limits) -> bool {
        self.workers < limits.workers && self.has_work(limits)
    }

    /// Whether another worker is to be started `now`.
    pub(super) fn wants_worker(&self, now: Duration, limits: &Limits) -> bool {
        now >= self.no_worker_until && self.can_use_worker(limits)
    }

    pub(super) fn next_with_room(&mut self, limits: &Limits) -> Option<Waiting> {
        let index = (0..self.waiting.len())
            .find(|index| self.has_room(&self.waiting[*index].call, limits))?;
        let waiting = self.waiting.remove(index)?;
        self.queued_bytes -= waiting.bytes;
        self.check();
        Some(waiting)
    }

    /// Drops jobs that have been answered already: there is nothing left to do for them.
    pub(super) fn drop_answered(&mut self) -> Vec<Waiting> {
        let (kept, answered) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.call.expire.is_some());
        self.waiting = kept;
        let answered: Vec<Waiting> = Vec::from(answered);
        self.queued_bytes -= answered.iter().map(|waiting| waiting.bytes).sum::<usize>();
        self.check();
        answered
    }

    /// Whether nobody holds a permit, works or waits.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn is_idle(&self) -> bool {
        let threads = self.serving + self.workers + self.sweepers;
        threads == 0 && self.inside.is_empty() && self.waiting.is_empty() && self.queued_bytes == 0
    }

    /// Whether all is counted; debug builds check it.
    fn check(&self) {
        let mut waiting = self.waiting.iter();
        debug_assert!(
            waiting.all(|waiting| waiting.call.thread.is_none()),
            "nobody makes a call that waits"
        );
        debug_assert_eq!(
            self.queued_bytes,
            self.waiting
                .iter()
                .map(|waiting| waiting.bytes)
                .sum::<usize>(),
            "the bytes of all that wait"
        );
        debug_assert!(self.idle_workers <= self.workers, "workers all");
    }
}
