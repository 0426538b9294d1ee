//! Where the bytes of a live process are.

use std::ops::{Add, AddAssign};

use super::strip::{Cell, Place, Strip};
use crate::common::address::{AddressRange, PAGE_SIZE};
use crate::common::error::Result;
use crate::target::mapping::{Mapping, Protection};
use crate::target::snapshot::ProcessRecord;
use crate::target::{Process, ProcessInfo, ProcessMemory, for_each_extent};

/// How many bytes are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts([u64; Place::ALL.len()]);

impl Amounts {
    /// Bytes that are there.
    pub fn at(self, place: Place) -> u64 {
        self.0[place as usize]
    }

    /// All of them: the length of the address space that they are of.
    pub fn size(self) -> u64 {
        self.0.iter().sum()
    }

    /// Bytes that take memory or swap.
    pub fn held(self) -> u64 {
        self.at(Place::Resident) + self.at(Place::Swapped)
    }

    /// Counts bytes that are there.
    pub fn count(&mut self, place: Place, bytes: u64) {
        self.0[place as usize] += bytes;
    }
}

impl Add for Amounts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        for (mine, more) in self.0.iter_mut().zip(other.0) {
            *mine += more;
        }
    }
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingPicture {
    /// The name of its file in a mount.
    pub name: String,
    /// The path of its file, or the kernel's name for it, printable; empty for plain anonymous memory.
    pub path: String,
    /// Where it lies.
    pub range: AddressRange,
    /// What its process may do with it.
    pub protection: Protection,
    /// How much of it is where, in whole pages.
    pub amounts: Amounts,
    /// What is where in it, lowest address first.
    pub strip: Vec<Cell>,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its number.
    pub pid: u32,
    /// Its command, printable.
    pub command: String,
    /// The path of its program, printable.
    pub program: String,
    /// Lowest address first.
    pub mappings: Vec<MappingPicture>,
}

impl Picture {
    /// How much of all mappings is where.
    pub fn totals(&self) -> Amounts {
        let each = self.mappings.iter().map(|mapping| mapping.amounts);
        each.fold(Amounts::default(), Add::add)
    }
}

/// Looks at a process, and touches none of its pages. The strip of each mapping has at most `cells` cells. `progress` is told
/// how many of how many mappings were looked at, again and again.
///
/// The process goes on meanwhile: mappings are looked at one after the other.
///
/// # Errors
/// As [`Process::address_space`] and [`ProcessMemory::extents`].
pub fn picture(
    info: &ProcessInfo,
    process: &dyn Process,
    cells: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Picture> {
    let space = process.address_space()?;
    let memory = process.memory()?;
    let count = space.mappings().len();
    let mut mappings = Vec::with_capacity(count);
    for mapping in space.mappings() {
        let done = mappings.len() as u64;
        let shown = look(&*memory, mapping, cells, &mut || {
            progress(done, count as u64);
        })?;
        mappings.push(shown);
    }
    progress(count as u64, count as u64);
    Ok(Picture {
        pid: info.identity.pid.get(),
        command: ProcessRecord::printable(&info.command),
        program: ProcessRecord::printable(&process.executable()?),
        mappings,
    })
}

fn look(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    cells: usize,
    step: &mut dyn FnMut(),
) -> Result<MappingPicture> {
    let range = mapping.range();
    let pages = |bytes: u64| bytes / PAGE_SIZE;
    let mut amounts = Amounts::default();
    let mut strip = Strip::new(pages(range.len()), cells);
    let mut take = |part: AddressRange, place| {
        amounts.count(place, part.len());
        strip.add(
            pages(part.start().since(range.start())),
            pages(part.len()),
            place,
        );
    };
    let shown = range.truncated(mapping.size()).to_pages();
    let mut at = range.start();
    for_each_extent(memory, mapping, shown, |run| {
        at = run.range.end();
        step();
        take(run.range, Place::of(run.state, mapping.has_file()));
        Ok(())
    })?;
    // Past the end of the file, or nothing that anybody may touch.
    if let Some(rest) = AddressRange::new(at, range.end()) {
        take(rest, Place::Unreadable);
    }
    Ok(MappingPicture {
        name: mapping.file_name(),
        path: ProcessRecord::printable(&mapping.link_text()),
        range,
        protection: mapping.protection(),
        amounts,
        strip: strip.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::error::Error;
    use crate::target::ProcessSource;
    use crate::target::fake::{Call, FakeProcess, FakeSource};

    const MAPS: &str = "10000-14000 rw-p 00000000 00:00 0 [heap]\n\
        50000-52000 r-xp 00001000 08:01 7 /lib/a b.so\n";

    fn look_at(process: &FakeProcess) -> Result<Picture> {
        let source = FakeSource::default();
        source.add(process.clone());
        let info = source.describe(process.identity().pid)?;
        let opened = source.open(&info.identity)?;
        picture(&info, &*opened, 4, &mut |_, _| ())
    }

    fn process() -> FakeProcess {
        let process = FakeProcess::new(7, b"fake\n");
        process.set_maps(MAPS.as_bytes());
        process.map(0x10000, &[b'a'; 8192]).reserve(0x12000, 2);
        process.swap_out(0x11000).map(0x50000, &[b'c'; 4096]);
        process
    }

    /// SEMANTICS: a picture says of each mapping where its pages are.
    #[test]
    fn each_page_is_counted_where_it_is() {
        let picture = look_at(&process()).unwrap();
        assert_eq!((picture.pid, &*picture.command), (7, "fake_"));
        let [heap, code] = &picture.mappings[..] else {
            panic!("{picture:?}");
        };
        let by_place = |amounts: Amounts| Place::ALL.map(|place| amounts.at(place));
        assert_eq!(by_place(heap.amounts), [4096, 4096, 8192, 0, 0]);
        assert_eq!(heap.amounts.held(), 8192);
        let places: Vec<Place> = heap.strip.iter().map(|cell| cell.place).collect();
        use Place::{Absent, Resident, Swapped, Zero};
        assert_eq!(places, [Resident, Swapped, Zero, Zero]);
        assert_eq!(heap.name, "000000010000-000000014000.rw-p.heap");
        // What cannot be had without harm is in its file.
        assert_eq!(by_place(code.amounts), [4096, 0, 0, 4096, 0]);
        assert_eq!(code.strip[1].place, Absent);
        assert_eq!(code.path, "/lib/a b.so");
        assert_eq!(by_place(picture.totals()), [8192, 4096, 8192, 4096, 0]);
        assert_eq!(picture.totals().size(), 6 * PAGE_SIZE);
    }

    /// SEMANTICS: a picture reads no memory.
    #[test]
    fn no_byte_is_read() {
        let process = process();
        process.take_calls();
        look_at(&process).unwrap();
        let calls = process.take_calls();
        let reads = calls.iter().filter(|call| matches!(call, Call::Read(_)));
        assert_eq!(reads.count(), 0, "{calls:?}");
    }

    #[test]
    fn a_process_that_has_ended_has_no_picture() {
        let process = process();
        process.end();
        let error = look_at(&process).unwrap_err();
        assert_eq!(error, Error::NoProcess(process.identity().pid));
    }
}
