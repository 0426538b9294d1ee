//! Which pages of a range are in memory: `PAGEMAP_SCAN` (since Linux 6.7), or `/proc/PID/pagemap` page by page.
//!
//! Neither touches a page. See `Documentation/admin-guide/mm/pagemap.rst`.

mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use linux_raw_sys::general::{
    PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED,
    PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING, page_region, pm_scan_arg,
};
use nix::errno::Errno;

use super::errno_of;
use super::interrupted::retry;
use super::kernel::{Feature, Kernel};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::target::page_state::{Run, push};

/// What the entry of a page in the page table says, where it is not empty.
///
/// The mapping adds what the entry does not say: whether absent pages are zeros or those of a file, and
/// what `MaybeSwapped` is. From both follows the [`PageState`](crate::target::page_state::PageState).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// In memory.
    Present,
    /// In swap.
    Swapped,
    /// Read, never written: the shared page of zeros.
    ZeroPage,
    /// In swap, or the marker of a page that never was: the kernel does not tell this user which.
    MaybeSwapped,
    /// Nowhere: poisoned, or under a guard. Touching it is fatal.
    Unreadable,
}

/// What a scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// In order, and joined where they can be; pages outside of them are absent.
    pub(super) runs: Vec<Run<EntryState>>,
    /// How far it went.
    pub(super) end: Address,
}

/// A pinned `/proc/PID/pagemap`.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: Arc<File>,
    kernel: Arc<Kernel>,
}

fn range_of(region: &page_region) -> AddressRange {
    let range = AddressRange::new(Address::new(region.start), Address::new(region.end));
    range.unwrap_or_default()
}

const NO_REGION: page_region = page_region {
    start: 0,
    end: 0,
    categories: 0,
};

/// Which pages a scan is to find, and what it is to say of them.
#[derive(Clone, Copy, Debug, Default)]
struct Categories {
    all_of: u64,
    none_of: u64,
    any_of: u64,
    shown: u64,
    /// `PM_SCAN_*`.
    flags: u64,
}

thread_local! {
    /// Where the kernel puts what it finds: 24 KiB, which would take longer to clear for each scan than most scans take.
    static REGIONS: RefCell<Vec<page_region>> = const { RefCell::new(Vec::new()) };
}

mod ioctl {
    use linux_raw_sys::general::pm_scan_arg;

    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, pm_scan_arg);
}

const FILE: u64 = PAGE_IS_FILE as u64;
const PRESENT: u64 = PAGE_IS_PRESENT as u64;
const SWAPPED: u64 = PAGE_IS_SWAPPED as u64;
const ZERO_PAGE: u64 = PAGE_IS_PFNZERO as u64;
const WRITTEN: u64 = PAGE_IS_WRITTEN as u64;
/// `MADV_GUARD_INSTALL`: the page is gone and touching it is fatal (reported since Linux 6.15).
const GUARD: u64 = PAGE_IS_GUARD as u64;

/// Whether `pagemap` says something of a range: the kernel's half of the addresses (`[vsyscall]`) is not in it.
pub(super) fn is_of_process(range: AddressRange) -> bool {
    i64::try_from(range.end().get()).is_ok()
}

/// Runs that one call asks for at most.
const MOST_RUNS: usize = 1024;

/// Pages that one call finds at most, 1 GiB: it holds the lock that the target's own `mmap` waits
/// for, and finds as many in some three milliseconds.
const MOST_PAGES: u64 = 1 << 18;

/// Entries of `pagemap` that are read at a time: 64 KiB, for 32 MiB of memory.
const ENTRIES: usize = 8192;

impl Pagemap {
    pub(super) fn new(file: Arc<File>, kernel: Arc<Kernel>) -> Self {
        Self { file, kernel }
    }

