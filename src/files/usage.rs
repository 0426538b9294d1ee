//! Memory usage of files, as `st_blocks` shows it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use crate::common::address::AddressRange;
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::common::error::Result;
use crate::common::sync::Mutex;
use crate::target::page_state::MemoryUsage;
use crate::target::{ProcessIdentity, ProcessMemory};

/// Answers that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// An answer may be as old as finding it took, times this: the kernel asks for attributes again
/// and again while a file is read, and counting the pages of 16 GiB takes a sixth of a second.
const COST_FACTOR: u32 = 20;

/// What was counted a moment ago.
#[derive(Debug)]
pub(super) struct MemoryUsages {
    clock: Arc<dyn Clock>,
    /// The freshness bound.
    bound: Duration,
    /// Guards the answers. It is not held while pages are counted, and nothing is locked inside it.
    known: Mutex<LruCache<(ProcessIdentity, AddressRange), Aged<MemoryUsage>>>,
}

/// The memory usage of many ranges of one process, lowest address first.
#[derive(Debug, Default)]
pub(crate) struct CountedUsage {
    ranges: Vec<(AddressRange, MemoryUsage)>,
    is_listing: bool,
}

impl CountedUsage {
    /// That of `range`; `None` where just that was not counted.
    pub(super) fn of(&self, range: AddressRange) -> Option<MemoryUsage> {
        let at = self
            .ranges
            .binary_search_by_key(&range.start(), |(range, _)| range.start());
        let (counted, usage) = self.ranges[at.ok()?];
        (counted == range).then_some(usage)
    }

    /// The same, for attributes that are shown beside the names of a directory: they may be those of files of all processes,
    /// and one of these may not answer.
    pub(super) fn of_listing(self) -> Self {
        Self {
            is_listing: true,
            ..self
        }
    }

    /// Whether it is that.
    pub(super) fn is_listing(&self) -> bool {
        self.is_listing
    }
}

impl MemoryUsages {
    pub(super) fn new(clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            clock,
            bound,
            known: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The memory usage of a range, now or a moment ago.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub(super) fn usage_of(
        &self,
        memory: &dyn ProcessMemory,
        range: AddressRange,
    ) -> Result<MemoryUsage> {
        match self.known_usage(memory, range) {
            Some(usage) => Ok(usage),
            None => Ok(self.count(memory, &[range])?[0]),
        }
    }

    /// As [`usage_of`](Self::usage_of) for many `ranges`, in order and not overlapping: they are counted
    /// together, which takes far fewer system calls.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub(super) fn usages_of(
        &self,
        memory: &dyn ProcessMemory,
        ranges: Vec<AddressRange>,
    ) -> Result<CountedUsage> {
        let known: Vec<_> = ranges
            .iter()
            .map(|range| self.known_usage(memory, *range))
            .collect();
        let unknown: Vec<_> = ranges
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(range, _)| *range)
            .collect();
        let mut counted = self.count(memory, &unknown)?.into_iter();
        let usages = known
            .into_iter()
            .map(|known| known.or_else(|| counted.next()).unwrap_or_default());
        Ok(CountedUsage {
            ranges: ranges.into_iter().zip(usages).collect(),
            is_listing: false,
        })
    }

    fn known_usage(&self, memory: &dyn ProcessMemory, range: AddressRange) -> Option<MemoryUsage> {
        let now = self.clock.now();
        let mut all = self.known.lock();
        let known = all.get(&(*memory.identity(), range))?;
        // Nothing at all is believed within the bound only: `tar -S` does not open such a file.
        let factor = match known.value().total() {
            0 => 0,
            _ => COST_FACTOR,
        };
        let is_young = known.is_within(now, self.bound, factor);
        is_young.then(|| *known.value())
    }

    fn count(
        &self,
        memory: &dyn ProcessMemory,
        ranges: &[AddressRange],
    ) -> Result<Vec<MemoryUsage>> {
        let taken = self.clock.now();
        let counted = memory.memory_usage(ranges)?;
        let whole = self.clock.now().saturating_sub(taken);
        let found: u64 = counted.iter().map(|usage| usage.total()).sum();
        let mut all = self.known.lock();
        for (range, usage) in ranges.iter().zip(&counted) {
            // Its share: what is small is not believed for longer because it lies beside something large.
            let cost = whole.mul_f64(usage.total() as f64 / found.max(1) as f64);
            let known = Aged::new(*usage, taken, cost);
            all.put((*memory.identity(), *range), known);
        }
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::{Address, PAGE_SIZE};
    use crate::common::clock::ManualClock;
    use crate::target::fake::{Call, FakeProcess};

    const BOUND: Duration = Duration::from_millis(100);

    /// A process that has written one page of eight.
    fn counter() -> (Arc<ManualClock>, MemoryUsages, FakeProcess) {
        let clock = Arc::new(ManualClock::new());
        let counter = MemoryUsages::new(Arc::clone(&clock) as _, BOUND);
        let process = FakeProcess::new(7, b"fake");
        process.reserve(0x1000, 8).map(0x3000, b"x");
        (clock, counter, process)
    }

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    #[test]
    fn pages_are_counted_once_within_the_bound() {
        let (clock, counter, process) = counter();
        let memory = process.open();
        let count = || {
            counter
                .usage_of(&*memory, range(0x1000, 0x9000))
                .unwrap()
                .resident
                / PAGE_SIZE
        };
        assert_eq!(count(), 1);
        process.map(0x4000, b"x");
        assert_eq!(count(), 1);
        clock.advance(BOUND + Duration::from_millis(1));
        assert_eq!(count(), 2);
    }

    #[test]
    fn many_ranges_are_counted_together() {
        let (_, counter, process) = counter();
        let memory = process.open();
        let ranges = [
            range(0x1000, 0x3000),
            range(0x3000, 0x4000),
            range(0x4000, 0x9000),
        ];
        counter.usage_of(&*memory, ranges[1]).unwrap();
        process.take_calls();
        let counted = counter.usages_of(&*memory, ranges.to_vec()).unwrap();
        let usages = ranges.map(|range| counted.of(range).unwrap().resident);
        assert_eq!(usages, [0, PAGE_SIZE, 0]);
        assert_eq!(
            process.take_calls(),
            [Call::MemoryUsage(2)],
            "one was known"
        );
        assert_eq!(counted.of(range(0x1000, 0x2000)), None);
    }
}
