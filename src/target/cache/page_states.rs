//! Where the bytes of mappings are: one answer serves all who seek within the bound.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::freshness::Epoch;
use crate::common::address::{Address, AddressRange};
use crate::common::error::Result;
use crate::common::sync::Mutex;
use crate::target::ProcessMemory;
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, are_contiguous};

/// Mappings whose extents are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Extents that are asked for together: a sparse copy asks for one at a time.
const AT_MOST: usize = 1024;

/// Extents that are kept of all mappings of one address space: how many there are is a target's
/// to decide. The last answer is always kept.
const KEPT_EXTENTS: usize = 4 * AT_MOST;

/// What was said of a mapping in one epoch.
#[derive(Debug)]
struct Known {
    epoch: u64,
    /// In order and without a gap.
    extents: Vec<Extent>,
}

/// Extents of the mappings of one address space, by their start.
///
/// The lock guards all of them. It is not held while the memory is asked, and nothing is locked inside it.
#[derive(Debug)]
pub(super) struct PageStateCache(Mutex<LruCache<Address, Known>>);

impl Default for PageStateCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl PageStateCache {
    /// As [`ProcessMemory::extents`], from what is known of this epoch if that will do.
    pub(super) fn extents(
        &self,
        memory: &dyn ProcessMemory,
        epoch: Epoch,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        let start = mapping.range().start();
        if let Some(known) = self.0.lock().get(&start)
            && known.epoch == epoch.number()
            && let Some(extents) = known.part(range, at_most)
        {
            return Ok(extents);
        }
        let rest = AddressRange::new(range.start(), mapping.range().end()).unwrap_or(range);
        let mut extents = memory.extents(mapping, rest, AT_MOST.max(at_most))?;
        // An answer may end early: who asks goes on from there.
        extents.truncate(AT_MOST.max(at_most));
        extents.shrink_to_fit();
        debug_assert!(are_contiguous(&extents, range.start()), "{extents:?}");
        let known = Known {
            epoch: epoch.number(),
            extents,
        };
        let part = known.part(range, at_most).unwrap_or_default();
        let mut all = self.0.lock();
        all.put(start, known);
        while all.len() > 1 && extents_in(&all) > KEPT_EXTENTS {
            all.pop_lru();
        }
        Ok(part)
    }

    /// Forgets all of it.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

fn extents_in(all: &LruCache<Address, Known>) -> usize {
    all.iter().map(|(_, known)| known.extents.len()).sum()
}

impl Known {
    /// The extents from the start of `range` on; `None` where nothing is known of that.
    fn part(&self, range: AddressRange, at_most: usize) -> Option<Vec<Extent>> {
        let from = self
            .extents
            .partition_point(|extent| extent.range.end() <= range.start());
        let first = self.extents.get(from)?;
        if !first.range.contains(range.start()) {
            return None;
        }
        let part = self.extents[from..].iter().take(at_most.max(1));
        Some(
            part.map(|extent| Extent {
                range: extent.range.intersection(range),
                state: extent.state,
            })
            .take_while(|extent| !extent.range.is_empty())
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
    fn one_answer_serves_all_who_seek_within_the_bound() {
        const START: u64 = 0x10_0000;
        let process = FakeProcess::new(7, b"fake");
        process.reserve(START, 64);
        for page in (0..64).step_by(2) {
            process.map(START + page * PAGE_SIZE, b"data");
        }
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        let space = freshness.new_space();
        let (memory, page_states) = (process.open(), PageStateCache::default());
        let mapping = fake::mapping(START, 64);
        let rest = |page: u64| {
            let start = Address::new(START + page * PAGE_SIZE + 7);
            AddressRange::new(start, mapping.range().end()).unwrap()
        };
        let ask = |page: u64, at_most| {
            let epoch = freshness.current(&space);
            let seen = page_states.extents(&*memory, epoch, &mapping, rest(page), at_most);
            seen.unwrap()
        };
        let bare = |page: u64, at_most| memory.extents(&mapping, rest(page), at_most).unwrap();
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
    fn what_is_kept_is_bounded_however_many_extents_there_are() {
        const PAGES: u64 = 4 * AT_MOST as u64;
        const STEP: u64 = PAGES * PAGE_SIZE;
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        let epoch = freshness.current(&freshness.new_space());
        let process = FakeProcess::new(7, b"fake");
        let (memory, page_states) = (process.open(), PageStateCache::default());
        for mapping in 1..=8 {
            process.reserve(mapping * STEP, PAGES as usize);
            for page in (0..PAGES).step_by(2) {
                process.map(mapping * STEP + page * PAGE_SIZE, b"data");
            }
            let mapping = fake::mapping(mapping * STEP, PAGES);
            let ask =
                |at_most| page_states.extents(&*memory, epoch, &mapping, mapping.range(), at_most);
            assert_eq!(ask(3).unwrap().len(), 3);
            assert!(extents_in(&page_states.0.lock()) <= KEPT_EXTENTS);
        }
        assert_eq!(page_states.0.lock().len(), KEPT_EXTENTS / AT_MOST);
        page_states.clear();
        assert_eq!(extents_in(&page_states.0.lock()), 0);
    }
}
