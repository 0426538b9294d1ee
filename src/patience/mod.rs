//! Calls that may never come back: who may wait in a target's memory, and for how long.
//!
//! A page fault in a target can wait for a file server, a `userfaultfd`
//! handler, or for this very mount. Whoever serves a request that touches a
//! target takes a *seat* first. There is a seat less than there are serving
//! threads, so one thread is always left for everything else. A call that has
//! not returned in time is answered without it and left behind; it keeps its
//! seat until it does return.
//!
//! Requests that find no seat wait in a queue, which each caller that leaves
//! works off. Where nobody leaves, [`Patience::watch`] starts a thread for it.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::Clock;
use crate::contained::contained;
use crate::pid::ProcessId;

/// How much waiting is borne.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a request waits for its answer.
    pub patience: Duration,
    /// How long a request waits for a process that has not answered another one
    /// lately: the kernel asks again for each page of a request that failed.
    pub impatience: Duration,
    /// How long that is remembered of a process.
    pub memory: Duration,
    /// How long a request may take whose thread is at work: reading the `maps` of a process with
    /// very many mappings on a machine that is very busy.
    pub longest: Duration,
    /// How long a request waits for a seat before a thread is started for it.
    pub delay: Duration,
    /// Serving threads that may be in targets' memory at a time.
    pub seats: usize,
    /// Calls in one target's memory at a time.
    pub per_process: usize,
    /// Threads that may be started for requests without a seat.
    pub extra: usize,
}

impl Limits {
    /// Limits for a number of serving threads.
    pub fn for_threads(threads: usize) -> Self {
        let seats = threads.saturating_sub(1);
        Self {
            patience: Duration::from_secs(2),
            impatience: Duration::from_millis(50),
            memory: Duration::from_secs(10),
            longest: Duration::from_secs(60),
            // Without a seat nobody will leave one.
            delay: Duration::from_millis(if seats == 0 { 0 } else { 10 }),
            seats,
            per_process: seats.div_ceil(2).max(2),
            extra: 32,
        }
    }
}

/// Tells calls that wait from calls that are just long.
pub trait Threads: Debug + Send + Sync {
    /// The number of the calling thread.
    fn current(&self) -> i32;

    /// Whether a thread is running, or would be if it had a processor: then it does not wait for a target.
    fn is_running(&self, thread: i32) -> bool;
}

/// What is done when a call does not return in time.
type Expire = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce() + Send>;

struct Call {
    process: ProcessId,
    started: Duration,
    /// Who makes it; `None` while it waits in the queue.
    thread: Option<i32>,
    /// When to look whether it has returned.
    due: Duration,
    /// `None` once it has been answered in its stead.
    expire: Option<Expire>,
}

struct Waiting {
    call: Call,
    job: Job,
}

#[derive(Default)]
struct State {
    next: u64,
    inside: HashMap<u64, Call>,
    /// Serving threads among them.
    seated: usize,
    /// Threads started for the queue.
    extra: usize,
    waiting: VecDeque<Waiting>,
    /// Until when a process is known not to answer.
    slow: HashMap<ProcessId, Duration>,
    /// Whether the watcher sleeps until it is called.
    asleep: bool,
    ended: bool,
}

/// Where a caller may go on.
#[derive(Debug)]
pub enum Entry {
    /// Into the target's memory; [`Patience::leave`] must follow.
    Seated(Seat),
    /// Nowhere now: hand the work over to [`Patience::queue`].
    Full,
    /// Nowhere: the target does not answer those who are there already.
    Refused,
}

/// A right to be in a target's memory.
#[derive(Debug)]
#[must_use = "a seat is taken until it is left"]
pub struct Seat(u64);

