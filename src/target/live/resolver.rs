//! From where the bytes of each page are taken, without faulting one in.

use std::cell::OnceCell;
use std::sync::Arc;

use nix::errno::Errno;

use super::backing::{Backing, BackingFiles, InUse, OpenFile, Place, held_file};
use super::kernel::{Feature, Kernel};
use super::pagemap::{EntryState, Pagemap, Scan, is_of_process};
use super::pinned::Pinned;
use super::shortage::found;
use super::smaps::RecentSmaps;
use super::vma::{FileShift, Maps, Vma};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::Unknown;
use crate::target::mapping::{Device, Mapping};
use crate::target::page_state::{Extent, MemoryUsage, PageState, Run, are_contiguous, push, trim};
use crate::target::snapshot::FileContent;

/// From where the bytes of a run of pages are taken.
#[derive(Clone, Debug)]
pub(super) enum PageSource {
    /// The process's own memory.
    Memory,
    /// Its swap, by way of the process.
    Swap,
    Zeros,
    /// The file of the mapping.
    File(Arc<OpenFile>, FileShift),
    /// The vDSO, which all processes of one kind share.
    Vdso,
    /// A file of this mount: not to be touched.
    OwnMount,
    /// Nobody can tell without touching them.
    Unknown(Unknown),
    /// Nowhere.
    Unreadable,
}

impl PageSource {
    /// Whether the process itself is read.
    pub(super) fn is_process(&self) -> bool {
        matches!(self, Self::Memory | Self::Swap)
    }

    fn is_zeros(&self) -> bool {
        matches!(self, Self::Zeros)
    }

    /// Of pages that were zeros a moment ago, and have this entry now.
    fn after_zeros(now: EntryState) -> Self {
        match now {
            EntryState::ZeroPage => Self::Zeros,
            EntryState::Present | EntryState::MaybeSwapped => Self::Memory,
            EntryState::Swapped => Self::Swap,
            EntryState::Unreadable => Self::Unreadable,
        }
    }
}

/// Runs of pages with the sources of their bytes, in order and without a gap.
pub(super) type Sources = Vec<Run<PageSource>>;

/// Decides for each run of pages its [`PageSource`], by the descriptors that tell where bytes are.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) pinned: Arc<Pinned>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) pagemap: Pagemap,
    pub(super) maps: Maps,
    pub(super) smaps: Arc<RecentSmaps>,
    pub(super) files: BackingFiles,
    pub(super) own_device: Option<Device>,
    /// Devices of other mounts of this kind; listed only where reads may fault pages in.
    pub(super) other_mounts: Vec<Device>,
}

/// Ranges that are no further apart, in bytes, are scanned together: passing over pages that
/// nobody asked for takes less time than another call, up to some of them.
const NEAR: u64 = 64 * PAGE_SIZE;

