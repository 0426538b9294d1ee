//! Admission control on a clock that stands still.

mod watchdog;

use super::*;
use crate::common::clock::ManualClock;
use crate::common::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::common::sync::thread::{self, JoinHandle};
use crate::target::visit::{Visit, Visits};

/// Tasks of which the first is running as long as it is told so, and processes whose numbers can all
/// be given to others.
#[derive(Debug, Default)]
pub(crate) struct FakeTasks {
    running: AtomicBool,
    renewed: AtomicUsize,
    /// Whether the system has no thread left.
    exhausted: AtomicBool,
    started: AtomicUsize,
}

impl Tasks for FakeTasks {
    fn current(&self) -> i32 {
        1
    }

    fn activity(&self, _thread: i32) -> Activity {
        Activity {
            is_running: self.running.load(Ordering::SeqCst),
            scheduled: 0,
        }
    }

    fn waits_in(&self, _thread: i32) -> String {
        "a test".to_owned()
    }

    fn instance(&self, _process: ProcessId) -> Option<u64> {
        Some(self.renewed.load(Ordering::SeqCst) as u64)
    }

    fn start(&self, _name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.started.fetch_add(1, Ordering::SeqCst);
        if self.exhausted.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        thread::Builder::new().spawn(work).map(drop)
    }
}

/// Duties that count how often they are done.
#[derive(Debug, Default)]
struct FakeDuties {
    sweeps: AtomicUsize,
    gone: AtomicBool,
    ends: AtomicUsize,
}

impl Duties for FakeDuties {
    fn sweep(&self) -> Option<Duration> {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        None
    }

