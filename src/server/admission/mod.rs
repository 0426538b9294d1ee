//! Admission control: who may make calls that can wait for a target, how many of them, and for how long.
//!
//! A call into a target can wait for whatever the target waits for: a file server, a `userfaultfd`
//! handler, a lock that an exec holds, or this very mount. Whoever serves a request that may do
//! so takes a *permit* first. There is one permit less than there are serving threads, so one thread is
//! always left for everything else. A call that has not returned by its deadline is answered by the
//! *watchdog* and goes on without a deadline; it keeps its permit until it does return. While a process does not
//! answer, further requests to it get a shorter deadline (*backoff*), and none once too many wait in it.
//!
//! Requests that get no permit wait in a bounded queue. Each call that returns works it off, and so do
//! *workers*: threads that are started, up to a limit, where nobody returns.
//!
//! A listing visits every process, and must not wait for any of them: it is a *survey*, one call
//! that says which process it visits. Where that stalls it is taken over by another thread, which
//! passes over that process ([`Survey`]).

mod backoff;
mod deadline;
mod live_tasks;
#[cfg(all(test, shuttle))]
pub(crate) mod models;
mod state;
mod survey;
mod watchdog;

use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::common::clock::Clock;
use crate::common::log_limit::LogLimit;
use crate::common::other_work;
use crate::common::sync::thread::Thread;
use crate::common::sync::{Condvar, Mutex, MutexGuard};
use crate::target::{Activity, ProcessId};

pub(crate) use live_tasks::LiveTasks;
pub(crate) use survey::Survey;
pub(crate) use watchdog::Duties;

use deadline::Deadline;
use state::{Call, Capacity, Job, State, Waiting};

/// How long no thread is started after the system had none left.
const RETRY: Duration = Duration::from_secs(1);

/// What is admitted, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a request waits for its answer.
    pub deadline: Duration,
    /// How long a request waits for a process that has not answered another one
    /// lately: the kernel asks again for each page of a request that failed.
    pub reduced: Duration,
    /// How long a process that did not answer is given less time.
    pub backoff: Duration,
    /// How long a request may take whose thread is running: reading the `maps` of a process with
    /// very many mappings on a machine that is very busy.
    pub longest: Duration,
    /// How long a request may take whose thread waits, and runs now and then.
    pub longest_waiting: Duration,
    /// How long a survey may wait for one process.
    pub stall: Duration,
    /// How long a survey visits processes at all; those that are left then are passed over.
    pub survey: Duration,
    /// How long a request waits for a permit before a worker is started for it.
    pub handover: Duration,
    /// How long a worker without work waits for some.
    pub linger: Duration,
    /// Serving threads that may be in calls that can wait.
    pub permits: usize,
    /// Calls in one process at a time.
    pub per_process: usize,
    /// Calls of one user, other than the mounter, at a time, beside those past their deadline.
    pub per_user: usize,
    /// Calls of one such user that may wait past their deadline.
    pub stuck_per_user: usize,
    /// Workers.
    pub workers: usize,
    /// Requests in the queue; half of them may be of one process, or of one user.
    pub queued: usize,
    /// Bytes that the queue holds for them; half of them may be of one process, or of one user.
    pub queued_bytes: usize,
}

impl Limits {
    /// Limits for a number of serving threads.
    pub(crate) fn for_threads(threads: usize) -> Self {
        let permits = threads.saturating_sub(1);
        let workers = 64;
        Self {
            deadline: Duration::from_secs(2),
            reduced: Duration::from_millis(50),
            backoff: Duration::from_secs(10),
            longest: Duration::from_secs(60),
            longest_waiting: Duration::from_secs(10),
            stall: Duration::from_millis(100),
            survey: Duration::from_millis(1500),
            handover: Duration::from_millis(10),
            linger: Duration::from_secs(1),
            permits,
            per_process: permits.div_ceil(2).max(2),
            per_user: permits.div_ceil(2).max(2),
            stuck_per_user: (permits + workers) / 4,
            workers,
            queued: 2048,
            queued_bytes: 32 << 20,
        }
    }

