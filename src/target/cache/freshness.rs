//! How old data may be: one bound for this cache and the kernel's together.
//!
//! Time is cut into epochs, one sequence for each address space. Whatever is
//! read, and whatever the kernel keeps of it, belongs to the epoch in which the
//! read began, and all of it goes when the epoch ends, at most the bound later.
//! The kernel learns of the end through attributes that expire with the epoch
//! and an `mtime` that is its start (`FUSE_AUTO_INVAL_DATA`). Two caches that
//! each held data for the bound would serve it at twice the age.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::clock::Clock;
use crate::common::sync::Mutex;
use crate::common::sync::atomic::{AtomicU64, Ordering};

/// The kernel counts in jiffies and rounds up: this much of an epoch it is not
/// given (one jiffy at 100 Hz).
const JIFFY: Duration = Duration::from_millis(10);

/// The bound, the clock it is measured with, and the moment before which nothing counts any more.
#[derive(Debug)]
pub struct Freshness {
    bound: Duration,
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    /// Epochs up to this one have ended early: somebody wrote. Always less than `next`.
    ended: AtomicU64,
}

/// A span in which data stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    number: u64,
    started: Duration,
    wall: SystemTime,
}

impl Epoch {
    /// When it started, as the `mtime` of files shows it.
    pub fn modified(self) -> SystemTime {
        self.wall
    }

    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// The current epoch of one address space; clones are the same one.
///
/// The lock is taken before the clock is read, so that epochs follow one another. Nothing is locked inside it.
#[derive(Clone, Debug)]
pub struct SpaceEpoch(Arc<Mutex<Epoch>>);

impl Freshness {
    /// A bound of `bound`; zero means that nothing is kept.
    pub fn new(bound: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            bound,
            clock,
            next: AtomicU64::new(1),
            ended: AtomicU64::new(0),
        }
    }

    /// The age that data may have.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The clock that it goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// An epoch of an address space that nothing is known of yet.
    pub fn new_space(&self) -> SpaceEpoch {
        SpaceEpoch(Arc::new(Mutex::new(self.begin(SystemTime::UNIX_EPOCH))))
    }

    /// The space's epoch, a new one where the last has ended.
    pub fn current(&self, space: &SpaceEpoch) -> Epoch {
        let mut epoch = space.0.lock();
        if self.is_over(*epoch, Duration::ZERO) {
            *epoch = self.begin(epoch.wall);
        }
        *epoch
    }

    /// Ends the space's epoch: what was read before now does not count any more.
    pub fn renew(&self, space: &SpaceEpoch) -> Epoch {
        let mut epoch = space.0.lock();
        *epoch = self.begin(epoch.wall);
        *epoch
    }

    /// The epoch that the kernel may keep what it knows for, and how long still; a new one where hardly anything is left of the last.
    pub fn for_kernel(&self, space: &SpaceEpoch) -> (Epoch, Duration) {
        let held_back = self.held_back();
        let mut epoch = space.0.lock();
        if self.is_over(*epoch, held_back) {
            *epoch = self.begin(epoch.wall);
        }
        let end = epoch.started + self.bound.saturating_sub(held_back);
        (*epoch, end.saturating_sub(self.clock.now()))
    }

    /// How long the kernel may keep what is true now.
    pub fn longest_for_kernel(&self) -> Duration {
        self.bound.saturating_sub(self.held_back())
    }

    /// Ends all epochs of all spaces: a write can show in any of them (shared memory, shared address spaces).
    pub fn end_all(&self) {
        self.ended.fetch_max(
            self.next.load(Ordering::SeqCst).saturating_sub(1),
            Ordering::SeqCst,
        );
    }

    /// Whether what was read in `epoch` still counts.
    pub fn is_valid(&self, epoch: Epoch) -> bool {
        !self.is_over(epoch, Duration::ZERO)
    }

    fn is_over(&self, epoch: Epoch, early: Duration) -> bool {
        let ended = self.ended.load(Ordering::SeqCst);
        debug_assert!(
            ended < self.next.load(Ordering::SeqCst),
            "only what has begun has ended"
        );
        epoch.number <= ended || self.clock.now() + early >= epoch.started + self.bound
    }

    /// An epoch that starts now, with a start that no earlier one of the space had.
    fn begin(&self, last: SystemTime) -> Epoch {
        Epoch {
            number: self.next.fetch_add(1, Ordering::SeqCst),
            started: self.clock.now(),
            wall: self.clock.wall().max(last + Duration::from_nanos(1)),
        }
    }

    fn held_back(&self) -> Duration {
        JIFFY.min(self.bound / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;

    const BOUND: Duration = Duration::from_millis(100);

    fn freshness() -> (Arc<ManualClock>, Freshness) {
        let clock = Arc::new(ManualClock::new());
        (Arc::clone(&clock), Freshness::new(BOUND, clock))
    }

    /// SEMANTICS: a read is never older than the freshness bound.
    #[test]
    fn an_epoch_ends_with_the_bound() {
        let (clock, freshness) = freshness();
        let space = freshness.new_space();
        let first = freshness.current(&space);
        clock.advance(BOUND - Duration::from_nanos(1));
        assert_eq!(freshness.current(&space), first);
        assert!(freshness.is_valid(first));
        clock.advance(Duration::from_nanos(1));
        assert!(!freshness.is_valid(first));
        let second = freshness.current(&space);
        assert!(second.modified() > first.modified());
    }

    #[test]
    fn the_kernel_never_keeps_data_beyond_the_epoch() {
        let (clock, freshness) = freshness();
        let space = freshness.new_space();
        freshness.renew(&space);
        for step in [0, 30, 59] {
            clock.advance(Duration::from_millis(step));
            let (epoch, left) = freshness.for_kernel(&space);
            assert!(left > Duration::ZERO);
            assert!(clock.now() + left + JIFFY <= epoch.started + BOUND);
        }
        let before = freshness.for_kernel(&space).0;
        clock.advance(Duration::from_millis(1));
        let after = freshness.for_kernel(&space).0;
        assert!(
            after.modified() > before.modified(),
            "the last jiffy is not the kernel's"
        );
    }

    #[test]
    fn epochs_differ_even_where_the_clock_stands() {
        let (_, freshness) = freshness();
        let space = freshness.new_space();
        let first = freshness.renew(&space);
        let second = freshness.renew(&space);
        assert!(second.modified() > first.modified());
        assert_ne!(first.number(), second.number());
    }

    #[test]
    fn a_write_ends_the_epochs_of_all_spaces() {
        let (_, freshness) = freshness();
        let spaces = [freshness.new_space(), freshness.new_space()];
        let before = spaces.each_ref().map(|space| freshness.renew(space));
        freshness.end_all();
        for (space, before) in spaces.iter().zip(before) {
            assert!(!freshness.is_valid(before));
            let after = freshness.current(space);
            assert_ne!(after.number(), before.number());
            assert!(freshness.is_valid(after));
        }
    }

    #[test]
    fn without_a_bound_nothing_is_kept() {
        let clock = Arc::new(ManualClock::new());
        let freshness = Freshness::new(Duration::ZERO, clock);
        let space = freshness.new_space();
        assert!(!freshness.is_valid(freshness.current(&space)));
        assert_eq!(freshness.for_kernel(&space).1, Duration::ZERO);
    }
}