/// Keeps count of who is in which target's memory.
pub struct Patience {
    clock: Arc<dyn Clock>,
    threads: Arc<dyn Threads>,
    limits: Limits,
    state: Mutex<State>,
    wake: Condvar,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Patience")
            .field("limits", &self.limits)
            .field("inside", &state.inside.len())
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Patience {
    /// Nobody is inside yet.
    pub fn new(clock: Arc<dyn Clock>, threads: Arc<dyn Threads>, limits: Limits) -> Self {
        Self {
            clock,
            threads,
            limits,
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        }
    }

    /// Asks for a seat in the memory of `process`. `expire` is called, once
    /// and by another thread, if it is not left in time.
    pub fn enter(&self, process: ProcessId, expire: impl FnOnce() + Send + 'static) -> Entry {
        let mut state = self.state.lock();
        match state.room(process, &self.limits) {
            Room::None => Entry::Refused,
            Room::Later => Entry::Full,
            Room::Now if state.seated >= self.limits.seats => Entry::Full,
            Room::Now => {
                state.seated += 1;
                let mut call = self.call(&mut state, process, expire);
                call.thread = Some(self.threads.current());
                let seat = state.seat(call);
                self.call_watcher(&mut state);
                Entry::Seated(seat)
            }
        }
    }

    /// Leaves a seat, and works off what waits for one.
    pub fn leave(&self, Seat(number): Seat) {
        let mut state = self.state.lock();
        state.inside.remove(&number);
        self.work_off(&mut state);
        state.seated -= 1;
    }

    /// Has `job` done once there is room in the memory of `process`. `expire`
    /// is called if that, or the job, takes too long; the job may still run then.
    pub fn queue(
        &self,
        process: ProcessId,
        expire: impl FnOnce() + Send + 'static,
        job: impl FnOnce() + Send + 'static,
    ) {
        let mut state = self.state.lock();
        let call = self.call(&mut state, process, expire);
        let job = Box::new(job);
        state.waiting.push_back(Waiting { call, job });
        self.call_watcher(&mut state);
    }

    /// Answers calls that take too long, and starts threads for those that
    /// find no seat, until [`end`](Self::end). Sleeps while nobody is inside.
    pub fn watch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while !state.ended {
            match self.next_look(&state) {
                None => {
                    state.asleep = true;
                    self.wake.wait(&mut state);
                    state.asleep = false;
                }
                Some(look) => {
                    let pause = look.saturating_sub(self.clock.now());
                    if !pause.is_zero() {
                        self.wake.wait_for(&mut state, pause);
                    }
                }
            }
            let wanted = self.look(&mut state);
            if wanted {
                state.extra += 1;
                MutexGuard::unlocked(&mut state, || self.start_extra());
            }
        }
    }

