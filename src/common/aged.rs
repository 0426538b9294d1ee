//! What is kept for a moment, and the one rule of how long.

use std::time::Duration;

use super::clock::Clock;

/// A value, when it was found out, and how long that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aged<T> {
    value: T,
    taken: Duration,
    cost: Duration,
}

impl<T> Aged<T> {
    /// A value that was asked for at the time `taken`, and was there `cost` later.
    pub(crate) fn new(value: T, taken: Duration, cost: Duration) -> Self {
        Self { value, taken, cost }
    }

    /// What `find` finds out now.
    pub(crate) fn find(clock: &dyn Clock, find: impl FnOnce() -> T) -> Self {
        let taken = clock.now();
        let value = find();
        Self::new(value, taken, clock.now().saturating_sub(taken))
    }

    /// As [`find`](Self::find), where that can fail.
    ///
    /// # Errors
    /// What `find` says.
    pub(crate) fn try_find<E>(
        clock: &dyn Clock,
        find: impl FnOnce() -> Result<T, E>,
    ) -> Result<Self, E> {
        let found = Aged::find(clock, find);
        Ok(Self::new(found.value?, found.taken, found.cost))
    }

    /// What is made of the value, as old as that.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Aged<U> {
        Aged::new(make(self.value), self.taken, self.cost)
    }

    /// A part of the value, as old as that, which cost so large a `share` of it.
    pub(crate) fn of_share<U>(&self, value: U, share: f64) -> Aged<U> {
        Aged::new(value, self.taken, self.cost.mul_f64(share))
    }

    /// Whether it may be used for longer than `bound`, because of what it cost.
    pub(crate) fn is_dearer_than(&self, bound: Duration, factor: u32) -> bool {
        self.cost.saturating_mul(factor) > bound
    }

    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// The value, to be added to.
    pub(crate) fn value_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// How old it is: it may have changed as soon as it was asked for.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.taken)
    }

    /// Whether it may still be used: until it is as old as `bound`, or `factor` times as old as finding it out took.
    ///
    /// So finding out takes at most one in `factor` parts of the time, however long each takes.
    pub(crate) fn is_within(&self, now: Duration, bound: Duration, factor: u32) -> bool {
        self.age(now) <= bound.max(self.cost.saturating_mul(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_cheap_is_kept_for_the_bound_and_what_is_dear_for_longer() {
        // Cost, bound and factor, and the age that is the last.
        let table = [(1, 100, 10, 100), (10, 100, 10, 100), (11, 100, 10, 110)];
        for (cost, bound, factor, last) in table {
            let aged = Aged::new((), MS, MS * cost);
            let is_within = |age: Duration| aged.is_within(MS + age, MS * bound, factor);
            assert!(is_within(Duration::ZERO) && is_within(MS * last));
            assert!(!is_within(MS * last + Duration::from_nanos(1)), "{cost}");
            assert_eq!(aged.is_dearer_than(MS * bound, factor), last > bound);
            let half = aged.of_share("half", 0.5);
            assert_eq!(half, Aged::new("half", MS, MS * cost / 2));
        }
    }

    #[test]
    fn without_a_bound_only_the_cost_counts() {
        let aged = Aged::new((), MS, MS * 2);
        assert!(aged.is_within(MS * 3, Duration::ZERO, 1));
        assert!(!aged.is_within(MS * 4, Duration::ZERO, 1));
        assert!(!aged.is_within(MS * 2, Duration::ZERO, 0));
        assert!(Aged::new((), MS, Duration::MAX).is_within(MS * 9, Duration::ZERO, 2));
    }

    #[test]
    fn it_ages_from_the_moment_when_it_was_asked_for() {
        let clock = ManualClock::new();
        clock.advance(MS * 5);
        let mut aged = Aged::find(&clock, || {
            clock.advance(MS * 3);
            "value"
        });
        assert_eq!(aged, Aged::new("value", MS * 5, MS * 3));
        assert_eq!(aged.age(clock.now()), MS * 3);
        assert_eq!(aged.age(MS), Duration::ZERO, "a clock that is read earlier");
        *aged.value_mut() = "another";
        assert_eq!(*aged.value(), "another");
    }
}
