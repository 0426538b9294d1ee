//! Processes that have not answered lately.

use std::collections::HashMap;
use std::time::Duration;

use super::{Limits, Target};
use crate::common::pid::ProcessId;

#[derive(Debug)]
struct Backoff {
    target: Target,
    /// How long the next request waits.
    deadline: Duration,
    until: Duration,
}

/// The shorter deadlines of processes that did not answer.
///
/// One begins where a request waited for its full time without an answer, and a request that waits for less does
/// not prolong it: else a process that needs more than that would never be given it again. Each answer
/// that comes in time doubles the deadline, until it is the full one again: one page of a process may be
/// there while the next one is not. An answer that comes late shows that it answers at all.
#[derive(Debug, Default)]
pub(super) struct Backoffs(HashMap<ProcessId, Backoff>);

impl Backoffs {
    /// Whether there is one for what may be this process.
    pub(super) fn knows(&self, target: Target) -> bool {
        self.of(target).is_some()
    }

    fn of(&self, target: Target) -> Option<&Backoff> {
        let known = self.0.get(&target.pid)?;
        known.target.is(target).then_some(known)
    }

    /// How long a request waits that begins `now`.
    pub(super) fn deadline(&self, target: Target, now: Duration, limits: &Limits) -> Duration {
        match self.of(target) {
            Some(known) if now < known.until => known.deadline,
            _ => limits.deadline,
        }
    }

    /// A request was not answered in time.
    pub(super) fn missed(&mut self, target: Target, reduced: bool, now: Duration, limits: &Limits) {
        let known = self.of(target).map(|known| known.until);
        let until = match (reduced, known) {
            (true, None) => return,
            (true, Some(until)) => until,
            (false, _) => now + limits.backoff,
        };
        let backoff = Backoff {
            target,
            deadline: limits.reduced,
            until,
        };
        self.0.insert(target.pid, backoff);
    }

    /// A request was answered in time.
    pub(super) fn answered(&mut self, target: Target, limits: &Limits) {
        if !self.knows(target) {
            return;
        }
        if let Some(known) = self.0.get_mut(&target.pid) {
            known.deadline *= 2;
            if known.deadline >= limits.deadline {
                self.0.remove(&target.pid);
            }
        }
    }

    /// A request was answered after its deadline.
    pub(super) fn answered_late(&mut self, target: Target) {
        if self.knows(target) {
            self.0.remove(&target.pid);
        }
    }

    pub(super) fn drop_old(&mut self, now: Duration) {
        self.0.retain(|_, known| now < known.until);
    }
}
