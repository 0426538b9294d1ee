//! A whole address space as one sparse file: the offset is the address.

use std::sync::Arc;

use super::range::{self, Manner, Seek, Unreadable, Window};
use super::{FaultPolicy, Short};
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::{ProcessMemory, WriteMode};

/// The address space of one pinned process, with the mappings that it has at the moment.
#[derive(Debug)]
pub struct SpaceFile {
    memory: Arc<dyn ProcessMemory>,
    mappings: Arc<[Arc<Mapping>]>,
    faults: FaultPolicy,
}

/// Length of the file of an address space: past the last address that the
/// kernel gives out unless it is asked for more (`Documentation/arch/x86/x86_64/mm.rst`).
#[cfg(target_arch = "x86_64")]
pub const SPACE_SIZE: u64 = (1 << 47) - crate::common::address::PAGE_SIZE;
/// Length of the file of an address space (`Documentation/arch/arm64/memory.rst`).
#[cfg(not(target_arch = "x86_64"))]
pub const SPACE_SIZE: u64 = 1 << 48;

impl SpaceFile {
    /// The file of the address space that `mappings` make up.
    pub fn new(
        memory: Arc<dyn ProcessMemory>,
        mappings: Arc<[Arc<Mapping>]>,
        faults: FaultPolicy,
    ) -> Self {
        Self {
            memory,
            mappings,
            faults,
        }
    }

