//! How much memory files hold, as `st_blocks` shows it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::address::AddressRange;
use crate::clock::Clock;
use crate::error::Result;
use crate::process::{ProcessIdentity, ProcessMemory};
use crate::residency::Held;

/// Answers that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// An answer may be as old as finding it took, times this: the kernel asks for attributes again
/// and again while a file is read, and counting the pages of 16 GiB takes a sixth of a second.
const COST_FACTOR: u32 = 20;

#[derive(Debug)]
struct Known {
    held: Held,
    taken: Duration,
    cost: Duration,
}

/// What was counted a moment ago.
#[derive(Debug)]
pub(super) struct HeldMemory {
    clock: Arc<dyn Clock>,
    /// The freshness bound.
    bound: Duration,
    known: Mutex<LruCache<(ProcessIdentity, AddressRange), Known>>,
}

impl HeldMemory {
    pub(super) fn new(clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            clock,
            bound,
            known: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// Nothing at all is believed within the bound only: `tar -S` does not look at such a file.
    fn lifetime(&self, known: &Known) -> Duration {
        match known.held.total() {
            0 => self.bound,
            _ => self.bound.max(known.cost * COST_FACTOR),
        }
    }

    /// Memory that a range holds, now or a moment ago.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub(super) fn of(&self, memory: &dyn ProcessMemory, range: AddressRange) -> Result<Held> {
        let key = (*memory.identity(), range);
        let now = self.clock.now();
        if let Some(known) = self.known.lock().get(&key)
            && now.saturating_sub(known.taken) <= self.lifetime(known)
        {
            return Ok(known.held);
        }
        let held = memory.held(range)?;
        let cost = self.clock.now().saturating_sub(now);
        let known = Known {
            held,
            taken: now,
            cost,
        };
        self.known.lock().put(key, known);
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, PAGE_SIZE};
    use crate::clock::ManualClock;
    use crate::process::fake::FakeProcess;

    #[test]
    fn pages_are_counted_once_within_the_bound() {
        let clock = Arc::new(ManualClock::new());
        let bound = Duration::from_millis(100);
        let counter = HeldMemory::new(Arc::clone(&clock) as _, bound);
        let process = FakeProcess::new(7, b"fake");
        process.reserve(0x1000, 8).map(0x3000, b"x");
        let memory = process.open();
        let range = AddressRange::new(Address::new(0x1000), Address::new(0x9000)).unwrap();
        let count = || counter.of(&*memory, range).unwrap().resident / PAGE_SIZE;
        assert_eq!(count(), 1);
        process.map(0x4000, b"x");
        assert_eq!(count(), 1);
        clock.advance(bound + Duration::from_millis(1));
        assert_eq!(count(), 2);
    }
}