impl Resolver {
    /// Says that a request begins: what it opens stays open until this is dropped.
    pub(super) fn begin(&self) -> InUse<'_> {
        self.files.begin()
    }

    /// Whether the mapping is of a file of this mount.
    pub(super) fn is_own(&self, mapping: &Mapping) -> bool {
        self.own_device.is_some_and(|device| mapping.is_on(device))
    }

    /// As [`resolve`](Self::resolve) where absent pages may be faulted in: all of it through the process,
    /// but for mappings of this mount or another one like it. A fault there would come back to us.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn resolve_touching(&self, range: AddressRange) -> Result<Sources, Errno> {
        let runs = self.maps.over(range, None).map(|run| {
            let Run { range, state } = run?;
            let state = match state {
                Some(vma) if self.is_mount(vma.device) => PageSource::OwnMount,
                Some(vma) if self.is_hidden(&vma) => PageSource::Unreadable,
                Some(_) => PageSource::Memory,
                None => PageSource::Unreadable,
            };
            Ok(Run { range, state })
        });
        runs.collect()
    }

    /// What the file of a mapping holds, for as long as the answer is kept.
    pub(super) fn file_content(&self, mapping: &Mapping) -> FileContent {
        let start = mapping.range().start();
        let vma = self.maps.at_or_after(start).ok().flatten();
        let Some(vma) = vma.filter(|vma| vma.range.contains(start)) else {
            return FileContent::Unknown;
        };
        let in_use = self.files.begin();
        let backing = self.files.backing(Place {
            pinned: &self.pinned,
            pagemap: &self.pagemap,
            vma: &vma,
            mapping,
        });
        drop(in_use);
        match backing {
            Ok(Backing::File(file)) => held_file(file),
            // Anonymous memory.
            Ok(Backing::Zeros) => FileContent::Memory,
            Ok(Backing::Closed(_)) | Err(_) => FileContent::Unknown,
        }
    }

    /// Whether the kernel does not show the mapping's pages, since it may not be read.
    fn is_hidden(&self, vma: &Vma) -> bool {
        !vma.readable && !self.kernel.has(Feature::ForcedAccess)
    }

    fn is_mount(&self, device: Device) -> bool {
        self.own_device == Some(device) || self.other_mounts.contains(&device)
    }

    /// The sources of `range`, a part of `mapping`, from its start on; they may end before it does.
    ///
    /// The scan says what is present. Only for what is absent does the kind
    /// of mapping matter, and that is asked of the kernel now: `mapping` may
    /// be gone, and zeros for what is unmapped would be a lie.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn resolve(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Sources, Errno> {
        if self.is_own(mapping) {
            let state = PageSource::OwnMount;
            return Ok(vec![Run { range, state }]);
        }
        let pages = range.to_pages();
        let scan = self.pagemap.scan(pages, at_most)?;
        let mut sources = self.sources_of(mapping, pages, &scan)?;
        if sources.iter().any(|run| run.state.is_zeros()) {
            sources = self.confirmed(sources)?;
        }
        trim(&mut sources, range);
        debug_assert!(are_contiguous(&sources, range.start()), "{sources:?}");
        Ok(sources)
    }

    /// The sources of whole pages, as a scan saw them.
    fn sources_of(
        &self,
        mapping: &Mapping,
        pages: AddressRange,
        scan: &Scan,
    ) -> Result<Sources, Errno> {
        let mut resolution = Resolution {
            resolver: self,
            mapping,
            vma: None,
            some_may_be_lazy: OnceCell::new(),
            sources: Vec::with_capacity(2 * scan.runs.len() + 1),
        };
        let mut at = pages.start();
        for run in &scan.runs {
            resolution.absent(at, run.range.start())?;
            match run.state {
                EntryState::Swapped | EntryState::MaybeSwapped => {
                    resolution.not_present(run.range, run.state)?;
                }
                EntryState::Present => resolution.present(run.range)?,
                EntryState::ZeroPage => resolution.push(run.range, PageSource::Zeros),
                EntryState::Unreadable => resolution.push(run.range, PageSource::Unreadable),
            }
            at = run.range.end();
        }
        resolution.absent(at, scan.end.min(pages.end()))?;
        Ok(resolution.sources)
    }

    /// The same sources, with zeros only where a later scan finds no page either.
    ///
    /// Between the scan and the question what mapping is there, another one may have been moved
    /// in (`mremap`), full of bytes; and the process may have written its first byte there.
    fn confirmed(&self, sources: Sources) -> Result<Sources, Errno> {
        let end = sources
            .last()
            .map_or(Address::new(0), |last| last.range.end());
        let mut confirmed = Vec::with_capacity(sources.len());
        let mut later = Scan::default();
        let mut next = 0;
        for run in sources {
            if !run.state.is_zeros() {
                confirmed.push(run);
                continue;
            }
            let mut at = run.range.start();
            while at < run.range.end() {
                if at >= later.end {
                    // As much as a scan takes in from here on, for the runs that follow, too.
                    let rest = AddressRange::new(at, end).unwrap_or_default();
                    later = self.pagemap.scan(rest, usize::MAX)?;
                    next = 0;
                    if later.end <= at {
                        return Err(Errno::EIO);
                    }
                }
                next += later.runs[next..].partition_point(|run| run.range.end() <= at);
                let (upto, state) = match later.runs.get(next) {
                    Some(now) if now.range.contains(at) => {
                        (now.range.end(), PageSource::after_zeros(now.state))
                    }
                    Some(now) => (now.range.start(), PageSource::Zeros),
                    None => (later.end, PageSource::Zeros),
                };
                let upto = upto.min(run.range.end());
                confirmed.extend(AddressRange::new(at, upto).map(|range| Run { range, state }));
                at = upto;
            }
        }
        Ok(confirmed)
    }

    /// Where the bytes of `range` are, holes of files included. The answer may end early.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn extents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>, Errno> {
        let mut extents = Vec::new();
        for run in self.resolve(mapping, range, at_most)? {
            let state = match run.state {
                PageSource::Swap => PageState::Swapped,
                PageSource::Memory | PageSource::Vdso => PageState::Resident,
                PageSource::Zeros => PageState::Zero,
                PageSource::Unreadable | PageSource::Unknown(_) | PageSource::OwnMount => {
                    PageState::Unreadable
                }
                PageSource::File(file, shift) => {
                    let offset = shift.offset_of(run.range.start());
                    let end = file.extents(offset, run.range, at_most, &mut extents);
                    if end < run.range.end() {
                        break;
                    }
                    continue;
                }
            };
            push(&mut extents, run.range, state);
        }
        debug_assert!(are_contiguous(&extents, range.start()), "{extents:?}");
        Ok(extents)
    }

    /// Whether a `userfaultfd` fills in the absent pages of the mapping: then nobody but its handler knows what
    /// they will hold.
    ///
    /// # Errors
    /// As [`found`].
    fn is_lazy(&self, vma: &Vma) -> Result<bool, Errno> {
        // Files of disks are never filled in so (`vma_can_userfault` in `include/linux/userfaultfd_k.h`).
        if vma.device.major != 0 {
            return Ok(false);
        }
        let details = found(self.smaps.details(&self.pinned, vma.range))?;
        // What is gone since was plain absent memory a moment ago, as far as anybody can tell.
        Ok(details.is_none_or(|details| details.is_some_and(|details| details.is_lazy)))
    }

    /// Whether pages of the mapping may be in swap, where their entries do not tell.
    fn may_be_swapped(&self, vma: &Vma) -> bool {
        // What shared memory has in swap is not in the page table of a process.
        !vma.shared
            && match self.smaps.details(&self.pinned, vma.range) {
                Ok(details) => details.is_none_or(|details| details.swapped > 0),
                Err(_) => true,
            }
    }

    /// Memory that each of `ranges` takes, which lie in order and do not overlap.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>, Errno> {
        let pages: Vec<_> = ranges.iter().map(|range| range.to_pages()).collect();
        let mut usage = Vec::with_capacity(ranges.len());
        // A scan passes over what is not mapped in one step, which one entry after another does not.
        let is_scanned = self.kernel.has(Feature::PagemapScan);
        let are_together = |one: &AddressRange, next: &AddressRange| {
            let is_near = next.start() <= one.end().plus(NEAR);
            is_near || is_scanned && is_of_process(*next)
        };
        for neighbours in pages.chunk_by(are_together) {
            usage.extend(self.usage_of_neighbours(neighbours)?);
        }
        if !self.kernel.has(Feature::ForcedAccess) {
            for (range, usage) in ranges.iter().zip(&mut usage) {
                let vma = self.maps.at_or_after(range.start())?;
                usage.is_hidden = vma.is_some_and(|vma| self.is_hidden(&vma));
            }
        }
        Ok(usage)
    }

    /// As [`memory_usage`](Self::memory_usage), with as few scans as the kernel allows from the
    /// first to the last of them.
    fn usage_of_neighbours(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>, Errno> {
        let mut usage = vec![MemoryUsage::default(); ranges.len()];
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(usage);
        };
        let mut at = first.start();
        // The first range that the next run can meet.
        let mut next = 0;
        while let Some(rest) = AddressRange::new(at, last.end()).filter(|rest| !rest.is_empty()) {
            let scan = self.pagemap.scan(rest, usize::MAX)?;
            for run in &scan.runs {
                next += ranges[next..].partition_point(|range| range.end() <= run.range.start());
                let met = ranges[next..].iter().zip(&mut usage[next..]);
                for (range, usage) in met.take_while(|(range, _)| range.start() < run.range.end()) {
                    let shared = range.intersection(run.range);
                    match run.state {
                        EntryState::Present => usage.resident += shared.len(),
                        EntryState::Swapped => usage.swapped += shared.len(),
                        EntryState::MaybeSwapped => usage.swapped += self.swapped(shared)?,
                        EntryState::ZeroPage | EntryState::Unreadable => (),
                    }
                }
            }
            // The kernel may scan less than it was asked to, but never nothing.
            if scan.end <= at {
                break;
            }
            // What lies between the ranges is not asked for again.
            let left = ranges.partition_point(|range| range.end() <= scan.end);
            at = ranges
                .get(left)
                .map_or(last.end(), |range| range.start().max(scan.end));
        }
        Ok(usage)
    }

    /// Bytes of `range` that are in swap, as far as can be known where the entries do not tell.
    fn swapped(&self, range: AddressRange) -> Result<u64, Errno> {
        let mut swapped = 0;
        for run in self.maps.over(range, None) {
            let run = run?;
            if run.state.is_some_and(|vma| self.may_be_swapped(&vma)) {
                swapped += run.range.len();
            }
        }
        Ok(swapped)
    }
}

