//! Reading a range of addresses across mappings: what every view is made of.

use std::sync::Arc;

use super::{FaultPolicy, Short};
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::page_state::PageState;
use crate::target::{ProcessMemory, ReadSegment};

/// Mappings in a row, lowest address first, none of them overlapping.
pub(super) type Mappings = [Arc<Mapping>];

/// The mapping that holds `address` among bytes that can be accessed, and where those end.
pub(super) fn covering(mappings: &Mappings, address: Address) -> Option<(&Arc<Mapping>, Address)> {
    let index = mappings.partition_point(|mapping| mapping.range().end() <= address);
    let mapping = mappings.get(index)?;
    let accessible = mapping.range().truncated(mapping.size());
    accessible
        .contains(address)
        .then_some((mapping, accessible.end()))
}

/// The start of the first byte at or after `address` that can be accessed.
fn next_start(mappings: &Mappings, address: Address) -> Option<Address> {
    let index = mappings.partition_point(|mapping| mapping.range().end() <= address);
    mappings[index..]
        .iter()
        .find(|mapping| mapping.range().start().plus(mapping.size()) > address)
        .map(|mapping| mapping.range().start().max(address))
}

/// A range of addresses as a file: offset 0 is its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) memory: &'a dyn ProcessMemory,
    pub(super) mappings: &'a Mappings,
    pub(super) range: AddressRange,
}

impl Window<'_> {
    fn address(&self, offset: u64) -> Address {
        self.range.start().plus(offset)
    }

    /// Reads from `offset` on, and returns how many bytes it got: fewer than `buffer` holds at the
    /// end of the file, or as `manner` allows.
    ///
    /// # Errors
    /// `Unreachable` or `Incomplete` where bytes cannot be read, and whatever the memory says.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8], manner: Manner) -> Result<usize> {
        let wanted = self.len_from(offset, buffer.len());
        let (start, buffer) = (self.address(offset), &mut buffer[..wanted]);
        read(self.memory, self.mappings, start, buffer, manner)
    }

    /// Bytes of `len` from `offset` on that lie in the file.
    pub(super) fn len_from(&self, offset: u64, len: usize) -> usize {
        let left = self.range.len().saturating_sub(offset);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }

    /// Where data or a hole starts, from `offset` on; the end of the file counts as a hole.
    ///
    /// # Errors
    /// `NoMoreData` at and past the end, and for data where only holes are left.
    pub(super) fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        let size = self.range.len();
        if offset >= size {
            return Err(Error::NoMoreData);
        }
        let (start, end) = (self.address(offset), self.range.end());
        match (
            seek(self.memory, self.mappings, start, end, whence)?,
            whence,
        ) {
            (Some(address), _) => Ok(address.since(self.range.start())),
            (None, Seek::Hole) => Ok(size),
            (None, Seek::Data) => Err(Error::NoMoreData),
        }
    }

    /// Counts the bytes of the mappings in this file that cannot be read now; gaps between
    /// mappings are none. Takes in `at_most` extents.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub(super) fn unreadable(&self, at_most: usize) -> Result<Unreadable> {
        unreadable(self.memory, self.mappings, self.range.end(), at_most)
    }
}

/// How a range is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) faults: FaultPolicy,
    pub(super) short: Short,
}

/// Fills `buffer` from `start` on, and returns how many bytes it got.
///
/// # Errors
/// `Unreachable` or `Incomplete` where bytes cannot be read, and whatever the memory says.
fn read(
    memory: &dyn ProcessMemory,
    mappings: &Mappings,
    start: Address,
    buffer: &mut [u8],
    manner: Manner,
) -> Result<usize> {
    let wanted = buffer.len();
    let mut done = 0;
    while done < wanted {
        let mut cause = None;
        let at = start.plus(done as u64);
        let mut segments = segments(mappings, at, &mut buffer[done..]);
        let asked: usize = segments.iter().map(|segment| segment.buffer.len()).sum();
        let answer = if asked == 0 {
            Err(Error::Unreachable(at))
        } else {
            memory.read(&mut segments)
        };
        match answer {
            Ok(read) if done + read == wanted => return Ok(wanted),
            // On to the gap after these mappings.
            Ok(read) if read == asked => {
                done += read;
                continue;
            }
            Ok(read) => done += read,
            Err(error) if error.is_of_bytes() => cause = Some(error),
            // Bytes that are kept back cannot be read either.
            Err(Error::OwnMemory) if manner.faults == FaultPolicy::Zero => (),
            Err(error) => return Err(error),
        }
        let fault = start.plus(done as u64);
        match (manner.faults, manner.short) {
            (FaultPolicy::Zero, _) => {
                let end = bad_end(mappings, fault);
                let bad = usize::try_from(end.since(fault)).unwrap_or(usize::MAX);
                let bad = bad.min(wanted - done);
                buffer[done..done + bad].fill(0);
                done += bad;
            }
            (FaultPolicy::Error, _) if done == 0 => {
                return Err(cause.unwrap_or(Error::Unreachable(fault)));
            }
            (FaultPolicy::Error, Short::Allowed) => break,
            (FaultPolicy::Error, Short::Refused) => return Err(Error::Incomplete(fault)),
        }
    }
    Ok(done)
}

/// Where bytes may follow a bad one: after its page, or in the next mapping.
fn bad_end(mappings: &Mappings, fault: Address) -> Address {
    match covering(mappings, fault) {
        Some(_) => fault.plus(fault.left_in_page()),
        None => next_start(mappings, fault).unwrap_or(Address::new(u64::MAX)),
    }
}

