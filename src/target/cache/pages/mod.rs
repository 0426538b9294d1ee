//! Blocks of memory by address space and page, in two generations.
//!
//! A block that comes in is on probation; one that is asked for again is
//! proven. Those on probation are evicted first, the least recently used
//! one before all others, so that one pass over a large file evicts nothing but itself
//! (a segmented LRU).

mod order;
mod slab;

use std::collections::HashMap;
use std::sync::Arc;

use lru::DefaultHasher;

use super::freshness::Epoch;
use crate::common::address::{Address, PAGE_SIZE};
use crate::common::metrics::Metrics;
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::common::sync::{Mutex, MutexGuard};

use order::{Generation, Order};
use slab::{Slab, Slot};

/// What a page takes of the budget: itself and at most its places in the tables below.
const COST: u64 = PAGE_SIZE + 192;

/// Distinguishes the address spaces that share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SpaceId(u64);

/// One user, other than the mounter, has at most this part of the cache.
const SHARE: usize = 4;

/// Blocks that are looked at for one of the same user, where that user has a full share.
const LOOKED_AT: usize = 64;

/// A page of an address space, by its number.
type Key = (SpaceId, u64);

/// What is known of a block, beside its bytes.
#[derive(Clone, Copy, Debug)]
struct Block {
    key: Key,
    epoch: u64,
}

#[derive(Debug)]
struct Blocks {
    /// The bytes. Each of its slots that is in use is in `slots` and in `order`, once in each.
    slab: Slab,
    slots: HashMap<Key, Slot, DefaultHasher>,
    /// By slot; what stands at one that is free means nothing.
    known: Vec<Block>,
    order: Order,
    /// How many blocks each space has, so that a space without any costs no look-up; none has 0.
    of_space: HashMap<SpaceId, usize, DefaultHasher>,
    /// For whom a space is read, where that is not the mounter.
    users: HashMap<SpaceId, u32, DefaultHasher>,
    /// How many blocks each user has, other than the mounter; none has 0.
    of_user: HashMap<u32, usize, DefaultHasher>,
}

/// The cache that all processes share.
#[derive(Debug)]
pub struct PageCache {
    next_space: AtomicU64,
    /// Guards all that is cached. A request takes it once to look up all of its pages and once to add
    /// them; meanwhile nothing else is locked, and nothing is read from a process.
    blocks: Mutex<Blocks>,
    metrics: Arc<Metrics>,
}

impl PageCache {
    /// A cache that holds at most `budget` bytes of memory.
    pub fn new(budget: u64, metrics: Arc<Metrics>) -> Self {
        Self {
            next_space: AtomicU64::new(0),
            blocks: Mutex::new(Blocks {
                slab: Slab::new(usize::try_from(budget / COST).unwrap_or(usize::MAX)),
                slots: HashMap::default(),
                known: Vec::new(),
                order: Order::default(),
                of_space: HashMap::default(),
                users: HashMap::default(),
                of_user: HashMap::default(),
            }),
            metrics,
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Another space, read for a user, where that is not the mounter.
    pub(super) fn new_space(&self, user: Option<u32>) -> SpaceId {
        let space = SpaceId(self.next_space.fetch_add(1, Ordering::Relaxed));
        if let Some(user) = user {
            self.blocks.lock().users.insert(space, user);
        }
        space
    }

    /// Locks the cache to look up pages of a space; `None` where it holds none at all.
    pub(super) fn lock(&self, space: SpaceId, epoch: Epoch) -> Option<LockedPages<'_>> {
        let blocks = self.blocks.lock();
        blocks.of_space.contains_key(&space).then_some(LockedPages {
            blocks,
            space,
            epoch,
        })
    }

    /// Adds the pages that `bytes` hold, the first at `start`, which begins a page.
    pub(super) fn add(&self, space: SpaceId, epoch: Epoch, start: Address, bytes: &[u8]) {
        let mut blocks = self.blocks.lock();
        for (index, page) in (0_u64..).zip(bytes.chunks_exact(PAGE_SIZE as usize)) {
            let number = start.get() / PAGE_SIZE + index;
            blocks.add((space, number), epoch.number(), page);
        }
        self.metrics
            .cache_bytes
            .set(blocks.slab.len() as u64 * PAGE_SIZE);
    }

    /// Drops all blocks of a space.
    pub(super) fn forget(&self, space: SpaceId) {
        let mut blocks = self.blocks.lock();
        blocks.forget(space);
        self.metrics
            .cache_bytes
            .set(blocks.slab.len() as u64 * PAGE_SIZE);
    }
}

/// The pages of one space, while the cache is locked.
pub(super) struct LockedPages<'a> {
    blocks: MutexGuard<'a, Blocks>,
    space: SpaceId,
    epoch: Epoch,
}