/// The pages of one mapping while their sources are found.
struct Resolution<'a> {
    resolver: &'a Resolver,
    mapping: &'a Mapping,
    /// The mapping that was asked for last.
    vma: Option<Vma>,
    /// Whether any process may have a `userfaultfd`, asked for once.
    some_may_be_lazy: OnceCell<bool>,
    sources: Sources,
}

impl Resolution<'_> {
    fn push(&mut self, range: AddressRange, state: PageSource) {
        self.sources.push(Run { range, state });
    }

    /// Goes through the mappings of `range`, as they are now; gaps have no bytes.
    fn each(
        &mut self,
        range: AddressRange,
        source_in: impl Fn(&Self, &Vma) -> Result<PageSource, Errno>,
    ) -> Result<(), Errno> {
        let resolver = self.resolver;
        for run in resolver.maps.over(range, self.vma) {
            let Run { range, state: vma } = run?;
            let source = match &vma {
                Some(vma) => source_in(self, vma)?,
                None => PageSource::Unreadable,
            };
            self.vma = vma;
            self.push(range, source);
        }
        Ok(())
    }

    /// Adds pages that are in memory. Which mapping they belong to matters only where protection hides some.
    fn present(&mut self, range: AddressRange) -> Result<(), Errno> {
        if self.resolver.kernel.has(Feature::ForcedAccess) {
            self.push(range, PageSource::Memory);
            return Ok(());
        }
        self.each(range, |resolution, vma| {
            Ok(match resolution.resolver.is_hidden(vma) {
                true => PageSource::Unreadable,
                false => PageSource::Memory,
            })
        })
    }

    /// Adds absent pages from `start` to `end`.
    fn absent(&mut self, start: Address, end: Address) -> Result<(), Errno> {
        let range = AddressRange::new(start, end).unwrap_or_default();
        self.each(range, Self::absent_in)
    }

    /// Adds pages whose entries are neither empty nor present.
    fn not_present(&mut self, range: AddressRange, entry: EntryState) -> Result<(), Errno> {
        self.each(range, |resolution, vma| {
            let is_swap = match entry {
                EntryState::MaybeSwapped => resolution.resolver.may_be_swapped(vma),
                // The entries of shared memory are no swap: its pages are those of the object.
                _ => !vma.shared,
            };
            if is_swap && resolution.resolver.is_hidden(vma) {
                Ok(PageSource::Unreadable)
            } else if is_swap {
                Ok(PageSource::Swap)
            } else {
                resolution.absent_in(vma)
            }
        })
    }

    fn absent_in(&self, vma: &Vma) -> Result<PageSource, Errno> {
        let Self {
            resolver, mapping, ..
        } = self;
        if mapping.is_special() && mapping.range() == vma.range {
            return Ok(match mapping.is_vdso() {
                true => PageSource::Vdso,
                false => PageSource::Memory,
            });
        }
        if resolver.own_device == Some(vma.device) && !vma.is_anonymous() {
            return Ok(PageSource::OwnMount);
        }
        let some_may_be_lazy = self
            .some_may_be_lazy
            .get_or_init(|| resolver.kernel.may_have_userfaultfd());
        if *some_may_be_lazy && resolver.is_lazy(vma)? {
            return Ok(PageSource::Unknown(Unknown::Lazy));
        }
        if vma.is_anonymous() {
            return Ok(PageSource::Zeros);
        }
        let backing = resolver.files.backing(Place {
            pinned: &resolver.pinned,
            pagemap: &resolver.pagemap,
            vma,
            mapping,
        });
        Ok(match backing? {
            Backing::Zeros => PageSource::Zeros,
            Backing::Closed(why) => PageSource::Unknown(why),
            Backing::File(file) => PageSource::File(file, vma.file_shift()),
        })
    }
}
