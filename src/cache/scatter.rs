//! Whether small reads here and there keep to one place.
//!
//! When an epoch ends the kernel drops all pages of a file, and whoever reads a
//! few bytes at a time pays a request for each page anew. Where two such
//! requests meet in one neighbourhood, all of it is worth having at once.

use std::num::NonZeroUsize;
use std::ops::Range;

use lru::LruCache;
use parking_lot::Mutex;

use super::freshness::Epoch;
use crate::address::PAGE_SIZE;

/// The length of a neighbourhood, in bytes: as many pages as a word has bits.
const LENGTH: u64 = u64::BITS as u64 * PAGE_SIZE;

/// The longest request, in bytes, that is one of a reader here and there: for others the kernel reads ahead.
const LONGEST: u64 = 16 * 1024;

/// Requests of one epoch in one neighbourhood that make it worth having.
const ENOUGH: u32 = 2;

/// Epochs for which a neighbourhood is then taken to be read again, from its first request on.
const REMEMBERED: u32 = 8;

/// Neighbourhoods that are watched for each handle: 512 MiB.
const WATCHED: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");

/// How one handle is read here and there.
#[derive(Debug, Default)]
pub struct Scatter(Mutex<Option<LruCache<u64, Neighbourhood>>>);

#[derive(Debug, Default)]
struct Neighbourhood {
    /// The epoch that the rest is about.
    epoch: u64,
    requests: u32,
    /// Its pages that were asked for, the first one in the lowest bit.
    asked: u64,
    is_fetched: bool,
    /// Epochs left in which one request is enough.
    remembered: u32,
}

impl Scatter {
    /// Takes note of a request for `len` bytes in a file of `size`, and returns the range that is
    /// now worth having, once in an epoch.
    pub fn note(&self, epoch: Epoch, offset: u64, len: u64, size: u64) -> Option<Range<u64>> {
        if len > LONGEST || size <= LONGEST {
            return None;
        }
        let start = offset - offset % LENGTH;
        let mut watched = self.0.lock();
        let watched = watched.get_or_insert_with(|| LruCache::new(WATCHED));
        let here = watched.get_or_insert_mut(start, Neighbourhood::default);
        if here.epoch != epoch.number() {
            *here = Neighbourhood {
                epoch: epoch.number(),
                remembered: here.remembered.saturating_sub(1),
                ..Neighbourhood::default()
            };
        }
        here.requests += 1;
        for page in (offset..offset + len).step_by(PAGE_SIZE as usize) {
            here.asked |= 1_u64
                .checked_shl(((page - start) / PAGE_SIZE) as u32)
                .unwrap_or(0);
        }
        if here.is_fetched || (here.requests < ENOUGH && here.remembered == 0) {
            return None;
        }
        here.is_fetched = true;
        if here.requests >= ENOUGH {
            here.remembered = REMEMBERED;
        }
        Some(start..size.min(start + LENGTH))
    }

    /// The parts of `range`, which [`note`](Self::note) has returned, that nobody has asked for in this epoch.
    pub fn unasked(&self, epoch: Epoch, range: &Range<u64>) -> Vec<Range<u64>> {
        let asked = self.0.lock().as_ref().and_then(|watched| {
            let here = watched.peek(&range.start)?;
            (here.epoch == epoch.number()).then_some(here.asked)
        });
        let Some(asked) = asked else {
            return Vec::new();
        };
        let mut parts: Vec<Range<u64>> = Vec::new();
        let pages = range.clone().step_by(PAGE_SIZE as usize);
        for (_, start) in (0..).zip(pages).filter(|(bit, _)| asked >> bit & 1 == 0) {
            let end = range.end.min(start + PAGE_SIZE);
            match parts.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => parts.push(start..end),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::cache::Freshness;
    use crate::clock::ManualClock;

    const SIZE: u64 = 10 * LENGTH + 4096;
    const PAGE: u64 = 4096;

    fn epochs() -> impl FnMut() -> Epoch {
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        let space = freshness.new_space();
        move || freshness.renew(&space)
    }

    #[test]
    fn the_second_request_of_a_neighbourhood_brings_all_of_it_once() {
        let epoch = epochs()();
        let scatter = Scatter::default();
        let mut note = |offset| scatter.note(epoch, offset, PAGE, SIZE);
        assert_eq!(note(3 * PAGE), None);
        assert_eq!(note(LENGTH + 7 * PAGE), None, "another neighbourhood");
        assert_eq!(note(9 * PAGE), Some(0..LENGTH));
        assert_eq!(note(11 * PAGE), None, "it is there");
        assert_eq!(note(LENGTH), Some(LENGTH..2 * LENGTH));
    }

    #[test]
    fn pages_that_were_asked_for_are_left_out() {
        let mut next = epochs();
        let epoch = next();
        let scatter = Scatter::default();
        for page in [0, 5, 6, 63] {
            scatter.note(epoch, LENGTH + page * PAGE, PAGE, SIZE);
        }
        let page = |number| LENGTH + number * PAGE;
        let parts = scatter.unasked(epoch, &(LENGTH..2 * LENGTH));
        assert_eq!(parts, [page(1)..page(5), page(7)..page(63)]);
        assert_eq!(scatter.unasked(next(), &(LENGTH..2 * LENGTH)), []);
    }

    #[test]
    fn in_later_epochs_one_request_is_enough_for_a_while() {
        let mut next = epochs();
        let scatter = Scatter::default();
        let mut requests = |count| {
            let epoch = next();
            (0..count)
                .filter_map(|page| scatter.note(epoch, page * PAGE, PAGE, SIZE))
                .count()
        };
        assert_eq!(requests(1), 0);
        assert_eq!(requests(2), 1);
        for _ in 1..REMEMBERED {
            assert_eq!(requests(1), 1);
        }
        assert_eq!(
            requests(1),
            0,
            "who comes once an epoch is no reader in one place"
        );
    }

    #[test]
    fn the_last_neighbourhood_ends_with_the_file() {
        let epoch = epochs()();
        let scatter = Scatter::default();
        scatter.note(epoch, 10 * LENGTH, PAGE, SIZE);
        let found = scatter.note(epoch, 10 * LENGTH, PAGE, SIZE);
        assert_eq!(found, Some(10 * LENGTH..SIZE));
    }

    #[test]
    fn readers_of_longer_stretches_are_left_to_the_kernel() {
        let epoch = epochs()();
        let scatter = Scatter::default();
        for offset in [0, LONGEST + PAGE, 0] {
            assert_eq!(scatter.note(epoch, offset, LONGEST + PAGE, SIZE), None);
        }
    }
}
