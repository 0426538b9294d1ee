//! Runs of pages, and the cache before a process's memory.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};

use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::clock::ManualClock;
use crate::common::metrics::Metrics;
use crate::target::cache::{CachedMemory, Freshness, PageCache};
use crate::target::fake::{self, FakeProcess};
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, are_contiguous, push, trim};
use crate::target::{ProcessMemory, ReadSegment, WriteMode};

/// Runs say of each page what was said when they were put together; a cache shows the memory before which it is.
pub(super) fn check(data: &[u8]) {
    let mut from = Unstructured::new(data);
    // It ends where the bytes do.
    let _ = check_runs(&mut from);
    let _ = check_cache(&mut from);
}

fn range(start: u64, end: u64) -> AddressRange {
    AddressRange::new(Address::new(start), Address::new(end)).unwrap_or_default()
}

fn check_runs(from: &mut Unstructured<'_>) -> Result<()> {
    const BYTES: usize = 64;

    // By byte, for ranges need not be pages.
    let mut model = [None; BYTES];
    let mut runs = Vec::new();
    let mut at = 0;
    for _ in 0..from.int_in_range(0..=20)? {
        let start = from.int_in_range(at..=BYTES)?;
        let end = from.int_in_range(start..=BYTES.min(start + 9))?;
        let state = from.int_in_range(0_u8..=2)?;
        push(&mut runs, range(start as u64, end as u64), state);
        model[start..end].fill(Some(state));
        at = end;
    }
    let cut = from.int_in_range(0..=BYTES)?..=from.int_in_range(0..=BYTES)?;
    let cut_range = range(*cut.start() as u64, *cut.end() as u64);
    let whole = runs.clone();
    for pair in whole.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        let touch = one.range.end() == next.range.start();
        assert!(one.range.end() <= next.range.start());
        assert!(!touch || one.state != next.state, "neighbours are joined");
    }
    trim(&mut runs, cut_range);
    let said = |at: usize, in_runs: &[crate::target::page_state::Run<u8>]| {
        let address = Address::new(at as u64);
        let mut found = in_runs.iter().filter(|run| run.range.contains(address));
        let first = found.next().map(|run| run.state);
        assert!(found.next().is_none(), "one run holds it");
        first
    };
    for (at, state) in model.iter().enumerate() {
        assert_eq!(said(at, &whole), *state, "{at}");
        let is_left = cut_range.contains(Address::new(at as u64));
        assert_eq!(said(at, &runs), state.filter(|_| is_left), "{at}");
    }
    assert!(runs.iter().chain(&whole).all(|run| !run.range.is_empty()));
    let start = whole.first().map_or(0, |run| run.range.start().get());
    let end = whole.last().map_or(start, |run| run.range.end().get());
    let has_no_gap = (start..end).all(|at| model[at as usize].is_some());
    assert_eq!(are_contiguous(&whole, Address::new(start)), has_no_gap);
    Ok(())
}

const START: u64 = 0x10_0000;
const PAGES: u64 = 16;
const BOUND: Duration = Duration::from_millis(100);

/// A cache of a few pages before the memory of a process that changes.
struct Cached {
    clock: Arc<ManualClock>,
    process: FakeProcess,
    mapping: Mapping,
    bare: Arc<dyn ProcessMemory>,
    cached: CachedMemory,
    freshness: Arc<Freshness>,
}

impl Cached {
    fn new(budget: u64) -> Self {
        let clock = Arc::new(ManualClock::new());
        let process = FakeProcess::new(7, b"fake");
        let freshness = Arc::new(Freshness::new(BOUND, Arc::clone(&clock) as _));
        let cache = Arc::new(PageCache::new(budget, Arc::new(Metrics::default())));
        let space = freshness.new_space();
        Self {
            cached: CachedMemory::new(process.open(), cache, Arc::clone(&freshness), space),
            bare: process.open(),
            mapping: fake::mapping(START, PAGES),
            clock,
            process,
            freshness,
        }
    }

