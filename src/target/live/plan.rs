//! How each page of a range is to be got without faulting one in.

use std::cell::OnceCell;
use std::sync::Arc;

use nix::errno::Errno;

use super::backing::{Backing, BackingFiles, InUse, OpenFile, Place};
use super::kernel::Kernel;
use super::pagemap::{PageState, Pagemap, Scan};
use super::pinned::Pinned;
use super::smaps::RecentSmaps;
use super::vma::{Maps, Vma};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::Unknown;
use crate::target::mapping::{Device, Mapping};
use crate::target::page_state::{Content, Held, Stretch, push};

/// A stretch of pages, and from where to take their bytes.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) range: AddressRange,
    pub(super) origin: Origin,
}

/// Where bytes come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The process's own memory or swap.
    Process(PageState),
    /// Zeros.
    Zeros,
    /// The file behind the mapping, from this offset on.
    File(Arc<OpenFile>, u64),
    /// The vDSO, which all processes of one kind share; from this offset on.
    Vdso(u64),
    /// A file of this mount: not to be touched.
    OwnMount,
    /// Nobody can tell without touching them.
    Unknown(Unknown),
    /// Nowhere.
    Nothing,
}

/// The descriptors that tell where bytes are.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) pinned: Arc<Pinned>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) pagemap: Pagemap,
    pub(super) maps: Maps,
    pub(super) smaps: RecentSmaps,
    pub(super) files: BackingFiles,
    pub(super) own_device: Option<Device>,
    /// Devices of other mounts of this kind, for who may fault pages in.
    pub(super) other_mounts: Vec<Device>,
}

/// Ranges that are no further apart, in bytes, are looked at together: passing over pages that
/// nobody asked for takes less time than another call, up to some of them.
const NEAR: u64 = 64 * PAGE_SIZE;

