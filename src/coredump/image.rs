//! Where what lies in a core file.

use std::sync::Arc;

use object::elf::{self, ProgramFlags};
use object::write::elf::{Encoder, FileHeader, FileHeaderLayout, ProgramHeader};

use super::abi::Abi;
use super::filter::{Dumped, dumped};
use super::notes::notes;
use crate::common::address::{AddressRange, PAGE_SIZE};
use crate::target::mapping::{Mapping, Protection};
use crate::target::{DumpFacts, DumpVma, ThreadRegisters};

/// Room for the registers of a thread: with it the size of the file is known before any thread was stopped. AVX-512 and AMX
/// take 11 KiB.
const REGISTERS: u64 = 16 << 10;

/// The largest offset in a file for programs of 32 bits.
const LARGEST_32: u64 = u32::MAX as u64;

/// What a core file is made of.
#[derive(Clone, Copy, Debug)]
pub struct CoreSource<'a> {
    /// What is to be known of the process.
    pub facts: &'a DumpFacts,
    /// The registers of its threads, the first one first; none where it was not stopped.
    pub threads: &'a [ThreadRegisters],
    /// Its mappings, lowest address first.
    pub mappings: &'a [Arc<Mapping>],
    /// Whether all is dumped that can be read, whatever the process wants.
    pub is_full: bool,
}

/// Memory that follows the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the file.
    pub offset: u64,
    /// Which it is.
    pub range: AddressRange,
}

impl Part {
    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset + self.range.len()
    }
}

/// A core file but for its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreImage {
    headers: Vec<u8>,
    parts: Vec<Part>,
    size: u64,
    held: u64,
}

impl CoreImage {
    /// Lays a core file out. `is_elf` says whether a mapping begins as an ELF file does; it is asked where that matters.
    pub fn new(source: CoreSource<'_>, mut is_elf: impl FnMut(&Mapping) -> bool) -> Self {
        let facts = source.facts;
        let abi = Abi::of(&facts.auxiliary);
        let mappings = || source.mappings.iter().map(AsRef::as_ref);
        let notes_of = |threads| notes(abi, facts, threads, mappings());
        let notes = notes_of(source.threads);
        let encoder = Encoder::new(object::Endianness::Little, abi.is_64_bit(), abi.machine());
        let layout = Layout::new(abi, encoder, source.mappings.len() + 1);
        let room = match source.threads {
            [] => notes.len(),
            _ => notes_of(&[]).len(),
        };
        let room = room as u64 + facts.threads.len() as u64 * REGISTERS;
        let notes_end = layout.notes_at + room.max(notes.len() as u64);
        let mut at = notes_end.next_multiple_of(PAGE_SIZE);
        let (mut parts, mut held) = (Vec::new(), 0);
        let mut segments = Vec::with_capacity(source.mappings.len() + 1);
        segments.push(ProgramHeader {
            p_type: elf::PT_NOTE,
            p_flags: ProgramFlags(0),
            p_offset: layout.notes_at,
            p_vaddr: 0,
            p_paddr: 0,
            p_filesz: notes.len() as u64,
            p_memsz: 0,
            p_align: 4,
        });
        let largest = if abi.is_64_bit() {
            u64::MAX
        } else {
            LARGEST_32
        };
        for mapping in mappings() {
            let vma = vma_of(facts, mapping);
            let wanted = length(mapping, &vma, source, &mut is_elf);
            let len = if at.saturating_add(wanted) > largest {
                0
            } else {
                wanted
            };
            segments.push(ProgramHeader {
                p_type: elf::PT_LOAD,
                p_flags: flags(mapping.protection()),
                p_offset: at.min(largest),
                p_vaddr: mapping.range().start().get(),
                p_paddr: 0,
                p_filesz: len,
                p_memsz: mapping.range().len(),
                p_align: PAGE_SIZE,
            });
            // The rest is zeros, as in the kernel's: past the end of a file, and what nobody can read.
            let readable = len.min(mapping.size());
            if readable > 0 {
                let range = mapping.range().truncated(readable);
                parts.push(Part { offset: at, range });
                held += vma.resident.max(vma.anonymous).min(readable);
            }
            at += len;
        }
        let headers = layout.headers(&segments, &notes);
        Self {
            headers,
            parts,
            size: at,
            held,
        }
    }