impl LockedPages<'_> {
    /// Copies bytes of one page, from `address` on, if the page was read in this epoch.
    pub(super) fn copy(&mut self, address: Address, out: &mut [u8]) -> bool {
        let key = (self.space, address.get() / PAGE_SIZE);
        match self.blocks.get(key) {
            Some((epoch, page)) if epoch == self.epoch.number() => {
                let from = address.since(address.page_start()) as usize;
                out.copy_from_slice(&page[from..from + out.len()]);
                true
            }
            _ => false,
        }
    }
}

impl Blocks {
    /// The epoch and the bytes of a page, which is proven by being asked for.
    fn get(&mut self, key: Key) -> Option<(u64, &[u8])> {
        let slot = *self.slots.get(&key)?;
        self.order.renew(Generation::Proven, slot);
        // An eighth is left to newcomers, or nothing new would ever be proven.
        let capacity = self.slab.capacity();
        if self.order.len(Generation::Proven) > capacity - capacity / 8
            && let Some(oldest) = self.order.oldest(Generation::Proven)
        {
            self.order.renew(Generation::Probation, oldest);
        }
        Some((self.known[slot as usize].epoch, self.slab.page(slot)))
    }

    fn add(&mut self, key: Key, epoch: u64, page: &[u8]) {
        if let Some(&slot) = self.slots.get(&key) {
            let generation = self.order.generation(slot);
            self.order.renew(generation, slot);
            self.known[slot as usize].epoch = epoch;
            self.slab.page_mut(slot).copy_from_slice(page);
            return;
        }
        let user = self.user(key.0);
        if let Some(user) = user
            && self.of_user.get(&user).copied().unwrap_or_default() >= self.share()
            && !self.evict_of(user)
        {
            return;
        }
        if self.slab.len() == self.slab.capacity() {
            self.evict();
        }
        // Nothing is kept where the system has no memory for it.
        let has_room = self.slots.try_reserve(1).is_ok()
            && self.of_space.try_reserve(1).is_ok()
            && self.known.try_reserve(1).is_ok()
            && self.order.try_reserve();
        if !has_room {
            return;
        }
        // There is none where the budget is below a page.
        let Some(slot) = self.slab.add(page) else {
            return;
        };
        let block = Block { key, epoch };
        match self.known.get_mut(slot as usize) {
            Some(known) => *known = block,
            None => self.known.push(block),
        }
        self.slots.insert(key, slot);
        self.order.put(Generation::Probation, slot);
        *self.of_space.entry(key.0).or_default() += 1;
        if let Some(user) = user {
            *self.of_user.entry(user).or_default() += 1;
        }
        self.check();
    }

    /// Evicts the least recently used block, one on probation if there is any.
    fn evict(&mut self) {
        let oldest = self.order.oldest(Generation::Probation);
        if let Some(slot) = oldest.or_else(|| self.order.oldest(Generation::Proven)) {
            self.evict_slot(slot);
        }
    }

    /// For whom a space is read, where that is not the mounter.
    fn user(&self, space: SpaceId) -> Option<u32> {
        self.users.get(&space).copied()
    }

    /// Blocks that one user may have.
    fn share(&self) -> usize {
        (self.slab.capacity() / SHARE).max(1)
    }

    /// Evicts an old block of a user; returns whether there was one among the oldest.
    fn evict_of(&mut self, user: u32) -> bool {
        let generations = [Generation::Probation, Generation::Proven];
        let of_user = |slot: &Slot| self.user(self.known[*slot as usize].key.0) == Some(user);
        let found = generations.into_iter().find_map(|generation| {
            let oldest = self.order.oldest_first(generation);
            oldest.take(LOOKED_AT).find(of_user)
        });
        if let Some(slot) = found {
            self.evict_slot(slot);
        }
        found.is_some()
    }

