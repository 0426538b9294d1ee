//! Blocks of memory by address space and page, in two generations.
//!
//! A block that comes in is on probation; one that is asked for again is
//! proven. Room is made among those on probation, the least recently used
//! first, so that one pass over a large file pushes out nothing but itself
//! (a segmented LRU).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use lru::LruCache;

use super::freshness::Epoch;
use crate::address::{Address, PAGE_SIZE};
use crate::metrics::Metrics;

/// Distinguishes the address spaces that share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SpaceId(u64);

#[derive(Debug)]
struct Block {
    epoch: u64,
    bytes: Box<[u8]>,
}

type Generation = LruCache<(SpaceId, u64), Block>;

#[derive(Debug)]
struct Blocks {
    /// Blocks that the budget allows, of both generations.
    capacity: usize,
    /// Unbounded by itself, as the other one is: `make_room` keeps the budget.
    probation: Generation,
    proven: Generation,
    /// Blocks of each space, so that a space without any costs no look-up.
    of_space: HashMap<SpaceId, usize>,
}

/// The cache that all processes share.
///
/// One lock guards it all: a request takes it once to look up all of its
/// pages and once to add them, and nothing is read from a process meanwhile.
#[derive(Debug)]
pub struct PageCache {
    next_space: AtomicU64,
    blocks: Mutex<Blocks>,
    metrics: Arc<Metrics>,
}

impl PageCache {
    /// A cache that holds at most `budget` bytes of memory.
    pub fn new(budget: u64, metrics: Arc<Metrics>) -> Self {
        Self {
            next_space: AtomicU64::new(0),
            blocks: Mutex::new(Blocks {
                capacity: usize::try_from(budget / PAGE_SIZE).unwrap_or(usize::MAX),
                probation: LruCache::unbounded(),
                proven: LruCache::unbounded(),
                of_space: HashMap::new(),
            }),
            metrics,
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn new_space(&self) -> SpaceId {
        SpaceId(self.next_space.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the cache to look pages of a space up; `None` where it holds none at all.
    pub(super) fn look(&self, space: SpaceId, epoch: Epoch) -> Option<Look<'_>> {
        let blocks = self.blocks.lock();
        blocks.of_space.contains_key(&space).then_some(Look {
            blocks,
            space,
            epoch,
        })
    }

    /// Adds the pages that `bytes` hold, the first at `start`, which begins a page.
    pub(super) fn add(&self, space: SpaceId, epoch: Epoch, start: Address, bytes: &[u8]) {
        let mut blocks = self.blocks.lock();
        if blocks.capacity == 0 {
            return;
        }
        for (index, page) in (0_u64..).zip(bytes.chunks_exact(PAGE_SIZE as usize)) {
            let number = start.get() / PAGE_SIZE + index;
            blocks.add((space, number), epoch.number(), page);
        }
        self.metrics
            .cache_bytes
            .set(blocks.len() as u64 * PAGE_SIZE);
    }

    /// Drops all blocks of a space.
    pub(super) fn forget(&self, space: SpaceId) {
        let mut blocks = self.blocks.lock();
        blocks.forget(space);
        self.metrics
            .cache_bytes
            .set(blocks.len() as u64 * PAGE_SIZE);
    }
}

/// The cache, locked for look-ups in one space.
pub(super) struct Look<'a> {
    blocks: MutexGuard<'a, Blocks>,
    space: SpaceId,
    epoch: Epoch,
}

impl Look<'_> {
    /// Copies bytes of one page, from `address` on, if the page was read in this epoch.
    pub(super) fn copy(&mut self, address: Address, out: &mut [u8]) -> bool {
        let key = (self.space, address.get() / PAGE_SIZE);
        match self.blocks.get(key) {
            Some(block) if block.epoch == self.epoch.number() => {
                let from = address.since(address.page_start()) as usize;
                out.copy_from_slice(&block.bytes[from..from + out.len()]);
                true
            }
            _ => false,
        }
    }
}

impl Blocks {
    fn len(&self) -> usize {
        self.probation.len() + self.proven.len()
    }

    /// The block of a page, which is proven by being asked for.
    fn get(&mut self, key: (SpaceId, u64)) -> Option<&Block> {
        if let Some(block) = self.probation.pop(&key) {
            self.proven.put(key, block);
            // An eighth is left to newcomers, or nothing new would ever be proven.
            if self.proven.len() > self.capacity - self.capacity / 8
                && let Some((key, block)) = self.proven.pop_lru()
            {
                self.probation.put(key, block);
            }
        }
        self.proven.get(&key)
    }

    fn add(&mut self, key: (SpaceId, u64), epoch: u64, page: &[u8]) {
        let known = match self.proven.get_mut(&key) {
            Some(block) => Some(block),
            None => self.probation.get_mut(&key),
        };
        if let Some(block) = known {
            block.epoch = epoch;
            block.bytes.copy_from_slice(page);
            return;
        }
        let bytes = match self.make_room() {
            // The one that leaves lends its memory to the one that comes.
            Some(mut bytes) => {
                bytes.copy_from_slice(page);
                bytes
            }
            None => page.into(),
        };
        self.probation.put(key, Block { epoch, bytes });
        *self.of_space.entry(key.0).or_default() += 1;
        self.check();
    }

