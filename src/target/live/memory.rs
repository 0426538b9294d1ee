//! The memory of one live process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::kernel::Feature;
use super::pinned::Pinned;
use super::plan::{Origin, Planner, Step};
use super::{vdso, vm};
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::target::mapping::Mapping;
use crate::target::page_state::{Held, Stretch};
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode};

/// Memory of a pinned process: `process_vm_readv` for what is in it, the file
/// behind a mapping for what is not, and the pinned `mem` where the call does not serve.
#[derive(Debug)]
pub(super) struct LiveMemory {
    pinned: Arc<Pinned>,
    planner: Planner,
    metrics: Arc<Metrics>,
    /// Whether reads may fault absent pages in (`-o touch`).
    touch: bool,
    /// Whether the calls are refused for this process alone (`EPERM`).
    calls_barred: AtomicBool,
}

/// A part of a request.
struct Piece<'a> {
    address: Address,
    buffer: &'a mut [u8],
    mapping: &'a Mapping,
    origin: Origin,
}

impl LiveMemory {
    pub(super) fn new(
        pinned: Arc<Pinned>,
        planner: Planner,
        touch: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pinned,
            planner,
            metrics,
            touch,
            calls_barred: AtomicBool::new(false),
        }
    }

    /// Whether memory can be reached by the number of the process: not once its first thread has ended. The
    /// numbers of the others can be those of other processes' threads at any moment.
    fn are_calls_open(&self) -> bool {
        !self.calls_barred.load(Ordering::Relaxed)
            && self.planner.kernel.has(Feature::ProcessVm)
            && self.pinned.task().is_first()
    }

    fn bar_calls(&self, errno: Errno) {
        let is_alone = self.planner.kernel.still_has(Feature::ProcessVm);
        if is_alone && !self.calls_barred.swap(true, Ordering::Relaxed) {
            log::info!(
                "process {}: process_vm_readv is refused ({errno}), reading through /proc/PID/mem instead",
                self.identity().pid
            );
        }
    }

    /// Cuts segments up by where their bytes are: one look serves all that lie in one mapping near each other.
    fn plan<'s>(
        &self,
        segments: &'s mut [ReadSegment<'_>],
        pieces: &mut Vec<Piece<'s>>,
    ) -> Result<()> {
        for group in segments.chunk_by_mut(can_share_a_look) {
            let mapping = group[0].mapping;
            let start = group[0].address;
            let end = group.iter().map(end_of).max().unwrap_or(start);
            let hull = AddressRange::new(start, end).unwrap_or_default();
            let steps = self.look(mapping, hull)?;
            let mut steps = steps.iter().peekable();
            for segment in group {
                let mut at = segment.address;
                let mut rest = &mut *segment.buffer;
                while !rest.is_empty() {
                    while steps.next_if(|step| step.range.end() <= at).is_some() {}
                    let Some(step) = steps.peek() else {
                        return Err(Error::system("PAGEMAP_SCAN", Errno::EIO));
                    };
                    let left = usize::try_from(step.range.end().since(at)).unwrap_or(usize::MAX);
                    let (buffer, behind) = rest.split_at_mut(left.min(rest.len()));
                    let address = at;
                    at = at.plus(buffer.len() as u64);
                    rest = behind;
                    pieces.push(Piece {
                        address,
                        buffer,
                        mapping,
                        origin: step.origin_at(address),
                    });
                }
            }
        }
        Ok(())
    }

    /// The steps for all of `range`.
    fn look(&self, mapping: &Mapping, range: AddressRange) -> Result<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::new();
        let mut at = range.start();
        while let Some(rest) = AddressRange::new(at, range.end()).filter(|rest| !rest.is_empty()) {
            let more = if self.touch {
                self.planner.touching_steps(rest)
            } else {
                self.planner.steps(mapping, rest, usize::MAX)
            };
            let more = more.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))?;
            match more.last() {
                Some(last) => at = last.range.end(),
                None => return Err(Error::system("PAGEMAP_SCAN", Errno::EIO)),
            }
            steps.extend(more);
        }
        Ok(steps)
    }

    /// Reads what the process itself holds: one call for all of it.
    fn read_process(&self, segments: &mut [ReadSegment<'_>]) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        for run in segments.chunk_by_mut(|one, next| is_readable(one) == is_readable(next)) {
            let wanted: usize = run.iter().map(|segment| segment.buffer.len()).sum();
            match self.read_run(run) {
                Ok(read) => {
                    done += read;
                    if read < wanted {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn read_run(&self, run: &mut [ReadSegment<'_>]) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        if run.first().is_some_and(is_readable) && self.are_calls_open() {
            match vm::read(self.identity().pid, run, &self.metrics) {
                Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => self.bar_calls(errno),
                // Its first thread has ended, or all of it has.
                Err(Errno::ESRCH) => (),
                Err(Errno::EFAULT) if self.has_lost_protection(run, 0) => (),
                Ok(read) if self.has_lost_protection(run, read) => done = read,
                answer => return answer,
            }
        }
        let mut skip = done;
        for segment in run {
            if skip >= segment.buffer.len() {
                skip -= segment.buffer.len();
                continue;
            }
            self.metrics.mem_reads.increment();
            let address = segment.address.plus(skip as u64);
            match self.pinned.read(address, &mut segment.buffer[skip..]) {
                Ok(read) => {
                    done += read;
                    if read < segment.buffer.len() - skip {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
            skip = 0;
        }
        Ok(done)
    }

    fn is_all_writable(&self, start: Address, len: usize) -> bool {
        let end = start.plus(len as u64);
        let mut at = start;
        while at < end {
            match self.planner.maps.at_or_behind(at) {
                Ok(Some(vma)) if vma.range.contains(at) && vma.writable => at = vma.range.end(),
                _ => return false,
            }
        }
        true
    }

    /// Whether the bytes behind the first `done` were refused since the
    /// mapping has lost its `r` after the file was opened (`mprotect`).
    fn has_lost_protection(&self, run: &[ReadSegment<'_>], mut done: usize) -> bool {
        for segment in run {
            if done < segment.buffer.len() {
                let at = segment.address.plus(done as u64);
                let vma = self.planner.maps.at_or_behind(at).ok().flatten();
                return vma.is_some_and(|vma| vma.range.contains(at) && !vma.readable);
            }
            done -= segment.buffer.len();
        }
        false
    }

    /// Fills the pieces in order; returns the bytes before the first that cannot be had, and why it cannot.
    fn fill(&self, pieces: &mut [Piece<'_>]) -> (usize, Option<Error>) {
        let mut segments: Vec<ReadSegment<'_>> = pieces
            .iter_mut()
            .filter(|piece| matches!(piece.origin, Origin::Process(_)))
            .map(|piece| ReadSegment {
                address: piece.address,
                buffer: piece.buffer,
                mapping: piece.mapping,
            })
            .collect();
        let (mut from_process, refused) = match self.read_process(&mut segments) {
            Ok(read) => (read, Errno::EFAULT),
            Err(errno) => (0, errno),
        };
        let mut done = 0;
        for piece in pieces {
            let wanted = piece.buffer.len();
            let (read, errno) = match &piece.origin {
                Origin::Process(_) => {
                    let read = from_process.min(wanted);
                    from_process -= read;
                    (read, refused)
                }
                Origin::Zeros => {
                    piece.buffer.fill(0);
                    (wanted, Errno::EFAULT)
                }
                Origin::File(file, offset) => match file.read(*offset, piece.buffer) {
                    Ok(read) => (read, Errno::EFAULT),
                    Err(errno) => (0, errno),
                },
                Origin::Vdso(offset) => (
                    self.read_vdso(piece.mapping, *offset, piece.address, piece.buffer),
                    Errno::EFAULT,
                ),
                Origin::OwnMount => return (done, Some(Error::OwnMemory)),
                Origin::Unknown(why) => {
                    return (done, Some(Error::Unknown(piece.address, *why)));
                }
                Origin::Nothing => (0, Errno::EFAULT),
            };
            done += read;
            if read < wanted {
                let at = piece.address.plus(read as u64);
                return (done, Some(refusal(at, "process_vm_readv", errno)));
            }
        }
        (done, None)
    }

    /// The vDSO is the same in every process of a kind: ours will do, if the process has the same.
    fn read_vdso(
        &self,
        mapping: &Mapping,
        offset: u64,
        address: Address,
        buffer: &mut [u8],
    ) -> usize {
        if vdso::copy(mapping.range(), offset, buffer) {
            return buffer.len();
        }
        let segment = ReadSegment {
            address,
            buffer,
            mapping,
        };
        self.read_process(&mut [segment]).unwrap_or(0)
    }
}

/// Bytes between two segments that are rather looked at than asked for apart.
const NEAR: u64 = 16 << 20;

fn can_share_a_look(one: &ReadSegment<'_>, next: &ReadSegment<'_>) -> bool {
    std::ptr::eq(one.mapping, next.mapping)
        && end_of(one) <= next.address
        && next.address.since(end_of(one)) <= NEAR
}

fn end_of(segment: &ReadSegment<'_>) -> Address {
    segment.address.plus(segment.buffer.len() as u64)
}

fn is_readable(segment: &ReadSegment<'_>) -> bool {
    segment.mapping.protection().read
}

impl ProcessMemory for LiveMemory {
    fn identity(&self) -> &ProcessIdentity {
        self.pinned.identity()
    }

    fn verify(&self) -> Result<()> {
        self.pinned.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let _in_use = self.planner.begin();
        let mut pieces = Vec::with_capacity(segments.len());
        if let Err(error) = self.plan(segments, &mut pieces) {
            // Descriptors of an address space that is gone answer with errors of their own.
            self.verify()?;
            return Err(error);
        }
        let (done, failure) = self.fill(&mut pieces);
        // The bytes came by the process's number: only now is it known whose they are.
        self.verify()?;
        match failure {
            Some(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    fn contents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Stretch>> {
        let _in_use = self.planner.begin();
        let contents = self.planner.contents(mapping, range, at_most);
        self.verify()?;
        contents.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))
    }

    fn held(&self, ranges: &[AddressRange]) -> Result<Vec<Held>> {
        let held = self.planner.held(ranges);
        if held.is_err() {
            self.verify()?;
        }
        held.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))
    }

    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        self.verify()?;
        let pid = self.identity().pid;
        let mut answer = Err(Errno::ENOSYS);
        let by_number = mode == WriteMode::Obey && self.are_calls_open();
        if by_number {
            answer = vm::write(pid, address, data, &self.metrics);
        }
        if let Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::ESRCH)) = answer {
            if by_number && errno != Errno::ESRCH {
                self.bar_calls(errno);
            }
            if !self.pinned.is_writable() {
                return Err(Error::Protected);
            }
            // This descriptor passes over the protection, which is for `force` alone to ask.
            if mode == WriteMode::Obey && !self.is_all_writable(address, data.len()) {
                return Err(Error::Unreachable(address));
            }
            self.metrics.mem_writes.increment();
            answer = self.pinned.write(address, data);
        }
        self.verify()?;
        match answer {
            Ok(0) => Err(Error::Unreachable(address)),
            Ok(written) => Ok(written),
            Err(errno) => Err(refusal(address, "process_vm_writev", errno)),
        }
    }
}

/// What a refusal of the kernel means for a range that starts at `address`.
fn refusal(address: Address, what: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::EFAULT | Errno::EIO | Errno::ESTALE => Error::Unreachable(address),
        errno => Error::system(what, errno),
    }
}
