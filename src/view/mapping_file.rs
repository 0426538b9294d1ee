//! A mapping as a file: offset 0 is its first byte.

use std::sync::Arc;

use crate::address::Address;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::process::{ProcessMemory, ReadSegment, Reuse, Route, WriteMode};

/// What becomes of bytes that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultPolicy {
    /// They end the read, and are an error when it starts on one.
    #[default]
    Error,
    /// They read as zeros.
    Zero,
}

/// Whether a read may be answered with fewer bytes than lie before the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// Yes: direct I/O hands the count on.
    Allowed,
    /// No: in buffered mode the kernel takes a short answer for the end of
    /// the file, so it must be an error; the kernel then asks page by page.
    Refused,
}

/// One mapping of one pinned process.
#[derive(Debug)]
pub struct MappingFile {
    memory: Arc<dyn ProcessMemory>,
    start: Address,
    size: u64,
    route: Route,
    faults: FaultPolicy,
}

impl MappingFile {
    /// The file of `mapping`, whose bytes `memory` holds.
    pub fn new(memory: Arc<dyn ProcessMemory>, mapping: &Mapping, faults: FaultPolicy) -> Self {
        Self {
            memory,
            start: mapping.range().start(),
            size: mapping.size(),
            route: if mapping.protection().read {
                Route::Protected
            } else {
                Route::Pinned
            },
            faults,
        }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads from `offset` on, and returns how many bytes it got: fewer than
    /// `buffer` holds at the end of the file, or as `short` allows.
    ///
    /// # Errors
    /// `Unreachable` or `Incomplete` where bytes cannot be read, and whatever the memory says.
    pub fn read_at(
        &self,
        offset: u64,
        buffer: &mut [u8],
        short: Short,
        reuse: Reuse,
    ) -> Result<usize> {
        let wanted = self.len_from(offset, buffer.len());
        let buffer = &mut buffer[..wanted];
        let mut done = 0;
        while done < wanted {
            let at = self.start.plus(offset + done as u64);
            let segment = ReadSegment {
                address: at,
                buffer: &mut buffer[done..],
                route: self.route,
            };
            let fault = match self.memory.read(&mut [segment], reuse) {
                Ok(read) if done + read == wanted => return Ok(wanted),
                Ok(read) => {
                    done += read;
                    self.start.plus(offset + done as u64)
                }
                Err(Error::Unreachable(_)) => at,
                Err(error) => return Err(error),
            };
            match (self.faults, short) {
                (FaultPolicy::Zero, _) => {
                    let bad = (fault.left_in_page() as usize).min(wanted - done);
                    buffer[done..done + bad].fill(0);
                    done += bad;
                }
                (FaultPolicy::Error, _) if done == 0 => return Err(Error::Unreachable(fault)),
                (FaultPolicy::Error, Short::Allowed) => break,
                (FaultPolicy::Error, Short::Refused) => return Err(Error::Incomplete(fault)),
            }
        }
        Ok(done)
    }

    /// Writes exactly these bytes, and returns how many got there.
    ///
    /// # Errors
    /// `PastEnd` at and behind the end of the file, `Unreachable`, and whatever the memory says.
    pub fn write_at(&self, offset: u64, data: &[u8], mode: WriteMode) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        match self.len_from(offset, data.len()) {
            0 => Err(Error::PastEnd),
            len => self
                .memory
                .write(self.start.plus(offset), &data[..len], mode),
        }
    }