    /// Lets [`watch`](Self::watch) return.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.wake.notify_all();
    }

    /// Calls that were answered without and have not returned.
    pub fn stuck(&self) -> usize {
        self.state.lock().stuck(None)
    }

    fn call(
        &self,
        state: &mut State,
        process: ProcessId,
        expire: impl FnOnce() + Send + 'static,
    ) -> Call {
        let started = self.clock.now();
        let patience = match state.slow.get(&process) {
            Some(until) if started < *until => self.limits.impatience,
            Some(_) => {
                state.slow.remove(&process);
                self.limits.patience
            }
            None => self.limits.patience,
        };
        Call {
            process,
            started,
            thread: None,
            due: started + patience,
            expire: Some(Box::new(expire)),
        }
    }

    fn start_extra(self: &Arc<Self>) {
        let patience = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("extra".to_owned())
            .spawn(move || {
                let mut state = patience.state.lock();
                patience.work_off(&mut state);
                state.extra -= 1;
            });
        if let Err(error) = started {
            log::warn!("no thread for requests that wait: {error}");
            self.state.lock().extra -= 1;
        }
    }

    /// Does jobs that wait, as long as there is room for one.
    fn work_off(&self, state: &mut MutexGuard<'_, State>) {
        while let Some(Waiting { mut call, job }) = state.next_with_room(&self.limits) {
            call.thread = Some(self.threads.current());
            let seat = state.seat(call);
            MutexGuard::unlocked(state, job);
            state.inside.remove(&seat.0);
        }
    }

    /// Expires what is overdue; returns whether a thread is wanted for those that wait.
    fn look(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let now = self.clock.now();
        let mut overdue: Vec<Expire> = Vec::new();
        let mut slow = Vec::new();
        let late = |call: &&mut Call| call.expire.is_some() && now >= call.due;
        for call in state.all_calls().filter(late) {
            let is_at_work = call
                .thread
                .is_some_and(|thread| self.threads.is_running(thread));
            if is_at_work && now < call.started + self.limits.longest {
                call.due = now + self.limits.patience;
            } else {
                slow.push(call.process);
                overdue.extend(call.expire.take());
            }
        }
        state.slow.retain(|_, until| now < *until);
        state.slow.extend(
            slow.into_iter()
                .map(|process| (process, now + self.limits.memory)),
        );
        if !overdue.is_empty() {
            MutexGuard::unlocked(state, || {
                for expire in overdue {
                    contained(expire);
                }
            });
        }
        // Answered already: there is nothing left to do for them.
        state
            .waiting
            .retain(|waiting| waiting.call.expire.is_some());
        let late = state.waiting.iter().any(|waiting| {
            now >= waiting.call.started + self.limits.delay
                && state.inside_of(waiting.call.process) < self.limits.per_process
        });
        late && state.extra < self.limits.extra
    }

    /// When to look again; `None` while there is nobody to look for.
    fn next_look(&self, state: &State) -> Option<Duration> {
        let expiry = state
            .inside
            .values()
            .chain(state.waiting.iter().map(|waiting| &waiting.call))
            .filter(|call| call.expire.is_some())
            .map(|call| call.due)
            .min();
        let delay = state
            .waiting
            .iter()
            .filter(|waiting| state.inside_of(waiting.call.process) < self.limits.per_process)
            .map(|waiting| waiting.call.started + self.limits.delay)
            .min()
            .filter(|_| state.extra < self.limits.extra);
        match (expiry, delay) {
            (Some(expiry), Some(delay)) => Some(expiry.min(delay)),
            (expiry, delay) => expiry.or(delay),
        }
    }

    /// Wakes the watcher if it does not look by itself soon enough.
    fn call_watcher(&self, state: &mut MutexGuard<'_, State>) {
        if state.asleep || !state.waiting.is_empty() {
            state.asleep = false;
            self.wake.notify_all();
        }
    }
}

enum Room {
    Now,
    Later,
    None,
}

impl State {
    fn seat(&mut self, call: Call) -> Seat {
        let number = self.next;
        self.next += 1;
        self.inside.insert(number, call);
        Seat(number)
    }

    fn room(&self, process: ProcessId, limits: &Limits) -> Room {
        let inside = self.inside_of(process);
        if inside < limits.per_process {
            Room::Now
        } else if self.stuck(Some(process)) >= limits.per_process {
            Room::None
        } else {
            Room::Later
        }
    }

    fn inside_of(&self, process: ProcessId) -> usize {
        self.inside
            .values()
            .filter(|call| call.process == process)
            .count()
    }

    fn stuck(&self, process: Option<ProcessId>) -> usize {
        self.inside
            .values()
            .filter(|call| call.expire.is_none() && process.is_none_or(|of| call.process == of))
            .count()
    }

    fn next_with_room(&mut self, limits: &Limits) -> Option<Waiting> {
        let index = (0..self.waiting.len())
            .find(|index| self.inside_of(self.waiting[*index].call.process) < limits.per_process)?;
        self.waiting.remove(index)
    }

    fn all_calls(&mut self) -> impl Iterator<Item = &mut Call> {
        let waiting = self.waiting.iter_mut().map(|waiting| &mut waiting.call);
        self.inside.values_mut().chain(waiting)
    }
}

#[cfg(test)]
pub(crate) mod tests;
