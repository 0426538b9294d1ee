//! Models of admission control: what becomes of permits and of requests that wait, whoever comes first.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::common::models::{ModelClock, explore, wait_up_to};
use crate::common::sync::thread::{self, JoinHandle};
use crate::target::visit::{Visit, Visits};

/// Threads that wait for whatever they are in, and can be joined.
#[derive(Debug, Default)]
pub(crate) struct ModelTasks {
    started: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// How often no thread can be started.
    exhausted: AtomicUsize,
}

impl ModelTasks {
    /// Waits until the last thread that was started has ended.
    pub(crate) fn join(&self) {
        let next = || {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            started.pop()
        };
        while let Some(thread) = next() {
            thread.join().expect("it comes to its end");
        }
    }
}

impl Tasks for ModelTasks {
    fn current(&self) -> i32 {
        1
    }

    fn activity(&self, _thread: i32) -> Activity {
        thread::yield_now();
        Activity::default()
    }

    fn waits_in(&self, _thread: i32) -> String {
        "a model".to_owned()
    }

    fn instance(&self, _process: ProcessId) -> Option<u64> {
        thread::yield_now();
        Some(1)
    }

    fn start(&self, _name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let less = |left: usize| left.checked_sub(1);
        let is_exhausted = self
            .exhausted
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if is_exhausted.is_ok() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let thread = thread::spawn(work);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push(thread);
        Ok(())
    }
}

/// What became of one request. No thread is switched where these are used, nor where `Bench` counts.
#[derive(Debug, Default)]
struct Outcome {
    done: AtomicUsize,
    expired: AtomicUsize,
}

impl Outcome {
    fn counts(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (count(&self.done), count(&self.expired))
    }
}

/// Calls that are inside at one moment, and the most that there were.
#[derive(Debug, Default)]
struct Peak {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Peak {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let result = work();
        self.now.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Requests to the processes 1 and 2, and permits for them.
struct Bench {
    admission: Arc<Admission>,
    tasks: Arc<ModelTasks>,
    clock: Arc<ModelClock>,
    /// How often others go on, at most, while a call is inside.
    longest: usize,
    of_process: [Peak; 2],
    on_serving_threads: Peak,
}

/// Two permits, and one call in a process.
fn limits() -> Limits {
    Limits {
        permits: 2,
        per_process: 1,
        workers: 2,
        ..Limits::for_threads(3)
    }
}

impl Bench {
    fn new(limits: Limits) -> Arc<Self> {
        Self::with(limits, 1)
    }

    /// With calls that take up to so long.
    fn with(limits: Limits, longest: usize) -> Arc<Self> {
        let (clock, tasks) = (Arc::<ModelClock>::default(), Arc::<ModelTasks>::default());
        let admission = Admission::new(Arc::clone(&clock) as _, Arc::clone(&tasks) as _, limits);
        Arc::new(Self {
            admission: Arc::new(admission),
            tasks,
            clock,
            longest,
            of_process: Default::default(),
            on_serving_threads: Peak::default(),
        })
    }