    fn is_connected(&self) -> bool {
        !self.gone.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.ends.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    tasks: Arc<FakeTasks>,
    clock: Arc<ManualClock>,
    admission: Arc<Admission>,
    expired: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

fn pid(number: u32) -> ProcessId {
    ProcessId::new(number).unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Bench {
    fn new(permits: usize, per_process: usize) -> Self {
        let limits = Limits {
            permits,
            per_process,
            workers: 0,
            ..Limits::for_threads(8)
        };
        Self::with(limits)
    }

    fn with(limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::new());
        let tasks = Arc::new(FakeTasks::default());
        let admission = Admission::new(Arc::clone(&clock) as _, Arc::clone(&tasks) as _, limits);
        Self {
            admission: Arc::new(admission),
            tasks,
            clock,
            expired: Arc::default(),
            done: Arc::default(),
        }
    }

    fn counter(&self) -> impl FnOnce() + Send + use<> {
        let expired = Arc::clone(&self.expired);
        move || {
            expired.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn enter(&self, number: u32) -> Admitted {
        let target = Target::numbered(pid(number));
        self.admission.enter(target, Kind::Probe, self.counter())
    }

    #[track_caller]
    fn permit(&self, number: u32) -> Permit {
        match self.enter(number) {
            Admitted::Now(permit) => permit,
            other => panic!("no permit: {other:?}"),
        }
    }

    fn queue(&self, number: u32, bytes: usize) {
        let done = Arc::clone(&self.done);
        let target = Target::numbered(pid(number));
        let job = move || {
            done.fetch_add(1, Ordering::SeqCst);
            true
        };
        self.admission
            .queue(target, Kind::Probe, bytes, self.counter(), job);
    }

    /// A call that is not answered within its deadline, and goes on to wait.
    #[track_caller]
    fn stuck(&self, number: u32) -> Permit {
        let permit = self.permit(number);
        self.pass(2000);
        permit
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.expired.load(Ordering::SeqCst),
            self.done.load(Ordering::SeqCst),
        )
    }

    fn advance(&self, by: u64) {
        self.clock.advance(millis(by));
    }

    /// Lets time pass under the eyes of the watchdog.
    fn pass(&self, by: u64) {
        for _ in 0..by {
            self.advance(1);
            self.admission.check_deadlines();
        }
    }

    fn waiting(&self) -> usize {
        self.admission.state.lock().waiting.len()
    }

    /// How long a call would be given now.
    fn deadline(&self, number: u32) -> Duration {
        let permit = self.permit(number);
        let state = self.admission.state.lock();
        let call = &state.inside[&permit.0];
        let deadline = call.deadline.due - call.begun;
        drop(state);
        // Neither a success nor a failure of the process's.
        self.admission.state.lock().inside.remove(&permit.0);
        self.admission.state.lock().serving -= 1;
        deadline
    }

    /// The watchdog, on a thread of its own.
    fn watch(&self) -> Watch {
        let (admission, duties) = (Arc::clone(&self.admission), Arc::new(FakeDuties::default()));
        let seen: Arc<dyn Duties> = Arc::clone(&duties) as _;
        let of_thread = Arc::clone(&admission);
        let thread = thread::spawn(move || of_thread.run_watchdog(&seen));
        Watch {
            admission,
            duties,
            thread: Some(thread),
        }
    }
}

/// A running watchdog.
struct Watch {
    admission: Arc<Admission>,
    duties: Arc<FakeDuties>,
    thread: Option<JoinHandle<()>>,
}

/// Waits until something is so, which another thread is to bring about, however long that has no processor: where it
/// never is so, the test that does not end is named.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_micros(500));
    }
}

impl Watch {
    /// Waits until the watchdog sleeps until then.
    fn sleeps_until(&self, time: Duration) {
        until(|| self.admission.state.lock().asleep_until == Some(time));
        // The state says so a moment before the thread does it; where it is woken in between it does not sleep.
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.admission.end();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

/// SEMANTICS: no answer within 2 s is ETIMEDOUT.
#[test]
fn a_call_that_does_not_return_is_answered_without_it() {
    let bench = Bench::new(4, 2);
    let permit = bench.permit(7);
    bench.pass(1999);
    assert_eq!(bench.counts(), (0, 0));
    bench.pass(1);
    bench.admission.check_deadlines();
    assert_eq!(bench.counts(), (1, 0), "once");
    assert_eq!(bench.admission.stuck(), 1);
    bench.admission.leave(permit, true);
    assert_eq!(bench.admission.stuck(), 0);
}

#[test]
fn a_call_whose_thread_is_running_gets_more_time_but_not_for_ever() {
    let bench = Bench::new(4, 2);
    let _permit = bench.permit(7);
    bench.tasks.running.store(true, Ordering::SeqCst);
    for _ in 0..29 {
        bench.pass(2000);
    }
    assert_eq!(bench.counts(), (0, 0));
    bench.pass(2000);
    assert_eq!(bench.counts(), (1, 0));
}

#[test]
fn a_process_that_did_not_answer_is_given_less_time_for_a_while() {
    let bench = Bench::new(8, 4);
    let _stuck = bench.stuck(7);
    assert_eq!(bench.deadline(7), millis(50));
    assert_eq!(bench.deadline(8), millis(2000), "another process");
    // A request that waits for less does not prolong that.
    bench.advance(5000);
    let _again = bench.permit(7);
    bench.pass(50);
    assert_eq!(bench.counts(), (2, 0));
    bench.advance(4949);
    assert_eq!(bench.deadline(7), millis(50));
    bench.advance(1);
    assert_eq!(bench.deadline(7), millis(2000));
}

#[test]
fn answers_give_a_process_its_time_back() {
    let bench = Bench::new(8, 4);
    let _stuck = bench.stuck(7);
    for expected in [50, 100, 200, 400, 800, 1600, 2000] {
        assert_eq!(bench.deadline(7), millis(expected));
        bench.admission.leave(bench.permit(7), true);
    }
    bench.admission.leave(bench.permit(9), false);
    assert_eq!(bench.deadline(9), millis(50), "an answer that is none");
    bench.admission.leave(bench.permit(9), false);
    assert_eq!(bench.deadline(9), millis(50));
    let other = bench.stuck(8);
    bench.admission.leave(other, false);
    assert_eq!(bench.deadline(8), millis(50));
    let other = bench.permit(8);
    bench.pass(50);
    bench.admission.leave(other, true);
    assert_eq!(bench.deadline(8), millis(2000), "it does answer");
}

/// It goes by the process, not by its number.
#[test]
fn another_process_of_the_same_number_is_not_given_less() {
    let bench = Bench::new(8, 2);
    let stuck = [bench.permit(7), bench.permit(7)];
    bench.pass(2000);
    assert!(matches!(bench.enter(7), Admitted::Refused));
    bench.tasks.renewed.store(1, Ordering::SeqCst);
    assert_eq!(bench.deadline(7), millis(2000));
    let known = |instance| Target {
        instance: Some(instance),
        ..Target::numbered(pid(7))
    };
    let admitted = |instance| {
        let target = known(instance);
        bench.admission.enter(target, Kind::Probe, || ())
    };
    assert!(matches!(admitted(0), Admitted::Refused));
    assert!(matches!(admitted(1), Admitted::Now(_)));
    for permit in stuck {
        bench.admission.leave(permit, true);
    }
}

#[test]
fn a_call_that_returns_in_time_is_not_answered_for() {
    let bench = Bench::new(4, 2);
    bench.admission.leave(bench.permit(7), true);
    bench.pass(5000);
    assert_eq!(bench.counts(), (0, 0));
}

/// SEMANTICS: stuck calls are bounded for each target.
#[test]
fn a_target_that_does_not_answer_is_not_asked_again() {
    let bench = Bench::new(8, 2);
    let permits = [bench.permit(7), bench.permit(7)];
    assert!(
        matches!(bench.enter(7), Admitted::Later),
        "they may still return"
    );
    bench.pass(2000);
    assert!(matches!(bench.enter(7), Admitted::Refused));
    bench.admission.leave(bench.permit(8), true);
    for permit in permits {
        bench.admission.leave(permit, true);
    }
    bench.admission.leave(bench.permit(7), true);
}

#[test]
fn where_many_do_not_answer_each_may_hold_one_thread_only() {
    let bench = Bench::new(4, 2);
    let _stuck: Vec<Permit> = (1..=4).map(|number| bench.permit(number)).collect();
    bench.pass(2000);
    assert!(matches!(bench.enter(1), Admitted::Refused));
    assert!(matches!(bench.enter(9), Admitted::Later));
}

#[test]
fn who_gets_no_permit_is_served_by_whoever_returns() {
    let bench = Bench::new(1, 2);
    let permit = bench.permit(7);
    assert!(matches!(bench.enter(8), Admitted::Later));
    bench.queue(8, 0);
    bench.queue(9, 0);
    bench.admission.leave(permit, true);
    assert_eq!(bench.counts(), (0, 2));
    bench.admission.leave(bench.permit(8), true);
}

/// SEMANTICS: a slow target does not hold up the others.
/// A job that waits for a target for ever must not keep an answer that its thread was about to give.
#[test]
fn what_a_thread_keeps_goes_before_the_work_of_others() {
    let bench = Bench::new(1, 1);
    let permit = bench.permit(1);
    bench.queue(1, 0);
    let (done, seen) = (Arc::clone(&bench.done), Arc::new(AtomicUsize::new(9)));
    let first = Arc::clone(&seen);
    other_work::first(move || first.store(done.load(Ordering::SeqCst), Ordering::SeqCst));
    bench.admission.leave(permit, true);
    assert_eq!(bench.done.load(Ordering::SeqCst), 1);
    assert_eq!(seen.load(Ordering::SeqCst), 0, "before it");
}

#[test]
fn workers_serve_where_nobody_returns() {
    let limits = Limits {
        permits: 1,
        per_process: 2,
        workers: 2,
        ..Limits::for_threads(2)
    };
    let bench = Bench::with(limits);
    let _stuck = bench.stuck(7);
    for number in 8..=20 {
        bench.queue(number, 0);
    }
    until(|| bench.counts() == (1, 13));
    assert!(bench.admission.state.lock().workers <= 2);
    bench.queue(7, 0);
    until(|| bench.counts().1 == 14);
}

#[test]
fn nobody_is_sent_to_get_stuck_in_the_same_target() {
    let limits = Limits {
        permits: 4,
        per_process: 2,
        ..Limits::for_threads(8)
    };
    let bench = Bench::with(limits);
    let _stuck = [bench.permit(7), bench.permit(7)];
    bench.queue(7, 0);
    bench.pass(10);
    assert_eq!(bench.admission.state.lock().workers, 0);
    bench.pass(1990);
    assert_eq!(
        bench.counts(),
        (3, 0),
        "the one that waits is answered, too"
    );
    assert_eq!(bench.waiting(), 0);
}

/// SEMANTICS: what a target makes wait is bounded, and takes no place from others.
#[test]
fn the_queue_is_bounded_in_number_and_bytes() {
    let limits = Limits {
        permits: 0,
        workers: 0,
        queued: 8,
        queued_bytes: 1000,
        ..Limits::for_threads(8)
    };
    let bench = Bench::with(limits);
    for _ in 0..100 {
        bench.queue(7, 100);
    }
    assert_eq!((bench.waiting(), bench.counts().0), (4, 96));
    bench.queue(8, 501);
    assert_eq!((bench.waiting(), bench.counts().0), (4, 97));
    bench.queue(8, 500);
    bench.queue(9, 101);
    assert_eq!((bench.waiting(), bench.counts().0), (5, 98));
    assert_eq!(bench.admission.state.lock().queued_bytes, 900);
    bench.pass(2000);
    assert_eq!((bench.waiting(), bench.counts().0), (0, 103));
    assert_eq!(bench.admission.state.lock().queued_bytes, 0);
}

/// SEMANTICS: one user takes no place from another, by listings either.
#[test]
fn one_user_surveys_so_many_times_at_once() {
    let limits = Limits {
        permits: 4,
        per_user: 2,
        workers: 0,
        queued: 4,
        ..Limits::for_threads(8)
    };
    let bench = Bench::with(limits);
    let survey = |user| bench.admission.enter_survey(bench.clock_now(), user, || ());
    let queue = |user| {
        let now = bench.clock_now();
        bench.admission.queue_survey(now, user, || (), |_| ())
    };
    let (one, other) = (Some(1001), Some(1002));
    let mut permits: Vec<_> = [survey(one), survey(one)].into();
    assert!(matches!(survey(one), Admitted::Later));
    assert!(queue(one) && queue(one) && !queue(one), "half of the queue");
    permits.extend([survey(other), survey(None)]);
    assert!(queue(other));
    for permit in permits {
        let Admitted::Now(permit) = permit else {
            panic!("no permit: {permit:?}");
        };
        bench.admission.leave(permit, true);
    }
    assert!(bench.admission.is_idle(), "what waited was done");
}

/// SEMANTICS: one user takes no place from another.
#[test]
fn what_one_user_has_wait_takes_no_place_from_others() {
    let limits = Limits {
        permits: 6,
        per_process: 4,
        per_user: 2,
        stuck_per_user: 3,
        workers: 0,
        queued: 8,
        queued_bytes: 1000,
        ..Limits::for_threads(8)
    };
    let bench = Bench::with(limits);
    let enter = |user, number| {
        let target = Target {
            user,
            ..Target::numbered(pid(number))
        };
        bench.admission.enter(target, Kind::Probe, || ())
    };
    let (one, other, mounter) = (Some(1001), Some(1002), None);
    let mut permits = Vec::new();
    let mut now = |admitted| match admitted {
        Admitted::Now(permit) => permits.push(permit),
        other => panic!("no permit: {other:?}"),
    };
    now(enter(one, 1));
    now(enter(one, 2));
    assert!(matches!(enter(one, 3), Admitted::Later), "two at a time");
    let survey = |user| bench.admission.enter_survey(bench.clock_now(), user, || ());
    assert!(matches!(survey(one), Admitted::Later), "a survey is one");
    for user in [other, mounter, mounter] {
        now(enter(user, 4));
    }
    bench.pass(2000);
    // Both wait without an end; one more may.
    now(enter(one, 3));
    bench.pass(2000);
    assert!(matches!(enter(one, 5), Admitted::Refused));
    assert!(
        matches!(enter(other, 5), Admitted::Later),
        "no permit is left"
    );
    let queue = |user, number, bytes| {
        let target = Target {
            user,
            ..Target::numbered(pid(number))
        };
        let job = || true;
        bench
            .admission
            .queue(target, Kind::Probe, bytes, bench.counter(), job);
    };
    for number in 10..20 {
        queue(one, number, 0);
    }
    assert_eq!(
        (bench.waiting(), bench.counts().0),
        (4, 6),
        "half of the queue"
    );
    queue(other, 20, 501);
    assert_eq!(bench.counts().0, 7, "half of its bytes");
    queue(other, 20, 400);
    queue(mounter, 21, 400);
    assert_eq!((bench.waiting(), bench.counts().0), (6, 7));
    for permit in permits {
        bench.admission.leave(permit, true);
    }
}

#[test]
fn what_is_closed_is_closed_however_late_and_takes_no_place_from_requests() {
    let bench = Bench::new(4, 2);
    let closing = bench.closing(7);
    for _ in 0..3 {
        let done = Arc::clone(&bench.done);
        bench.admission.close(Target::numbered(pid(7)), move || {
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    bench.pass(60_000);
    assert_eq!((bench.counts(), bench.waiting()), ((0, 0), 3));
    assert_eq!(bench.deadline(7), millis(2000));
    let permits = [bench.permit(7), bench.permit(7)];
    for permit in permits {
        bench.admission.leave(permit, true);
    }
    assert_eq!((bench.counts().1, bench.waiting()), (0, 3));
    bench.admission.leave(closing, true);
    assert_eq!((bench.counts().1, bench.waiting()), (3, 0));
}

impl Bench {
    /// Somebody who closes a file of the process, and waits.
    fn closing(&self, number: u32) -> Permit {
        let mut state = self.admission.state.lock();
        let target = Target::numbered(pid(number));
        let expire: Expire = Box::new(|| ());
        let call = self
            .admission
            .call(&state, target, Kind::Closing, Some(expire));
        state.serving += 1;
        self.admission.admit(&mut state, call)
    }
}
