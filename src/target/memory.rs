//! The memory of one program.

use std::fmt::Debug;

use super::identity::ProcessIdentity;
use super::mapping::Mapping;
use super::page_state::{Extent, MemoryUsage, push};
use super::snapshot::FileContent;
use crate::common::address::{Address, AddressRange};
use crate::common::error::Result;

/// Bytes to be read: from `address` on, as many as `buffer` holds.
#[derive(Debug)]
pub struct ReadSegment<'a> {
    /// Where the bytes lie in the process.
    pub address: Address,
    /// Where they go.
    pub buffer: &'a mut [u8],
    /// The mapping that holds all of them.
    pub mapping: &'a Mapping,
}

/// How a write treats the mapping's own protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Obey it.
    Obey,
    /// Write in spite of it, as `/proc/PID/mem` does (`-o force`).
    Force,
}

/// The memory of one program of one process, pinned: it never shows another's.
///
/// A cache or a fault injector is a decorator of this trait, and
/// `fake` and `live` pass the same conformance tests.
pub trait ProcessMemory: Debug + Send + Sync {
    /// Whose memory it is.
    fn identity(&self) -> &ProcessIdentity;

    /// Whether the process still lives and still runs the same program.
    ///
    /// # Errors
    /// `Ended` or `Replaced`.
    fn verify(&self) -> Result<()>;

    /// Fills the segments in order, and returns how many bytes it got before
    /// the first that cannot be read. All of them were the pinned program's.
    ///
    /// # Errors
    /// `Unreachable` where not even the first byte can be read; `Ended`,
    /// `Replaced` whatever was copied.
    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize>;

    /// Where the bytes of `range`, a part of `mapping`, are; touches none of them.
    ///
    /// The extents lie in order and without a gap from the start of the
    /// range on, and none is empty. They may end before the range does, and do after about `at_most` of them, since a
    /// target decides how many there are: then ask again from there.
    ///
    /// It is to be asked of what can be accessed alone ([`Mapping::size`]): the kernel's own pages (`[vvar]`) may be said to be
    /// resident, and are still nobody's to read.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, and `System` where the kernel does not say.
    fn extents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>>;

    /// What the file of a mapping holds where the process has mapped no page of it, for as long as the answer is kept.
    fn file_content(&self, mapping: &Mapping) -> FileContent {
        let _ = mapping;
        FileContent::Unknown
    }

    /// Drops what is kept for speed alone: nobody has the memory open for now.
    fn drop_caches(&self) {}

    /// How much memory each of `ranges` takes, which lie in order and do not overlap.
    ///
    /// # Errors
    /// As [`extents`](Self::extents).
    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>>;

    /// Writes exactly `data` at `address`, and returns how many bytes got
    /// there before the first that cannot be written.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize>;
}

/// Bytes that `segments` ask for.
pub fn requested(segments: &[ReadSegment<'_>]) -> usize {
    segments.iter().map(|segment| segment.buffer.len()).sum()
}

/// Extents that are asked for together: a target decides how many there are.
const AT_ONCE: usize = 1 << 14;

/// Tells `each` all extents of `range`, a part of `mapping`, in order; they are not joined.
///
/// # Errors
/// As [`ProcessMemory::extents`], and those of `each`, which ends it.
pub fn for_each_extent(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    range: AddressRange,
    mut each: impl FnMut(Extent) -> Result<()>,
) -> Result<()> {
    let mut at = range.start();
    while let Some(rest) = AddressRange::new(at, range.end()).filter(|rest| !rest.is_empty()) {
        let more = memory.extents(mapping, rest, AT_ONCE)?;
        let Some(last) = more.last() else { break };
        at = last.range.end();
        more.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// All extents of a range, neighbours in one state joined. `advance` is asked at each of them whether to go on.
///
/// # Errors
/// As [`ProcessMemory::extents`], and those of `advance`.
pub(crate) fn all_extents(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    range: AddressRange,
    advance: impl Fn() -> Result<()>,
) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    for_each_extent(memory, mapping, range, |extent| {
        push(&mut extents, extent.range, extent.state);
        advance()
    })?;
    Ok(extents)
}