/// The part of `buffer` up to the first gap, cut up by mappings.
fn segments<'a>(
    mappings: &'a Mappings,
    start: Address,
    buffer: &'a mut [u8],
) -> Vec<ReadSegment<'a>> {
    let mut segments = Vec::with_capacity(1);
    let mut address = start;
    let mut rest = buffer;
    while !rest.is_empty() {
        let Some((mapping, end)) = covering(mappings, address) else {
            break;
        };
        let len = usize::try_from(end.since(address))
            .unwrap_or(usize::MAX)
            .min(rest.len());
        let (buffer, after) = rest.split_at_mut(len);
        segments.push(ReadSegment {
            address,
            buffer,
            mapping,
        });
        address = address.plus(len as u64);
        rest = after;
    }
    segments
}

/// What `lseek` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`: bytes that are not known to be zeros, and not known to be unreadable.
    Data,
    /// `SEEK_HOLE`: zeros, what cannot be read, or the end.
    Hole,
}

impl Seek {
    /// What `lseek` is asked for by this `whence`: the kernel asks file systems for these two only.
    pub(crate) fn of_lseek(whence: i32) -> Option<Self> {
        /// `SEEK_DATA` and `SEEK_HOLE` of `include/uapi/linux/fs.h`.
        const DATA: i32 = 3;
        const HOLE: i32 = 4;

        match whence {
            DATA => Some(Self::Data),
            HOLE => Some(Self::Hole),
            _ => None,
        }
    }
}

/// Extents that are asked for together: few, since a sparse copy asks again for the next one.
const AT_MOST: usize = 16;

/// Extents that one `lseek` passes over, besides one for each mapping: a target decides how many
/// there are. Fewer would cost more, since `maps` is read for each `lseek` on an address space.
const PASSED_OVER: usize = 1024;

/// Extents that are asked for together where all of them are counted.
const COUNTED_AT_ONCE: usize = 1024;

/// The first address at or after `start` and before `end` that holds what is
/// asked for. A gap between mappings is a hole; `None` where all of the rest is.
///
/// After very many extents ([`PASSED_OVER`]) it gives the next place that can pass for one: zeros for data, and
/// the border of two extents of data for a hole of no length. Whoever goes on from there finds the rest.
///
/// # Errors
/// Whatever the memory says.
fn seek(
    memory: &dyn ProcessMemory,
    mappings: &Mappings,
    start: Address,
    end: Address,
    seek: Seek,
) -> Result<Option<Address>> {
    let mut at = start;
    let mut left = PASSED_OVER + mappings.len();
    while at < end {
        let Some((mapping, held_end)) = covering(mappings, at) else {
            if seek == Seek::Hole {
                return Ok(Some(at));
            }
            match next_start(mappings, at) {
                Some(next) if next > at => at = next,
                _ => return Ok(None),
            }
            continue;
        };
        let Some(range) = AddressRange::new(at, held_end.min(end)) else {
            return Ok(None);
        };
        for extent in memory.extents(mapping, range, AT_MOST)? {
            let is_found = extent.state.is_data() == (seek == Seek::Data);
            // Not what cannot be read: it would be read.
            let will_do = seek == Seek::Hole || extent.state == PageState::Zero;
            if is_found || (will_do && left == 0) {
                return Ok(Some(extent.range.start()));
            }
            left = left.saturating_sub(1);
            at = extent.range.end();
        }
        if at == range.start() {
            // Nothing was said of it: take it for data rather than lose some.
            if seek == Seek::Data {
                return Ok(Some(at));
            }
            at = range.end();
        }
    }
    Ok(None)
}

/// Bytes that are known to be unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// How many were found.
    pub bytes: u64,
    /// Whether that is all there are: one count takes in so many extents only.
    pub is_all: bool,
}

/// Counts the bytes of `mappings` before `end` that cannot be read, and touches none. Takes in
/// `at_most` extents, since a target decides how many it has.
///
/// # Errors
/// Whatever the memory says.
fn unreadable(
    memory: &dyn ProcessMemory,
    mappings: &Mappings,
    end: Address,
    at_most: usize,
) -> Result<Unreadable> {
    let mut found = Unreadable {
        bytes: 0,
        is_all: true,
    };
    let mut left = at_most;
    for mapping in mappings {
        let whole = AddressRange::new(mapping.range().start(), mapping.range().end().min(end));
        let Some(whole) = whole else {
            break;
        };
        let shown = whole.truncated(mapping.size());
        found.bytes += whole.len() - shown.len();
        let mut at = shown.start();
        while let Some(rest) = AddressRange::new(at, shown.end()).filter(|rest| !rest.is_empty()) {
            if left == 0 {
                found.is_all = false;
                return Ok(found);
            }
            let extents = memory.extents(mapping, rest, left.min(COUNTED_AT_ONCE))?;
            left = left.saturating_sub(extents.len().max(1));
            let nothing = extents
                .iter()
                .filter(|extent| extent.state == PageState::Unreadable);
            found.bytes += nothing.map(|extent| extent.range.len()).sum::<u64>();
            match extents.last() {
                Some(last) if last.range.end() > at => at = last.range.end(),
                // Nothing was said of the rest.
                _ => {
                    found.is_all = false;
                    break;
                }
            }
        }
    }
    Ok(found)
}
