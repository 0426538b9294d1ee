//! Memory usage of files, as `st_blocks` shows it.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lru::LruCache;

use crate::common::address::AddressRange;
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::common::error::Result;
use crate::common::sync::Mutex;
use crate::target::page_state::MemoryUsage;
use crate::target::{ProcessIdentity, ProcessMemory};

/// Answers that are kept for a range alone.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Processes of which answers are kept that were counted together, and how many of these for each of them.
const KEPT_TOGETHER: (NonZeroUsize, usize) = (NonZeroUsize::new(16).expect("not zero"), 8);

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
    known: Mutex<Known>,
}

/// Ranges, lowest address first, and the memory usage of each.
type Ranges = Arc<[(AddressRange, MemoryUsage)]>;

/// The memory usage of `range`, if just that was counted.
fn usage_in(ranges: &Ranges, range: AddressRange) -> Option<MemoryUsage> {
    let at = ranges.binary_search_by_key(&range.start(), |(range, _)| range.start());
    let (counted, usage) = ranges[at.ok()?];
    (counted == range).then_some(usage)
}

/// What was counted together.
#[derive(Debug)]
struct Together {
    ranges: Ranges,
    /// The usage of all of them, in bytes.
    total: u64,
}

impl Together {
    /// The share of what it cost that one usage has: what is small is not believed for longer because it lies beside
    /// something large.
    fn share_of(&self, usage: MemoryUsage) -> f64 {
        usage.total() as f64 / self.total.max(1) as f64
    }
}

#[derive(Debug)]
struct Known {
    alone: LruCache<(ProcessIdentity, AddressRange), Aged<MemoryUsage>>,
    /// What was counted for listings, which are mostly of small ranges: one entry for all of them.
    together: LruCache<ProcessIdentity, VecDeque<Aged<Together>>>,
}

impl Known {
    /// What is known of a range, and as old as what it is.
    fn get(
        &mut self,
        identity: &ProcessIdentity,
        range: AddressRange,
    ) -> Option<Aged<MemoryUsage>> {
        let together = self.together.get(identity).and_then(|all| {
            all.iter().find_map(|counted| {
                let usage = usage_in(&counted.value().ranges, range)?;
                Some(counted.of_share(usage, counted.value().share_of(usage)))
            })
        });
        together.or_else(|| self.alone.get(&(*identity, range)).cloned())
    }

    /// Keeps what was counted together. Returns what that pushes out.
    #[must_use = "dropping it takes time"]
    fn put(
        &mut self,
        identity: &ProcessIdentity,
        counted: Aged<Together>,
    ) -> Option<Aged<Together>> {
        let all = self
            .together
            .get_or_insert_mut(*identity, VecDeque::default);
        all.push_front(counted);
        if all.len() > KEPT_TOGETHER.1 {
            return all.pop_back();
        }
        None
    }
}

/// The memory usage of many ranges of one process, lowest address first.
#[derive(Debug, Default)]
pub(crate) struct CountedUsage {
    ranges: Ranges,
    /// The time of last modification of the process that they are of, and how long that may be kept.
    modified: Option<(ProcessIdentity, SystemTime, Duration)>,
    is_listing: bool,
}

impl CountedUsage {
    /// That of `range`; `None` where just that was not counted.
    pub(super) fn of(&self, range: AddressRange) -> Option<MemoryUsage> {
        usage_in(&self.ranges, range)
    }

    /// The time of last modification of a process's memory, and how long that may be kept; `None` where that was not asked for.
    pub(super) fn modified_of(&self, identity: &ProcessIdentity) -> Option<(SystemTime, Duration)> {
        let (of, modified, valid) = self.modified?;
        (of == *identity).then_some((modified, valid))
    }

    /// With that time of a process.
    pub(super) fn modified(
        self,
        identity: ProcessIdentity,
        (modified, valid): (SystemTime, Duration),
    ) -> Self {
        Self {
            modified: Some((identity, modified, valid)),
            ..self
        }
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
            known: Mutex::new(Known {
                alone: LruCache::new(KEPT),
                together: LruCache::new(KEPT_TOGETHER.0),
            }),
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
        let now = self.clock.now();
        let known = self.known.lock().get(memory.identity(), range);
        if let Some(known) = known.filter(|known| self.is_young(known, now)) {
            return Ok(*known.value());
        }
        let counted = Aged::try_find(&*self.clock, || memory.memory_usage(&[range]))?;
        let usage = counted.value().first().copied().unwrap_or_default();
        let key = (*memory.identity(), range);
        self.known.lock().alone.put(key, counted.map(|_| usage));
        Ok(usage)
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
        let identity = memory.identity();
        let now = self.clock.now();
        let mut all = self.known.lock();
        let young = |range: &AddressRange| {
            let known = all.get(identity, *range);
            let known = known.filter(|known| self.is_young(known, now));
            known.map(|known| *known.value())
        };
        let known: Vec<_> = ranges.iter().map(young).collect();
        drop(all);
        let unknown: Vec<_> = ranges
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(range, _)| *range)
            .collect();
        let counted = self.count(memory, &unknown)?;
        if unknown.len() == ranges.len() {
            return Ok(CountedUsage {
                ranges: counted,
                ..CountedUsage::default()
            });
        }
        let mut counted = counted.iter().map(|(_, usage)| *usage);
        let usages = known
            .into_iter()
            .map(|known| known.or_else(|| counted.next()).unwrap_or_default());
        Ok(CountedUsage {
            ranges: ranges.into_iter().zip(usages).collect(),
            ..CountedUsage::default()
        })
    }

    fn is_young(&self, known: &Aged<MemoryUsage>, now: Duration) -> bool {
        // Nothing at all is believed within the bound only: `tar -S` does not open such a file.
        let factor = match known.value().total() {
            0 => 0,
            _ => COST_FACTOR,
        };
        known.is_within(now, self.bound, factor)
    }

    /// Counts many ranges together.
    fn count(&self, memory: &dyn ProcessMemory, ranges: &[AddressRange]) -> Result<Ranges> {
        if ranges.is_empty() {
            return Ok(Ranges::default());
        }
        let counted = Aged::try_find(&*self.clock, || memory.memory_usage(ranges))?;
        let counted = counted.map(|counted| Together {
            total: counted.iter().map(|usage| usage.total()).sum(),
            ranges: ranges.iter().copied().zip(counted).collect(),
        });
        let identity = memory.identity();
        let found = Arc::clone(&counted.value().ranges);
        let mut all = self.known.lock();
        // What is believed for longer than the bound is kept for longer, too.
        if counted.is_dearer_than(self.bound, COST_FACTOR) {
            for (range, usage) in found.iter() {
                let usage = counted.of_share(*usage, counted.value().share_of(*usage));
                if usage.is_dearer_than(self.bound, COST_FACTOR) {
                    all.alone.put((*identity, *range), usage);
                }
            }
        }
        let former = all.put(identity, counted);
        drop(all);
        // Outside the lock.
        drop(former);
        Ok(found)
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