    /// Scans `range`, whole pages, until `at_most` runs are found.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn scan(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        if !is_of_process(range) {
            return Ok(Scan {
                runs: Vec::new(),
                end: range.end(),
            });
        }
        match self.kernel.has(Feature::PagemapScan) {
            true => self.scan_once(range, at_most),
            false => self.read_entries(range, at_most),
        }
    }

    fn scan_once(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        let wanted = wanted(self.kernel.has(Feature::ScannedGuards));
        query(&self.file, range, at_most, wanted, |regions, walk_end| {
            self.runs_of(regions, walk_end, at_most)
        })
    }

    fn runs_of(
        &self,
        regions: &[page_region],
        walk_end: Address,
        at_most: usize,
    ) -> Result<Scan, Errno> {
        let mut scan = Scan {
            runs: Vec::new(),
            end: walk_end,
        };
        for region in regions {
            let range = range_of(region);
            match region.categories {
                categories if categories & GUARD != 0 => {
                    push(&mut scan.runs, range, EntryState::Unreadable);
                }
                categories if categories & ZERO_PAGE != 0 => {
                    push(&mut scan.runs, range, EntryState::ZeroPage);
                }
                categories if categories & PRESENT != 0 => {
                    push(&mut scan.runs, range, EntryState::Present);
                }
                // The kernel says so of markers, too. Of huge pages (hugetlb) an entry says nothing
                // where the page is on its way to another place.
                _ => {
                    let empty = Some(EntryState::Swapped);
                    let end = self.push_entries(range, at_most, empty, &mut scan.runs)?;
                    if end < range.end() {
                        scan.end = end;
                        return Ok(scan);
                    }
                }
            }
            // The kernel works in rounds of 512 regions, and where a full round is followed by the
            // last one `walk_end` stays where the full one ended (`do_pagemap_scan`, Linux 6.18).
            scan.end = scan.end.max(range.end());
        }
        Ok(scan)
    }

    fn read_entries(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        let mut runs = Vec::new();
        let end = self.push_entries(range, at_most, None, &mut runs)?;
        Ok(Scan { runs, end })
    }

    /// Adds what the entries of `range` say, until there are `at_most` runs; returns how far it got.
    /// `empty` is the state that an empty entry stands for.
    fn push_entries(
        &self,
        range: AddressRange,
        at_most: usize,
        empty: Option<EntryState>,
        runs: &mut Vec<Run<EntryState>>,
    ) -> Result<Address, Errno> {
        let mut bytes = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let pages = (range.end().since(at) / PAGE_SIZE).min(ENTRIES as u64);
            bytes.resize(pages as usize * 8, 0);
            let offset = at.get() / PAGE_SIZE * 8;
            let read = match retry(|| self.file.read_at(&mut bytes, offset)) {
                Ok(read) => read / 8,
                Err(error) => return Err(errno_of(&error)),
            };
            // Past the last address that a process can have there are no entries.
            if read == 0 {
                return Ok(range.end());
            }
            for entry in bytes[..read * 8].chunks_exact(8) {
                let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
                let page = AddressRange::new(at, at.plus(PAGE_SIZE)).unwrap_or_default();
                let state = match entry {
                    0 => empty,
                    entry => entry::state(entry, |frame| self.kernel.is_poisoned(frame)),
                };
                if let Some(state) = state {
                    let is_new = runs
                        .last()
                        .is_none_or(|run| run.state != state || run.range.end() != at);
                    if is_new && runs.len() >= at_most {
                        return Ok(at);
                    }
                    push(runs, page, state);
                }
                at = at.plus(PAGE_SIZE);
            }
        }
        Ok(at)
    }
}

/// What is known of the pages of files.
impl Pagemap {
    /// Pages of `range` that are in memory and belong to a file or a shared memory object, at most so many.
    ///
    /// # Errors
    /// The kernel's refusal; `ENOTTY` where it has no `PAGEMAP_SCAN`.
    pub(super) fn pages_of_file(
        &self,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Address>, Errno> {
        let mut at = range.start();
        let mut pages = Vec::new();
        while at < range.end() && pages.is_empty() {
            let rest = AddressRange::new(at, range.end()).unwrap_or_default();
            at = query(&self.file, rest, at_most, OF_FILE, |regions, walk_end| {
                pages.extend(regions.iter().map(|region| range_of(region).start()));
                Ok(walk_end.max(rest.start().plus(PAGE_SIZE)))
            })?;
        }
        Ok(pages)
    }

    /// The frame of a page that is in memory; `None` where it is not, and without `CAP_SYS_ADMIN`.
    pub(super) fn frame(&self, page: Address) -> Option<u64> {
        Self::frame_in(&self.file, page)
    }

    /// As [`frame`](Self::frame), by any process's `pagemap`.
    pub(super) fn frame_in(pagemap: &File, page: Address) -> Option<u64> {
        let mut entry = [0; 8];
        pagemap
            .read_exact_at(&mut entry, page.get() / PAGE_SIZE * 8)
            .ok()?;
        entry::frame(u64::from_ne_bytes(entry))
    }
}

const OF_FILE: Categories = Categories {
    all_of: PRESENT | FILE,
    none_of: 0,
    any_of: 0,
    shown: PRESENT | FILE,
    flags: 0,
};

/// Pages of the process alone, which are protected against writing when they are found.
const TO_PROTECT: Categories = Categories {
    all_of: 0,
    none_of: FILE,
    any_of: PRESENT | SWAPPED,
    shown: PRESENT,
    flags: PM_SCAN_WP_MATCHING as u64 | PM_SCAN_CHECK_WPASYNC as u64,
};

/// Those that are protected still.
const UNWRITTEN: Categories = Categories {
    all_of: 0,
    none_of: FILE | WRITTEN,
    any_of: PRESENT | SWAPPED,
    shown: WRITTEN,
    flags: PM_SCAN_CHECK_WPASYNC as u64,
};

/// Write protection that the kernel lifts by itself, of pages that are registered for that with a `userfaultfd`.
impl Pagemap {
    /// Protects pages of `range` that are no file's, in memory or in swap: some at a time. Returns how far it got.
    ///
    /// # Errors
    /// The kernel's refusal: `EPERM` where some of it is not registered.
    pub(super) fn write_protect(&self, range: AddressRange) -> Result<Address, Errno> {
        self.some_regions(range, TO_PROTECT, |_| ())
    }

