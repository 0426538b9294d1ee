//! The memory of one live process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::kernel::Feature;
use super::mem::Mem;
use super::pinned::Pinned;
use super::process::SourceOptions;
use super::resolver::{PageSource, Resolver, Sources};
use super::vdso;
use super::vm::Batch;
use super::vma::Maps;
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage, Run};
use crate::target::snapshot::FileContent;
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode};

/// Memory of a pinned process: `process_vm_readv` for what is in it, the file
/// of a mapping for what is not, and the pinned `mem` where the call does not serve.
/// Writes go through the pinned `mem` alone: bytes that were read of another program are dropped
/// after the check, but bytes that were written to one would stay.
#[derive(Debug)]
pub(super) struct LiveMemory {
    pinned: Arc<Pinned>,
    /// What somebody else got who opened `mem`: all that they read and write goes through it.
    theirs: Option<Mem>,
    resolver: Resolver,
    metrics: Arc<Metrics>,
    /// Whether it may be written at all.
    writable: bool,
    /// Whether reads may fault absent pages in (`-o touch`).
    touch: bool,
    /// Whether the calls are refused for this process alone (`EPERM`).
    calls_refused: AtomicBool,
}

/// A part of a request whose bytes have one source.
struct Part<'s, 'r> {
    address: Address,
    /// Not empty.
    buffer: &'s mut [u8],
    mapping: &'s Mapping,
    source: &'r PageSource,
}

/// Cuts segments up by the sources of their bytes.
struct Parts<'s, 'm, 'r> {
    segments: std::slice::IterMut<'s, ReadSegment<'m>>,
    /// What is left of a segment.
    address: Address,
    rest: &'s mut [u8],
    mapping: Option<&'s Mapping>,
    sources: &'r [Run<PageSource>],
}

impl<'s, 'm, 'r> Parts<'s, 'm, 'r> {
    fn of(segments: &'s mut [ReadSegment<'m>], sources: &'r [Run<PageSource>]) -> Self {
        Self {
            segments: segments.iter_mut(),
            address: Address::default(),
            rest: &mut [],
            mapping: None,
            sources,
        }
    }
}

impl<'s, 'r> Iterator for Parts<'s, '_, 'r> {
    type Item = Part<'s, 'r>;

    fn next(&mut self) -> Option<Part<'s, 'r>> {
        while self.rest.is_empty() {
            let segment = self.segments.next()?;
            self.address = segment.address;
            self.rest = &mut *segment.buffer;
            self.mapping = Some(segment.mapping);
        }
        // They were found segment by segment, so none that was passed over is needed again.
        let skipped = self
            .sources
            .iter()
            .take_while(|run| !run.range.contains(self.address));
        self.sources = &self.sources[skipped.count()..];
        let run = self.sources.first();
        debug_assert!(run.is_some(), "all of a request has its source");
        let run = run?;
        let left = usize::try_from(run.range.end().since(self.address)).unwrap_or(usize::MAX);
        let rest = std::mem::take(&mut self.rest);
        let (buffer, after) = rest.split_at_mut(left.min(rest.len()));
        let address = self.address;
        self.address = address.plus(buffer.len() as u64);
        self.rest = after;
        Some(Part {
            address,
            buffer,
            mapping: self.mapping?,
            source: &run.state,
        })
    }
}