    /// Calls of one process that may wait past their deadline: fewer where many processes do not answer.
    fn stuck_per_process(&self, stuck: usize) -> usize {
        if stuck < self.permits + self.workers / 4 {
            self.per_process
        } else {
            1
        }
    }
}

/// Threads of this program, and processes as far as they tell one from the next of the same number.
pub(crate) trait Tasks: Debug + Send + Sync {
    /// The number of the calling thread.
    fn current(&self) -> i32;

    /// What a thread of this program does.
    fn activity(&self, thread: i32) -> Activity;

    /// The function of the kernel that a thread of this program waits in, for the log.
    fn waits_in(&self, thread: i32) -> String;

    /// What tells the process that has this number now from others that had it, if there is one. Waits
    /// for nobody.
    fn instance(&self, process: ProcessId) -> Option<u64>;

    /// Starts a thread of this name.
    ///
    /// # Errors
    /// Where the system has none left.
    fn start(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// The process that a call may wait for, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its number.
    pub pid: ProcessId,
    /// What tells it from others of its number ([`Tasks::instance`]); `None` where nobody has asked:
    /// that costs a few system calls, and is seldom needed.
    pub instance: Option<u64>,
    /// The user who asks, where that is not the mounter: what one of them has wait takes no place from the others.
    pub user: Option<u32>,
}

impl Target {
    /// Whatever process has this number.
    pub(crate) fn numbered(pid: ProcessId) -> Self {
        Self {
            pid,
            instance: None,
            user: None,
        }
    }

    /// Whether both can be the same process.
    fn is(self, other: Self) -> bool {
        let instances = self.instance.zip(other.instance);
        self.pid == other.pid && instances.is_none_or(|(one, other)| one == other)
    }
}

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call that asks for what the process itself holds: that it returns shows that the process answers.
    Probe,
    /// Any other request.
    Other,
    /// A probe that nobody has asked for yet: it takes no place from requests.
    Ahead,
    /// A call that closes what was opened of a process. Nobody waits for it, so it has the time it takes.
    Closing,
    Survey,
}

/// What is done when a call does not return in time.
type Expire = Box<dyn FnOnce() + Send>;

/// Whether a call may be made.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// Now; [`Admission::leave`] must follow.
    Now(Permit),
    /// Not now: hand the work over to [`Admission::queue`].
    Later,
    /// Not at all: the process does not answer those that wait for it already.
    Refused,
}

/// The right to make a call that can wait.
#[derive(Debug)]
#[must_use = "a permit is taken until it is given back"]
pub(crate) struct Permit(u64);

/// Keeps count of the calls that can wait.
pub(crate) struct Admission {
    clock: Arc<dyn Clock>,
    tasks: Arc<dyn Tasks>,
    limits: Limits,
    /// Guards which calls there are. It is given back while a job or an `expire` runs, while a thread is started, and
    /// while `/proc` is read: each can wait. Inside it only `watchdog` is locked.
    state: Mutex<State>,
    /// Wakes workers that linger.
    work: Condvar,
    /// The thread to wake when a deadline comes up that is earlier than the one it sleeps for. The lock is taken
    /// inside that of `state`, and nothing inside it.
    watchdog: Mutex<Option<Thread>>,
    warnings: LogLimit<&'static str>,
}

