//! A process's memory by way of the cache.

use std::sync::Arc;

use super::freshness::{Freshness, SpaceEpoch};
use super::page_states::PageStateCache;
use super::pages::{PageCache, SpaceId};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage};
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode, requested};

/// The largest request, in bytes, whose pages are kept. A larger one is a pass
/// over a file: a copy into the cache would cost as much as reading it again.
const LARGEST_KEPT: usize = 64 * 1024;

/// Decorates a [`ProcessMemory`] with a [`PageCache`].
///
/// A page is served from the cache only within the epoch in which its read
/// began, and a write ends all epochs once it is done. So a read that was
/// under way during a write may fill the cache, but nobody will see that.
#[derive(Debug)]
pub struct CachedMemory {
    inner: Arc<dyn ProcessMemory>,
    cache: Arc<PageCache>,
    freshness: Arc<Freshness>,
    epoch: SpaceEpoch,
    space: SpaceId,
    /// Where the bytes of mappings are, by their start: a sparse copy asks for one at a time.
    page_states: PageStateCache,
}

impl CachedMemory {
    /// Puts `cache` before `inner`; `epoch` is that of its address space.
    pub fn new(
        inner: Arc<dyn ProcessMemory>,
        cache: Arc<PageCache>,
        freshness: Arc<Freshness>,
        epoch: SpaceEpoch,
    ) -> Self {
        Self::for_user(None, inner, cache, freshness, epoch)
    }

    /// As [`new`](Self::new), for a user other than the mounter: one has a part of the cache at most.
    pub fn for_user(
        user: Option<u32>,
        inner: Arc<dyn ProcessMemory>,
        cache: Arc<PageCache>,
        freshness: Arc<Freshness>,
        epoch: SpaceEpoch,
    ) -> Self {
        let space = cache.new_space(user);
        Self {
            inner,
            cache,
            freshness,
            epoch,
            space,
            page_states: PageStateCache::default(),
        }
    }
}

impl Drop for CachedMemory {
    fn drop(&mut self) {
        self.cache.forget(self.space);
    }
}

/// Neighbouring bytes of a request that the cache does not hold: a part of one segment, not empty.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Where it starts in the whole request, in bytes.
    position: usize,
    /// The segment's number.
    segment: usize,
    /// Where it starts in the segment, in bytes.
    offset: usize,
    len: usize,
}

impl ProcessMemory for CachedMemory {
    fn identity(&self) -> &ProcessIdentity {
        self.inner.identity()
    }

    fn verify(&self) -> Result<()> {
        self.inner.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let wanted = requested(segments);
        let epoch = self.freshness.current(&self.epoch);
        let gaps = match self.cache.lock(self.space, epoch) {
            Some(mut pages) => copy_hits(segments, |address, out| pages.copy(address, out)),
            None => copy_hits(segments, |_, _| false),
        };
        let pages = |bytes: usize| (bytes as u64).div_ceil(PAGE_SIZE);
        let unknown: usize = gaps.iter().map(|gap| gap.len).sum();
        self.cache.metrics().cache_hits.add(pages(wanted - unknown));
        self.cache.metrics().cache_misses.add(pages(unknown));

        let Some(first) = gaps.first() else {
            return Ok(wanted);
        };
        let first_address = segments[first.segment].address.plus(first.offset as u64);
        let fill = |missing: &mut [ReadSegment<'_>]| {
            if wanted <= LARGEST_KEPT {
                self.read_pages(missing, epoch)
            } else {
                self.inner.read(missing)
            }
        };
        let answer = if unknown == wanted {
            fill(segments)
        } else {
            fill(&mut missing(segments, &gaps))
        };
        match answer.map(|done| end_of(&gaps, done).unwrap_or(wanted)) {
            Ok(end) if end > 0 => Ok(end),
            Err(error) if error.is_of_bytes() && first.position > 0 => Ok(first.position),
            Ok(_) | Err(Error::Unreachable(_)) => Err(Error::Unreachable(first_address)),
            Err(error) => Err(error),
        }
    }

