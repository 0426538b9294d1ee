//! The build-id of a program (`NT_GNU_BUILD_ID`): what the linker made of all that it has put into it, so that no two programs
//! have the same unless they are the same.
//!
//! It is read from memory, and not from the file that the program was started from: that path may lead to another one by now.

use std::borrow::Borrow;
use std::fmt::Write;

use object::LittleEndian;
use object::elf::{
    ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PT_LOAD, PT_NOTE, PT_PHDR,
};
use object::pod::{bytes_of_slice, bytes_of_slice_mut, slice_from_bytes};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};

use super::mapping::Mapping;
use super::memory::{ProcessMemory, ReadSegment};
use crate::common::address::Address;
use crate::target::auxiliary::{self, AT_PHDR, AT_PHNUM};

/// The most that is read at a time: as much as the kernel takes of program headers (`load_elf_phdrs` in `fs/binfmt_elf.c`).
const MOST: usize = 1 << 16;

/// The build-id of the program that the kernel has started, in hex. `None` where it has none, or where that cannot be read.
/// `mappings` are those of its memory, lowest address first, and `auxiliary` is its auxiliary vector.
pub(crate) fn build_id<M: Borrow<Mapping>>(
    memory: &dyn ProcessMemory,
    mappings: &[M],
    auxiliary: &[u8],
) -> Option<String> {
    let program = Program { memory, mappings };
    match auxiliary::word(auxiliary) {
        4 => program.build_id::<FileHeader32<LittleEndian>>(auxiliary),
        _ => program.build_id::<FileHeader64<LittleEndian>>(auxiliary),
    }
}

/// The memory of a program.
struct Program<'a, M> {
    memory: &'a dyn ProcessMemory,
    mappings: &'a [M],
}

impl<M: Borrow<Mapping>> Program<'_, M> {
    fn build_id<Elf: FileHeader<Endian = LittleEndian>>(&self, auxiliary: &[u8]) -> Option<String> {
        let start = auxiliary::value(auxiliary, AT_PHDR)?;
        let count = usize::try_from(auxiliary::value(auxiliary, AT_PHNUM)?).ok()?;
        let len = count.checked_mul(size_of::<Elf::ProgramHeader>())?;
        let bytes = self.read(start, len)?;
        let (headers, _) = slice_from_bytes(bytes_of_slice(&bytes), count).ok()?;
        let moved = self.moved::<Elf>(start, headers)?;
        let mut notes = headers
            .iter()
            .filter(|header| header.p_type(LittleEndian) == PT_NOTE);
        notes.find_map(|header| {
            let start: u64 = header.p_vaddr(LittleEndian).into();
            let len: u64 = header.p_filesz(LittleEndian).into();
            let len = usize::try_from(len).ok()?;
            let bytes = self.read(start.wrapping_add(moved), len)?;
            let bytes = &bytes_of_slice(&bytes)[..len];
            build_id_in::<Elf>(header.p_align(LittleEndian), bytes)
        })
    }

    /// How far the program lies from the addresses that its headers say, which are themselves at `start`.
    fn moved<Elf: FileHeader<Endian = LittleEndian>>(
        &self,
        start: u64,
        headers: &[Elf::ProgramHeader],
    ) -> Option<u64> {
        let said = headers
            .iter()
            .find(|header| header.p_type(LittleEndian) == PT_PHDR);
        if let Some(header) = said {
            return Some(start.wrapping_sub(header.p_vaddr(LittleEndian).into()));
        }
        // Programs that are linked statically do not say: then by where in the file they lie.
        let mapping = self.mapping(start)?;
        let since = start - mapping.range().start().get();
        let offset = mapping.offset().wrapping_add(since);
        headers.iter().find_map(|header| {
            let (from, len) = header.file_range(LittleEndian);
            let is_in = header.p_type(LittleEndian) == PT_LOAD && offset.wrapping_sub(from) < len;
            let address: u64 = header.p_vaddr(LittleEndian).into();
            is_in.then(|| start.wrapping_sub(address.wrapping_add(offset - from)))
        })
    }

    fn mapping(&self, at: u64) -> Option<&Mapping> {
        let at = Address::new(at);
        let after = self
            .mappings
            .partition_point(|mapping| mapping.borrow().range().end() <= at);
        let mapping = self.mappings.get(after)?.borrow();
        mapping.range().contains(at).then_some(mapping)
    }

    /// So many bytes, aligned and filled up to whole words.
    fn read(&self, start: u64, len: usize) -> Option<Vec<u64>> {
        let mapping = self.mapping(start)?;
        if len == 0 || len > MOST {
            return None;
        }
        let mut words = vec![0_u64; len.div_ceil(size_of::<u64>())];
        let segment = ReadSegment {
            address: Address::new(start),
            buffer: &mut bytes_of_slice_mut(&mut words)[..len],
            mapping,
        };
        (self.memory.read(&mut [segment]) == Ok(len)).then_some(words)
    }
}

