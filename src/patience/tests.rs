//! Patience on a clock that stands still.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::clock::ManualClock;

/// Threads of which the first is at work as long as it is told so.
#[derive(Debug, Default)]
pub(crate) struct FakeThreads(AtomicBool);

impl Threads for FakeThreads {
    fn current(&self) -> i32 {
        1
    }

    fn is_running(&self, _thread: i32) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Bench {
    threads: Arc<FakeThreads>,
    clock: Arc<ManualClock>,
    patience: Arc<Patience>,
    expired: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

impl Bench {
    fn new(seats: usize, per_process: usize) -> Self {
        let clock = Arc::new(ManualClock::new());
        let limits = Limits {
            seats,
            per_process,
            ..Limits::for_threads(8)
        };
        let threads = Arc::new(FakeThreads::default());
        let patience = Patience::new(Arc::clone(&clock) as _, Arc::clone(&threads) as _, limits);
        Self {
            patience: Arc::new(patience),
            threads,
            clock,
            expired: Arc::default(),
            done: Arc::default(),
        }
    }

    fn enter(&self, pid: u32) -> Entry {
        let expired = Arc::clone(&self.expired);
        let count = move || {
            expired.fetch_add(1, Ordering::SeqCst);
        };
        self.patience.enter(ProcessId::new(pid).unwrap(), count)
    }

    fn seat(&self, pid: u32) -> Seat {
        match self.enter(pid) {
            Entry::Seated(seat) => seat,
            other => panic!("no seat: {other:?}"),
        }
    }

    fn queue(&self, pid: u32) {
        let (expired, done) = (Arc::clone(&self.expired), Arc::clone(&self.done));
        self.patience.queue(
            ProcessId::new(pid).unwrap(),
            move || {
                expired.fetch_add(1, Ordering::SeqCst);
            },
            move || {
                done.fetch_add(1, Ordering::SeqCst);
            },
        );
    }

    /// What the watcher would do now; returns whether it would start a thread.
    fn look(&self) -> bool {
        self.patience.look(&mut self.patience.state.lock())
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.expired.load(Ordering::SeqCst),
            self.done.load(Ordering::SeqCst),
        )
    }

    fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

/// SEMANTICS: no answer within 2 s is ETIMEDOUT.
#[test]
fn a_call_that_does_not_return_is_answered_without_it() {
    let bench = Bench::new(4, 2);
    let seat = bench.seat(7);
    bench.advance(1999);
    bench.look();
    assert_eq!(bench.counts(), (0, 0));
    bench.advance(1);
    bench.look();
    bench.look();
    assert_eq!(bench.counts(), (1, 0), "once");
    assert_eq!(bench.patience.stuck(), 1);
    bench.patience.leave(seat);
    assert_eq!(bench.patience.stuck(), 0);
}

#[test]
fn a_call_whose_thread_is_at_work_gets_more_time_but_not_for_ever() {
    let bench = Bench::new(4, 2);
    let _seat = bench.seat(7);
    bench.threads.0.store(true, Ordering::SeqCst);
    for _ in 0..29 {
        bench.advance(2000);
        bench.look();
    }
    assert_eq!(bench.counts(), (0, 0));
    bench.advance(2000);
    bench.look();
    assert_eq!(bench.counts(), (1, 0));
    let _waits = bench.seat(7);
    bench.threads.0.store(false, Ordering::SeqCst);
    bench.advance(2000);
    bench.look();
    assert_eq!(bench.counts(), (2, 0));
}

#[test]
fn a_process_that_did_not_answer_is_given_less_time_for_a_while() {
    let bench = Bench::new(8, 2);
    bench.patience.leave(bench.seat(7));
    let stuck = bench.seat(7);
    bench.advance(2000);
    bench.look();
    assert_eq!(bench.counts(), (1, 0));
    bench.patience.leave(stuck);
    let again = bench.seat(7);
    let other = bench.seat(8);
    bench.advance(50);
    bench.look();
    assert_eq!(bench.counts(), (2, 0), "not the other process");
    bench.patience.leave(again);
    bench.patience.leave(other);
    bench.advance(10_000);
    let _later = bench.seat(7);
    bench.advance(1999);
    bench.look();
    assert_eq!(bench.counts(), (2, 0));
}

#[test]
fn a_call_that_returns_in_time_is_not() {
    let bench = Bench::new(4, 2);
    bench.patience.leave(bench.seat(7));
    bench.advance(5000);
    bench.look();
    assert_eq!(bench.counts(), (0, 0));
    assert_eq!(bench.patience.next_look(&bench.patience.state.lock()), None);
}

/// SEMANTICS: stuck calls are bounded for each target.
#[test]
fn a_target_that_does_not_answer_is_not_asked_again() {
    let bench = Bench::new(8, 2);
    let seats = [bench.seat(7), bench.seat(7)];
    assert!(
        matches!(bench.enter(7), Entry::Full),
        "they may still return"
    );
    bench.advance(2000);
    bench.look();
    assert!(matches!(bench.enter(7), Entry::Refused));
    bench.patience.leave(bench.seat(8));
    for seat in seats {
        bench.patience.leave(seat);
    }
    bench.patience.leave(bench.seat(7));
}

#[test]
fn who_finds_no_seat_is_served_by_whoever_leaves() {
    let bench = Bench::new(1, 2);
    let seat = bench.seat(7);
    assert!(matches!(bench.enter(8), Entry::Full));
    bench.queue(8);
    bench.queue(9);
    bench.patience.leave(seat);
    assert_eq!(bench.counts(), (0, 2));
    bench.patience.leave(bench.seat(8));
}

/// SEMANTICS: a slow target does not hold up the others.
#[test]
fn a_thread_is_wanted_where_nobody_leaves() {
    let bench = Bench::new(1, 2);
    let _stuck = bench.seat(7);
    bench.queue(8);
    assert!(!bench.look(), "somebody may leave soon");
    bench.advance(10);
    assert!(bench.look());
    bench.patience.work_off(&mut bench.patience.state.lock());
    assert_eq!(bench.counts(), (0, 1));
    assert!(!bench.look());
}

#[test]
fn no_thread_is_started_to_get_stuck_in_the_same_target() {
    let bench = Bench::new(4, 2);
    let _stuck = [bench.seat(7), bench.seat(7)];
    bench.queue(7);
    bench.advance(10);
    assert!(!bench.look());
    bench.advance(1990);
    bench.look();
    assert_eq!(
        bench.counts(),
        (3, 0),
        "the one that waits is answered, too"
    );
    assert!(bench.patience.state.lock().waiting.is_empty());
}

#[test]
fn the_watcher_ends_when_it_is_told() {
    let bench = Bench::new(4, 2);
    let patience = Arc::clone(&bench.patience);
    let watcher = std::thread::spawn(move || patience.watch());
    bench.patience.leave(bench.seat(7));
    bench.patience.end();
    watcher.join().unwrap();
}