    /// Reads from `offset` on, and returns how many bytes it got.
    ///
    /// # Errors
    /// `Unreachable` or `Incomplete` where bytes cannot be read, as in a gap
    /// between mappings, and whatever the memory says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8], short: Short) -> Result<usize> {
        let manner = Manner {
            faults: self.faults,
            short,
        };
        self.window().read_at(offset, buffer, manner)
    }

    /// Writes exactly these bytes, and returns how many got there before the
    /// first mapping that `mode` does not find writable.
    ///
    /// # Errors
    /// `PastEnd`, `Unreachable`, `Protected`, and whatever the memory says.
    pub fn write_at(&self, offset: u64, data: &[u8], mode: WriteMode) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let at = Address::new(offset.saturating_add(done as u64));
            let answer = match range::covering(&self.mappings, at) {
                _ if at.get() >= SPACE_SIZE => Err(Error::PastEnd),
                None => Err(Error::Unreachable(at)),
                Some((mapping, _)) if mode == WriteMode::Obey && !mapping.protection().write => {
                    Err(Error::Protected)
                }
                Some((_, end)) => {
                    let len = usize::try_from(end.since(at)).unwrap_or(usize::MAX);
                    let len = len.min(data.len() - done);
                    self.memory
                        .write(at, &data[done..done + len], mode)
                        .map(|written| (written, len))
                }
            };
            match answer {
                Ok((written, asked)) => {
                    done += written;
                    if written < asked {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Where data or a hole starts, from `offset` on; gaps between mappings are holes.
    ///
    /// # Errors
    /// `NoMoreData` at and past the end, and for data where only holes are left.
    pub fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.window().seek(offset, whence)
    }

    /// Counts the bytes of the mappings in this file that cannot be read now; gaps between
    /// mappings are none. Takes in `at_most` extents.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub fn unreadable(&self, at_most: usize) -> Result<Unreadable> {
        self.window().unreadable(at_most)
    }

    fn window(&self) -> Window<'_> {
        Window {
            memory: &*self.memory,
            mappings: &self.mappings,
            range: AddressRange::new(Address::new(0), Address::new(SPACE_SIZE)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::PAGE_SIZE;
    use crate::target::fake::FakeProcess;
    use crate::target::mapping::AddressSpace;

    const PAGE: usize = PAGE_SIZE as usize;

    /// Two neighbours, the second read-only; a gap; a third; and one that no offset reaches.
    fn file(process: &FakeProcess, faults: FaultPolicy) -> SpaceFile {
        let maps = b"\
10000-11000 rw-p 00000000 00:00 0\n\
11000-12000 r--p 00000000 00:00 0\n\
20000-22000 rw-p 00000000 00:00 0\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        process.map(0x10_000, &[1; PAGE]).map(0x11_000, &[2; PAGE]);
        process.reserve(0x20_000, 1).map(0x21_000, &[4; PAGE]);
        let space = AddressSpace::parse(maps).unwrap();
        let mappings = space.mappings().iter().cloned().map(Arc::new).collect();
        SpaceFile::new(process.open(), mappings, faults)
    }

    fn read(file: &SpaceFile, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0xee; len];
        let read = file.read_at(offset, &mut bytes, Short::Allowed)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    #[test]
    fn a_read_goes_across_neighbours_and_ends_at_a_gap() {
        let file = file(&FakeProcess::new(7, b"fake"), FaultPolicy::Error);
        assert_eq!(read(&file, 0x10_fff, 2).unwrap(), [1, 2]);
        assert_eq!(read(&file, 0x11_fff, PAGE).unwrap(), [2]);
        let gap = Address::new(0x12_000);
        assert_eq!(read(&file, 0x12_000, 8), Err(Error::Unreachable(gap)));
        assert_eq!(read(&file, 0, 8), Err(Error::Unreachable(Address::new(0))));
        assert_eq!(
            read(&file, 0x21_ffe, PAGE).unwrap(),
            [4, 4],
            "the end of the file"
        );
        assert_eq!(read(&file, SPACE_SIZE, 8).unwrap(), []);
        assert_eq!(read(&file, u64::MAX, 8).unwrap(), []);
    }

    #[test]
    fn gaps_may_read_as_zeros() {
        let file = file(&FakeProcess::new(7, b"fake"), FaultPolicy::Zero);
        let bytes = read(&file, 0x11_fff, 0x10_001).unwrap();
        assert_eq!(bytes.len(), 0x10_001);
        assert_eq!(bytes[0], 2);
        assert!(bytes[1..0x21_000 - 0x11_fff].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[0x21_000 - 0x11_fff], 4);
    }

    #[test]
    fn a_seek_jumps_over_gaps() {
        let file = file(&FakeProcess::new(7, b"fake"), FaultPolicy::Error);
        assert_eq!(file.seek(0, Seek::Hole), Ok(0));
        assert_eq!(file.seek(0, Seek::Data), Ok(0x10_000));
        assert_eq!(file.seek(0x10_005, Seek::Hole), Ok(0x12_000));
        assert_eq!(file.seek(0x12_000, Seek::Data), Ok(0x21_000));
        assert_eq!(file.seek(0x21_000, Seek::Hole), Ok(0x22_000));
        assert_eq!(file.seek(0x22_000, Seek::Data), Err(Error::NoMoreData));
        assert_eq!(file.seek(0x22_000, Seek::Hole), Ok(0x22_000));
        assert_eq!(file.seek(SPACE_SIZE, Seek::Hole), Err(Error::NoMoreData));
    }

    /// SEMANTICS: what cannot be read is a hole, in whatever mapping it lies.
    #[test]
    fn what_cannot_be_read_is_a_hole_and_is_counted() {
        let process = FakeProcess::new(7, b"fake");
        let file = file(&process, FaultPolicy::Error);
        let count = || file.unreadable(100).unwrap();
        // The mapping that no offset reaches does not count.
        assert_eq!((count().bytes, count().is_all), (0, true));
        process.unmap(0x11_000).unmap(0x20_000);
        assert_eq!(file.seek(0x10_005, Seek::Hole), Ok(0x11_000));
        assert_eq!(file.seek(0x11_000, Seek::Data), Ok(0x21_000));
        assert_eq!(count().bytes, 2 * PAGE_SIZE);
        assert_eq!(file.unreadable(2).unwrap().bytes, PAGE_SIZE);
        assert!(!file.unreadable(2).unwrap().is_all);
    }

    #[test]
    fn writes_obey_each_mapping() {
        let process = FakeProcess::new(7, b"fake");
        let file = file(&process, FaultPolicy::Error);
        assert_eq!(file.write_at(0x10_ffe, b"abcd", WriteMode::Obey), Ok(2));
        assert_eq!(
            file.write_at(0x11_000, b"abcd", WriteMode::Obey),
            Err(Error::Protected)
        );
        assert_eq!(file.write_at(0x11_000, b"abcd", WriteMode::Force), Ok(4));
        let gap = Err(Error::Unreachable(Address::new(0x12_000)));
        assert_eq!(file.write_at(0x12_000, b"abcd", WriteMode::Force), gap);
        assert_eq!(
            file.write_at(SPACE_SIZE, b"abcd", WriteMode::Force),
            Err(Error::PastEnd)
        );
        assert_eq!(read(&file, 0x10_ffe, 6).unwrap(), b"ababcd");
    }
}
