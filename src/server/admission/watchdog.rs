//! The watchdog: answers what is overdue, and does what is left to do where nobody asks any more.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::state::{Call, State, Waiting};
use super::{Admission, Expire, Kind, Target};
use crate::common::contained::contained;
use crate::common::recent::{KEPT_UNUSED, sooner};
use crate::common::sync::{MutexGuard, thread};
use crate::target::Activity;

/// How often the watchdog checks whether the mount is still there while a call has not returned: it
/// alone can see that then, where the thread that would be told is the one that waits.
const PRESENCE: Duration = Duration::from_millis(200);

/// Threads that may wait in closing something at a time.
const SWEEPERS: usize = 4;

/// What the watchdog does beside calls.
pub(crate) trait Duties: Debug + Send + Sync {
    /// Closes what was kept for speed and has not been used for long. Returns how long it is until
    /// there is more to close; `None` where nothing is kept. May wait.
    fn sweep(&self) -> Option<Duration>;

    /// Whether anybody can still ask for anything.
    fn is_connected(&self) -> bool;

    /// Is called once, where nobody can ask any more and a call has not returned.
    fn end(&self);
}

/// An overdue call.
struct Overdue {
    number: u64,
    thread: Option<i32>,
    target: Option<Target>,
    kind: Kind,
    begun: Duration,
    next_check: Duration,
}

impl Admission {
    /// Answers calls that are overdue, starts workers for those that get no permit, and
    /// does its `duties`, until [`end`](Self::end). Sleeps while there is nothing to do.
    pub(crate) fn run_watchdog(self: &Arc<Self>, duties: &Arc<dyn Duties>) {
        *self.watchdog.lock() = Some(thread::current());
        let mut is_connected = true;
        loop {
            let until = {
                let mut state = self.state.lock();
                if state.ended {
                    return;
                }
                let until = self.next_check(&state, is_connected);
                state.asleep_until = Some(until.unwrap_or(Duration::MAX));
                until
            };
            self.clock.sleep_until(until);
            self.state.lock().asleep_until = None;
            self.check_deadlines();
            self.sweep_if_due(duties);
            if is_connected && self.has_slow_call() && !duties.is_connected() {
                is_connected = false;
                duties.end();
            }
        }
    }