impl Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Admission")
            .field("limits", &self.limits)
            .field("inside", &state.inside.len())
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// Nobody is admitted yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, tasks: Arc<dyn Tasks>, limits: Limits) -> Self {
        let warnings = LogLimit::new(Arc::clone(&clock));
        Self {
            clock,
            tasks,
            limits,
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            watchdog: Mutex::new(None),
            warnings,
        }
    }

    /// Asks for a permit for a call that may wait for `target`. `expire` is called, once and by
    /// another thread, if it is not given back in time.
    pub(crate) fn enter(
        &self,
        target: Target,
        kind: Kind,
        expire: impl FnOnce() + Send + 'static,
    ) -> Admitted {
        let (mut state, target, room) = self.capacity(target);
        match room {
            Capacity::None => Admitted::Refused,
            Capacity::Later => Admitted::Later,
            Capacity::Now if state.serving >= self.limits.permits => Admitted::Later,
            Capacity::Now => {
                state.serving += 1;
                let mut call = self.call(&state, target, kind, Some(Box::new(expire)));
                call.on_serving_thread = true;
                Admitted::Now(self.admit(&mut state, call))
            }
        }
    }

    /// Asks for a permit for a call that nobody waits for yet, by a thread that serves no requests; `None` where the process
    /// is known not to answer. [`leave_ahead`](Self::leave_ahead) must follow. `expire` is called as by
    /// [`enter`](Self::enter).
    pub(crate) fn enter_ahead(
        &self,
        target: Target,
        expire: impl FnOnce() + Send + 'static,
    ) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.is_doubtful(target) {
            return None;
        }
        let call = self.call(&state, target, Kind::Ahead, Some(Box::new(expire)));
        Some(self.admit(&mut state, call))
    }

    /// Gives such a permit back. `answered` is as for [`leave`](Self::leave).
    pub(crate) fn leave_ahead(&self, permit: Permit, answered: bool) {
        let mut state = self.state.lock();
        state.returned(permit, answered, self.clock.now(), &self.limits);
    }

    /// Gives a permit back, and works off what waits for one. `answered` says whether the process did:
    /// an error that says that something does not answer is none.
    pub(crate) fn leave(&self, permit: Permit, answered: bool) {
        let mut state = self.state.lock();
        state.returned(permit, answered, self.clock.now(), &self.limits);
        self.run_queued(&mut state);
        state.serving -= 1;
        self.schedule_sweep(&mut state);
    }

    /// Has `job` done once there is room for another call in the process. `expire` is called if
    /// that, or the job, takes too long; the job may still run then. It is called at once where
    /// the queue has no place for a job that holds so many `bytes`. The job returns whether the process
    /// answered, as for [`leave`](Self::leave).
    pub(crate) fn queue(
        self: &Arc<Self>,
        target: Target,
        kind: Kind,
        bytes: usize,
        expire: impl FnOnce() + Send + 'static,
        job: impl FnOnce() -> bool + Send + 'static,
    ) {
        let (mut state, target, _) = self.capacity(target);
        if !state.has_place(target, bytes, &self.limits) {
            drop(state);
            return expire();
        }
        let call = self.call(&state, target, kind, Some(Box::new(expire)));
        self.enqueue(&mut state, call, bytes, Box::new(|_: &Permit| job()));
    }

    /// Closes something that was opened of a process, here, or on another thread where a file of that
    /// process is being closed already, or where no thread may wait. One thread at a time closes files
    /// of one process; what waits for it is bounded by who has opened it.
    pub(crate) fn close(self: &Arc<Self>, target: Target, job: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        let mut call = self.call(&state, target, Kind::Closing, Some(Box::new(|| ())));
        // It is past its deadline for the watchdog alone, which counts it as stuck from then on.
        if state.serving >= self.limits.permits || state.is_closing(target) {
            let job = |_: &Permit| {
                job();
                true
            };
            return self.enqueue(&mut state, call, 0, Box::new(job));
        }
        state.serving += 1;
        call.on_serving_thread = true;
        let permit = self.admit(&mut state, call);
        drop(state);
        job();
        self.leave(permit, true);
    }

    /// Calls past their deadline that have not returned.
    #[cfg(test)]
    pub(crate) fn stuck(&self) -> usize {
        self.state.lock().stuck(|_| true)
    }

    /// Whether nobody holds a permit, works or waits.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// The room there is for one more call in `target`. Where others take some of it, it is
    /// made sure, without the lock, that they wait for the same process.
    fn capacity(&self, mut target: Target) -> (MutexGuard<'_, State>, Target, Capacity) {
        loop {
            let state = self.state.lock();
            let room = state.capacity(target, &self.limits);
            let is_plain = matches!(room, Capacity::Now) && !state.backoffs.knows(target);
            if is_plain || target.instance.is_some() {
                return (state, target, room);
            }
            drop(state);
            // A process that is not there has nothing in common with any other.
            let instance = self.tasks.instance(target.pid).unwrap_or(u64::MAX);
            target.instance = Some(instance);
        }
    }

    fn call(&self, state: &State, target: Target, kind: Kind, expire: Option<Expire>) -> Call {
        let now = self.clock.now();
        let allowed = state.backoffs.deadline(target, now, &self.limits);
        Call {
            user: target.user,
            target: Some(target),
            kind,
            reduced: allowed < self.limits.deadline,
            begun: now,
            deadline: Deadline::new(now, allowed),
            thread: None,
            on_serving_thread: false,
            expire,
        }
    }

    /// Counts a call in that this thread is about to make.
    fn admit(&self, state: &mut MutexGuard<'_, State>, mut call: Call) -> Permit {
        call.thread = Some(self.tasks.current());
        if call.kind == Kind::Survey {
            call.deadline = Deadline::new(self.clock.now(), self.limits.stall);
        }
        let due = call.deadline.next_check();
        let permit = state.admit(call);
        self.wake_watchdog(state, due);
        self.schedule_sweep(state);
        permit
    }

    fn enqueue(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        call: Call,
        bytes: usize,
        job: Job,
    ) {
        let due = call
            .deadline
            .next_check()
            .min(call.begun + self.limits.handover);
        state.queued_bytes += bytes;
        state.waiting.push_back(Waiting { call, job, bytes });
        if state.idle_workers > 0 {
            self.work.notify_one();
        } else if state.nobody_returns() && state.wants_worker(self.clock.now(), &self.limits) {
            state.workers += 1;
            MutexGuard::unlocked(state, || self.start_worker());
        }
        self.wake_watchdog(state, due);
        self.schedule_sweep(state);
    }

    /// Starts a thread that is none of the serving threads or workers, and takes as long as it takes.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(super) fn start(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.tasks.start(name, work)
    }

    fn start_worker(self: &Arc<Self>) {
        let admission = Arc::clone(self);
        let work = Box::new(move || admission.run_worker());
        let Err(error) = self.tasks.start("worker", work) else {
            return;
        };
        if let Some(left_out) = self.warnings.admit("worker") {
            log::warn!("no thread for requests that wait: {error}{left_out}");
        }
        let mut state = self.state.lock();
        state.workers -= 1;
        state.no_worker_until = self.clock.now() + RETRY;
    }

    /// Does what a worker does, until it has lingered without work or the file system ends.
    fn run_worker(&self) {
        let mut state = self.state.lock();
        loop {
            self.run_queued(&mut state);
            // The end wakes those that linger: not one that was at work.
            if state.ended {
                break;
            }
            state.idle_workers += 1;
            let timed_out = self
                .work
                .wait_for(&mut state, self.limits.linger)
                .timed_out();
            state.idle_workers -= 1;
            if (timed_out && !state.has_work(&self.limits)) || state.ended {
                break;
            }
        }
        state.workers -= 1;
    }

    /// Does jobs that wait, as long as there is room for one.
    fn run_queued(&self, state: &mut MutexGuard<'_, State>) {
        while let Some(Waiting { call, job, .. }) = state.next_with_room(&self.limits) {
            let permit = self.admit(state, call);
            let answered = MutexGuard::unlocked(state, || {
                other_work::begins();
                job(&permit)
            });
            state.returned(permit, answered, self.clock.now(), &self.limits);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