impl LiveMemory {
    pub(super) fn new(
        pinned: Arc<Pinned>,
        theirs: Option<Mem>,
        resolver: Resolver,
        options: &SourceOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pinned,
            theirs,
            resolver,
            metrics,
            writable: options.writable,
            touch: options.touch,
            calls_refused: AtomicBool::new(false),
        }
    }

    /// The mappings of the process, one by one.
    pub(super) fn maps(&self) -> &Maps {
        &self.resolver.maps
    }

    fn mem(&self) -> &Mem {
        self.theirs.as_ref().unwrap_or_else(|| self.pinned.mem())
    }

    /// The `mem` that is written to.
    ///
    /// # Errors
    /// `Unwritable`, and as [`Pinned::writable_mem`].
    fn writable_mem(&self) -> Result<&Mem> {
        match &self.theirs {
            Some(theirs) if theirs.is_writable() => Ok(theirs),
            None if self.writable => self.pinned.writable_mem(),
            _ => Err(Error::Unwritable(self.identity().pid)),
        }
    }

    /// Whether memory can be reached by the number of the process: not once its first thread has ended, since the
    /// numbers of the others can be those of other processes' threads at any moment; and not for somebody else, since the calls
    /// are judged by our own credentials.
    fn are_calls_open(&self) -> bool {
        self.theirs.is_none()
            && !self.calls_refused.load(Ordering::Relaxed)
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

    /// The sources of all bytes of the segments, in their order. Those that lie in one mapping near each other are
    /// resolved together.
    fn resolve(&self, segments: &[ReadSegment<'_>]) -> Result<Sources> {
        let mut sources = Sources::new();
        for group in segments.chunk_by(are_near) {
            let range = AddressRange::new(group[0].address, end_of(&group[group.len() - 1]));
            let range = range.unwrap_or_default();
            let mut at = range.start();
            while let Some(rest) =
                AddressRange::new(at, range.end()).filter(|rest| !rest.is_empty())
            {
                let more = if self.touch {
                    self.resolver.resolve_touching(rest)
                } else {
                    self.resolver.resolve(group[0].mapping, rest, usize::MAX)
                };
                let more = more.map_err(|errno| Error::system("PAGEMAP_SCAN", errno))?;
                match more.last() {
                    Some(last) => at = last.range.end(),
                    None => return Err(Error::system("PAGEMAP_SCAN", Errno::EIO)),
                }
                if sources.is_empty() {
                    sources = more;
                } else {
                    sources.extend(more);
                }
            }
        }
        Ok(sources)
    }

    /// Reads what the process itself holds, in as few calls as the kernel allows.
    fn read_process<'s>(
        &self,
        parts: impl Iterator<Item = Part<'s, 's>>,
    ) -> std::result::Result<usize, Errno> {
        let mut parts = parts.peekable();
        let mut done = 0;
        while let Some(first) = parts.peek() {
            let is_readable = first.mapping.protection().read;
            let is_alike = |part: &Part<'_, '_>| part.mapping.protection().read == is_readable;
            let mut batch = Batch::default();
            while !batch.is_full()
                && let Some(part) = parts.next_if(is_alike)
            {
                batch.push(part.address, part.buffer);
            }
            match self.read_batch(&mut batch, is_readable) {
                Ok(read) => {
                    done += read;
                    if read < batch.bytes() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn read_batch(
        &self,
        batch: &mut Batch<'_>,
        is_readable: bool,
    ) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        if is_readable && self.are_calls_open() {
            match batch.read(self.identity().pid, &self.metrics) {
                Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => self.note_refusal(errno),
                // Its first thread has ended, or all of it has.
                Err(Errno::ESRCH) => (),
                Err(Errno::EFAULT) if self.has_lost_protection(batch, 0) => (),
                Ok(read) if self.has_lost_protection(batch, read) => done = read,
                answer => return answer,
            }
        }
        for (address, buffer) in batch.rest(done) {
            self.metrics.mem_reads.increment();
            let wanted = buffer.len();
            match self.mem().read(address, buffer) {
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

    /// How many bytes from `start` on, at most `len`, lie in mappings with `w`.
    fn writable_len(&self, start: Address, len: usize) -> usize {
        let Some(range) = AddressRange::new(start, start.plus(len as u64)) else {
            return 0;
        };
        let runs = self.resolver.maps.over(range, None);
        let writable = runs
            .map_while(std::result::Result::ok)
            .take_while(|run| run.state.is_some_and(|vma| vma.writable));
        let end = writable.last().map_or(start, |run| run.range.end());
        usize::try_from(end.since(start)).unwrap_or(len)
    }

    /// Writes through an open `mem` of the pinned address space, and so never to another program; returns how many bytes
    /// got there.
    ///
    /// A mapping that loses its `w` between the check and the write is written to all the same.
    ///
    /// # Errors
    /// `Unreachable` where not even the first byte can be written.
    fn write_through(
        &self,
        mem: &Mem,
        address: Address,
        data: &[u8],
        mode: WriteMode,
    ) -> Result<usize> {
        let len = match mode {
            WriteMode::Obey => self.writable_len(address, data.len()),
            // `mem` passes over the protection.
            WriteMode::Force => data.len(),
        };
        if len == 0 {
            return Err(Error::Unreachable(address));
        }
        self.metrics.mem_writes.increment();
        match mem.write(address, &data[..len]) {
            Ok(0) => Err(Error::Unreachable(address)),
            Ok(written) => Ok(written),
            Err(errno) => Err(refusal(address, "write to mem", errno)),
        }
    }

    /// Whether the bytes after the first `done` were refused since the
    /// mapping has lost its `r` after the file was opened (`mprotect`).
    fn has_lost_protection(&self, batch: &Batch<'_>, done: usize) -> bool {
        batch.address_after(done).is_some_and(|at| {
            let vma = self.resolver.maps.at_or_after(at).ok().flatten();
            vma.is_some_and(|vma| vma.range.contains(at) && !vma.readable)
        })
    }

    /// Fills the segments in order; returns the bytes before the first that cannot be read, and why.
    fn fill(
        &self,
        segments: &mut [ReadSegment<'_>],
        sources: &[Run<PageSource>],
    ) -> (usize, Option<Error>) {
        let of_process = Parts::of(segments, sources).filter(|part| part.source.is_process());
        let (mut from_process, refused) = match self.read_process(of_process) {
            Ok(read) => (read, Errno::EFAULT),
            Err(errno) => (0, errno),
        };
        let mut done = 0;
        for part in Parts::of(segments, sources) {
            let (address, wanted) = (part.address, part.buffer.len());
            let (read, errno) = match part.source {
                PageSource::Memory | PageSource::Swap => {
                    let read = from_process.min(wanted);
                    from_process -= read;
                    (read, refused)
                }
                PageSource::Zeros => {
                    part.buffer.fill(0);
                    (wanted, Errno::EFAULT)
                }
                PageSource::File(file, shift) => {
                    match file.read(shift.offset_of(address), part.buffer) {
                        Ok(read) => (read, Errno::EFAULT),
                        Err(errno) => (0, errno),
                    }
                }
                PageSource::Vdso => (self.read_vdso(part), Errno::EFAULT),
                PageSource::OwnMount => return (done, Some(Error::OwnMemory)),
                PageSource::Unknown(why) => {
                    return (done, Some(Error::Unknown(address, *why)));
                }
                PageSource::Unreadable => (0, Errno::EFAULT),
            };
            done += read;
            if read < wanted {
                let at = address.plus(read as u64);
                return (done, Some(refusal(at, "process_vm_readv", errno)));
            }
        }
        (done, None)
    }

    /// The vDSO is the same in every process of a kind: ours will do, if the process has the same.
    fn read_vdso(&self, part: Part<'_, '_>) -> usize {
        let range = part.mapping.range();
        let offset = part.address.since(range.start());
        if vdso::copy(range, offset, part.buffer) {
            return part.buffer.len();
        }
        self.read_process(std::iter::once(part)).unwrap_or(0)
    }
}

/// Segments no further apart, in bytes, are scanned together.
const NEAR: u64 = 16 << 20;

fn are_near(one: &ReadSegment<'_>, next: &ReadSegment<'_>) -> bool {
    std::ptr::eq(one.mapping, next.mapping)
        && end_of(one) <= next.address
        && next.address.since(end_of(one)) <= NEAR
}

fn end_of(segment: &ReadSegment<'_>) -> Address {
    segment.address.plus(segment.buffer.len() as u64)
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
        let sources = match self.resolve(segments) {
            Ok(sources) => sources,
            Err(error) => {
                // Descriptors of an address space that is gone answer with errors of their own.
                self.verify()?;
                return Err(error);
            }
        };
        let (done, failure) = self.fill(segments, &sources);
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

    fn file_content(&self, mapping: &Mapping) -> FileContent {
        self.resolver.file_content(mapping)
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
        let mode = match self.resolver.kernel.has(Feature::ForcedAccess) {
            true => mode,
            false => WriteMode::Obey,
        };
        let answer = self.write_through(self.writable_mem()?, address, data, mode);
        // The bytes are in the address space that was opened, or nowhere: this tells whether the process still has it.
        self.verify()?;
        answer
    }
}

/// What a refusal of the kernel means for a range that starts at `address`.
fn refusal(address: Address, what: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::EFAULT | Errno::EIO | Errno::ESTALE => Error::Unreachable(address),
        errno => Error::system(what, errno),
    }
}
