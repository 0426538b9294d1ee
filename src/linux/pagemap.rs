//! Which pages of a range are in memory: `PAGEMAP_SCAN` (since Linux 6.7), or `/proc/PID/pagemap` page by page.
//!
//! Neither touches a page. See `Documentation/admin-guide/mm/pagemap.rst`.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;

use crate::address::{Address, AddressRange, PAGE_SIZE};

/// Where a page is, if it is anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageState {
    /// In memory.
    Present,
    /// In swap.
    Swapped,
    /// Read, never written: the shared page of zeros.
    ZeroPage,
}

/// Neighbouring pages in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRun {
    pub(super) range: AddressRange,
    pub(super) state: PageState,
}

/// What a scan found: pages outside of the runs are absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) runs: Vec<PageRun>,
    /// How far it looked.
    pub(super) end: Address,
}

/// A pinned `/proc/PID/pagemap`.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: Arc<File>,
    has_scan: AtomicBool,
    /// Categories that this kernel reports.
    categories: AtomicU64,
}

/// `struct page_region` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

thread_local! {
    /// Where the kernel puts what it finds: 24 KiB, which would take longer to clear for each scan than most scans take.
    static REGIONS: RefCell<Vec<PageRegion>> = const { RefCell::new(Vec::new()) };
}

mod ioctl {
    use super::PmScanArg;

    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);
}

const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO_PAGE: u64 = 1 << 5;
/// `MADV_GUARD_INSTALL`: the page is gone and touching it is fatal (reported since Linux 6.15).
const GUARD: u64 = 1 << 8;

/// Runs that one call asks for at the most.
const MOST_RUNS: usize = 1024;

/// Pages that one call finds at the most, 1 GiB: it holds the lock that the target's own `mmap` waits
/// for, and finds as many in some three milliseconds.
const MOST_PAGES: u64 = 1 << 18;

/// Entries of `pagemap` that are read at a time: 64 KiB, for 32 MiB of memory.
const ENTRIES: usize = 8192;

impl Pagemap {
    /// Wraps the file; `has_scan` is false to do without `PAGEMAP_SCAN`.
    pub(super) fn new(file: Arc<File>, has_scan: bool) -> Self {
        Self {
            file,
            has_scan: AtomicBool::new(has_scan),
            categories: AtomicU64::new(PRESENT | SWAPPED | ZERO_PAGE | GUARD),
        }
    }

    /// Looks at `range`, whole pages, until `at_most` runs are found.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn scan(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        // The kernel's half of the addresses (`[vsyscall]`) is not in it.
        if range.end().get() > i64::MAX as u64 {
            return Ok(Scan {
                runs: Vec::new(),
                end: range.end(),
            });
        }
        if self.has_scan.load(Ordering::Relaxed) {
            match self.scan_once(range, at_most) {
                Err(Errno::ENOTTY) => {
                    log::info!(
                        "this kernel has no PAGEMAP_SCAN (6.7): reading pagemap page by page"
                    );
                    self.has_scan.store(false, Ordering::Relaxed);
                }
                // The kernel does not know the newest category.
                Err(Errno::EINVAL) if self.categories.load(Ordering::Relaxed) & GUARD != 0 => {
                    self.categories.fetch_and(!GUARD, Ordering::Relaxed);
                    return self.scan(range, at_most);
                }
                answer => return answer,
            }
        }
        self.read_entries(range, at_most)
    }

    fn scan_once(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        REGIONS.with_borrow_mut(|regions| {
            regions.resize(MOST_RUNS, PageRegion::default());
            self.scan_into(range, &mut regions[..at_most.clamp(1, MOST_RUNS)])
        })
    }

    fn scan_into(&self, range: AddressRange, regions: &mut [PageRegion]) -> Result<Scan, Errno> {
        let mut argument = PmScanArg {
            size: size_of::<PmScanArg>() as u64,
            start: range.start().get(),
            end: range.end().get(),
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: MOST_PAGES,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: self.categories.load(Ordering::Relaxed),
            ..PmScanArg::default()
        };
        // SAFETY: the descriptor is open; the argument is laid out as the kernel's, names its own
        // size, and its vector is `vec_len` regions long and lives until behind the call.
        let found = unsafe { ioctl::pagemap_scan(self.file.as_raw_fd(), &raw mut argument) }?;
        let mut scan = Scan {
            runs: Vec::new(),
            end: Address::new(argument.walk_end),
        };
        for region in regions.iter().take(usize::try_from(found).unwrap_or(0)) {
            let state = match region.categories {
                categories if categories & GUARD != 0 => None,
                categories if categories & ZERO_PAGE != 0 => Some(PageState::ZeroPage),
                categories if categories & PRESENT != 0 => Some(PageState::Present),
                _ => Some(PageState::Swapped),
            };
            let range = AddressRange::new(Address::new(region.start), Address::new(region.end));
            if let (Some(range), Some(state)) = (range, state) {
                push(&mut scan.runs, range, state);
            }
            // The kernel works in rounds of 512 regions, and where a full round is followed by the
            // last one `walk_end` stays where the full one ended (`do_pagemap_scan`, Linux 6.18).
            scan.end = scan.end.max(Address::new(region.end));
        }
        Ok(scan)
    }

    fn read_entries(&self, range: AddressRange, at_most: usize) -> Result<Scan, Errno> {
        /// Bits of an entry: present, swapped, and guard region (since Linux 6.15).
        const ENTRY_PRESENT: u64 = 1 << 63;
        const ENTRY_SWAPPED: u64 = 1 << 62;
        const ENTRY_GUARD: u64 = 1 << 58;

        let mut scan = Scan {
            runs: Vec::new(),
            end: range.start(),
        };
        let mut bytes = Vec::new();
        while scan.end < range.end() && scan.runs.len() < at_most {
            let pages = (range.end().since(scan.end) / PAGE_SIZE).min(ENTRIES as u64);
            bytes.resize(pages as usize * 8, 0);
            let offset = scan.end.get() / PAGE_SIZE * 8;
            let read = match self.file.read_at(&mut bytes, offset) {
                Ok(read) => read / 8,
                Err(error) => return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
            };
            // Behind the last address that a process can have there are no entries.
            if read == 0 {
                scan.end = range.end();
            }
            for entry in bytes[..read * 8].chunks_exact(8) {
                let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
                let page = AddressRange::new(scan.end, scan.end.plus(PAGE_SIZE));
                let state = match entry {
                    entry if entry & ENTRY_GUARD != 0 => None,
                    entry if entry & ENTRY_PRESENT != 0 => Some(PageState::Present),
                    entry if entry & ENTRY_SWAPPED != 0 => Some(PageState::Swapped),
                    _ => None,
                };
                if let (Some(page), Some(state)) = (page, state) {
                    if scan.runs.len() == at_most
                        && scan.runs.last().is_some_and(|run| {
                            run.state != state || run.range.end() != page.start()
                        })
                    {
                        return Ok(scan);
                    }
                    push(&mut scan.runs, page, state);
                }
                scan.end = scan.end.plus(PAGE_SIZE);
            }
        }
        Ok(scan)
    }
}

fn push(runs: &mut Vec<PageRun>, range: AddressRange, state: PageState) {
    if let Some(last) = runs.last_mut()
        && last.state == state
        && let Some(joined) = last.range.joined(range)
    {
        last.range = joined;
        return;
    }
    runs.push(PageRun { range, state });
}