impl Planner {
    /// Says that a request begins: what it opens stays open until this is dropped.
    pub(super) fn begin(&self) -> InUse<'_> {
        self.files.begin()
    }

    /// Whether a file of this mount is behind the mapping.
    pub(super) fn is_own(&self, mapping: &Mapping) -> bool {
        self.own_device.is_some_and(|device| mapping.is_on(device))
    }

    /// The steps for `range` where absent pages may be faulted in: all of it through the process,
    /// but for mappings of this mount or another one like it. A fault there would come back to us.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn touching_steps(&self, range: AddressRange) -> Result<Vec<Step>, Errno> {
        let mut steps = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let (upto, origin) = match self.maps.at_or_behind(at)? {
                Some(vma) if vma.range.contains(at) && self.is_mount(vma.device) => {
                    (vma.range.end(), Origin::OwnMount)
                }
                Some(vma) if vma.range.contains(at) => {
                    (vma.range.end(), Origin::Process(PageState::Present))
                }
                Some(vma) => (vma.range.start(), Origin::Nothing),
                None => (range.end(), Origin::Nothing),
            };
            let upto = upto.min(range.end());
            steps.extend(AddressRange::new(at, upto).map(|range| Step { range, origin }));
            at = upto;
        }
        Ok(steps)
    }

    fn is_mount(&self, device: Device) -> bool {
        self.own_device == Some(device) || self.other_mounts.contains(&device)
    }

    /// The steps for `range`, a part of `mapping`, from its start on without a gap; they may end early.
    ///
    /// The scan says what is present. Only for what is absent does the kind
    /// of mapping matter, and that is asked of the kernel now: `mapping` may
    /// be gone, and zeros for what is unmapped would be a lie.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn steps(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Step>, Errno> {
        if self.is_own(mapping) {
            let origin = Origin::OwnMount;
            return Ok(vec![Step { range, origin }]);
        }
        let pages = range.to_pages();
        let scan = self.pagemap.scan(pages, at_most)?;
        let mut steps = self.steps_of(mapping, pages, &scan)?;
        if steps.iter().any(Step::is_zeros) {
            steps = self.confirmed(steps)?;
        }
        for step in &mut steps {
            step.trim(range);
        }
        steps.retain(|step| !step.range.is_empty());
        Ok(steps)
    }

    /// The steps for whole pages, as a scan saw them.
    fn steps_of(
        &self,
        mapping: &Mapping,
        pages: AddressRange,
        scan: &Scan,
    ) -> Result<Vec<Step>, Errno> {
        let mut look = Look {
            planner: self,
            mapping,
            vma: None,
            some_may_be_lazy: OnceCell::new(),
            steps: Vec::with_capacity(2 * scan.runs.len() + 1),
        };
        let mut at = pages.start();
        for run in &scan.runs {
            look.absent(at, run.range.start())?;
            match run.state {
                PageState::Swapped | PageState::MaybeSwapped => {
                    look.not_present(run.range, run.state)?;
                }
                PageState::Present => look.push(run.range, Origin::Process(run.state)),
                PageState::ZeroPage => look.push(run.range, Origin::Zeros),
                PageState::Unreadable => look.push(run.range, Origin::Nothing),
            }
            at = run.range.end();
        }
        look.absent(at, scan.end.min(pages.end()))?;
        Ok(look.steps)
    }

    /// The same steps, with zeros only where a later scan finds no page either.
    ///
    /// Between the scan and the question what mapping is there, another one may have been moved
    /// in (`mremap`), full of bytes; and the process may have written its first byte there.
    fn confirmed(&self, steps: Vec<Step>) -> Result<Vec<Step>, Errno> {
        let end = steps
            .last()
            .map_or(Address::new(0), |last| last.range.end());
        let mut confirmed = Vec::with_capacity(steps.len());
        let mut later = Scan::default();
        let mut next = 0;
        for step in steps {
            if !step.is_zeros() {
                confirmed.push(step);
                continue;
            }
            let mut at = step.range.start();
            while at < step.range.end() {
                if at >= later.end {
                    // As much as a scan takes in from here on, for the steps that follow, too.
                    let rest = AddressRange::new(at, end).unwrap_or_default();
                    later = self.pagemap.scan(rest, usize::MAX)?;
                    next = 0;
                    if later.end <= at {
                        return Err(Errno::EIO);
                    }
                }
                next += later.runs[next..].partition_point(|run| run.range.end() <= at);
                let (upto, origin) = match later.runs.get(next) {
                    Some(run) if run.range.contains(at) => {
                        (run.range.end(), step.origin_if(run.state))
                    }
                    Some(run) => (run.range.start(), Origin::Zeros),
                    None => (later.end, Origin::Zeros),
                };
                let upto = upto.min(step.range.end());
                confirmed.extend(AddressRange::new(at, upto).map(|range| Step { range, origin }));
                at = upto;
            }
        }
        Ok(confirmed)
    }

    /// Where the bytes of `range` are, holes of files included. The answer may end early.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn contents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Stretch>, Errno> {
        let mut stretches = Vec::new();
        for step in self.steps(mapping, range, at_most)? {
            let content = match step.origin {
                Origin::Process(PageState::Swapped) => Content::Swapped,
                Origin::Process(_) | Origin::Vdso(_) => Content::Resident,
                Origin::Zeros => Content::Zero,
                Origin::Nothing | Origin::Unknown(_) | Origin::OwnMount => Content::Nothing,
                Origin::File(file, offset) => {
                    let end = file.stretches(offset, step.range, at_most, &mut stretches);
                    if end < step.range.end() {
                        break;
                    }
                    continue;
                }
            };
            push(&mut stretches, step.range, content);
        }
        Ok(stretches)
    }

    /// Whether a `userfaultfd` fills in the absent pages of the mapping: then nobody but its handler knows what
    /// they will hold.
    fn is_lazy(&self, vma: &Vma) -> bool {
        // Files of disks are never filled in so (`vma_can_userfault` in `include/linux/userfaultfd_k.h`).
        vma.device.major == 0
            && match self.smaps.of(&self.pinned, vma.range) {
                // What is gone since was plain absent memory a moment ago, as far as anybody can tell.
                Ok(details) => details.is_some_and(|details| details.is_lazy),
                Err(_) => true,
            }
    }

    /// Whether pages of the mapping may be in swap, where their entries do not tell.
    fn may_be_swapped(&self, vma: &Vma) -> bool {
        // What shared memory has in swap is not in the page table of a process.
        !vma.shared
            && match self.smaps.of(&self.pinned, vma.range) {
                Ok(details) => details.is_none_or(|details| details.swapped > 0),
                Err(_) => true,
            }
    }

    /// Memory that each of `ranges` holds, which lie in order and do not overlap.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn held(&self, ranges: &[AddressRange]) -> Result<Vec<Held>, Errno> {
        let pages: Vec<_> = ranges.iter().map(|range| range.to_pages()).collect();
        let mut held = Vec::with_capacity(ranges.len());
        for neighbours in pages.chunk_by(|one, next| next.start() <= one.end().plus(NEAR)) {
            held.extend(self.held_by_neighbours(neighbours)?);
        }
        Ok(held)
    }

    /// As [`held`](Self::held), with as few looks as the kernel allows from the first to the last of them.
    fn held_by_neighbours(&self, ranges: &[AddressRange]) -> Result<Vec<Held>, Errno> {
        let mut held = vec![Held::default(); ranges.len()];
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(held);
        };
        let mut at = first.start();
        // The first range that the next run can meet.
        let mut next = 0;
        while let Some(rest) = AddressRange::new(at, last.end()).filter(|rest| !rest.is_empty()) {
            let scan = self.pagemap.scan(rest, usize::MAX)?;
            for run in &scan.runs {
                next += ranges[next..].partition_point(|range| range.end() <= run.range.start());
                let met = ranges[next..].iter().zip(&mut held[next..]);
                for (range, held) in met.take_while(|(range, _)| range.start() < run.range.end()) {
                    let bytes = range.intersection(run.range).len();
                    match run.state {
                        PageState::Present => held.resident += bytes,
                        PageState::Swapped => held.swapped += bytes,
                        PageState::MaybeSwapped => {
                            held.swapped += self.swapped(range.intersection(run.range))?;
                        }
                        PageState::ZeroPage | PageState::Unreadable => (),
                    }
                }
            }
            // The kernel may look at less than it was asked to, but never at nothing.
            if scan.end <= at {
                break;
            }
            at = scan.end;
        }
        Ok(held)
    }

    /// Bytes of `range` that are in swap, as far as can be known where the entries do not tell.
    fn swapped(&self, range: AddressRange) -> Result<u64, Errno> {
        let mut swapped = 0;
        let mut at = range.start();
        while let Some(vma) = self.maps.at_or_behind(at)?.filter(|_| at < range.end()) {
            if self.may_be_swapped(&vma) {
                swapped += vma.range.intersection(range).len();
            }
            at = vma.range.end();
        }
        Ok(swapped)
    }
}

