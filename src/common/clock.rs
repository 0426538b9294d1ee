//! Time is passed in, so that tests of expiry never sleep.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

use crate::common::sync::Mutex;
use crate::common::sync::thread::{self, Thread};

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// The time of day, as file times show it.
    fn wall(&self) -> SystemTime;

    /// Parks the calling thread until then, or for ever; or until somebody unparks it.
    fn sleep_until(&self, time: Option<Duration>);
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that counts from now.
    #[expect(clippy::new_without_default, reason = "two of these are not equal")]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, time: Option<Duration>) {
        match time {
            Some(time) => thread::park_timeout(time.saturating_sub(self.now())),
            None => thread::park(),
        }
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    /// What it shows. Nothing else is locked while it is held.
    elapsed: Mutex<Duration>,
    /// Who sleeps, and until when. `elapsed` is not locked while this is held.
    sleepers: Mutex<Vec<(Thread, Duration)>>,
}

impl ManualClock {
    /// A clock that shows zero.
    #[expect(
        clippy::new_without_default,
        reason = "reads better beside SystemClock::new"
    )]
    pub fn new() -> Self {
        Self {
            elapsed: Mutex::new(Duration::ZERO),
            sleepers: Mutex::default(),
        }
    }

    /// Moves the clock forward, and wakes those who have slept until then.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock() += by;
        let now = self.now();
        self.sleepers.lock().retain(|(sleeper, until)| {
            let sleeps_on = now < *until;
            if !sleeps_on {
                sleeper.unpark();
            }
            sleeps_on
        });
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.elapsed.lock()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }

    fn sleep_until(&self, time: Option<Duration>) {
        let thread = thread::current();
        let id = thread.id();
        if let Some(time) = time {
            self.sleepers.lock().push((thread, time));
            if time <= self.now() {
                self.advance(Duration::ZERO);
            }
        }
        thread::park();
        self.sleepers.lock().retain(|(other, _)| other.id() != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let before = (clock.now(), clock.wall());
        assert_eq!((clock.now(), clock.wall()), before);
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now() - before.0, Duration::from_millis(5));
        assert_eq!(
            clock.wall().duration_since(before.1).unwrap(),
            Duration::from_millis(5)
        );
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