/// The build-id among the notes of a segment.
fn build_id_in<Elf: FileHeader<Endian = LittleEndian>>(
    align: Elf::Word,
    notes: &[u8],
) -> Option<String> {
    let notes = NoteIterator::<Elf>::new(LittleEndian, align, notes).ok()?;
    let mut known = notes.map_while(Result::ok);
    let note = known
        .find(|note| note.name() == ELF_NOTE_GNU && note.n_type(LittleEndian) == NT_GNU_BUILD_ID)?;
    Some(hex(note.desc())).filter(|id| !id.is_empty())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // A String takes whatever is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::common::address::PAGE_SIZE;
    use crate::common::clock::SystemClock;
    use crate::common::metrics::Metrics;
    use crate::target::fake::FakeProcess;
    use crate::target::live::{LiveSource, SourceOptions};
    use crate::target::mapping::AddressSpace;
    use crate::target::{ProcessId, ProcessSource};

    /// Where the headers are in the page of [`page`].
    const HEADERS: usize = 0x40;

    /// Where the notes are.
    const NOTES: usize = 0x200;

    /// Tags of the kinds of headers.
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    const PHDR: u32 = 6;

    /// A program header; what it is of lies in the file at `offset`, and in memory at `offset` from `base`.
    fn header(word: usize, kind: u32, base: u64, offset: usize, len: usize) -> Vec<u8> {
        let (kind, flags) = (kind.to_le_bytes(), 4_u32.to_le_bytes());
        let word = |number: u64| number.to_le_bytes()[..word].to_vec();
        let (offset, len) = (offset as u64, word(len as u64));
        let place = [word(offset), word(base + offset), word(base + offset)].concat();
        let align = word(4);
        match align.len() {
            8 => [&kind[..], &flags, &place, &len, &len, &align].concat(),
            _ => [&kind[..], &place, &len, &len, &flags, &align].concat(),
        }
    }

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let padded = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let numbers = [name.len() as u32, value.len() as u32, kind].map(u32::to_le_bytes);
        [numbers.concat(), padded(name), padded(value)].concat()
    }

    /// The first page of a program that was linked for `base`, and its auxiliary vector where it was loaded at `start`.
    fn program(
        word: usize,
        (base, start): (u64, u64),
        says_where: bool,
        id: Option<&[u8]>,
    ) -> (Vec<u8>, Vec<u8>) {
        let mut notes = note(b"Go\0", 3, b"another's");
        notes.extend(note(b"GNU\0", 1, &[9; 16]));
        if let Some(id) = id {
            notes.extend(note(b"GNU\0", 3, id));
        }
        let mut headers = vec![
            header(word, LOAD, base, 0, PAGE_SIZE as usize),
            header(word, NOTE, base, NOTES, notes.len()),
        ];
        if says_where {
            headers.insert(0, header(word, PHDR, base, HEADERS, 3 * 56));
        }
        let mut page = vec![0; PAGE_SIZE as usize];
        let bytes = headers.concat();
        page[HEADERS..HEADERS + bytes.len()].copy_from_slice(&bytes);
        page[NOTES..NOTES + notes.len()].copy_from_slice(&notes);
        let size = if word == 8 { 56 } else { 32 };
        let entries = [
            (AT_PHDR, start + HEADERS as u64),
            (4, size),
            (AT_PHNUM, headers.len() as u64),
            (0, 0),
        ];
        (page, auxiliary::of_entries(word, &entries))
    }

    /// Gives a process a program with this build-id, in a mapping of its own at `start`.
    pub(crate) fn load(process: &FakeProcess, start: u64, id: &[u8]) {
        let (page, auxiliary) = program(8, (0, start), true, Some(id));
        process.map(start, &page).set_auxiliary(&auxiliary);
    }

    fn id_of(page: &[u8], auxiliary: &[u8], start: u64) -> Option<String> {
        let process = FakeProcess::new(7, b"fake");
        process.map(start, page);
        let end = start + PAGE_SIZE;
        let maps = format!(
            "1000-2000 rw-p 00000000 00:00 0\n{start:x}-{end:x} r--p 00000000 08:01 7 /bin/x\n"
        );
        let space = AddressSpace::parse(maps.as_bytes()).unwrap();
        build_id(&*process.open(), space.mappings(), auxiliary)
    }

    #[test]
    fn the_note_is_found_whatever_the_program() {
        for word in [8, 4] {
            // Where it was linked for, elsewhere, and below that.
            for place in [
                (0x40_0000, 0x40_0000),
                (0, 0x5655_5000),
                (0x70_0000, 0x1_0000),
            ] {
                for says_where in [true, false] {
                    let id = [0xab, 0, 0x7f];
                    let (page, auxiliary) = program(word, place, says_where, Some(&id));
                    let found = id_of(&page, &auxiliary, place.1);
                    assert_eq!(
                        found.as_deref(),
                        Some("ab007f"),
                        "{word} {place:x?} {says_where}"
                    );
                    let (page, auxiliary) = program(word, place, says_where, None);
                    assert_eq!(id_of(&page, &auxiliary, place.1), None);
                }
            }
        }
    }

    /// A program can write over its own headers.
    #[test]
    fn what_is_no_program_has_none() {
        let start = 0x40_0000;
        let (page, auxiliary) = program(8, (0, start), true, Some(&[1; 20]));
        assert!(id_of(&page, &auxiliary, start).is_some());
        for len in [
            0,
            1,
            HEADERS,
            HEADERS + 60,
            HEADERS + 3 * 56,
            NOTES,
            NOTES + 8,
        ] {
            let mut spoiled = page.clone();
            for filling in [0, 0xff] {
                spoiled[len..].fill(filling);
                assert_eq!(id_of(&spoiled, &auxiliary, start), None, "{len} {filling}");
            }
        }
        for odd in [&b""[..], &auxiliary[..16], &[0xff; 64]] {
            assert_eq!(id_of(&page, odd, start), None);
        }
        for entries in [
            [(AT_PHDR, u64::MAX), (4, 56), (AT_PHNUM, 3)],
            [(AT_PHDR, start + 0x40), (4, 56), (AT_PHNUM, u64::MAX)],
            [(AT_PHDR, start + 0x40), (4, 56), (AT_PHNUM, 0)],
            [(AT_PHDR, start + PAGE_SIZE - 8), (4, 56), (AT_PHNUM, 3)],
        ] {
            let auxiliary = auxiliary::of_entries(8, &entries);
            assert_eq!(id_of(&page, &auxiliary, start), None, "{entries:x?}");
        }
    }

    /// That of a program of this machine is the one that its file has.
    #[test]
    fn that_of_a_live_process_is_that_of_its_file() {
        let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::default()));
        let source = LiveSource::new(SourceOptions::default(), clock, metrics).unwrap();
        let pid = ProcessId::new(std::process::id()).unwrap();
        let process = source
            .open(&source.describe(pid).unwrap().identity)
            .unwrap();
        let space = process.address_space().unwrap();
        let auxiliary = process.dump_facts().unwrap().auxiliary;
        let memory = process.memory().unwrap();
        let found = build_id(&*memory, space.mappings(), &auxiliary);
        let file = std::fs::read("/proc/self/exe").unwrap();
        let file: &[u8] = &file;
        let header = FileHeader64::<LittleEndian>::parse(file).unwrap();
        let headers = header.program_headers(LittleEndian, file).unwrap();
        let mut notes = headers.iter().filter_map(|header| {
            let notes = header.notes(LittleEndian, file).ok()??;
            let mut ids = notes.flatten().filter(|note| {
                note.name() == ELF_NOTE_GNU && note.n_type(LittleEndian) == NT_GNU_BUILD_ID
            });
            ids.next().map(|note| hex(note.desc()))
        });
        assert_eq!(found, notes.next());
    }
}
