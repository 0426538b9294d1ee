//! At most one line a minute in the log for each kind of what happens again and again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::common::clock::Clock;
use crate::common::sync::Mutex;

/// How long one line stands for all of its kind.
const WINDOW: Duration = Duration::from_secs(60);

/// What was told of one kind.
#[derive(Debug)]
struct Told {
    last: Duration,
    left_out: u64,
}

/// Decides what is worth a line. There must be few kinds: all are remembered.
#[derive(Debug)]
pub(crate) struct LogLimit<K> {
    clock: Arc<dyn Clock>,
    /// Guards what was told of each kind. Nothing else is locked while it is held.
    kinds: Mutex<HashMap<K, Told>>,
}

impl<K: Eq + Hash> LogLimit<K> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            kinds: Mutex::new(HashMap::new()),
        }
    }

    /// Whether one more of `kind` is to be told now: how many were left out since the last one that was.
    pub(crate) fn admit(&self, kind: K) -> Option<LeftOut> {
        let now = self.clock.now();
        let mut kinds = self.kinds.lock();
        let Some(told) = kinds.get_mut(&kind) else {
            let told = Told {
                last: now,
                left_out: 0,
            };
            kinds.insert(kind, told);
            return Some(LeftOut(0));
        };
        if now.saturating_sub(told.last) < WINDOW {
            told.left_out += 1;
            return None;
        }
        told.last = now;
        Some(LeftOut(std::mem::take(&mut told.left_out)))
    }

    /// Takes the kinds of which some were left out, and how many: all begin anew.
    pub(crate) fn take_left_out(&self) -> Vec<(K, u64)> {
        let kinds = std::mem::take(&mut *self.kinds.lock());
        let rest = kinds.into_iter().map(|(kind, told)| (kind, told.left_out));
        rest.filter(|(_, left_out)| *left_out > 0).collect()
    }
}

/// How many were not told; as text what is to be added to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more of this kind were not logged)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;

    #[test]
    fn one_line_a_kind_and_minute_with_the_number_of_the_others() {
        let clock = Arc::new(ManualClock::new());
        let limit = LogLimit::new(Arc::clone(&clock) as _);
        assert_eq!(limit.admit("a"), Some(LeftOut(0)));
        for _ in 0..1000 {
            assert_eq!(limit.admit("a"), None);
        }
        assert_eq!(limit.admit("b"), Some(LeftOut(0)), "another kind");
        clock.advance(WINDOW - Duration::from_nanos(1));
        assert_eq!(limit.admit("a"), None);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(limit.admit("a"), Some(LeftOut(1001)));
        assert_eq!(limit.admit("a"), None);
        clock.advance(WINDOW);
        assert_eq!(limit.admit("b"), Some(LeftOut(0)));
        assert_eq!(limit.take_left_out(), [("a", 1)]);
        assert_eq!(limit.take_left_out(), []);
    }

    #[test]
    fn the_number_is_told_where_there_is_one() {
        assert_eq!(LeftOut(0).to_string(), "");
        assert_eq!(
            LeftOut(3).to_string(),
            " (3 more of this kind were not logged)"
        );
    }
}