    /// A call into a process: others go on meanwhile.
    fn call(&self, process: usize, outcome: &Outcome) {
        self.of_process[process].during(|| {
            wait_up_to(self.longest);
            outcome.done.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// Serves a request as [`Server::serve`](crate::server::Server::serve) does.
    fn serve(self: &Arc<Self>, process: usize, outcome: &Arc<Outcome>) {
        let target = target(process + 1);
        let expire = {
            let outcome = Arc::clone(outcome);
            move || {
                outcome.expired.fetch_add(1, Ordering::SeqCst);
            }
        };
        match self.admission.enter(target, Kind::Probe, expire.clone()) {
            Admitted::Now(permit) => self.on_serving_threads.during(|| {
                self.call(process, outcome);
                self.admission.leave(permit, true);
            }),
            Admitted::Later => {
                let (bench, outcome) = (Arc::clone(self), Arc::clone(outcome));
                let job = move || {
                    bench.call(process, &outcome);
                    true
                };
                self.admission.queue(target, Kind::Probe, 10, expire, job);
            }
            Admitted::Refused => expire(),
        }
    }

    /// Starts threads that each serve requests to these processes, one after the other.
    fn start(self: &Arc<Self>, threads: &[&[usize]]) -> (Vec<Arc<Outcome>>, Vec<JoinHandle<()>>) {
        let mut outcomes = Vec::new();
        let threads = threads
            .iter()
            .map(|processes| {
                let requests: Vec<_> = processes
                    .iter()
                    .map(|process| (*process, Arc::new(Outcome::default())))
                    .collect();
                outcomes.extend(requests.iter().map(|(_, outcome)| Arc::clone(outcome)));
                let bench = Arc::clone(self);
                thread::spawn(move || {
                    for (process, outcome) in requests {
                        bench.serve(process, &outcome);
                    }
                })
            })
            .collect();
        (outcomes, threads)
    }

    /// Time passes under the eyes of the watchdog.
    fn pass(&self, steps: &[u64]) {
        for step in steps {
            self.clock.advance(Duration::from_millis(*step));
            self.admission.check_deadlines();
            thread::yield_now();
        }
    }

    /// What holds in the end, when all threads have come to theirs.
    fn check(&self) {
        self.tasks.join();
        assert!(self.admission.is_idle(), "all permits have come back");
        let limits = self.admission.limits;
        for process in &self.of_process {
            assert!(process.most() <= limits.per_process, "{}", process.most());
        }
        let serving = self.on_serving_threads.most();
        assert!(serving <= limits.permits, "{serving} serve at a time");
    }
}

fn target(process: usize) -> Target {
    Target::numbered(ProcessId::new(process as u32).expect("a process's number"))
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("it comes to its end");
    }
}

/// Nobody's time is over, and no watchdog looks: each request is done once, by whoever returns or by a worker.
#[test]
fn no_request_is_lost_and_no_permit_either() {
    explore(10_000, || {
        let bench = Bench::new(limits());
        let (outcomes, threads) = bench.start(&[&[0, 1], &[0, 0], &[1, 0]]);
        join(threads);
        bench.check();
        for outcome in outcomes {
            assert_eq!(outcome.counts(), (1, 0));
        }
    });
}

/// Workers without work are woken where there is some, and at the end: none relies on the end of its wait.
#[test]
fn a_worker_that_lingers_is_woken() {
    explore(5_000, || {
        let bench = Bench::new(Limits {
            permits: 1,
            per_process: 2,
            per_user: 1,
            linger: Duration::MAX,
            ..limits()
        });
        let of_user = |process| Target {
            user: Some(1001),
            ..target(process)
        };
        // It expires at 2000, and from then on there is room for another one of this user.
        let admitted = bench.admission.enter(of_user(1), Kind::Probe, || ());
        let Admitted::Now(stuck) = admitted else {
            panic!("no permit: {admitted:?}");
        };
        let outcomes = [(); 3].map(|()| Arc::<Outcome>::default());
        let queued = [target(2), of_user(2), target(2)];
        let mut threads: Vec<_> = queued
            .into_iter()
            .zip(&outcomes)
            .map(|(target, outcome)| {
                let (bench, done) = (Arc::clone(&bench), Arc::clone(outcome));
                let expired = Arc::clone(outcome);
                thread::spawn(move || {
                    let expire = move || {
                        expired.expired.fetch_add(1, Ordering::SeqCst);
                    };
                    let job = move || {
                        done.done.fetch_add(1, Ordering::SeqCst);
                        wait_up_to(30);
                        true
                    };
                    bench.admission.queue(target, Kind::Probe, 0, expire, job);
                })
            })
            .collect();
        let watching = Arc::clone(&bench);
        threads.push(thread::spawn(move || {
            for step in [10, 1890, 100, 10] {
                wait_up_to(20);
                watching.pass(&[step]);
            }
        }));
        join(threads);
        // All that is queued by now is late enough for a worker.
        bench.pass(&[10]);
        while outcomes.iter().any(|outcome| outcome.counts() == (0, 0)) {
            thread::yield_now();
        }
        bench.admission.leave(stuck, true);
        bench.admission.end();
        bench.check();
    });
}

/// While the watchdog takes some for overdue: each is done or expires, and neither of it twice; whoever answers late
/// shows that the process does answer.
#[test]
fn a_request_that_is_overdue_expires_once_and_its_permit_comes_back() {
    explore(5_000, || {
        let bench = Bench::with(limits(), 60);
        let (outcomes, mut threads) = bench.start(&[&[0, 1], &[0], &[0, 1]]);
        let watching = Arc::clone(&bench);
        threads.push(thread::spawn(move || {
            watching.pass(&[1900, 100, 50, 1850, 100]);
        }));
        join(threads);
        bench.pass(&[1900, 100]);
        bench.check();
        for outcome in outcomes {
            let (done, expired) = outcome.counts();
            assert!(
                done <= 1 && expired <= 1 && done + expired > 0,
                "{outcome:?}"
            );
        }
        let state = bench.admission.state.lock();
        for process in 1..=2 {
            let target = target(process);
            assert!(!state.backoffs.knows(target), "it has answered");
        }
    });
}

/// Where no thread can be started at first, those that wait get one when it is tried again.
#[test]
fn requests_wait_for_a_thread_that_cannot_be_started() {
    explore(5_000, || {
        let bench = Bench::new(Limits {
            permits: 0,
            ..limits()
        });
        bench.tasks.exhausted.store(1, Ordering::SeqCst);
        let (outcomes, mut threads) = bench.start(&[&[0], &[0, 1]]);
        let watching = Arc::clone(&bench);
        threads.push(thread::spawn(move || watching.pass(&[10, 10])));
        join(threads);
        bench.pass(&[1000]);
        bench.check();
        for outcome in outcomes {
            assert_eq!(outcome.counts(), (1, 0));
        }
    });
}

/// What is closed is closed once, by one thread at a time, beside a request.
#[test]
fn what_is_closed_is_closed_once() {
    explore(5_000, || {
        let bench = Bench::new(limits());
        let (mut outcomes, mut threads) = bench.start(&[&[0]]);
        let closing = Arc::new(Peak::default());
        for _ in 0..3 {
            let outcome = Arc::new(Outcome::default());
            outcomes.push(Arc::clone(&outcome));
            let (bench, closing) = (Arc::clone(&bench), Arc::clone(&closing));
            threads.push(thread::spawn(move || {
                let target = target(1);
                bench.admission.close(target, move || {
                    closing.during(thread::yield_now);
                    outcome.done.fetch_add(1, Ordering::SeqCst);
                });
            }));
        }
        let watching = Arc::clone(&bench);
        threads.push(thread::spawn(move || watching.pass(&[100, 500])));
        join(threads);
        bench.check();
        assert_eq!(closing.most(), 1);
        for outcome in outcomes {
            assert_eq!(outcome.counts(), (1, 0));
        }
    });
}

/// One survey, and what it has come to.
#[derive(Debug, Default)]
struct Surveyed {
    outcome: Outcome,
    /// The process that the first thread is in; 0 between two of them.
    first_in: AtomicUsize,
}

impl Surveyed {
    fn is_taken_over(&self) -> bool {
        self.outcome.counts().1 > 0
    }

    /// Visits all processes; returns whether it came to the end.
    fn visit_all(&self, bench: &Bench, permit: &Permit, is_first: bool) -> bool {
        let survey = Survey::new(&bench.admission, permit);
        (1..=3).all(|process| {
            let others = |is_in: &AtomicUsize| !is_first && is_in.load(Ordering::SeqCst) == process;
            let (was_taken_over, waited) = (self.is_taken_over(), others(&self.first_in));
            let visit = survey.visit(target(process).pid);
            if is_first {
                let stops = visit == Visit::Stop;
                assert!(stops || !was_taken_over, "two survey at a time");
                if visit == Visit::Enter {
                    self.first_in.store(process, Ordering::SeqCst);
                }
            } else if waited && others(&self.first_in) {
                assert_eq!(visit, Visit::Skip, "the first waits for it");
            }
            wait_up_to(if is_first { 30 } else { 1 });
            if is_first {
                self.first_in.store(0, Ordering::SeqCst);
            }
            visit != Visit::Stop
        })
    }
}

/// A survey that waits for a process is handed over, and the other thread passes over that one; whoever went on
/// meanwhile stops.
#[test]
fn a_survey_that_waits_is_handed_over_once() {
    explore(10_000, || {
        let bench = Bench::new(limits());
        let surveyed = Arc::new(Surveyed::default());
        let expire = {
            let (bench, surveyed) = (Arc::clone(&bench), Arc::clone(&surveyed));
            move || {
                surveyed.outcome.expired.fetch_add(1, Ordering::SeqCst);
                let admission = Arc::clone(&bench.admission);
                let job = move |permit: &Permit| {
                    if surveyed.visit_all(&bench, permit, false) {
                        surveyed.outcome.done.fetch_add(1, Ordering::SeqCst);
                    }
                };
                let is_queued = admission.queue_survey(Duration::ZERO, None, || (), job);
                assert!(is_queued);
            }
        };
        let watching = Arc::clone(&bench);
        let watchdog = thread::spawn(move || watching.pass(&[50, 50, 50]));
        let Admitted::Now(permit) = bench.admission.enter_survey(Duration::ZERO, None, expire)
        else {
            panic!("no permit");
        };
        let is_whole = surveyed.visit_all(&bench, &permit, true);
        bench.admission.leave(permit, true);
        join(vec![watchdog]);
        bench.pass(&[10]);
        bench.check();
        let (done, expired) = surveyed.outcome.counts();
        assert!(expired <= 1);
        assert_eq!(done, expired, "whoever took it over came to the end");
        assert!(
            is_whole || expired == 1,
            "nobody stops where nobody went on"
        );
    });
}

/// Duties of a mount that is there, and keeps nothing.
#[derive(Debug)]
struct NoDuties;

impl Duties for NoDuties {
    fn sweep(&self) -> Option<Duration> {
        None
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn end(&self) {}
}

/// A watchdog that sleeps is woken in time by whoever enters, whatever it was about to do, and by the end.
#[test]
fn the_watchdog_is_woken_for_whoever_does_not_return() {
    explore(2_000, || {
        let bench = Bench::new(limits());
        let duties: Arc<dyn Duties> = Arc::new(NoDuties);
        let admission = Arc::clone(&bench.admission);
        let watchdog = thread::spawn(move || admission.run_watchdog(&duties));
        let outcome = Arc::new(Outcome::default());
        let callers = [1, 2].map(|process| {
            let (bench, outcome) = (Arc::clone(&bench), Arc::clone(&outcome));
            thread::spawn(move || {
                let target = target(process);
                let caller = thread::current();
                let expired = Arc::new(AtomicUsize::new(0));
                let seen = Arc::clone(&expired);
                let expire = move || {
                    seen.store(1, Ordering::SeqCst);
                    caller.unpark();
                };
                let admitted = bench.admission.enter(target, Kind::Probe, expire);
                let Admitted::Now(permit) = admitted else {
                    panic!("no permit: {admitted:?}");
                };
                while expired.load(Ordering::SeqCst) == 0 {
                    thread::park();
                }
                bench.admission.leave(permit, true);
                outcome.expired.fetch_add(1, Ordering::SeqCst);
            })
        });
        while outcome.counts().1 < callers.len() {
            bench.clock.advance(Duration::from_millis(50));
            thread::yield_now();
        }
        join(callers.into());
        bench.admission.end();
        join(vec![watchdog]);
        bench.check();
    });
}
