//! A mapping as a file: offset 0 is its first byte.

use std::sync::Arc;

use super::range::{Manner, Seek, Unreadable, Window};
use super::{FaultPolicy, Short};
use crate::common::error::{Error, Result};
use crate::target::mapping::{AccessibleLength, Mapping};
use crate::target::{ProcessMemory, WriteMode};

/// One mapping of one pinned process.
#[derive(Debug)]
pub struct MappingFile {
    memory: Arc<dyn ProcessMemory>,
    mapping: Arc<Mapping>,
    /// The same without an end before its own: its file may have grown, and the
    /// kernel, which knows, may ask for more than was there when this was opened.
    whole: Arc<Mapping>,
    faults: FaultPolicy,
}

impl MappingFile {
    /// The file of `mapping`, whose bytes `memory` holds.
    pub fn new(memory: Arc<dyn ProcessMemory>, mapping: Arc<Mapping>, faults: FaultPolicy) -> Self {
        let whole = match mapping.accessible_length() {
            AccessibleLength::UpTo(_) => {
                let mut whole = Mapping::clone(&mapping);
                whole.set_accessible_length(AccessibleLength::Whole);
                Arc::new(whole)
            }
            AccessibleLength::Whole | AccessibleLength::OwnMount | AccessibleLength::Nothing(_) => {
                Arc::clone(&mapping)
            }
        };
        Self {
            memory,
            mapping,
            whole,
            faults,
        }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.mapping.size()
    }