    /// Bytes of a range of `len` from `offset` on that lie in the file.
    fn len_from(&self, offset: u64, len: usize) -> usize {
        let left = self.size.saturating_sub(offset);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PAGE_SIZE;
    use crate::mapping::{AddressSpace, Barrier, Extent};
    use crate::process::fake::{Call, FakeProcess};

    const PAGE: usize = PAGE_SIZE as usize;

    /// Four pages of `1`, `2`, `3`, `4`, the third of them missing.
    fn process() -> FakeProcess {
        let process = FakeProcess::new(7, b"fake");
        for page in 0..4_u8 {
            process.map(0x1000 + u64::from(page) * PAGE_SIZE, &[page + 1; PAGE]);
        }
        process.unmap(0x3000);
        process
    }

    fn mapping() -> Mapping {
        let space = AddressSpace::parse(b"1000-5000 rw-p 00000000 00:00 0\n").unwrap();
        space.mappings()[0].clone()
    }

    fn file(faults: FaultPolicy) -> MappingFile {
        MappingFile::new(process().open(), &mapping(), faults)
    }

    fn read(file: &MappingFile, offset: u64, len: usize, short: Short) -> Result<Vec<u8>> {
        let mut buffer = vec![0xee; len];
        let read = file.read_at(offset, &mut buffer, short, Reuse::Likely)?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// SEMANTICS: a read that meets an unreadable byte.
    #[test]
    fn a_hole_ends_a_direct_read_and_fails_one_that_starts_there() {
        let file = file(FaultPolicy::Error);
        let bytes = read(&file, PAGE_SIZE + 5, 4 * PAGE, Short::Allowed).unwrap();
        assert_eq!(bytes, vec![2; PAGE - 5]);
        let hole = Address::new(0x3000);
        assert_eq!(
            read(&file, 2 * PAGE_SIZE, 1, Short::Allowed),
            Err(Error::Unreachable(hole))
        );
        assert_eq!(
            read(&file, 3 * PAGE_SIZE, 4 * PAGE, Short::Allowed).unwrap(),
            vec![4; PAGE]
        );
    }

    /// SEMANTICS: a buffered read never ends early in silence.
    #[test]
    fn a_hole_fails_a_buffered_read_as_a_whole() {
        let file = file(FaultPolicy::Error);
        let hole = Address::new(0x3000);
        assert_eq!(
            read(&file, 0, 4 * PAGE, Short::Refused),
            Err(Error::Incomplete(hole))
        );
        assert_eq!(
            read(&file, 0, 2 * PAGE, Short::Refused).unwrap().len(),
            2 * PAGE
        );
        assert_eq!(
            read(&file, 3 * PAGE_SIZE, 8 * PAGE, Short::Refused).unwrap(),
            vec![4; PAGE]
        );
    }

    #[test]
    fn faults_may_read_as_zeros() {
        let file = file(FaultPolicy::Zero);
        let bytes = read(&file, PAGE_SIZE, 9 * PAGE, Short::Refused).unwrap();
        assert_eq!(bytes, [[2; PAGE], [0; PAGE], [4; PAGE]].concat());
        assert_eq!(
            read(&file, 2 * PAGE_SIZE + 9, 3, Short::Allowed).unwrap(),
            [0; 3]
        );
    }

    #[test]
    fn the_end_of_the_file_is_the_end_of_the_bytes() {
        let file = file(FaultPolicy::Zero);
        for offset in [4 * PAGE_SIZE, 5 * PAGE_SIZE, u64::MAX] {
            assert_eq!(read(&file, offset, 10, Short::Refused).unwrap(), []);
        }
    }

    /// SEMANTICS: writing past the end.
    #[test]
    fn no_byte_is_written_outside_the_mapping() {
        let process = process();
        process.map(0x5000, &[9; PAGE]);
        let file = MappingFile::new(process.open(), &mapping(), FaultPolicy::Error);
        assert_eq!(
            file.write_at(4 * PAGE_SIZE - 3, b"abcdef", WriteMode::Obey),
            Ok(3)
        );
        assert_eq!(process.take_calls(), [Call::Write(0x4ffd, 3)]);
        assert_eq!(
            file.write_at(4 * PAGE_SIZE, b"a", WriteMode::Obey),
            Err(Error::PastEnd)
        );
        assert_eq!(
            file.write_at(u64::MAX, b"a", WriteMode::Obey),
            Err(Error::PastEnd)
        );
        assert_eq!(file.write_at(4 * PAGE_SIZE, b"", WriteMode::Obey), Ok(0));
        assert_eq!(process.take_calls(), []);
    }

    #[test]
    fn what_nobody_can_read_is_never_touched() {
        let process = process();
        let mut mapping = mapping();
        mapping.set_extent(Extent::Nothing(Barrier::Device));
        let file = MappingFile::new(process.open(), &mapping, FaultPolicy::Error);
        assert_eq!(read(&file, 0, PAGE, Short::Allowed).unwrap(), []);
        assert_eq!(
            file.write_at(0, b"a", WriteMode::Force),
            Err(Error::PastEnd)
        );
        assert_eq!(process.take_calls(), []);
    }

    #[test]
    fn a_lost_process_is_its_own_error() {
        let process = process();
        let file = MappingFile::new(process.open(), &mapping(), FaultPolicy::Zero);
        process.end();
        let ended = Error::Ended(process.identity().pid);
        assert_eq!(read(&file, 0, 8, Short::Allowed), Err(ended.clone()));
        assert_eq!(file.write_at(0, b"a", WriteMode::Obey), Err(ended));
    }
}