    /// Length of the file, in bytes. It is the same whether there are registers in it or not.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the process holds in memory and in swap of what is dumped, in bytes.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// What comes before the memory; zeros follow up to the first part.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// The memory, in the order of the file and without overlaps.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// What `smaps` says of a mapping; nothing, where it has changed since.
fn vma_of(facts: &DumpFacts, mapping: &Mapping) -> DumpVma {
    let start = mapping.range().start();
    let at = facts.vmas.partition_point(|vma| vma.range.end() <= start);
    let known = facts.vmas.get(at).filter(|vma| vma.range.contains(start));
    known.copied().unwrap_or_default()
}

/// How many bytes of the file are for a mapping.
fn length(
    mapping: &Mapping,
    vma: &DumpVma,
    source: CoreSource<'_>,
    is_elf: &mut impl FnMut(&Mapping) -> bool,
) -> u64 {
    let whole = mapping.range().len();
    let is_readable = mapping.size() > 0;
    if source.is_full && is_readable {
        return whole;
    }
    match dumped(mapping, vma, source.facts.filter) {
        Dumped::Whole => whole,
        Dumped::HeaderOfElf if is_readable && is_elf(mapping) => whole.min(PAGE_SIZE),
        Dumped::HeaderOfElf | Dumped::Nothing => 0,
    }
}

fn flags(protection: Protection) -> ProgramFlags {
    let flag = |is_set, flag: ProgramFlags| if is_set { flag.0 } else { 0 };
    ProgramFlags(
        flag(protection.read, elf::PF_R)
            | flag(protection.write, elf::PF_W)
            | flag(protection.execute, elf::PF_X),
    )
}

/// The headers: that of the file, those of the segments, one of a section where there are too many of these, and the notes.
#[derive(Debug)]
struct Layout {
    abi: Abi,
    encoder: Encoder<object::Endianness>,
    file: FileHeaderLayout,
    notes_at: u64,
}

impl Layout {
    fn new(abi: Abi, encoder: Encoder<object::Endianness>, segments: usize) -> Self {
        let e_phoff = encoder.file_header_size();
        let segment_num = u32::try_from(segments).unwrap_or(u32::MAX);
        let after = e_phoff + u64::from(segment_num) * encoder.program_header_size();
        // The header of section 0 holds the number of segments where it does not fit.
        let is_large = segment_num >= u32::from(elf::PN_XNUM);
        let (e_shoff, section_num, notes_at) = match is_large {
            true => (after, 1, after + encoder.section_header_size()),
            false => (0, 0, after),
        };
        let file = FileHeaderLayout {
            e_phoff,
            segment_num,
            e_shoff,
            section_num,
            shstrtab_index: 0,
        };
        Self {
            abi,
            encoder,
            file,
            notes_at,
        }
    }