    /// Lets blocks go until there is room for one more; returns the memory of one of them.
    fn make_room(&mut self) -> Option<Box<[u8]>> {
        let mut bytes = None;
        while self.len() >= self.capacity {
            let oldest = self.probation.pop_lru().or_else(|| self.proven.pop_lru());
            let Some(((space, _), block)) = oldest else {
                break;
            };
            bytes = Some(block.bytes);
            if let Some(count) = self.of_space.get_mut(&space) {
                *count -= 1;
                if *count == 0 {
                    self.of_space.remove(&space);
                }
            }
        }
        bytes
    }

    fn forget(&mut self, space: SpaceId) {
        if self.of_space.remove(&space).is_none() {
            return;
        }
        for generation in [&mut self.probation, &mut self.proven] {
            let pages: Vec<_> = generation
                .iter()
                .map(|(key, _)| *key)
                .filter(|(of, _)| *of == space)
                .collect();
            for page in pages {
                generation.pop(&page);
            }
        }
        self.check();
    }

    fn check(&self) {
        debug_assert!(self.len() <= self.capacity, "the budget is kept");
        debug_assert!(
            self.len() > 64 || self.of_space.values().sum::<usize>() == self.len(),
            "every block is counted for its space"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Freshness;
    use crate::clock::ManualClock;

    const PAGE: usize = PAGE_SIZE as usize;

    fn epoch() -> Epoch {
        let freshness = Freshness::new(
            std::time::Duration::from_secs(1),
            Arc::new(ManualClock::new()),
        );
        freshness.current(&freshness.new_space())
    }

    fn cache(pages: u64) -> PageCache {
        PageCache::new(pages * PAGE_SIZE, Arc::new(Metrics::default()))
    }

    fn holds(cache: &PageCache, space: SpaceId, epoch: Epoch, page: u64) -> bool {
        cache
            .look(space, epoch)
            .is_some_and(|mut look| look.copy(Address::new(page * PAGE_SIZE), &mut [0]))
    }

    #[test]
    fn the_least_recently_used_page_leaves() {
        let (cache, epoch) = (cache(2), epoch());
        let space = cache.new_space();
        cache.add(space, epoch, Address::new(0), &[1; 2 * PAGE]);
        assert!(holds(&cache, space, epoch, 0));
        cache.add(space, epoch, Address::new(7 * PAGE_SIZE), &[7; PAGE]);
        assert!(holds(&cache, space, epoch, 0));
        assert!(!holds(&cache, space, epoch, 1));
        assert!(holds(&cache, space, epoch, 7));
        assert_eq!(cache.metrics().cache_bytes.get(), 2 * PAGE_SIZE);
    }

    #[test]
    fn one_pass_pushes_out_nothing_that_was_asked_for_again() {
        let (cache, epoch) = (cache(16), epoch());
        let space = cache.new_space();
        cache.add(space, epoch, Address::new(0), &[1; 4 * PAGE]);
        assert!((0..4).all(|page| holds(&cache, space, epoch, page)));
        for page in 100..200 {
            cache.add(space, epoch, Address::new(page * PAGE_SIZE), &[2; PAGE]);
        }
        assert!((0..4).all(|page| holds(&cache, space, epoch, page)));
        assert!((188..200).all(|page| holds(&cache, space, epoch, page)));
        assert!(!holds(&cache, space, epoch, 187));
    }

    #[test]
    fn what_is_proven_leaves_room_for_newcomers() {
        let (cache, epoch) = (cache(16), epoch());
        let space = cache.new_space();
        for page in 0..64 {
            cache.add(space, epoch, Address::new(page * PAGE_SIZE), &[1; PAGE]);
            assert!(holds(&cache, space, epoch, page));
        }
        cache.add(space, epoch, Address::new(100 * PAGE_SIZE), &[1; 2 * PAGE]);
        assert!(holds(&cache, space, epoch, 100) && holds(&cache, space, epoch, 101));
    }

    #[test]
    fn spaces_and_epochs_are_kept_apart() {
        let cache = cache(8);
        let (one, other) = (cache.new_space(), cache.new_space());
        let freshness = Freshness::new(
            std::time::Duration::from_secs(1),
            Arc::new(ManualClock::new()),
        );
        let cell = freshness.new_space();
        let old = freshness.current(&cell);
        cache.add(one, old, Address::new(0), &[1; PAGE]);
        assert!(!holds(&cache, other, old, 0));
        let new = freshness.renew(&cell);
        assert!(!holds(&cache, one, new, 0));
        cache.add(one, new, Address::new(0), &[2; PAGE]);
        let mut byte = [0];
        assert!(
            cache
                .look(one, new)
                .unwrap()
                .copy(Address::new(5), &mut byte)
        );
        assert_eq!(byte, [2]);
    }

    #[test]
    fn a_space_that_is_forgotten_leaves_nothing() {
        let (cache, epoch) = (cache(8), epoch());
        let (one, other) = (cache.new_space(), cache.new_space());
        cache.add(one, epoch, Address::new(0), &[1; 2 * PAGE]);
        cache.add(other, epoch, Address::new(0), &[2; PAGE]);
        cache.forget(one);
        assert!(cache.look(one, epoch).is_none());
        assert!(holds(&cache, other, epoch, 0));
        assert_eq!(cache.metrics().cache_bytes.get(), PAGE_SIZE);
    }

    #[test]
    fn a_budget_below_a_page_keeps_nothing() {
        let (cache, epoch) = (cache(0), epoch());
        let space = cache.new_space();
        cache.add(space, epoch, Address::new(0), &[1; PAGE]);
        assert!(cache.look(space, epoch).is_none());
    }
}