    /// The pages of `range` that nobody has written since they were protected.
    ///
    /// # Errors
    /// As [`write_protect`](Self::write_protect).
    pub(super) fn unwritten(&self, range: AddressRange) -> Result<Vec<AddressRange>, Errno> {
        let mut unwritten = Vec::new();
        let mut at = range.start();
        while let Some(rest) = AddressRange::new(at, range.end()).filter(|it| !it.is_empty()) {
            at = self.some_regions(rest, UNWRITTEN, |region| region.append_to(&mut unwritten))?;
        }
        Ok(unwritten)
    }

    /// Hands on regions in `range`, which is not empty; returns how far they go.
    fn some_regions(
        &self,
        range: AddressRange,
        wanted: Categories,
        mut take: impl FnMut(AddressRange),
    ) -> Result<Address, Errno> {
        let end = query(&self.file, range, MOST_RUNS, wanted, |regions, walk_end| {
            regions.iter().map(range_of).for_each(&mut take);
            let last = regions.last().map_or(walk_end, |it| range_of(it).end());
            Ok(walk_end.max(last))
        })?;
        match end > range.start() {
            true => Ok(end),
            false => Err(Errno::EIO),
        }
    }
}

/// Asks the kernel for regions, and hands them on with where it stopped.
fn query<T>(
    file: &File,
    range: AddressRange,
    at_most: usize,
    wanted: Categories,
    take: impl FnOnce(&[page_region], Address) -> Result<T, Errno>,
) -> Result<T, Errno> {
    REGIONS.with_borrow_mut(|regions| {
        regions.resize(MOST_RUNS, NO_REGION);
        let regions = &mut regions[..at_most.clamp(1, MOST_RUNS)];
        let mut argument = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: wanted.flags,
            start: range.start().get(),
            end: range.end().get(),
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: MOST_PAGES,
            category_mask: wanted.all_of | wanted.none_of,
            category_anyof_mask: wanted.any_of,
            return_mask: wanted.shown,
            walk_end: 0,
            category_inverted: wanted.none_of,
        };
        // SAFETY: the descriptor is open; the argument is laid out as the kernel's, names its own
        // size, and its vector is `vec_len` regions long and lives until after the call.
        let scan = || unsafe { ioctl::pagemap_scan(file.as_raw_fd(), &raw mut argument) };
        let found = retry(scan)?;
        let found = usize::try_from(found).unwrap_or(0).min(regions.len());
        take(&regions[..found], Address::new(argument.walk_end))
    })
}

/// What is present or swapped, and whether it is a guard page where the kernel tells that.
fn wanted(with_guards: bool) -> Categories {
    let guards = if with_guards { GUARD } else { 0 };
    Categories {
        any_of: PRESENT | SWAPPED,
        shown: PRESENT | SWAPPED | ZERO_PAGE | guards,
        ..Categories::default()
    }
}

/// Scans a page, to see whether the kernel does that, and with guard pages if these are wanted, too.
///
/// # Errors
/// The kernel's refusal: `ENOTTY` where it has no `PAGEMAP_SCAN`, `EINVAL` where it does not know all that is wanted.
pub(super) fn try_scan(pagemap: &File, with_guards: bool) -> Result<(), Errno> {
    let page = AddressRange::new(Address::new(0), Address::new(PAGE_SIZE)).unwrap_or_default();
    query(pagemap, page, 1, wanted(with_guards), |_, _| Ok(()))
}
