//! Surveys, and the watchdog on a thread of its own.

use super::*;

/// SEMANTICS: a listing waits for nobody.
#[test]
fn a_survey_that_waits_is_taken_over_without_that_process() {
    let bench = Bench::new(4, 2);
    let first = bench.survey();
    let survey = Survey::new(&bench.admission, &first);
    assert_eq!(survey.visit(pid(1)), Visit::Enter);
    bench.pass(99);
    assert_eq!(survey.visit(pid(2)), Visit::Enter, "each has its own time");
    bench.pass(99);
    assert_eq!(bench.counts(), (0, 0));
    bench.advance(1);
    bench.tasks.running.store(true, Ordering::SeqCst);
    bench.admission.check_deadlines();
    assert_eq!(bench.counts(), (0, 0), "it does not wait, it works");
    bench.tasks.running.store(false, Ordering::SeqCst);
    bench.pass(100);
    assert_eq!(bench.counts(), (1, 0));

    let second = bench.survey();
    let other = Survey::new(&bench.admission, &second);
    assert_eq!(other.visit(pid(2)), Visit::Skip);
    assert_eq!(other.visit(pid(3)), Visit::Enter);
    assert_eq!(survey.visit(pid(3)), Visit::Stop);
    assert_eq!(bench.deadline(2), millis(2000), "it may be slow only");
    bench.tasks.renewed.store(1, Ordering::SeqCst);
    assert_eq!(other.visit(pid(2)), Visit::Enter, "another process");
    bench.admission.leave(first, true);
    bench.tasks.renewed.store(0, Ordering::SeqCst);
    assert_eq!(other.visit(pid(2)), Visit::Enter, "it has answered");
    bench.advance(1500);
    assert_eq!(other.visit(pid(4)), Visit::Skip, "there is no time left");
}

impl Bench {
    #[track_caller]
    fn survey(&self) -> Permit {
        match self
            .admission
            .enter_survey(self.clock_now(), None, self.counter())
        {
            Admitted::Now(permit) => permit,
            other => panic!("no permit: {other:?}"),
        }
    }
}

/// The watchdog sleeps until the deadline of one call, and another one has an earlier one.
#[test]
fn the_watchdog_wakes_for_a_deadline_earlier_than_the_one_it_sleeps_for() {
    let limits = Limits {
        permits: 8,
        per_process: 4,
        workers: 0,
        ..Limits::for_threads(8)
    };
    let bench = Bench::with(limits);
    let _stuck = bench.stuck(7);
    // The clock stands still: nothing else wakes it.
    bench.admission.state.lock().sweep_due = Some(Duration::MAX);
    let watch = bench.watch();
    bench.duties_at_rest(&watch);
    let _long = bench.permit(8);
    watch.sleeps_until(bench.clock_now() + millis(200));
    let _short = bench.permit(7);
    for _ in 0..2 {
        // It checks twice.
        watch.sleeps_until(bench.clock_now() + millis(25));
        bench.advance(25);
    }
    until(|| bench.counts().0 == 2);
}

impl Bench {
    pub(super) fn clock_now(&self) -> Duration {
        self.clock.now()
    }

    /// Waits until the watchdog has checked what is there.
    fn duties_at_rest(&self, watch: &Watch) {
        watch.sleeps_until(self.clock_now() + millis(200));
    }
}

#[test]
fn what_is_not_used_is_closed_once_and_then_nobody_wakes() {
    let bench = Bench::new(4, 2);
    let watch = bench.watch();
    watch.sleeps_until(Duration::MAX);
    bench.admission.leave(bench.permit(7), true);
    watch.sleeps_until(millis(1000));
    bench.advance(1000);
    let swept = || watch.duties.sweeps.load(Ordering::SeqCst);
    until(|| swept() == 1);
    watch.sleeps_until(Duration::MAX);
    bench.advance(3_600_000);
    watch.sleeps_until(Duration::MAX);
    assert_eq!(swept(), 1);
}

#[test]
fn the_end_of_the_mount_is_seen_while_a_call_waits() {
    let bench = Bench::new(4, 2);
    let watch = bench.watch();
    let _stuck = bench.permit(7);
    watch.sleeps_until(millis(200));
    watch.duties.gone.store(true, Ordering::SeqCst);
    bench.advance(200);
    let ends = || watch.duties.ends.load(Ordering::SeqCst);
    until(|| ends() == 1);
    for _ in 0..10 {
        bench.advance(200);
    }
    assert_eq!(ends(), 1);
}

#[test]
fn the_watchdog_ends_when_it_is_told() {
    let bench = Bench::new(4, 2);
    let watch = bench.watch();
    bench.admission.leave(bench.permit(7), true);
    drop(watch);
}

/// SEMANTICS: where the system has no thread left, that is no reason to be busy.
#[test]
fn where_no_thread_can_be_started_it_is_tried_again_after_a_pause() {
    let limits = Limits {
        permits: 0,
        workers: 2,
        // So that the request still waits when a thread is there.
        deadline: millis(60_000),
        ..Limits::for_threads(2)
    };
    let bench = Bench::with(limits);
    bench.tasks.exhausted.store(true, Ordering::SeqCst);
    bench.queue(7, 0);
    let started = || bench.tasks.started.load(Ordering::SeqCst);
    bench.pass(999);
    assert_eq!(started(), 1, "as it was queued");
    bench.pass(1000);
    assert_eq!((started(), bench.waiting()), (2, 1));
    bench.tasks.exhausted.store(false, Ordering::SeqCst);
    bench.pass(1000);
    until(|| bench.counts() == (0, 1));
    assert!(started() >= 3);
}

/// What a user has wait past its deadline is no call at a time any more: there is room, though nobody has returned.
#[test]
fn a_worker_that_lingers_is_woken_where_a_call_expires() {
    let limits = Limits {
        permits: 1,
        per_user: 1,
        workers: 1,
        // As long as the test.
        linger: Duration::from_secs(3600),
        ..Limits::for_threads(2)
    };
    let bench = Bench::with(limits);
    let of_user = |number| Target {
        user: Some(1001),
        ..Target::numbered(pid(number))
    };
    let Admitted::Now(stuck) = bench
        .admission
        .enter(of_user(7), Kind::Probe, bench.counter())
    else {
        panic!("no permit");
    };
    bench.queue(8, 0);
    bench.pass(10);
    until(|| bench.admission.state.lock().idle_workers == 1);
    assert_eq!(bench.counts(), (0, 1));
    let done = Arc::clone(&bench.done);
    let job = move || {
        done.fetch_add(1, Ordering::SeqCst);
        true
    };
    bench
        .admission
        .queue(of_user(9), Kind::Probe, 0, bench.counter(), job);
    bench.pass(1990);
    until(|| bench.counts() == (1, 2));
    bench.admission.leave(stuck, true);
    bench.admission.end();
    until(|| bench.admission.is_idle());
}
