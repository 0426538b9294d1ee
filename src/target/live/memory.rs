//! The memory of one live process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::kernel::Feature;
use super::pinned::Pinned;
use super::resolver::{PageSource, Resolver, Sources};
use super::{vdso, vm};
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage};
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode};

/// Memory of a pinned process: `process_vm_readv` for what is in it, the file
/// of a mapping for what is not, and the pinned `mem` where the call does not serve.
#[derive(Debug)]
pub(super) struct LiveMemory {
    pinned: Arc<Pinned>,
    resolver: Resolver,
    metrics: Arc<Metrics>,
    /// Whether reads may fault absent pages in (`-o touch`).
    touch: bool,
    /// Whether the calls are refused for this process alone (`EPERM`).
    calls_refused: AtomicBool,
}

/// A part of a request.
struct Piece<'a> {
    address: Address,
    buffer: &'a mut [u8],
    mapping: &'a Mapping,
    source: PageSource,
}

impl LiveMemory {
    pub(super) fn new(
        pinned: Arc<Pinned>,
        resolver: Resolver,
        touch: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pinned,
            resolver,
            metrics,
            touch,
            calls_refused: AtomicBool::new(false),
        }
    }

    /// Whether memory can be reached by the number of the process: not once its first thread has ended. The
    /// numbers of the others can be those of other processes' threads at any moment.
    fn are_calls_open(&self) -> bool {
        !self.calls_refused.load(Ordering::Relaxed)
            && self.resolver.kernel.has(Feature::ProcessVm)
            && self.pinned.task().is_first()
    }

    fn note_refusal(&self, errno: Errno) {
        let is_alone = self.resolver.kernel.still_has(Feature::ProcessVm);
        if is_alone && !self.calls_refused.swap(true, Ordering::Relaxed) {
            log::info!(
                "process {}: process_vm_readv is refused ({errno}), reading through /proc/PID/mem instead",
                self.identity().pid
            );
        }
    }

    /// Cuts segments up by where their bytes are: those that lie in one mapping near each other are
    /// resolved together.
    fn plan<'s>(
        &self,
        segments: &'s mut [ReadSegment<'_>],
        pieces: &mut Vec<Piece<'s>>,
    ) -> Result<()> {
        for group in segments.chunk_by_mut(are_near) {
            let mapping = group[0].mapping;
            let start = group[0].address;
            let end = group.iter().map(end_of).max().unwrap_or(start);
            let hull = AddressRange::new(start, end).unwrap_or_default();
            let sources = self.resolve(mapping, hull)?;
            let mut sources = sources.iter().peekable();
            for segment in group {
                let mut at = segment.address;
                let mut rest = &mut *segment.buffer;
                while !rest.is_empty() {
                    while sources.next_if(|run| run.range.end() <= at).is_some() {}
                    let Some(run) = sources.peek() else {
                        return Err(Error::system("PAGEMAP_SCAN", Errno::EIO));
                    };
                    let left = usize::try_from(run.range.end().since(at)).unwrap_or(usize::MAX);
                    let (buffer, after) = rest.split_at_mut(left.min(rest.len()));
                    let address = at;
                    at = at.plus(buffer.len() as u64);
                    rest = after;
                    pieces.push(Piece {
                        address,
                        buffer,
                        mapping,
                        source: run.state.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The sources of all of `range`.
    fn resolve(&self, mapping: &Mapping, range: AddressRange) -> Result<Sources> {
        let mut sources = Sources::new();
        let mut at = range.start();
        while let Some(rest) = AddressRange::new(at, range.end()).filter(|rest| !rest.is_empty()) {
            let more = if self.touch {
                self.resolver.resolve_touching(rest)
            } else {
                self.resolver.resolve(mapping, rest, usize::MAX)
            };
            let more = more.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))?;
            match more.last() {
                Some(last) => at = last.range.end(),
                None => return Err(Error::system("PAGEMAP_SCAN", Errno::EIO)),
            }
            sources.extend(more);
        }
        Ok(sources)
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
                Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => self.note_refusal(errno),
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
            match self.resolver.maps.at_or_after(at) {
                Ok(Some(vma)) if vma.range.contains(at) && vma.writable => at = vma.range.end(),
                _ => return false,
            }
        }
        true
    }

    /// Whether the bytes after the first `done` were refused since the
    /// mapping has lost its `r` after the file was opened (`mprotect`).
    fn has_lost_protection(&self, run: &[ReadSegment<'_>], mut done: usize) -> bool {
        for segment in run {
            if done < segment.buffer.len() {
                let at = segment.address.plus(done as u64);
                let vma = self.resolver.maps.at_or_after(at).ok().flatten();
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
            .filter(|piece| piece.source.is_process())
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
            let (read, errno) = match &piece.source {
                PageSource::Memory | PageSource::Swap => {
                    let read = from_process.min(wanted);
                    from_process -= read;
                    (read, refused)
                }
                PageSource::Zeros => {
                    piece.buffer.fill(0);
                    (wanted, Errno::EFAULT)
                }
                PageSource::File(file, shift) => {
                    match file.read(shift.offset_of(piece.address), piece.buffer) {
                        Ok(read) => (read, Errno::EFAULT),
                        Err(errno) => (0, errno),
                    }
                }
                PageSource::Vdso => (
                    self.read_vdso(piece.mapping, piece.address, piece.buffer),
                    Errno::EFAULT,
                ),
                PageSource::OwnMount => return (done, Some(Error::OwnMemory)),
                PageSource::Unknown(why) => {
                    return (done, Some(Error::Unknown(piece.address, *why)));
                }
                PageSource::Unreadable => (0, Errno::EFAULT),
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
    fn read_vdso(&self, mapping: &Mapping, address: Address, buffer: &mut [u8]) -> usize {
        let offset = address.since(mapping.range().start());
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

/// Bytes between two segments that are rather scanned than asked for apart.
const NEAR: u64 = 16 << 20;

fn are_near(one: &ReadSegment<'_>, next: &ReadSegment<'_>) -> bool {
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
        let _in_use = self.resolver.begin();
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

    fn extents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        let _in_use = self.resolver.begin();
        let extents = self.resolver.extents(mapping, range, at_most);
        self.verify()?;
        extents.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        let usage = self.resolver.memory_usage(ranges);
        if usage.is_err() {
            self.verify()?;
        }
        usage.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))
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
                self.note_refusal(errno);
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