    fn evict_slot(&mut self, slot: Slot) {
        let (space, _) = self.known[slot as usize].key;
        self.remove(slot);
        if let Some(count) = self.of_space.get_mut(&space) {
            *count -= 1;
            if *count == 0 {
                self.of_space.remove(&space);
            }
        }
    }

    fn remove(&mut self, slot: Slot) {
        let key = self.known[slot as usize].key;
        self.slots.remove(&key);
        if let Some(user) = self.user(key.0)
            && let Some(count) = self.of_user.get_mut(&user)
        {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&user);
            }
        }
        self.order.take(slot);
        self.slab.remove(slot);
    }

    fn forget(&mut self, space: SpaceId) {
        if self.of_space.remove(&space).is_none() {
            self.users.remove(&space);
            return;
        }
        let slots = self.slots.iter().filter(|((of, _), _)| *of == space);
        let slots: Vec<Slot> = slots.map(|(_, slot)| *slot).collect();
        for slot in slots {
            self.remove(slot);
        }
        // After its blocks, which are counted for its user.
        self.users.remove(&space);
        if self.slots.is_empty() {
            self.slots = HashMap::default();
            self.known = Vec::new();
            self.order = Order::default();
        }
        self.check();
    }

    fn check(&self) {
        debug_assert!(
            self.slots.len() == self.slab.len()
                && self.slots.len()
                    == self.order.len(Generation::Probation) + self.order.len(Generation::Proven),
            "every block is found, and has its turn"
        );
        debug_assert!(
            self.slots.len() > 64 || self.of_space.values().sum::<usize>() == self.slots.len(),
            "every block is counted for its space"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;
    use crate::target::cache::Freshness;

    const PAGE: usize = PAGE_SIZE as usize;

    fn epoch() -> Epoch {
        let freshness = Freshness::new(
            std::time::Duration::from_secs(1),
            Arc::new(ManualClock::new()),
        );
        freshness.current(&freshness.new_space())
    }

    fn cache(pages: u64) -> PageCache {
        PageCache::new(pages * COST, Arc::new(Metrics::default()))
    }

    fn holds(cache: &PageCache, space: SpaceId, epoch: Epoch, page: u64) -> bool {
        cache
            .lock(space, epoch)
            .is_some_and(|mut pages| pages.copy(Address::new(page * PAGE_SIZE), &mut [0]))
    }

    #[test]
    fn the_least_recently_used_page_leaves() {
        let (cache, epoch) = (cache(2), epoch());
        let space = cache.new_space(None);
        cache.add(space, epoch, Address::new(0), &[1; 2 * PAGE]);
        assert!(holds(&cache, space, epoch, 0));
        cache.add(space, epoch, Address::new(7 * PAGE_SIZE), &[7; PAGE]);
        assert!(holds(&cache, space, epoch, 0));
        assert!(!holds(&cache, space, epoch, 1));
        assert!(holds(&cache, space, epoch, 7));
        assert_eq!(cache.metrics().cache_bytes.get(), 2 * PAGE_SIZE);
    }

    /// SEMANTICS: one user takes no place from another.
    #[test]
    fn one_user_has_a_part_of_it_at_most() {
        let (cache, epoch) = (cache(16), epoch());
        let (own, one) = (cache.new_space(None), cache.new_space(Some(1001)));
        let (also, other) = (cache.new_space(Some(1001)), cache.new_space(Some(1002)));
        cache.add(own, epoch, Address::new(0), &[1; 8 * PAGE]);
        for _ in 0..3 {
            for space in [one, also] {
                cache.add(space, epoch, Address::new(0), &[2; 20 * PAGE]);
            }
        }
        let held = |space| {
            (0..20)
                .filter(|page| holds(&cache, space, epoch, *page))
                .count()
        };
        assert_eq!((held(own), held(one) + held(also)), (8, 4));
        cache.add(other, epoch, Address::new(0), &[3; 4 * PAGE]);
        assert_eq!((held(own), held(other), held(also)), (8, 4, 4));
        assert_eq!(cache.blocks.lock().of_user[&1001], 4);
        for space in [one, also, other] {
            cache.forget(space);
        }
        let blocks = cache.blocks.lock();
        assert!(blocks.of_user.is_empty() && blocks.users.is_empty());
    }

    #[test]
    fn one_pass_pushes_out_nothing_that_was_asked_for_again() {
        let (cache, epoch) = (cache(16), epoch());
        let space = cache.new_space(None);
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
        let space = cache.new_space(None);
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
        let (one, other) = (cache.new_space(None), cache.new_space(None));
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
                .lock(one, new)
                .unwrap()
                .copy(Address::new(5), &mut byte)
        );
        assert_eq!(byte, [2]);
    }

    #[test]
    fn a_space_that_is_forgotten_leaves_nothing() {
        let (cache, epoch) = (cache(8), epoch());
        let (one, other) = (cache.new_space(None), cache.new_space(None));
        cache.add(one, epoch, Address::new(0), &[1; 2 * PAGE]);
        cache.add(other, epoch, Address::new(0), &[2; PAGE]);
        cache.forget(one);
        assert!(cache.lock(one, epoch).is_none());
        assert!(holds(&cache, other, epoch, 0));
        assert_eq!(cache.metrics().cache_bytes.get(), PAGE_SIZE);
    }

    #[test]
    fn a_budget_below_a_page_keeps_nothing() {
        for budget in [0, 1, COST - 1] {
            let cache = PageCache::new(budget, Arc::new(Metrics::default()));
            let (space, epoch) = (cache.new_space(None), epoch());
            cache.add(space, epoch, Address::new(0), &[1; PAGE]);
            assert!(cache.lock(space, epoch).is_none());
            assert_eq!(cache.metrics().cache_bytes.get(), 0);
        }
    }

    #[test]
    fn what_is_kept_of_a_page_is_counted() {
        // A hash table has a byte more for each place. It doubles when seven eighths of them are
        // taken, and where entries come and go when half as many are.
        let found = (size_of::<(Key, Slot)>() + 1) * 32 / 7;
        let known = size_of::<Block>() + Order::COST + size_of::<Slot>();
        assert!(
            (found + known) as u64 <= COST - PAGE_SIZE,
            "{found} {known}"
        );
    }

    /// The same as a list that is searched from end to end.
    #[test]
    fn it_does_what_a_simple_one_does() {
        const PAGES: usize = 24;
        let (cache, epoch) = (cache(PAGES as u64), epoch());
        let spaces = [
            cache.new_space(None),
            cache.new_space(None),
            cache.new_space(None),
        ];
        // Oldest first; whether proven.
        let mut simple: Vec<(SpaceId, u64, bool)> = Vec::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let (space, page) = (spaces[(random >> 33) as usize % 3], (random >> 40) % 20);
            let known = simple
                .iter()
                .position(|known| (known.0, known.1) == (space, page));
            match (random >> 60, known) {
                (0, _) if step % 16 == 0 => {
                    cache.forget(space);
                    simple.retain(|known| known.0 != space);
                }
                (0..8, known) => {
                    cache.add(space, epoch, Address::new(page * PAGE_SIZE), &[1; PAGE]);
                    if known.is_none() && simple.len() == PAGES {
                        let probation = simple.iter().position(|known| !known.2);
                        simple.remove(probation.unwrap_or(0));
                    }
                    let proven = known.is_some_and(|at| simple.remove(at).2);
                    simple.push((space, page, proven));
                }
                (_, known) => {
                    assert_eq!(holds(&cache, space, epoch, page), known.is_some(), "{step}");
                    if let Some(at) = known {
                        simple.remove(at);
                        simple.push((space, page, true));
                    }
                    if simple.iter().filter(|known| known.2).count() > PAGES - PAGES / 8 {
                        let oldest = simple.iter().position(|known| known.2).unwrap();
                        let (space, page, _) = simple.remove(oldest);
                        simple.push((space, page, false));
                    }
                }
            }
            assert_eq!(
                cache.metrics().cache_bytes.get(),
                simple.len() as u64 * PAGE_SIZE
            );
        }
    }
}
