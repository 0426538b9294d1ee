//! A core file, whose memory is that of a process.

use std::sync::Arc;

use super::range::{Manner, Seek, Unreadable, Window};
use super::{FaultPolicy, Short};
use crate::common::error::{Error, Result};
use crate::coredump::{CoreImage, Part};
use crate::target::ProcessMemory;
use crate::target::mapping::Mapping;

/// What cannot be read is zeros, as in core files of the kernel (`dump_user_range` in `fs/coredump.c`): whoever reads one from
/// the beginning to the end does not expect an error.
const MANNER: Manner = Manner {
    faults: FaultPolicy::Zero,
    short: Short::Refused,
};

/// One core file of one pinned process.
#[derive(Debug)]
pub struct CoreFile {
    memory: Arc<dyn ProcessMemory>,
    mappings: Arc<[Arc<Mapping>]>,
    image: CoreImage,
}

impl CoreFile {
    /// The file that `image` describes; `mappings` are those that it was made of.
    pub fn new(
        memory: Arc<dyn ProcessMemory>,
        mappings: Arc<[Arc<Mapping>]>,
        image: CoreImage,
    ) -> Self {
        Self {
            memory,
            mappings,
            image,
        }
    }

    /// What it is made of, but for the memory.
    pub fn image(&self) -> &CoreImage {
        &self.image
    }

    /// Reads from `offset` on, and returns how many bytes it got: fewer than `buffer` holds at the end of the file.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, and whatever else the memory says but that it cannot be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.image.size().saturating_sub(offset);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let rest = &mut buffer[done..wanted];
            done += match self.place(at) {
                Place::Headers => copy(&self.image.headers()[at as usize..], rest),
                Place::Gap(end) => {
                    let len = up_to(rest.len(), end - at);
                    rest[..len].fill(0);
                    len
                }
                Place::Memory(part) => {
                    let len = up_to(rest.len(), part.end() - at);
                    let window = self.window(part, &self.mappings);
                    window.read_at(at - part.offset, &mut rest[..len], MANNER)?
                }
            };
        }
        Ok(done)
    }

    /// Where data or a hole starts, from `offset` on; the end of the file counts as a hole.
    ///
    /// # Errors
    /// `NoMoreData` at and past the end, and for data where only holes are left.
    pub fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        let size = self.image.size();
        if offset >= size {
            return Err(Error::NoMoreData);
        }
        let mut at = offset;
        while at < size {
            at = match (self.place(at), whence) {
                (Place::Headers, Seek::Data) | (Place::Gap(_), Seek::Hole) => return Ok(at),
                (Place::Headers, Seek::Hole) => self.image.headers().len() as u64,
                (Place::Gap(end), Seek::Data) => end,
                (Place::Memory(part), whence) => {
                    let window = self.window(part, &self.mappings);
                    match window.seek(at - part.offset, whence) {
                        Ok(found) if part.offset + found < part.end() => {
                            return Ok(part.offset + found);
                        }
                        // Its end counts as a hole to the window alone.
                        Ok(_) | Err(Error::NoMoreData) => part.end(),
                        Err(error) => return Err(error),
                    }
                }
            };
        }
        match whence {
            Seek::Hole => Ok(size),
            Seek::Data => Err(Error::NoMoreData),
        }
    }

    /// Counts the bytes that are zeros because they cannot be read now; takes in `at_most` extents.
    ///
    /// # Errors
    /// Whatever the memory says.
    pub fn unreadable(&self, at_most: usize) -> Result<Unreadable> {
        let mut found = Unreadable {
            bytes: 0,
            is_all: true,
        };
        for (taken, part) in self.image.parts().iter().enumerate() {
            let start = part.range.start();
            let of_part = self
                .mappings
                .partition_point(|it| it.range().end() <= start);
            let mappings = self.mappings.get(of_part..=of_part).unwrap_or_default();
            let left = at_most.saturating_sub(taken);
            let of_part = self.window(part, mappings).unreadable(left)?;
            found.bytes += of_part.bytes;
            found.is_all &= of_part.is_all;
        }
        Ok(found)
    }

    fn window<'a>(&'a self, part: &Part, mappings: &'a [Arc<Mapping>]) -> Window<'a> {
        Window {
            memory: &*self.memory,
            mappings,
            range: part.range,
        }
    }

    fn place(&self, at: u64) -> Place<'_> {
        if at < self.image.headers().len() as u64 {
            return Place::Headers;
        }
        let parts = self.image.parts();
        match parts.get(parts.partition_point(|part| part.end() <= at)) {
            Some(part) if part.offset <= at => Place::Memory(part),
            Some(part) => Place::Gap(part.offset),
            None => Place::Gap(self.image.size()),
        }
    }
}