/// A look at the pages of one mapping, and the steps that it has come to.
struct Look<'a> {
    planner: &'a Planner,
    mapping: &'a Mapping,
    /// The mapping that was asked for last.
    vma: Option<Vma>,
    /// Whether any process may have a `userfaultfd`, asked for once.
    some_may_be_lazy: OnceCell<bool>,
    steps: Vec<Step>,
}

impl Look<'_> {
    fn push(&mut self, range: AddressRange, origin: Origin) {
        self.steps.push(Step { range, origin });
    }

    /// Goes through the mappings from `at` to `end`, as they are now; gaps have no bytes.
    fn each(
        &mut self,
        mut at: Address,
        end: Address,
        mut origin_in: impl FnMut(&Self, &Vma, Address) -> Origin,
    ) -> Result<(), Errno> {
        while at < end {
            let vma = match self.vma {
                Some(vma) if vma.range.contains(at) => Some(vma),
                _ => self.planner.maps.at_or_behind(at)?,
            };
            self.vma = vma;
            let (upto, origin) = match vma {
                Some(vma) if vma.range.contains(at) => {
                    (vma.range.end().min(end), origin_in(self, &vma, at))
                }
                Some(vma) => (vma.range.start().min(end), Origin::Nothing),
                None => (end, Origin::Nothing),
            };
            self.steps
                .extend(AddressRange::new(at, upto).map(|range| Step { range, origin }));
            at = upto;
        }
        Ok(())
    }

    /// Adds the steps for absent pages from `at` to `end`.
    fn absent(&mut self, at: Address, end: Address) -> Result<(), Errno> {
        self.each(at, end, Self::absent_in)
    }

    /// Adds the steps for pages whose entries are neither empty nor present.
    fn not_present(&mut self, range: AddressRange, state: PageState) -> Result<(), Errno> {
        self.each(range.start(), range.end(), |look, vma, at| {
            let is_held = match state {
                PageState::MaybeSwapped => look.planner.may_be_swapped(vma),
                // The entries of shared memory are no swap: its pages are those of the object.
                _ => !vma.shared,
            };
            if is_held {
                Origin::Process(PageState::Swapped)
            } else {
                look.absent_in(vma, at)
            }
        })
    }

    fn absent_in(&self, vma: &Vma, at: Address) -> Origin {
        let Self {
            planner, mapping, ..
        } = self;
        let since_start = at.since(vma.range.start());
        if mapping.is_special() && mapping.range() == vma.range {
            return match mapping.is_vdso() {
                true => Origin::Vdso(since_start),
                false => Origin::Process(PageState::Present),
            };
        }
        if planner.own_device == Some(vma.device) && !vma.is_anonymous() {
            return Origin::OwnMount;
        }
        let some_may_be_lazy = self
            .some_may_be_lazy
            .get_or_init(|| planner.kernel.may_have_userfaultfd());
        if *some_may_be_lazy && planner.is_lazy(vma) {
            return Origin::Unknown(Unknown::Lazy);
        }
        if vma.is_anonymous() {
            return Origin::Zeros;
        }
        let backing = planner.files.of(Place {
            pinned: &planner.pinned,
            pagemap: &planner.pagemap,
            vma,
            mapping,
        });
        match backing {
            Backing::Zeros => Origin::Zeros,
            Backing::Closed(why) => Origin::Unknown(why),
            Backing::File(file) => Origin::File(file, vma.offset + since_start),
        }
    }
}

impl Step {
    fn is_zeros(&self) -> bool {
        matches!(self.origin, Origin::Zeros)
    }

    /// Where the bytes of pages come from that were zeros, and have this state now.
    fn origin_if(&self, state: PageState) -> Origin {
        match state {
            PageState::ZeroPage => Origin::Zeros,
            PageState::Present | PageState::Swapped | PageState::MaybeSwapped => {
                Origin::Process(state)
            }
            PageState::Unreadable => Origin::Nothing,
        }
    }

    /// Where the byte at `address`, and what follows it in this step, comes from.
    pub(super) fn origin_at(&self, address: Address) -> Origin {
        let skipped = address.since(self.range.start());
        match &self.origin {
            Origin::File(file, offset) => Origin::File(Arc::clone(file), offset + skipped),
            Origin::Vdso(offset) => Origin::Vdso(offset + skipped),
            other => other.clone(),
        }
    }

    /// Cuts off what lies outside of `range`.
    fn trim(&mut self, range: AddressRange) {
        let kept = self.range.intersection(range);
        self.origin = self.origin_at(kept.start());
        self.range = kept;
    }
}
