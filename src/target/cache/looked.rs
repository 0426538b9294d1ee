//! Where the bytes of mappings are: one look serves all who seek within the bound.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::freshness::Epoch;
use crate::common::address::{Address, AddressRange};
use crate::common::error::Result;
use crate::target::ProcessMemory;
use crate::target::mapping::Mapping;
use crate::target::page_state::Stretch;

/// Mappings whose stretches are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Stretches that one look takes in: a sparse copy asks for one at a time.
const AT_MOST: usize = 1024;

/// Stretches that are kept of all mappings of one address space: how many there are is a target's
/// to decide. The look that was taken last is always kept.
const KEPT_STRETCHES: usize = 4 * AT_MOST;

/// What one look saw: stretches without a gap.
#[derive(Debug)]
struct Look {
    epoch: u64,
    stretches: Vec<Stretch>,
}

/// What was seen of the mappings of one address space, by their start.
#[derive(Debug)]
pub(super) struct Looked(Mutex<LruCache<Address, Look>>);

impl Default for Looked {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Looked {
    /// As [`ProcessMemory::contents`], from what was seen in this epoch if that will do.
    pub(super) fn contents(
        &self,
        memory: &dyn ProcessMemory,
        epoch: Epoch,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Stretch>> {
        let start = mapping.range().start();
        if let Some(look) = self.0.lock().get(&start)
            && look.epoch == epoch.number()
            && let Some(stretches) = look.part(range, at_most)
        {
            return Ok(stretches);
        }
        let rest = AddressRange::new(range.start(), mapping.range().end()).unwrap_or(range);
        let mut stretches = memory.contents(mapping, rest, AT_MOST.max(at_most))?;
        // A look may end early: who asks goes on from there.
        stretches.truncate(AT_MOST.max(at_most));
        stretches.shrink_to_fit();
        let look = Look {
            epoch: epoch.number(),
            stretches,
        };
        let part = look.part(range, at_most).unwrap_or_default();
        let mut known = self.0.lock();
        known.put(start, look);
        while known.len() > 1 && stretches_of(&known) > KEPT_STRETCHES {
            known.pop_lru();
        }
        Ok(part)
    }

    /// Forgets all that was seen.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

fn stretches_of(known: &LruCache<Address, Look>) -> usize {
    known.iter().map(|(_, look)| look.stretches.len()).sum()
}

impl Look {
    /// The stretches from the start of `range` on; `None` where the look did not see that.
    fn part(&self, range: AddressRange, at_most: usize) -> Option<Vec<Stretch>> {
        let from = self
            .stretches
            .partition_point(|stretch| stretch.range.end() <= range.start());
        let first = self.stretches.get(from)?;
        if !first.range.contains(range.start()) {
            return None;
        }
        let part = self.stretches[from..].iter().take(at_most.max(1));
        Some(
            part.map(|stretch| Stretch {
                range: stretch.range.intersection(range),
                content: stretch.content,
            })
            .take_while(|stretch| !stretch.range.is_empty())
            .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::common::address::PAGE_SIZE;
    use crate::common::clock::ManualClock;
    use crate::target::cache::Freshness;
    use crate::target::fake::{self, FakeProcess};

    #[test]
    fn one_look_serves_all_who_seek_within_the_bound() {
        const START: u64 = 0x10_0000;
        let process = FakeProcess::new(7, b"fake");
        process.reserve(START, 64);
        for page in (0..64).step_by(2) {
            process.map(START + page * PAGE_SIZE, b"data");
        }
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        let space = freshness.new_space();
        let (memory, looked) = (process.open(), Looked::default());
        let mapping = fake::mapping(START, 64);
        let rest = |page: u64| {
            let start = Address::new(START + page * PAGE_SIZE + 7);
            AddressRange::new(start, mapping.range().end()).unwrap()
        };
        let ask = |page: u64, at_most| {
            let epoch = freshness.current(&space);
            let seen = looked.contents(&*memory, epoch, &mapping, rest(page), at_most);
            seen.unwrap()
        };
        let bare = |page: u64, at_most| memory.contents(&mapping, rest(page), at_most).unwrap();
        for at_most in [1, 3, 100] {
            for page in [5, 0, 63, 6] {
                assert_eq!(ask(page, at_most), bare(page, at_most), "{page} {at_most}");
            }
        }
        let before = ask(0, 100);
        process.map(START + PAGE_SIZE, b"more");
        assert_eq!(ask(0, 100), before, "within the bound");
        freshness.end_all();
        assert_eq!(ask(0, 100), bare(0, 100));
    }

    /// SEMANTICS: a target does not decide what the daemon holds.
    #[test]
    fn what_is_kept_is_bounded_however_many_stretches_there_are() {
        const PAGES: u64 = 4 * AT_MOST as u64;
        const STEP: u64 = PAGES * PAGE_SIZE;
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        let epoch = freshness.current(&freshness.new_space());
        let process = FakeProcess::new(7, b"fake");
        let (memory, looked) = (process.open(), Looked::default());
        for mapping in 1..=8 {
            process.reserve(mapping * STEP, PAGES as usize);
            for page in (0..PAGES).step_by(2) {
                process.map(mapping * STEP + page * PAGE_SIZE, b"data");
            }
            let mapping = fake::mapping(mapping * STEP, PAGES);
            let ask =
                |at_most| looked.contents(&*memory, epoch, &mapping, mapping.range(), at_most);
            assert_eq!(ask(3).unwrap().len(), 3);
            assert!(stretches_of(&looked.0.lock()) <= KEPT_STRETCHES);
        }
        assert_eq!(looked.0.lock().len(), KEPT_STRETCHES / AT_MOST);
        looked.clear();
        assert_eq!(stretches_of(&looked.0.lock()), 0);
    }
}