/// What lies at an offset.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Headers,
    /// Zeros, up to there.
    Gap(u64),
    Memory(&'a Part),
}

fn up_to(len: usize, bound: u64) -> usize {
    usize::try_from(bound).map_or(len, |bound| len.min(bound))
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::PAGE_SIZE;
    use crate::coredump::CoreSource;
    use crate::target::fake::FakeProcess;
    use crate::target::mapping::AddressSpace;
    use crate::target::{DumpFacts, DumpVma};

    const PAGE: usize = PAGE_SIZE as usize;

    /// A heap of four pages, the second never written and the third unreadable; a library of which nothing is dumped; a stack.
    fn file() -> (FakeProcess, CoreFile) {
        let process = FakeProcess::new(7, b"fake");
        process.map(0x10000, &[1; PAGE]).reserve(0x11000, 1);
        process
            .map(0x13000, &[3; PAGE])
            .map(0x90000, &[9; 2 * PAGE]);
        let maps = b"10000-14000 rw-p 00000000 00:00 0 [heap]\n\
            50000-60000 r--p 00001000 08:01 7 /lib/x\n\
            90000-92000 rw-p 00000000 00:00 0 [stack]\n";
        let space = AddressSpace::parse(maps).unwrap();
        let mappings: Arc<[_]> = space.mappings().iter().cloned().map(Arc::new).collect();
        let vmas = mappings.iter().map(|mapping| DumpVma {
            range: mapping.range(),
            anonymous: if mapping.has_file() { 0 } else { PAGE_SIZE },
            ..DumpVma::default()
        });
        let facts = DumpFacts {
            filter: 0x33,
            vmas: vmas.collect(),
            ..DumpFacts::default()
        };
        let source = CoreSource {
            facts: &facts,
            threads: &[],
            mappings: &mappings,
            is_full: false,
        };
        let image = CoreImage::new(source, |_| false);
        (
            process.clone(),
            CoreFile::new(process.open(), mappings, image),
        )
    }

    #[test]
    fn memory_follows_the_headers_in_the_order_of_addresses() {
        let (_, file) = file();
        let size = usize::try_from(file.image().size()).unwrap();
        let mut bytes = vec![0xee; size + 100];
        assert_eq!(file.read_at(0, &mut bytes), Ok(size));
        let headers = file.image().headers();
        assert_eq!(&bytes[..headers.len()], headers);
        let first = PAGE;
        assert!(bytes[headers.len()..first].iter().all(|byte| *byte == 0));
        let memory: Vec<u8> = bytes[first..size]
            .chunks(PAGE)
            .map(|page| page[7])
            .collect();
        assert_eq!(memory, [1, 0, 0, 3, 9, 9], "what cannot be read is zeros");
        // However it is cut up.
        for step in [1000, PAGE, 3 * PAGE + 1] {
            let mut pieces: Vec<u8> = Vec::new();
            while pieces.len() < size {
                let mut piece = vec![0; step];
                let len = file.read_at(pieces.len() as u64, &mut piece).unwrap();
                pieces.extend(&piece[..len]);
            }
            assert!(pieces == bytes[..size], "{step}");
        }
        for past in [file.image().size(), u64::MAX] {
            assert_eq!(file.read_at(past, &mut bytes), Ok(0));
        }
    }

    #[test]
    fn holes_are_what_was_never_written_and_what_cannot_be_read() {
        let (_, file) = file();
        let headers = file.image().headers().len() as u64;
        let size = file.image().size();
        let page = |number: u64| number * PAGE_SIZE;
        assert_eq!(file.seek(0, Seek::Data), Ok(0));
        assert_eq!(file.seek(0, Seek::Hole), Ok(headers));
        assert_eq!(file.seek(headers, Seek::Data), Ok(page(1)));
        assert_eq!(file.seek(page(1), Seek::Hole), Ok(page(2)));
        assert_eq!(file.seek(page(2), Seek::Data), Ok(page(4)));
        // From one mapping to the next without a hole.
        assert_eq!(file.seek(page(4), Seek::Hole), Ok(size));
        assert_eq!(file.seek(size, Seek::Hole), Err(Error::NoMoreData));
        assert_eq!(file.seek(u64::MAX, Seek::Data), Err(Error::NoMoreData));
        let unreadable = file.unreadable(100).unwrap();
        assert_eq!((unreadable.bytes, unreadable.is_all), (PAGE_SIZE, true));
        assert!(!file.unreadable(1).unwrap().is_all);
    }

    #[test]
    fn a_lost_process_is_an_error() {
        let (process, file) = file();
        process.end();
        let ended = Err(Error::Ended(process.identity().pid));
        assert_eq!(file.read_at(PAGE_SIZE, &mut [0; 8]), ended);
        assert_eq!(file.read_at(0, &mut [0; 8]), Ok(8), "the headers are there");
    }
}
