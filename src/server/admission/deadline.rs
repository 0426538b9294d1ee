//! When a call that has not returned is given up.

use std::time::Duration;

use super::Limits;
use crate::target::Activity;

/// For how long a thread must be seen to do nothing at all before its call is given up.
const CONFIRMATION: Duration = Duration::from_millis(100);

/// The deadline of a call.
///
/// A deadline that has passed does not show that a target does not answer: the host may be busy, or
/// have slept, or the daemon was stopped. What shows it is a thread that waits, and that has not run
/// for one moment between two checks of it. So the watchdog checks once before the deadline, and again
/// when it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) due: Duration,
    confirmation: Duration,
    /// How often the thread had been scheduled when it was checked last; `None` before the first check.
    seen: Option<u64>,
}

impl Deadline {
    /// The deadline of a call that begins `now` and has this long.
    pub(super) fn new(now: Duration, allowed: Duration) -> Self {
        Self {
            due: now + allowed,
            confirmation: CONFIRMATION.min(allowed / 2),
            seen: None,
        }
    }

    /// When to check the call.
    pub(super) fn next_check(&self) -> Duration {
        match self.seen {
            None => self.due - self.confirmation,
            Some(_) => self.due,
        }
    }

    /// Whether a call is to be given up that was begun at `begun` and whose thread does this `now`.
    pub(super) fn is_missed(
        &mut self,
        now: Duration,
        begun: Duration,
        activity: Activity,
        limits: &Limits,
    ) -> bool {
        let waited_since = self.seen.replace(activity.scheduled) == Some(activity.scheduled);
        let longest = if activity.is_running {
            limits.longest
        } else if waited_since {
            Duration::ZERO
        } else {
            limits.longest_waiting
        };
        if now < begun + longest {
            self.due = self.due.max(now + self.confirmation);
        }
        now >= self.due
    }

    /// Whether a call is to be given up that is not made yet. One that was not checked although it is
    /// long overdue has waited for this host, and gets another moment.
    pub(super) fn is_missed_in_queue(&mut self, now: Duration) -> bool {
        if self.seen.replace(0).is_none() && now > self.due {
            self.due = now + self.confirmation;
        }
        now >= self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Checks a call that was begun at 0, after so many milliseconds.
    fn check(deadline: &mut Deadline, after: u64, is_running: bool, scheduled: u64) -> bool {
        let activity = Activity {
            is_running,
            scheduled,
        };
        let limits = Limits::for_threads(8);
        deadline.is_missed(millis(after), Duration::ZERO, activity, &limits)
    }

    #[test]
    fn a_thread_that_waits_all_the_time_is_given_up_at_the_deadline() {
        let mut deadline = Deadline::new(Duration::ZERO, millis(2000));
        assert_eq!(deadline.next_check(), millis(1900));
        assert!(!check(&mut deadline, 1900, false, 5));
        assert_eq!(deadline.next_check(), millis(2000));
        assert!(check(&mut deadline, 2000, false, 5));
    }

    #[test]
    fn a_short_deadline_is_confirmed_within_it() {
        let mut deadline = Deadline::new(Duration::ZERO, millis(50));
        assert!(!check(&mut deadline, 25, false, 5));
        assert!(check(&mut deadline, 50, false, 5));
    }

    #[test]
    fn a_thread_that_ran_in_between_gets_more_time_but_not_for_ever() {
        let mut deadline = Deadline::new(Duration::ZERO, millis(2000));
        let missed = (19..100).find(|tenth| check(&mut deadline, tenth * 100, false, *tenth));
        assert_eq!(missed, None);
        assert!(check(&mut deadline, 10_000, false, 100));
    }

    #[test]
    fn after_a_pause_of_the_host_nobody_is_given_up_at_once() {
        let mut deadline = Deadline::new(Duration::ZERO, millis(2000));
        assert!(!check(&mut deadline, 7000, false, 5));
        assert_eq!(deadline.next_check(), millis(7100));
        let mut went_on = deadline;
        assert!(!check(&mut went_on, 7100, false, 6));
        assert!(check(&mut deadline, 7100, false, 5));

        let mut queued = Deadline::new(Duration::ZERO, millis(2000));
        assert!(!queued.is_missed_in_queue(millis(7000)));
        assert!(queued.is_missed_in_queue(millis(7100)));
        let mut queued = Deadline::new(Duration::ZERO, millis(2000));
        assert!(!queued.is_missed_in_queue(millis(1900)));
        assert!(queued.is_missed_in_queue(millis(2000)));
    }
}