    /// Bytes of the mapping, and a few past its end.
    fn range(from: &mut Unstructured<'_>) -> Result<AddressRange> {
        let most = PAGES * PAGE_SIZE;
        let start = START + from.int_in_range(0..=most - 1)?;
        let length = match from.arbitrary()? {
            true => from.int_in_range(0..=64)?,
            false => from.int_in_range(0..=most)?,
        };
        Ok(range(start, (start + length).min(START + most)))
    }

    fn read(&self, memory: &dyn ProcessMemory, ranges: &[AddressRange]) -> Option<Vec<u8>> {
        let mut buffers: Vec<Vec<u8>> = ranges
            .iter()
            .map(|range| vec![0xee; range.len() as usize])
            .collect();
        let mut segments: Vec<ReadSegment<'_>> = ranges
            .iter()
            .zip(&mut buffers)
            .map(|(range, buffer)| ReadSegment {
                address: range.start(),
                buffer,
                mapping: &self.mapping,
            })
            .collect();
        let read = memory.read(&mut segments).ok()?;
        let mut bytes = buffers.concat();
        assert!(read <= bytes.len());
        bytes.truncate(read);
        Some(bytes)
    }

    /// Changes a page behind the cache's back, which then may show what was there: past its bound it must not.
    fn change(&self, from: &mut Unstructured<'_>) -> Result<()> {
        let page = START + from.int_in_range(0..=PAGES - 1)? * PAGE_SIZE;
        match from.int_in_range(0..=3)? {
            0 => self
                .process
                .map(page, &[from.arbitrary()?; PAGE_SIZE as usize]),
            1 => self.process.unmap(page),
            2 => self.process.reserve(page, 1),
            _ => self.process.swap_out(page),
        };
        match from.arbitrary()? {
            true => self.clock.advance(BOUND),
            false => self.freshness.end_all(),
        }
        Ok(())
    }

    fn step(&self, from: &mut Unstructured<'_>) -> Result<()> {
        match from.int_in_range(0..=4)? {
            0 => self.change(from)?,
            1 => {
                let ranges = [Self::range(from)?, Self::range(from)?, Self::range(from)?];
                let ranges = &ranges[..from.int_in_range(1..=3)?];
                assert_eq!(
                    self.read(&self.cached, ranges),
                    self.read(&*self.bare, ranges),
                    "{ranges:?}"
                );
            }
            2 => {
                let range = Self::range(from)?;
                let data = vec![from.arbitrary()?; range.len() as usize];
                let before = self.read(&*self.bare, &[range]);
                let mode = WriteMode::Obey;
                let written = self.cached.write(range.start(), &data, mode).unwrap_or(0);
                assert_eq!(written, before.map_or(0, |before| before.len()));
                let now = self.read(&self.cached, &[range]).unwrap_or_default();
                assert!(now == data[..written], "a write is seen at once");
            }
            3 => self
                .clock
                .advance(Duration::from_millis(from.int_in_range(0..=60)?)),
            _ => self.extents(from)?,
        }
        Ok(())
    }

    fn extents(&self, from: &mut Unstructured<'_>) -> Result<()> {
        let range = Self::range(from)?;
        let at_most = from.int_in_range(1..=20)?;
        let all = |memory: &dyn ProcessMemory, at_most| {
            let (mut at, mut all): (_, Vec<Extent>) = (range.start(), Vec::new());
            while at < range.end() {
                let rest = AddressRange::new(at, range.end()).unwrap_or_default();
                let part = memory.extents(&self.mapping, rest, at_most);
                let part = part.expect("the process lives");
                assert!(!part.is_empty() && part.len() <= at_most);
                assert!(are_contiguous(&part, at), "{part:?}");
                for extent in part {
                    at = extent.range.end();
                    push(&mut all, extent.range, extent.state);
                }
            }
            assert!(at == range.end() || range.is_empty(), "{at}");
            all
        };
        assert_eq!(all(&self.cached, at_most), all(&*self.bare, usize::MAX));
        Ok(())
    }
}

fn check_cache(from: &mut Unstructured<'_>) -> Result<()> {
    let cached = Cached::new(from.int_in_range(0..=PAGES)? * PAGE_SIZE);
    for _ in 0..64 {
        cached.step(from)?;
    }
    Ok(())
}
