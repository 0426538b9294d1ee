//! What models of the concurrency have in common: in how many orders they run, and a clock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use super::clock::Clock;
use super::sync::thread::{self, Thread};

/// Set for runs that take some ten minutes.
const LONG: &str = "PROCMEMFS_LONG";

/// How many times more orders such a run goes through.
const LONGER: usize = 30;

/// The same each time; `SHUTTLE_RANDOM_SEED` is taken in its place.
const SEED: u64 = 0x70_726f_636d_656d;

/// Switches of threads at chosen places, at most, in those orders that have few of them.
const DEPTH: usize = 4;

/// Far more than any model needs: one that does not come to an end fails.
const STEPS: usize = 200_000;

/// Runs a model with so many orders of its steps that are random, and with as many that have few switches (PCT,
/// <https://www.microsoft.com/en-us/research/publication/a-randomized-scheduler-with-probabilistic-guarantees-of-finding-bugs/>).
///
/// # Panics
/// Where it fails in one of them, or its threads all wait.
pub(crate) fn explore(orders: usize, model: impl Fn() + Send + Sync + 'static) {
    let orders = match std::env::var_os(LONG) {
        Some(_) => orders * LONGER,
        None => orders,
    };
    let model = Arc::new(model);
    let random = RandomScheduler::new_from_seed(SEED, orders);
    run("random", random, Arc::clone(&model));
    run(
        "few switches",
        PctScheduler::new_from_seed(SEED, DEPTH, orders),
        model,
    );
}

/// Runs a small model with all orders of its steps that there are.
///
/// # Panics
/// As [`explore`].
pub(crate) fn exhaust(model: impl Fn() + Send + Sync + 'static) {
    run("all", DfsScheduler::new(None, false), Arc::new(model));
}

/// Lets other threads go on, at most so often.
pub(crate) fn wait_up_to(times: usize) {
    for _ in 0..thread_rng().gen_range(0..=times) {
        thread::yield_now();
    }
}

fn run<M>(orders: &'static str, scheduler: impl Scheduler + 'static, model: Arc<M>)
where
    M: Fn() + Send + Sync + 'static,
{
    let mut config = Config::new();
    // The default is too little for a request to the file system.
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    // All atomic operations are taken for sequentially consistent: known.
    config.silence_warnings = true;
    let begun = Begun {
        orders,
        number: Arc::default(),
    };
    let number = Arc::clone(&begun.number);
    Runner::new(scheduler, config).run(move || {
        number.fetch_add(1, Ordering::Relaxed);
        model();
    });
}

/// Tells how many orders were begun, in the end: where one fails it is the last.
struct Begun {
    orders: &'static str,
    number: Arc<AtomicUsize>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Self { orders, number } = self;
        eprintln!("orders ({orders}): {}", number.load(Ordering::Relaxed));
    }
}

/// As [`ManualClock`](super::clock::ManualClock), but no thread is switched where it is read: that would be most of
/// the steps of a model.
#[derive(Debug, Default)]
pub(crate) struct ModelClock {
    nanoseconds: AtomicU64,
    sleepers: std::sync::Mutex<Vec<(Thread, Duration)>>,
}

impl ModelClock {
    /// Moves the clock forward, and wakes those who have slept until then.
    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("a short time");
        self.nanoseconds.fetch_add(by, Ordering::SeqCst);
        let now = self.now();
        let woken: Vec<_> = self
            .sleepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extract_if(.., |(_, until)| *until <= now)
            .collect();
        for (sleeper, _) in woken {
            sleeper.unpark();
        }
    }
}

impl Clock for ModelClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }

    fn sleep_until(&self, time: Option<Duration>) {
        if let Some(time) = time {
            if time <= self.now() {
                return;
            }
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            sleepers.push((thread::current(), time));
        }
        thread::park();
    }
}
