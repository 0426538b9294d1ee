//! How each page of a range is to be got without faulting one in.

use std::sync::Arc;

use nix::errno::Errno;

use super::backing::{self, Backing, BackingFiles};
use super::pagemap::{PageState, Pagemap, Scan};
use super::vma::{Maps, Vma};
use crate::address::{Address, AddressRange, PAGE_SIZE};
use crate::mapping::{Device, Mapping};
use crate::residency::{Content, Held, Stretch, push};

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
    File(Arc<Backing>, u64),
    /// The vDSO, which all processes of one kind share; from this offset on.
    Vdso(u64),
    /// A file of this mount: not to be touched.
    OwnMount,
    /// Nowhere.
    Nothing,
}

/// The descriptors that tell where bytes are.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) pagemap: Pagemap,
    pub(super) maps: Maps,
    pub(super) files: BackingFiles,
    pub(super) own_device: Option<Device>,
    /// Devices of other mounts of this kind, for who may fault pages in.
    pub(super) other_mounts: Vec<Device>,
}

/// Ranges that are no further apart, in bytes, are looked at together: passing over pages that
/// nobody asked for takes less time than another call, up to some of them.
const NEAR: u64 = 64 * PAGE_SIZE;

/// Looks at a range that changes while it is looked at.
const MOST_TRIES: u32 = 16;

impl Planner {
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
        let mut scan = self.pagemap.scan(pages, at_most)?;
        let mut steps = self.steps_of(mapping, pages, &scan)?;
        // Between the scan and the question what mapping is there, another one may have been moved
        // in (`mremap`), full of bytes: only what is still absent behind the question was zeros.
        let mut tries = 0;
        while steps
            .iter()
            .any(|step| matches!(step.origin, Origin::Zeros))
        {
            let again = self.pagemap.scan(pages, at_most)?;
            if again == scan {
                break;
            }
            tries += 1;
            if tries > MOST_TRIES {
                return Err(Errno::EAGAIN);
            }
            scan = again;
            steps = self.steps_of(mapping, pages, &scan)?;
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
        let mut steps = Vec::with_capacity(2 * scan.runs.len() + 1);
        let mut at = pages.start();
        let mut vma = None;
        for run in &scan.runs {
            self.absent(mapping, at, run.range.start(), &mut vma, &mut steps)?;
            steps.push(Step {
                range: run.range,
                origin: match run.state {
                    PageState::ZeroPage => Origin::Zeros,
                    state => Origin::Process(state),
                },
            });
            at = run.range.end();
        }
        self.absent(mapping, at, scan.end.min(pages.end()), &mut vma, &mut steps)?;
        Ok(steps)
    }

    /// Adds the steps for absent pages from `at` to `end`; `known` is the mapping asked for last.
    fn absent(
        &self,
        mapping: &Mapping,
        mut at: Address,
        end: Address,
        known: &mut Option<Vma>,
        steps: &mut Vec<Step>,
    ) -> Result<(), Errno> {
        while at < end {
            let vma = match *known {
                Some(vma) if vma.range.contains(at) => Some(vma),
                _ => self.maps.at_or_behind(at)?,
            };
            *known = vma;
            let (upto, origin) = match vma {
                Some(vma) if vma.range.contains(at) => {
                    (vma.range.end().min(end), self.absent_in(mapping, &vma, at))
                }
                Some(vma) => (vma.range.start().min(end), Origin::Nothing),
                None => (end, Origin::Nothing),
            };
            steps.extend(AddressRange::new(at, upto).map(|range| Step { range, origin }));
            at = upto;
        }
        Ok(())
    }

    fn absent_in(&self, mapping: &Mapping, vma: &Vma, at: Address) -> Origin {
        if mapping.is_special() && mapping.range() == vma.range {
            return match mapping.is_vdso() {
                true => Origin::Vdso(at.since(vma.range.start())),
                false => Origin::Process(PageState::Present),
            };
        }
        if vma.is_anonymous() {
            return Origin::Zeros;
        }
        if Some(vma.device) == self.own_device {
            return Origin::OwnMount;
        }
        match self.files.of(vma, mapping) {
            file if matches!(*file, Backing::File(_)) => {
                Origin::File(file, vma.offset + at.since(vma.range.start()))
            }
            other if matches!(*other, Backing::Zeros) => Origin::Zeros,
            _ => Origin::Nothing,
        }
    }

    /// Where the bytes of `range` are, holes of files included.
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
            match step.origin {
                Origin::Process(PageState::Swapped) => {
                    push(&mut stretches, step.range, Content::Swapped);
                }
                Origin::Process(_) | Origin::Vdso(_) => {
                    push(&mut stretches, step.range, Content::Resident);
                }
                Origin::Zeros => push(&mut stretches, step.range, Content::Zero),
                Origin::Nothing | Origin::OwnMount => {
                    push(&mut stretches, step.range, Content::Nothing);
                }
                Origin::File(backing, offset) => match &*backing {
                    Backing::File(file) => parts_of_file(file, offset, step.range, &mut stretches),
                    Backing::Zeros | Backing::Closed => {
                        push(&mut stretches, step.range, Content::Nothing);
                    }
                },
            }
        }
        Ok(stretches)
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
                        PageState::ZeroPage => (),
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
}

impl Step {
    /// Where the byte at `address`, and what follows it in this step, comes from.
    pub(super) fn origin_at(&self, address: Address) -> Origin {
        let skipped = address.since(self.range.start());
        match &self.origin {
            Origin::File(backing, offset) => Origin::File(Arc::clone(backing), offset + skipped),
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

/// Data, holes and the end of a file, as stretches of the range that maps it from `offset` on.
fn parts_of_file(
    file: &std::fs::File,
    offset: u64,
    range: AddressRange,
    stretches: &mut Vec<Stretch>,
) {
    use nix::unistd::Whence;

    let size = file.metadata().map_or(0, |status| status.len());
    let end = size.next_multiple_of(crate::address::PAGE_SIZE);
    let mapped_end = offset.saturating_add(range.len()).min(end);
    let at = |position: u64| range.start().plus(position.saturating_sub(offset));
    let mut position = offset;
    while position < mapped_end {
        let data = match backing::seek(file, position, Whence::SeekData) {
            Ok(data) => data.unwrap_or(mapped_end),
            // Who cannot tell holes from data may have data everywhere.
            Err(_) => position,
        };
        let data = data.clamp(position, mapped_end);
        let hole = match backing::seek(file, data, Whence::SeekHole) {
            Ok(Some(hole)) => hole.clamp(data, mapped_end),
            Ok(None) | Err(_) => mapped_end,
        };
        // A file system that cannot tell says that all is data; one that answers oddly must not stop us.
        let hole = if hole == position { mapped_end } else { hole };
        for (from, to, content) in [(position, data, Content::Zero), (data, hole, Content::File)] {
            if let Some(part) = AddressRange::new(at(from), at(to)) {
                push(stretches, part, content);
            }
        }
        position = hole;
    }
    if let Some(behind) = AddressRange::new(at(mapped_end.max(offset)), range.end()) {
        push(stretches, behind, Content::Nothing);
    }
}
