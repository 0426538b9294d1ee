//! Copying the pages of a process that stands still, by all processors at once.

use parking_lot::Mutex;

use super::parallel::in_parallel;
use super::watch::Watch;
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::{ProcessMemory, ReadSegment};

/// Bytes that are copied by one call.
const CHUNK: usize = 1 << 20;

/// Ranges that are copied by one call: what the kernel takes (`UIO_MAXIOV`).
const RANGES: usize = 512;

/// Neighbouring pages that are to be copied, and where they go.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) address: Address,
    pub(super) bytes: &'a mut [u8],
}

/// What is copied by one call.
type Chunk<'a> = Vec<Target<'a>>;

/// Copies all that the targets say; returns the ranges that could not be read, in no order.
///
/// # Errors
/// `Ended`, `Replaced`, `Interrupted`, and whatever else the memory says.
pub(super) fn copy(
    memory: &dyn ProcessMemory,
    targets: Vec<Target<'_>>,
    watch: &Watch,
) -> Result<Vec<AddressRange>> {
    let chunks: Vec<_> = chunks(targets)
        .into_iter()
        .map(|it| Mutex::new(Some(it)))
        .collect();
    let unreadable = in_parallel(chunks.len(), |number| {
        watch.advance()?;
        let mut unreadable = Vec::new();
        if let Some(chunk) = chunks[number].lock().take() {
            copy_chunk(memory, chunk, &mut unreadable)?;
        }
        Ok(unreadable)
    })?;
    Ok(unreadable.concat())
}

/// Cuts the targets up into chunks.
fn chunks(targets: Vec<Target<'_>>) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut chunk: Chunk<'_> = Vec::new();
    let mut room = CHUNK;
    for target in targets {
        let mut address = target.address;
        let mut rest = target.bytes;
        while !rest.is_empty() {
            let len = rest.len().min(room);
            let (bytes, after) = rest.split_at_mut(len);
            chunk.push(Target {
                mapping: target.mapping,
                address,
                bytes,
            });
            address = address.plus(len as u64);
            room -= len;
            rest = after;
            if room == 0 || chunk.len() == RANGES {
                chunks.push(std::mem::take(&mut chunk));
                room = CHUNK;
            }
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Copies one chunk, and goes on after what cannot be read, page by page.
fn copy_chunk(
    memory: &dyn ProcessMemory,
    mut chunk: Chunk<'_>,
    unreadable: &mut Vec<AddressRange>,
) -> Result<()> {
    let mut done = Progress::default();
    loop {
        let mut segments = done.rest(&mut chunk);
        if segments.is_empty() {
            return Ok(());
        }
        let wanted: usize = segments.iter().map(|segment| segment.buffer.len()).sum();
        let read = match memory.read(&mut segments) {
            Ok(read) => read,
            Err(error) if error.is_of_bytes() || error == Error::OwnMemory => 0,
            Err(error) => return Err(error),
        };
        done.advance(&chunk, read);
        if read < wanted {
            let bad = done.page(&chunk);
            done.advance(&chunk, usize::try_from(bad.len()).unwrap_or(usize::MAX));
            unreadable.push(bad);
        }
    }
}

/// How far a chunk is done.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    target: usize,
    bytes: usize,
}

impl Progress {
    /// What is left, to be read.
    fn rest<'s>(self, chunk: &'s mut Chunk<'_>) -> Vec<ReadSegment<'s>> {
        let mut skipped = self.bytes;
        let left = chunk.iter_mut().skip(self.target);
        let segments = left.map(|target| {
            let done = std::mem::take(&mut skipped);
            ReadSegment {
                address: target.address.plus(done as u64),
                buffer: &mut target.bytes[done..],
                mapping: target.mapping,
            }
        });
        segments.collect()
    }

    fn advance(&mut self, chunk: &Chunk<'_>, bytes: usize) {
        self.bytes += bytes;
        while let Some(target) = chunk
            .get(self.target)
            .filter(|it| self.bytes >= it.bytes.len())
        {
            self.bytes -= target.bytes.len();
            self.target += 1;
        }
    }

    /// What is left of the page that is next.
    fn page(self, chunk: &Chunk<'_>) -> AddressRange {
        let Some(target) = chunk.get(self.target) else {
            return AddressRange::default();
        };
        let start = target.address.plus(self.bytes as u64);
        let end = target.address.plus(target.bytes.len() as u64);
        let page_end = start.page_start().plus(PAGE_SIZE);
        AddressRange::new(start, page_end.min(end)).unwrap_or_default()
    }
}