    fn extents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        let epoch = self.freshness.current(&self.epoch);
        self.page_states
            .extents(&*self.inner, epoch, mapping, range, at_most)
    }

    fn drop_caches(&self) {
        self.page_states.clear();
        self.inner.drop_caches();
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        self.inner.memory_usage(ranges)
    }

    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
        let answer = self.inner.write(address, data, mode);
        // After the write and whatever came of it: some bytes may have got there.
        self.freshness.end_all();
        answer
    }
}

impl CachedMemory {
    /// As [`read`](ProcessMemory::read), by the whole pages that hold the segments, which are kept.
    fn read_pages(&self, segments: &mut [ReadSegment<'_>], epoch: super::Epoch) -> Result<usize> {
        let mut bytes = vec![0; segments.iter().map(pages_len).sum()];
        let mut rest = bytes.as_mut_slice();
        let mut pages = Vec::with_capacity(segments.len());
        for segment in &*segments {
            let (buffer, after) = rest.split_at_mut(pages_len(segment));
            rest = after;
            pages.push(ReadSegment {
                address: segment.address.page_start(),
                buffer,
                mapping: segment.mapping,
            });
        }
        let mut left = self.inner.read(&mut pages)?;
        let is_valid = self.freshness.is_valid(epoch);
        let mut done = 0;
        for (pages, segment) in pages.iter().zip(segments.iter_mut()) {
            let read = &pages.buffer[..left.min(pages.buffer.len())];
            left -= read.len();
            if is_valid {
                self.cache.add(self.space, epoch, pages.address, read);
            }
            let skipped = segment.address.since(pages.address) as usize;
            // Nothing of a segment that the read did not come to, or of one without a byte.
            let read = read.get(skipped..).unwrap_or_default();
            let useful = read.len().min(segment.buffer.len());
            segment.buffer[..useful].copy_from_slice(&read[..useful]);
            done += useful;
            if useful < segment.buffer.len() {
                break;
            }
        }
        match done {
            // It was cut short within the first page, before the first byte that is wanted.
            0 => self.inner.read(segments),
            done => Ok(done),
        }
    }
}

/// Length of the whole pages that hold a segment, in bytes.
fn pages_len(segment: &ReadSegment<'_>) -> usize {
    match segment.buffer.len() {
        0 => 0,
        len => {
            let skipped = segment.address.since(segment.address.page_start()) as usize;
            (skipped + len).next_multiple_of(PAGE_SIZE as usize)
        }
    }
}

/// Lets `copy` fill what it can, page by page, and returns the rest, neighbours of one segment joined.
fn copy_hits(
    segments: &mut [ReadSegment<'_>],
    mut copy: impl FnMut(Address, &mut [u8]) -> bool,
) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut position = 0;
    for (number, segment) in segments.iter_mut().enumerate() {
        let mut offset = 0;
        while offset < segment.buffer.len() {
            let at = segment.address.plus(offset as u64);
            let here = (at.left_in_page() as usize).min(segment.buffer.len() - offset);
            if !copy(at, &mut segment.buffer[offset..offset + here]) {
                match gaps.last_mut() {
                    Some(last) if last.segment == number && last.offset + last.len == offset => {
                        last.len += here;
                    }
                    _ => gaps.push(Gap {
                        position,
                        segment: number,
                        offset,
                        len: here,
                    }),
                }
            }
            offset += here;
            position += here;
        }
    }
    gaps
}

/// The gaps as segments of their own.
fn missing<'s>(segments: &'s mut [ReadSegment<'_>], gaps: &[Gap]) -> Vec<ReadSegment<'s>> {
    let mut missing = Vec::with_capacity(gaps.len());
    let mut gaps = gaps.iter().peekable();
    for (number, segment) in segments.iter_mut().enumerate() {
        let (address, mapping) = (segment.address, segment.mapping);
        let mut rest = &mut *segment.buffer;
        let mut start = 0;
        while let Some(gap) = gaps.next_if(|gap| gap.segment == number) {
            let (buffer, after) = rest[gap.offset - start..].split_at_mut(gap.len);
            rest = after;
            start = gap.offset + gap.len;
            missing.push(ReadSegment {
                address: address.plus(gap.offset as u64),
                buffer,
                mapping,
            });
        }
    }
    missing
}

/// Where the bytes of a request end of whose gaps the first `done` bytes were filled; `None` where all were.
fn end_of(gaps: &[Gap], mut done: usize) -> Option<usize> {
    for gap in gaps {
        if done < gap.len {
            return Some(gap.position + done);
        }
        done -= gap.len;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::common::sync::Mutex;

    use super::*;
    use crate::common::clock::ManualClock;
    use crate::common::metrics::Metrics;
    use crate::target::fake::conformance::{self, Layout};
    use crate::target::fake::{self, Call, FakeProcess};

    const PAGE: usize = PAGE_SIZE as usize;
    const START: u64 = 0x10_0000;
    const TTL: Duration = Duration::from_millis(100);

    #[derive(Debug)]
    struct Bench {
        clock: Arc<ManualClock>,
        freshness: Arc<Freshness>,
        cache: Arc<PageCache>,
        metrics: Arc<Metrics>,
        process: FakeProcess,
    }

    impl Bench {
        fn new(pages: usize) -> Self {
            let clock = Arc::new(ManualClock::new());
            let metrics = Arc::new(Metrics::default());
            let process = FakeProcess::new(7, b"fake");
            let bytes: Vec<u8> = (0..pages * PAGE)
                .map(|i| (i / PAGE + i % 199) as u8)
                .collect();
            process.map(START, &bytes);
            Self {
                freshness: Arc::new(Freshness::new(TTL, Arc::clone(&clock) as _)),
                cache: Arc::new(PageCache::new(64 << 20, Arc::clone(&metrics))),
                clock,
                metrics,
                process,
            }
        }

        fn before(&self, inner: Arc<dyn ProcessMemory>) -> CachedMemory {
            CachedMemory::new(
                inner,
                Arc::clone(&self.cache),
                Arc::clone(&self.freshness),
                self.freshness.new_space(),
            )
        }

        fn memory(&self) -> CachedMemory {
            self.before(self.process.open())
        }
    }

    fn read(memory: &dyn ProcessMemory, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mapping = fake::mapping(START, 64);
        let mut bytes = vec![0; len];
        let segment = ReadSegment {
            address: Address::new(START + offset),
            buffer: &mut bytes,
            mapping: &mapping,
        };
        let read = memory.read(&mut [segment])?;
        bytes.truncate(read);
        Ok(bytes)
    }

    #[test]
    fn the_cache_keeps_to_the_contract_of_memory() {
        let bench = Bench::new(2);
        let memory = bench.memory();
        let layout = Layout {
            mapping: fake::mapping(START, 3),
            start: Address::new(START),
            first: read(&memory, 0, PAGE).unwrap(),
            second: read(&memory, PAGE as u64, PAGE).unwrap(),
        };
        conformance::check(&memory, &layout);
        let cold = Bench::new(2);
        conformance::check(&cold.memory(), &layout);
    }

    #[test]
    fn what_was_read_is_not_read_again_within_the_bound() {
        let bench = Bench::new(4);
        let memory = bench.memory();
        let first = read(&memory, 100, 8).unwrap();
        assert_eq!(
            bench.process.take_calls(),
            [Call::Read(vec![(START, PAGE)])]
        );
        assert_eq!(read(&memory, 100, 8).unwrap(), first);
        read(&memory, 0, PAGE).unwrap();
        assert_eq!(bench.process.take_calls(), []);
        bench.clock.advance(TTL);
        read(&memory, 100, 8).unwrap();
        assert_eq!(bench.process.take_calls().len(), 1);
        assert_eq!(bench.metrics.cache_hits.get(), 2);
        assert_eq!(bench.metrics.cache_misses.get(), 2);
    }

    /// One request is one read of the process for all that the cache does not hold.
    #[test]
    fn parts_that_lie_apart_are_read_in_one_call() {
        let bench = Bench::new(8);
        let memory = bench.memory();
        read(&memory, 2 * PAGE_SIZE, PAGE).unwrap();
        read(&memory, 5 * PAGE_SIZE, PAGE).unwrap();
        bench.process.take_calls();
        let uncached = read(&*bench.process.open(), 0, 8 * PAGE).unwrap();
        bench.process.take_calls();
        assert_eq!(read(&memory, 0, 8 * PAGE).unwrap(), uncached);
        let page = |number: u64| START + number * PAGE_SIZE;
        assert_eq!(
            bench.process.take_calls(),
            [Call::Read(vec![
                (page(0), 2 * PAGE),
                (page(3), 2 * PAGE),
                (page(6), 2 * PAGE)
            ])]
        );
    }

    #[test]
    fn a_hole_ends_a_read_at_the_same_byte_as_without_the_cache() {
        for offset in [0, 1, PAGE_SIZE - 1, 2 * PAGE_SIZE + 7] {
            for cached in [0, 1, 2, 4, 5] {
                let bench = Bench::new(6);
                bench.process.unmap(START + 3 * PAGE_SIZE);
                let memory = bench.memory();
                read(&memory, cached * PAGE_SIZE, PAGE).unwrap();
                let bare = read(&*bench.process.open(), offset, 6 * PAGE);
                assert_eq!(read(&memory, offset, 6 * PAGE), bare, "{offset} {cached}");
            }
        }
    }

    #[test]
    fn large_requests_do_not_push_out_small_ones() {
        let bench = Bench::new(64);
        let memory = bench.memory();
        read(&memory, 0, 64 * PAGE).unwrap();
        assert_eq!(bench.metrics.cache_bytes.get(), 0);
        read(&memory, 0, 16 * PAGE).unwrap();
        assert_eq!(bench.metrics.cache_bytes.get(), 16 * PAGE_SIZE);
    }

    /// SEMANTICS: a write is seen at once.
    #[test]
    fn a_write_is_seen_through_every_memory_that_shares_the_cache() {
        let bench = Bench::new(1);
        let (one, other) = (bench.memory(), bench.memory());
        read(&one, 0, 8).unwrap();
        read(&other, 0, 8).unwrap();
        one.write(Address::new(START), b"written!", WriteMode::Obey)
            .unwrap();
        assert_eq!(read(&one, 0, 8).unwrap(), b"written!");
        assert_eq!(read(&other, 0, 8).unwrap(), b"written!");
    }

    /// Runs something after the bytes were copied and before they are returned.
    struct Racing<F> {
        inner: Arc<dyn ProcessMemory>,
        then: Mutex<Option<F>>,
    }

    impl<F> std::fmt::Debug for Racing<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Racing")
        }
    }

    impl<F: FnOnce() + Send> ProcessMemory for Racing<F> {
        fn identity(&self) -> &ProcessIdentity {
            self.inner.identity()
        }

        fn verify(&self) -> Result<()> {
            self.inner.verify()
        }

        fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
            let read = self.inner.read(segments);
            if let Some(then) = self.then.lock().take() {
                then();
            }
            read
        }

        fn extents(
            &self,
            mapping: &Mapping,
            range: AddressRange,
            at_most: usize,
        ) -> Result<Vec<Extent>> {
            self.inner.extents(mapping, range, at_most)
        }

        fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
            self.inner.memory_usage(ranges)
        }

        fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
            self.inner.write(address, data, mode)
        }
    }

    /// SEMANTICS: a write is seen at once, also past a read that was under way.
    #[test]
    fn a_write_outdates_a_read_that_is_in_flight() {
        let bench = Bench::new(1);
        let writer = bench.memory();
        let racing = bench.before(Arc::new(Racing {
            inner: bench.process.open(),
            then: Mutex::new(Some(move || {
                writer
                    .write(Address::new(START), b"written!", WriteMode::Obey)
                    .unwrap();
            })),
        }));
        assert_ne!(read(&racing, 0, 8).unwrap(), b"written!");
        assert_eq!(read(&racing, 0, 8).unwrap(), b"written!");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_and_not_old_bytes() {
        let bench = Bench::new(1);
        let memory = bench.memory();
        read(&memory, 0, 8).unwrap();
        bench.clock.advance(TTL);
        bench.process.exec();
        let pid = bench.process.identity().pid;
        assert_eq!(read(&memory, 0, 8), Err(Error::Replaced(pid)));
    }
}