    fn headers(&self, segments: &[ProgramHeader], notes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = FileHeader {
            e_type: elf::ET_CORE,
            e_machine: self.abi.machine(),
            ..FileHeader::default()
        };
        let encoded = self.encoder.file_header(&mut bytes, &header, &self.file);
        debug_assert!(encoded.is_ok(), "a section is there where it is needed");
        for segment in segments {
            self.encoder.program_header(&mut bytes, segment);
        }
        if self.file.section_num > 0 {
            self.encoder.null_section_header(&mut bytes, &self.file);
        }
        bytes.extend(notes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::Address;
    use crate::target::auxiliary;
    use crate::target::mapping::{AccessibleLength, AddressSpace};
    use crate::target::{RegisterSet, ThreadStatus, register_kind as kind};

    const MAPS: &[u8] = b"10000-14000 rw-p 00000000 00:00 0 [heap]\n\
        50000-60000 r--p 00000000 08:01 7 /lib/x\n\
        60000-70000 r-xp 00010000 08:01 7 /lib/x\n\
        90000-92000 rw-p 00000000 00:00 0 [stack]\n";

    fn mappings(maps: &[u8]) -> Vec<Arc<Mapping>> {
        let space = AddressSpace::parse(maps).unwrap();
        space.mappings().iter().cloned().map(Arc::new).collect()
    }

    /// Of a process whose anonymous mappings have all been written.
    fn facts(mappings: &[Arc<Mapping>], threads: i32) -> DumpFacts {
        let vmas = mappings.iter().map(|mapping| DumpVma {
            range: mapping.range(),
            anonymous: if mapping.has_file() { 0 } else { PAGE_SIZE },
            ..DumpVma::default()
        });
        let threads = (7..7 + threads).map(|tid| ThreadStatus {
            tid,
            ..ThreadStatus::default()
        });
        DumpFacts {
            threads: threads.collect(),
            filter: 0x33,
            vmas: vmas.collect(),
            ..DumpFacts::default()
        }
    }

    fn registers(tid: i32, len: usize) -> ThreadRegisters {
        ThreadRegisters {
            tid,
            sets: vec![RegisterSet {
                kind: kind::PRSTATUS,
                bytes: vec![0; len],
            }],
            signal: None,
        }
    }

    fn image(facts: &DumpFacts, threads: &[ThreadRegisters], is_full: bool) -> CoreImage {
        let mappings = mappings(MAPS);
        let source = CoreSource {
            facts,
            threads,
            mappings: &mappings,
            is_full,
        };
        CoreImage::new(source, |mapping| mapping.offset() == 0)
    }

    fn number<const LEN: usize>(bytes: &[u8], at: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..LEN].copy_from_slice(&bytes[at..at + LEN]);
        u64::from_le_bytes(wide)
    }

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    #[test]
    fn parts_are_those_of_the_filter_in_the_order_of_addresses() {
        let facts = facts(&mappings(MAPS), 1);
        let image = image(&facts, &[registers(7, 216)], false);
        let ranges: Vec<_> = image.parts().iter().map(|part| part.range).collect();
        let expected = [
            range(0x10000, 0x14000),
            range(0x50000, 0x51000),
            range(0x90000, 0x92000),
        ];
        assert_eq!(ranges, expected);
        let mut at = image.parts()[0].offset;
        assert_eq!(at % PAGE_SIZE, 0);
        for part in image.parts() {
            assert_eq!(part.offset, at);
            at = part.end();
        }
        assert_eq!(image.size(), at);
        assert_eq!(image.held(), 2 * PAGE_SIZE);
    }

    /// The end of a mapping of a file that is shorter is in the kernel's cores, too: as zeros.
    #[test]
    fn what_nobody_can_read_is_left_out_of_the_parts_alone() {
        let mut space = AddressSpace::parse(MAPS).unwrap();
        for mapping in space.mappings_mut() {
            if mapping.range().start() == Address::new(0x10000) {
                mapping.set_accessible_length(AccessibleLength::UpTo(0x1000));
            }
        }
        let mappings: Vec<_> = space.mappings().iter().cloned().map(Arc::new).collect();
        let facts = facts(&mappings, 1);
        for is_full in [false, true] {
            let source = CoreSource {
                facts: &facts,
                threads: &[],
                mappings: &mappings,
                is_full,
            };
            let image = CoreImage::new(source, |_| true);
            let [heap, next, ..] = image.parts() else {
                panic!("{:?}", image.parts());
            };
            assert_eq!(heap.range, range(0x10000, 0x11000));
            assert_eq!(next.offset, heap.offset + 0x4000);
            assert_eq!(number::<8>(&image.headers()[64 + 56..], 32), 0x4000);
        }
    }

    #[test]
    fn everything_is_there_where_that_is_wanted() {
        let facts = facts(&mappings(MAPS), 1);
        let image = image(&facts, &[], true);
        let whole: u64 = image.parts().iter().map(|part| part.range.len()).sum();
        assert_eq!(whole, 0x4000 + 0x10000 + 0x10000 + 0x2000);
    }

    #[test]
    fn the_size_does_not_depend_on_registers() {
        for threads in [1, 3, 200] {
            let facts = facts(&mappings(MAPS), threads);
            let without = image(&facts, &[], false);
            let registers: Vec<_> = (7..7 + threads).map(|tid| registers(tid, 4096)).collect();
            let with = image(&facts, &registers, false);
            assert_eq!(with.size(), without.size());
            assert_eq!(with.parts(), without.parts());
            assert!(with.headers().len() > without.headers().len());
            assert!(with.headers().len() as u64 <= with.parts()[0].offset);
        }
        // More than there is room for.
        let facts = facts(&mappings(MAPS), 1);
        let image = image(&facts, &[registers(7, 100_000)], false);
        assert!(image.headers().len() as u64 <= image.parts()[0].offset);
    }

    #[test]
    fn headers_are_those_of_an_elf_core_file() {
        let mut facts = facts(&mappings(MAPS), 1);
        let wide = image(&facts, &[], false);
        let bytes = wide.headers();
        assert_eq!(bytes[..7], *b"\x7fELF\x02\x01\x01");
        assert_eq!(
            [number::<2>(bytes, 16), number::<2>(bytes, 18)],
            [4, 62],
            "ET_CORE"
        );
        assert_eq!(number::<8>(bytes, 32), 64, "e_phoff");
        assert_eq!([number::<2>(bytes, 54), number::<2>(bytes, 56)], [56, 5]);
        let heap = &bytes[64 + 56..];
        assert_eq!(
            [number::<4>(heap, 0), number::<4>(heap, 4)],
            [1, 6],
            "PT_LOAD, rw-"
        );
        assert_eq!(number::<8>(heap, 8), wide.parts()[0].offset);
        assert_eq!([number::<8>(heap, 16), number::<8>(heap, 24)], [0x10000, 0]);
        assert_eq!([number::<8>(heap, 32), number::<8>(heap, 40)], [0x4000; 2]);
        assert_eq!(number::<8>(heap, 48), PAGE_SIZE);
        facts.auxiliary = auxiliary::of_entries(4, &[(4, 32), (0, 0)]);
        let narrow = image(&facts, &[], false);
        let bytes = narrow.headers();
        assert_eq!(bytes[..7], *b"\x7fELF\x01\x01\x01");
        assert_eq!(number::<2>(bytes, 18), 3, "EM_386");
        let heap = &bytes[52 + 32..];
        assert_eq!(number::<4>(heap, 4), narrow.parts()[0].offset);
        assert_eq!([number::<4>(heap, 16), number::<4>(heap, 24)], [0x4000, 6]);
    }

    /// PN_XNUM in elf(5).
    #[test]
    fn more_mappings_than_a_header_can_count_are_counted_in_a_section() {
        let maps: String = (1..=70_000_u64)
            .map(|page| {
                format!(
                    "{:x}-{:x} rw-p 0 00:00 0\n",
                    page * 0x2000,
                    page * 0x2000 + 0x1000
                )
            })
            .collect();
        let mappings = mappings(maps.as_bytes());
        let facts = facts(&mappings, 1);
        let source = CoreSource {
            facts: &facts,
            threads: &[],
            mappings: &mappings,
            is_full: false,
        };
        let image = CoreImage::new(source, |_| false);
        let bytes = image.headers();
        assert_eq!(number::<2>(bytes, 56), 0xffff, "PN_XNUM");
        let section = number::<8>(bytes, 40) as usize;
        assert_eq!(section, 64 + 70_001 * 56);
        assert_eq!(number::<2>(bytes, 60), 1, "one section");
        assert_eq!(number::<4>(bytes, section + 44), 70_001, "sh_info");
        assert_eq!(image.parts().len(), 70_000);
        assert_eq!(
            number::<8>(bytes, 64 + 8) as usize,
            section + 64,
            "notes follow"
        );
    }
}