    /// Lets [`run_watchdog`](Self::run_watchdog) return.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        self.work.notify_all();
        self.wake_watchdog(&mut state, Duration::ZERO);
    }

    /// Wakes the watchdog where it sleeps past the time that is due.
    pub(super) fn wake_watchdog(&self, state: &mut MutexGuard<'_, State>, due: Duration) {
        if state.asleep_until.is_some_and(|until| due < until) {
            state.asleep_until = None;
            if let Some(thread) = &*self.watchdog.lock() {
                thread.unpark();
            }
        }
    }

    /// Sees to it that what a call leaves open is closed in time.
    pub(super) fn schedule_sweep(&self, state: &mut MutexGuard<'_, State>) {
        if state.sweep_due.is_none() {
            let due = self.clock.now() + KEPT_UNUSED;
            state.sweep_due = Some(due);
            self.wake_watchdog(state, due);
        }
    }

    /// When to check again; `None` while there is nothing to check.
    fn next_check(&self, state: &State, is_connected: bool) -> Option<Duration> {
        let inside = state.inside.values();
        let waiting = state.waiting.iter().map(|waiting| &waiting.call);
        let expiry = inside
            .chain(waiting)
            .filter(|call| call.expire.is_some())
            .filter(|call| call.thread.is_some() || call.kind != Kind::Closing)
            .map(|call| call.deadline.next_check())
            .min();
        let handover = (state.idle_workers == 0 && state.can_use_worker(&self.limits))
            .then(|| state.waiting.iter().map(|of| of.call.begun).min())
            .flatten()
            .map(|begun| (begun + self.limits.handover).max(state.no_worker_until));
        let sweep = state.sweep_due.filter(|_| state.sweepers < SWEEPERS);
        let is_anybody_inside = is_connected && !state.inside.is_empty();
        let presence = is_anybody_inside.then(|| self.clock.now() + PRESENCE);
        sooner(sooner(expiry, handover), sooner(sweep, presence))
    }

    /// Whether a call takes so long that the mount may be gone.
    fn has_slow_call(&self) -> bool {
        let now = self.clock.now();
        let state = self.state.lock();
        let mut inside = state.inside.values();
        inside.any(|call| now >= call.begun + PRESENCE / 2)
    }

    /// Expires what is overdue, and starts a worker if one is wanted for those that wait.
    pub(crate) fn check_deadlines(self: &Arc<Self>) {
        let now = self.clock.now();
        let overdue = self.overdue(now);
        // What `/proc` says takes no lock of ours: it could wait for a target, too.
        let seen: Vec<(Overdue, Activity)> = overdue
            .into_iter()
            .map(|mut call| {
                let activity = call.thread.map(|thread| self.tasks.activity(thread));
                if let Some(target) = call.target.as_mut().filter(|of| of.instance.is_none()) {
                    target.instance = self.tasks.instance(target.pid);
                }
                (call, activity.unwrap_or_default())
            })
            .collect();
        let mut state = self.state.lock();
        let mut expired: Vec<Expire> = Vec::new();
        let mut given_up = Vec::new();
        for (call, activity) in seen {
            if let Some(expire) = self.expire(&mut state, &call, activity, now) {
                expired.push(expire);
                given_up.push(call);
            }
        }
        for Waiting { call, .. } in &mut state.waiting {
            if call.kind != Kind::Closing
                && now >= call.deadline.next_check()
                && call.deadline.is_missed_in_queue(now)
            {
                expired.extend(call.expire.take());
            }
        }
        let answered = state.drop_answered();
        state.backoffs.drop_old(now);
        let is_late = |call: &Call| now >= call.begun + self.limits.handover;
        let wants_worker = state.waiting.iter().any(|waiting| is_late(&waiting.call))
            && state.idle_workers == 0
            && state.wants_worker(now, &self.limits);
        state.workers += usize::from(wants_worker);
        // There can be room though nobody has returned: a user's calls past their deadline are not counted any more.
        if state.idle_workers > 0 && state.has_work(&self.limits) {
            self.work.notify_one();
        }
        drop(state);
        for call in given_up {
            if let (Some(thread), Some(Target { pid, .. })) = (call.thread, call.target) {
                let function = self.tasks.waits_in(thread);
                let (kind, age) = (call.kind, now.saturating_sub(call.begun));
                log::debug!("a call into process {pid} ({kind:?}) waits in {function} for {age:?}");
            }
        }
        for expire in expired {
            contained(expire);
        }
        drop(answered);
        if wants_worker {
            self.start_worker();
        }
    }

    /// Calls that somebody makes and that are overdue.
    fn overdue(&self, now: Duration) -> Vec<Overdue> {
        let state = self.state.lock();
        let inside = state.inside.iter();
        inside
            .filter(|(_, call)| call.expire.is_some() && now >= call.deadline.next_check())
            .map(|(number, call)| Overdue {
                number: *number,
                thread: call.thread,
                target: call.target,
                kind: call.kind,
                begun: call.begun,
                next_check: call.deadline.next_check(),
            })
            .collect()
    }

    /// Gives an overdue call more time where its thread gets on, and else what answers it.
    fn expire(
        &self,
        state: &mut State,
        overdue: &Overdue,
        activity: Activity,
        now: Duration,
    ) -> Option<Expire> {
        let call = state.inside.get_mut(&overdue.number)?;
        // It went on meanwhile.
        if call.deadline.next_check() != overdue.next_check {
            return None;
        }
        let Call {
            begun, deadline, ..
        } = call;
        if !deadline.is_missed(now, *begun, activity, &self.limits) {
            return None;
        }
        call.target = overdue.target;
        let (kind, reduced) = (call.kind, call.reduced);
        let expire = call.expire.take();
        if let (Some(target), Kind::Probe | Kind::Other | Kind::Ahead) = (overdue.target, kind) {
            state.backoffs.missed(target, reduced, now, &self.limits);
        }
        expire
    }

    fn sweep_if_due(self: &Arc<Self>, duties: &Arc<dyn Duties>) {
        let mut state = self.state.lock();
        let is_due = state.sweep_due.is_some_and(|due| self.clock.now() >= due);
        if !is_due || state.sweepers >= SWEEPERS {
            return;
        }
        state.sweep_due = None;
        state.sweepers += 1;
        drop(state);
        // Closing can wait for a file system, which the watchdog must not.
        let (admission, duties) = (Arc::clone(self), Arc::clone(duties));
        let sweep = Box::new(move || {
            let mut next = None;
            contained(|| next = duties.sweep());
            admission.swept(next);
        });
        if let Err(error) = self.tasks.start("sweep", sweep) {
            if let Some(left_out) = self.warnings.admit("sweep") {
                log::warn!("no thread to close what is not used: {error}{left_out}");
            }
            self.swept(Some(KEPT_UNUSED));
        }
    }

    fn swept(&self, next: Option<Duration>) {
        let mut state = self.state.lock();
        state.sweepers -= 1;
        let next = next.map(|left| self.clock.now() + left);
        if let Some(due) = sooner(state.sweep_due, next) {
            state.sweep_due = Some(due);
            self.wake_watchdog(&mut state, due);
        }
    }
}