    /// Reads from `offset` on, and returns how many bytes it got: fewer than
    /// `buffer` holds at the end of the file, or as `short` allows.
    ///
    /// # Errors
    /// `Unreachable` or `Incomplete` where bytes cannot be read, and whatever the memory says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8], short: Short) -> Result<usize> {
        // A buffered answer that ends early would cut the file off for everybody.
        let mapping = match short {
            Short::Allowed => &self.mapping,
            Short::Refused => &self.whole,
        };
        let manner = Manner {
            faults: self.faults,
            short,
        };
        self.window(mapping).read_at(offset, buffer, manner)
    }

    /// Writes exactly these bytes, and returns how many got there.
    ///
    /// # Errors
    /// `PastEnd` at and past the end of the file, `Unreachable`, and whatever the memory says.
    pub fn write_at(&self, offset: u64, data: &[u8], mode: WriteMode) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        match self.window(&self.mapping).len_from(offset, data.len()) {
            0 => Err(Error::PastEnd),
            len => {
                let address = self.mapping.range().start().plus(offset);
                self.memory.write(address, &data[..len], mode)
            }
        }
    }

    /// Where data or a hole starts, from `offset` on; the end of the file counts as a hole.
    ///
    /// # Errors
    /// `NoMoreData` at and past the end, and for data where only holes are left.
    pub fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.window(&self.mapping).seek(offset, whence)
    }

    /// Counts the bytes of the mapping that cannot be read now, those past the end of the file
    /// included; takes in `at_most` extents.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub fn unreadable(&self, at_most: usize) -> Result<Unreadable> {
        let whole = Window {
            range: self.mapping.range(),
            ..self.window(&self.mapping)
        };
        whole.unreadable(at_most)
    }

    /// The part of `mapping` that the file shows.
    fn window<'a>(&'a self, mapping: &'a Arc<Mapping>) -> Window<'a> {
        Window {
            memory: &*self.memory,
            mappings: std::slice::from_ref(mapping),
            range: mapping.range().truncated(mapping.size()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::{Address, PAGE_SIZE};
    use crate::target::cache::DeniedMemory;
    use crate::target::fake::{self, Call, FakeProcess};
    use crate::target::mapping::{AddressSpace, Barrier};

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
        MappingFile::new(process().open(), Arc::new(mapping()), faults)
    }

    fn read(file: &MappingFile, offset: u64, len: usize, short: Short) -> Result<Vec<u8>> {
        let mut buffer = vec![0xee; len];
        let read = file.read_at(offset, &mut buffer, short)?;
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

    /// SEMANTICS: the daemon's own memory is never read, and zeros may stand for it.
    #[test]
    fn what_is_kept_back_is_an_error_or_zeros() {
        let file = |faults| {
            let memory = DeniedMemory::new(process().open());
            MappingFile::new(Arc::new(memory), Arc::new(mapping()), faults)
        };
        for short in [Short::Allowed, Short::Refused] {
            let error = read(&file(FaultPolicy::Error), 5, 2 * PAGE, short);
            assert_eq!(error, Err(Error::OwnMemory));
            let zeros = read(&file(FaultPolicy::Zero), 5, 2 * PAGE, short);
            assert_eq!(zeros.unwrap(), vec![0; 2 * PAGE]);
        }
    }

    /// SEMANTICS: a buffered read never ends early in silence.
    #[test]
    fn a_file_that_has_grown_since_it_was_opened_is_not_cut_off() {
        let process = FakeProcess::new(7, b"fake");
        process.map(0x1000, &[1; 2 * PAGE]);
        let mut mapping = fake::mapping(0x1000, 4);
        mapping.set_accessible_length(AccessibleLength::UpTo(PAGE_SIZE));
        let file = MappingFile::new(process.open(), Arc::new(mapping), FaultPolicy::Error);
        let grown = read(&file, PAGE_SIZE, PAGE, Short::Refused);
        assert_eq!(grown.unwrap(), vec![1; PAGE]);
        let end = Address::new(0x3000);
        assert_eq!(
            read(&file, PAGE_SIZE, 2 * PAGE, Short::Refused),
            Err(Error::Incomplete(end))
        );
        assert_eq!(read(&file, PAGE_SIZE, PAGE, Short::Allowed).unwrap(), []);
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
        let file = MappingFile::new(process.open(), Arc::new(mapping()), FaultPolicy::Error);
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
        mapping.set_accessible_length(AccessibleLength::Nothing(Barrier::Device));
        let file = MappingFile::new(process.open(), Arc::new(mapping), FaultPolicy::Error);
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
        let file = MappingFile::new(process.open(), Arc::new(mapping()), FaultPolicy::Zero);
        process.end();
        let ended = Error::Ended(process.identity().pid);
        assert_eq!(read(&file, 0, 8, Short::Allowed), Err(ended.clone()));
        assert_eq!(file.write_at(0, b"a", WriteMode::Obey), Err(ended));
    }

    /// SEMANTICS: holes.
    #[test]
    fn memory_that_was_never_written_is_a_hole() {
        let process = FakeProcess::new(7, b"fake");
        process
            .reserve(0x1000, 64)
            .map(0x1000 + 40 * PAGE_SIZE, &[1; 2 * PAGE]);
        let mapping = Arc::new(fake::mapping(0x1000, 64));
        let file = MappingFile::new(process.open(), mapping, FaultPolicy::Error);
        let (data, after, size) = (40 * PAGE_SIZE, 42 * PAGE_SIZE, 64 * PAGE_SIZE);
        assert_eq!(file.seek(0, Seek::Data), Ok(data));
        assert_eq!(file.seek(5, Seek::Hole), Ok(5));
        assert_eq!(file.seek(data + 7, Seek::Data), Ok(data + 7));
        assert_eq!(file.seek(data + 7, Seek::Hole), Ok(after));
        assert_eq!(file.seek(after, Seek::Data), Err(Error::NoMoreData));
        assert_eq!(file.seek(after, Seek::Hole), Ok(after));
        for whence in [Seek::Data, Seek::Hole] {
            assert_eq!(file.seek(size, whence), Err(Error::NoMoreData));
            assert_eq!(file.seek(u64::MAX, whence), Err(Error::NoMoreData));
        }
        assert_eq!(process.take_calls(), [], "a seek touches none");
    }

    #[test]
    fn many_short_extents_are_asked_for_in_turns() {
        let process = FakeProcess::new(7, b"fake");
        process.reserve(0x1000, 200);
        for page in (0..200).step_by(2) {
            process.map(0x1000 + page * PAGE_SIZE, &[1; PAGE]);
        }
        let mapping = Arc::new(fake::mapping(0x1000, 200));
        let file = MappingFile::new(process.open(), mapping, FaultPolicy::Error);
        let mut at = 0;
        for page in (0..198).step_by(2) {
            assert_eq!(file.seek(at, Seek::Data), Ok(page * PAGE_SIZE));
            at = file.seek(page * PAGE_SIZE, Seek::Hole).unwrap();
            assert_eq!(at, (page + 1) * PAGE_SIZE);
        }
    }

    /// SEMANTICS: a target does not decide what a request costs.
    #[test]
    fn one_seek_passes_over_so_many_extents_only_and_loses_none() {
        const COUNT: u64 = 2500;
        for (whence, back) in [(Seek::Data, Seek::Hole), (Seek::Hole, Seek::Data)] {
            let process = FakeProcess::new(7, b"fake");
            let pages = (COUNT + 1) as usize;
            // Extents of two kinds that are the same to `lseek`, and what is asked for at the end.
            match whence {
                Seek::Data => process.reserve(0x1000, pages),
                Seek::Hole => process.map(0x1000, &vec![1; pages * PAGE]),
            };
            for page in (1..COUNT).step_by(2) {
                let at = 0x1000 + page * PAGE_SIZE;
                match whence {
                    Seek::Data => process.unmap(at),
                    Seek::Hole => process.swap_out(at),
                };
            }
            let last = 0x1000 + COUNT * PAGE_SIZE;
            match whence {
                Seek::Data => process.map(last, b"data"),
                Seek::Hole => process.reserve(last, 1),
            };
            let mapping = Arc::new(fake::mapping(0x1000, COUNT + 1));
            let file = MappingFile::new(process.open(), mapping, FaultPolicy::Error);
            let (mut at, mut seeks) = (0, 0);
            while at < COUNT * PAGE_SIZE {
                let next = file.seek(at, whence).unwrap();
                assert!(next > at && next - at <= 1030 * PAGE_SIZE, "{at} {next}");
                at = next;
                // A seek for the other stays where it is: nothing is lost.
                if at < COUNT * PAGE_SIZE {
                    assert_eq!(file.seek(at, back), Ok(at), "{back:?}");
                }
                seeks += 1;
            }
            assert_eq!((at, seeks), (COUNT * PAGE_SIZE, 3), "{whence:?}");
        }
    }

    /// SEMANTICS: what cannot be read is a hole.
    #[test]
    fn what_cannot_be_read_is_a_hole_and_is_counted() {
        let (bad, after, size) = (2 * PAGE_SIZE, 3 * PAGE_SIZE, 4 * PAGE_SIZE);
        for faults in [FaultPolicy::Error, FaultPolicy::Zero] {
            let file = file(faults);
            assert_eq!(file.seek(0, Seek::Hole), Ok(bad));
            assert_eq!(file.seek(bad + 5, Seek::Hole), Ok(bad + 5));
            assert_eq!(file.seek(bad, Seek::Data), Ok(after));
            assert_eq!(file.seek(after, Seek::Hole), Ok(size));
            let all = Unreadable {
                bytes: PAGE_SIZE,
                is_all: true,
            };
            assert_eq!(file.unreadable(100), Ok(all));
        }
    }

    #[test]
    fn a_mapping_that_was_unmapped_has_no_data() {
        let process = process();
        for page in [0x1000, 0x2000, 0x4000] {
            process.unmap(page);
        }
        let file = MappingFile::new(process.open(), Arc::new(mapping()), FaultPolicy::Error);
        assert_eq!(file.seek(0, Seek::Data), Err(Error::NoMoreData));
        assert_eq!(file.seek(0, Seek::Hole), Ok(0));
        assert_eq!(file.unreadable(1).unwrap().bytes, 4 * PAGE_SIZE);
    }

    #[test]
    fn what_lies_past_the_end_of_the_file_is_counted_as_unreadable() {
        let process = FakeProcess::new(7, b"fake");
        process.map(0x1000, &[1; 4 * PAGE]);
        let count = |extent| {
            let mut mapping = mapping();
            mapping.set_accessible_length(extent);
            let mapping = Arc::new(mapping);
            let file = MappingFile::new(process.open(), mapping, FaultPolicy::Error);
            file.unreadable(100).unwrap().bytes
        };
        assert_eq!(count(AccessibleLength::Whole), 0);
        assert_eq!(count(AccessibleLength::UpTo(PAGE_SIZE)), 3 * PAGE_SIZE);
        assert_eq!(
            count(AccessibleLength::Nothing(Barrier::Kernel)),
            4 * PAGE_SIZE
        );
    }

    /// SEMANTICS: a target does not decide what a request costs.
    #[test]
    fn a_count_takes_in_so_many_extents_only() {
        let process = FakeProcess::new(7, b"fake");
        process.reserve(0x1000, 200);
        for page in (0..200).step_by(2) {
            process.unmap(0x1000 + page * PAGE_SIZE);
        }
        let mapping = Arc::new(fake::mapping(0x1000, 200));
        let file = MappingFile::new(process.open(), mapping, FaultPolicy::Error);
        let count = |at_most| file.unreadable(at_most).unwrap();
        let part = |pages, is_all| Unreadable {
            bytes: pages * PAGE_SIZE,
            is_all,
        };
        assert_eq!(count(200), part(100, true));
        assert_eq!(count(50), part(25, false));
        assert_eq!(count(0), part(0, false));
    }
}
