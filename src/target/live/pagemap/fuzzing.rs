//! What the kernel tells of the pages of a process, made up: `PAGEMAP_SCAN` and entries of `pagemap`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use arbitrary::{Result, Unstructured};
use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

/// A page, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Absent,
    Present,
    Zeros,
    /// Told by the scan itself (since Linux 6.15), and not.
    Guard(bool),
    Swapped,
    /// In swap, or a page on its way: where is hidden from us.
    HiddenSwap,
    HiddenMarker,
    WriteProtectMarker,
    PoisonMarker,
    /// A huge page on its way to another place, which has no entry.
    Migrating,
}

const PAGES: [Page; 11] = [
    Page::Absent,
    Page::Present,
    Page::Zeros,
    Page::Guard(true),
    Page::Guard(false),
    Page::Swapped,
    Page::HiddenSwap,
    Page::HiddenMarker,
    Page::WriteProtectMarker,
    Page::PoisonMarker,
    Page::Migrating,
];

impl Page {
    /// What `PAGEMAP_SCAN` says of it; 0 where it passes over it.
    fn categories(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Present => PRESENT,
            Self::Zeros => PRESENT | ZERO_PAGE,
            Self::Guard(true) => SWAPPED | GUARD,
            _ => SWAPPED,
        }
    }

    /// Its entry in `pagemap`.
    fn entry(self) -> u64 {
        const NOT_PRESENT: u64 = 1 << 62;
        const WRITE_PROTECTED: u64 = 1 << 57;
        let marker = |flags: u64| NOT_PRESENT | 31 | flags << 5;
        match self {
            Self::Absent | Self::Migrating => 0,
            Self::Present | Self::Zeros => 1 << 63 | 0x1234,
            Self::Guard(_) => marker(4) | 1 << 58,
            Self::Swapped => NOT_PRESENT | 2 | 77 << 5,
            Self::HiddenSwap => NOT_PRESENT,
            Self::HiddenMarker => NOT_PRESENT | WRITE_PROTECTED,
            Self::WriteProtectMarker => marker(1) | WRITE_PROTECTED,
            Self::PoisonMarker => marker(2),
        }
    }

    /// The state that is to come of it, by a scan or by entries alone.
    fn state(self, by_scan: bool) -> Option<EntryState> {
        match self {
            Self::Absent | Self::WriteProtectMarker => None,
            Self::Zeros if by_scan => Some(EntryState::ZeroPage),
            Self::Present | Self::Zeros => Some(EntryState::Present),
            Self::Guard(_) | Self::PoisonMarker => Some(EntryState::Unreadable),
            Self::Swapped | Self::HiddenSwap => Some(EntryState::Swapped),
            Self::HiddenMarker => Some(EntryState::MaybeSwapped),
            Self::Migrating => by_scan.then_some(EntryState::Swapped),
        }
    }
}

/// A process's page table.
struct Table {
    start: Address,
    pages: Vec<Page>,
    pagemap: Pagemap,
}

/// Whatever the pages are, and however the kernel cuts up what it says of them, scans come to the end of the range
/// and say of each page what it is.
pub(crate) fn check(data: &[u8]) {
    // It ends where the bytes do.
    let _ = check_from(&mut Unstructured::new(data));
}

fn check_from(from: &mut Unstructured<'_>) -> Result<()> {
    let table = Table::arbitrary(from)?;
    let at_most = match from.arbitrary()? {
        true => usize::MAX,
        false => from.int_in_range(1..=12)?,
    };
    table.check(false, at_most, |range| {
        Ok(table.pagemap.read_entries(range, at_most))
    })?;
    table.check(true, at_most, |range| table.scan(from, range, at_most))
}

