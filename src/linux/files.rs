//! What the kernel says of the files behind mappings, a moment ago.
//!
//! Hundreds of processes map the same few libraries: a walk through all of them asks once.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::Statx;

use crate::clock::Clock;
use crate::mapping::Device;

/// Files that are known at a time.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A file, whoever maps it: the device and the number of its inode.
type Key = (Device, u64);

/// Files as they were a moment ago.
#[derive(Debug)]
pub(super) struct FileStatuses {
    clock: Arc<dyn Clock>,
    /// How old an answer may be.
    bound: Duration,
    known: Mutex<LruCache<Key, (Duration, Option<Statx>)>>,
}

impl FileStatuses {
    pub(super) fn new(clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            clock,
            bound,
            known: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The status of a file, by `ask` where it is not known; `None` where it cannot be had.
    pub(super) fn of(
        &self,
        device: Device,
        inode: u64,
        ask: impl FnOnce() -> Option<Statx>,
    ) -> Option<Statx> {
        let key = (device, inode);
        let now = self.clock.now();
        if let Some((taken, status)) = self.known.lock().get(&key)
            && now.saturating_sub(*taken) < self.bound
        {
            return *status;
        }
        // Without the lock: a file system may take its time.
        let status = ask();
        self.known.lock().put(key, (now, status));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_file_is_asked_for_once_within_the_bound() {
        let clock = Arc::new(ManualClock::new());
        let bound = Duration::from_millis(100);
        let files = FileStatuses::new(Arc::clone(&clock) as _, bound);
        let device = Device { major: 8, minor: 1 };
        let status = rustix::fs::statx(
            rustix::fs::CWD,
            "/proc",
            rustix::fs::AtFlags::empty(),
            rustix::fs::StatxFlags::BASIC_STATS,
        )
        .unwrap();
        let asked = std::cell::Cell::new(0);
        let ask = |inode| {
            files
                .of(device, inode, || {
                    asked.set(asked.get() + 1);
                    Some(status)
                })
                .is_some()
        };
        assert!(ask(1) && ask(1));
        assert_eq!(asked.get(), 1);
        assert!(ask(2));
        assert_eq!(asked.get(), 2);
        clock.advance(bound);
        assert!(ask(1));
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn without_a_bound_every_question_is_asked() {
        let files = FileStatuses::new(Arc::new(ManualClock::new()), Duration::ZERO);
        let mut asked = 0;
        for _ in 0..3 {
            files.of(Device::default(), 7, || {
                asked += 1;
                None
            });
        }
        assert_eq!(asked, 3);
    }
}