impl Table {
    fn arbitrary(from: &mut Unstructured<'_>) -> Result<Self> {
        static KERNEL: OnceLock<Arc<Kernel>> = OnceLock::new();

        let mut pages = Vec::new();
        for _ in 0..from.int_in_range(1..=24)? {
            let page = *from.choose(&PAGES)?;
            pages.extend(std::iter::repeat_n(page, from.int_in_range(1..=4)?));
        }
        let starts = [0, 0x10_0000, (1 << 47) - (200 << 12)];
        let start = Address::new(*from.choose(&starts)?);
        let file = memfd_create("pagemap", MemfdFlags::CLOEXEC).expect("a file in memory");
        let file = File::from(file);
        let entries: Vec<u8> = pages
            .iter()
            .flat_map(|page| page.entry().to_le_bytes())
            .collect();
        let offset = start.get() / PAGE_SIZE * 8;
        file.write_all_at(&entries, offset).expect("there is room");
        // Without any feature: nothing of this system is asked.
        let kernel = KERNEL
            .get_or_init(|| Arc::new(Kernel::new(&[], |_, _| false).expect("a proc of our own")));
        Ok(Self {
            start,
            pages,
            pagemap: Pagemap::new(Arc::new(file), Arc::clone(kernel)),
        })
    }

    fn range(&self) -> AddressRange {
        let len = self.pages.len() as u64 * PAGE_SIZE;
        AddressRange::new(self.start, self.start.plus(len)).unwrap_or_default()
    }

    fn page(&self, address: Address) -> Page {
        self.pages[(address.since(self.start) / PAGE_SIZE) as usize]
    }

    /// Scans all of it, as its users do: from where the last scan came to.
    fn check(
        &self,
        by_scan: bool,
        at_most: usize,
        mut scan: impl FnMut(AddressRange) -> Result<std::result::Result<Scan, Errno>>,
    ) -> Result<()> {
        let all = self.range();
        let mut at = all.start();
        while at < all.end() {
            let rest = AddressRange::new(at, all.end()).unwrap_or_default();
            let scan = scan(rest)?.expect("no file refuses");
            assert!(at < scan.end && scan.end <= all.end(), "{scan:?}");
            let mut known = at;
            for run in &scan.runs {
                assert!(known <= run.range.start() && !run.range.is_empty());
                known = run.range.end();
            }
            assert!(known <= scan.end, "{scan:?}");
            // As many regions, of which those in swap have as many runs together.
            let runs = scan.runs.len();
            assert!(runs <= at_most.saturating_mul(2), "{runs} > 2 * {at_most}");
            while at < scan.end {
                let mut runs = scan.runs.iter();
                let found = runs.find(|run| run.range.contains(at));
                let state = found.map(|run| run.state);
                let page = self.page(at);
                assert_eq!(state, page.state(by_scan), "{at} {page:?}");
                at = at.plus(PAGE_SIZE);
            }
        }
        Ok(())
    }

    /// As `do_pagemap_scan` in `fs/proc/task_mmu.c`: neighbours of the same categories are one region, or several;
    /// it stops where the vector is full, or after some pages; and what it says of where it stopped may
    /// be behind its last region.
    fn scan(
        &self,
        from: &mut Unstructured<'_>,
        range: AddressRange,
        at_most: usize,
    ) -> Result<std::result::Result<Scan, Errno>> {
        let mut regions: Vec<page_region> = Vec::new();
        let mut at = range.start();
        let pages = range.len() / PAGE_SIZE;
        let most = from.int_in_range(1..=pages)?;
        let last = range.start().plus(most * PAGE_SIZE);
        while at < last {
            let categories = self.page(at).categories();
            let next = at.plus(PAGE_SIZE);
            let is_full = regions.len() == at_most.min(MOST_RUNS);
            let joined = regions
                .last_mut()
                .filter(|last| last.end == at.get() && last.categories == categories);
            match joined {
                _ if categories == 0 => (),
                Some(last) if !from.ratio(1, 5)? => last.end = next.get(),
                _ if is_full => break,
                _ => regions.push(page_region {
                    start: at.get(),
                    end: next.get(),
                    categories,
                }),
            }
            at = next;
        }
        let walk_end = match regions.last() {
            // Where the last round but one ended.
            Some(last) if at.get() == last.end && from.ratio(1, 8)? => Address::new(last.start),
            _ => at,
        };
        Ok(self.pagemap.runs_of(&regions, walk_end, at_most))
    }
}
