//! What of a mapping belongs into a core file: the rules of `vma_dump_size` in `fs/coredump.c`, by core(5)'s filter.

use crate::target::DumpVma;
use crate::target::mapping::Mapping;

/// Private pages of no file.
const ANON_PRIVATE: u32 = 1 << 0;
/// Shared memory that has no name any more.
const ANON_SHARED: u32 = 1 << 1;
/// Private pages of files.
const MAPPED_PRIVATE: u32 = 1 << 2;
/// Shared pages of files.
const MAPPED_SHARED: u32 = 1 << 3;
/// The first page of each ELF file.
const ELF_HEADERS: u32 = 1 << 4;
/// Private huge pages.
const HUGETLB_PRIVATE: u32 = 1 << 5;
/// Shared huge pages.
const HUGETLB_SHARED: u32 = 1 << 6;

/// How much of a mapping is dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dumped {
    Whole,
    /// Its first page, if the file is an ELF one.
    HeaderOfElf,
    Nothing,
}

/// What is dumped of `mapping`; the first rule that says something counts.
pub(super) fn dumped(mapping: &Mapping, vma: &DumpVma, filter: u32) -> Dumped {
    let has = |bit| filter & bit != 0;
    let whole_if = |is_whole| {
        if is_whole {
            Dumped::Whole
        } else {
            Dumped::Nothing
        }
    };
    let protection = mapping.protection();
    if mapping.is_special() {
        return Dumped::Whole;
    }
    if vma.is_left_out {
        return Dumped::Nothing;
    }
    if vma.is_huge {
        return whole_if(match protection.shared {
            true => has(HUGETLB_SHARED),
            false => has(HUGETLB_PRIVATE),
        });
    }
    if vma.is_device {
        return Dumped::Nothing;
    }
    if protection.shared {
        return whole_if(match mapping.is_deleted() {
            true => has(ANON_SHARED),
            false => has(MAPPED_SHARED),
        });
    }
    // The kernel asks whether it ever had such pages; it does not tell that, but whether it has some.
    if vma.anonymous > 0 && has(ANON_PRIVATE) {
        return Dumped::Whole;
    }
    if !mapping.has_file() {
        return Dumped::Nothing;
    }
    if has(MAPPED_PRIVATE) {
        return Dumped::Whole;
    }
    if has(ELF_HEADERS) && mapping.offset() == 0 && protection.read {
        return Dumped::HeaderOfElf;
    }
    Dumped::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::mapping::AddressSpace;

    const DEFAULT: u32 = 0x33;
    const ALL: u32 = 0x7f;

    fn of(line: &str, vma: &DumpVma, filter: u32) -> Dumped {
        let space = AddressSpace::parse(line.as_bytes()).unwrap();
        dumped(&space.mappings()[0], vma, filter)
    }

    #[test]
    fn the_rules_are_those_of_the_kernel() {
        let plain = DumpVma::default();
        let written = DumpVma {
            anonymous: 4096,
            ..plain
        };
        let left_out = DumpVma {
            is_left_out: true,
            ..written
        };
        let huge = DumpVma {
            is_huge: true,
            ..plain
        };
        let device = DumpVma {
            is_device: true,
            ..written
        };
        let heap = "1000-5000 rw-p 00000000 00:00 0 [heap]";
        let elf = "1000-5000 r--p 00000000 08:01 7 /lib/x.so";
        let code = "1000-5000 r-xp 00001000 08:01 7 /lib/x.so";
        let shared = "1000-5000 rw-s 00000000 08:01 7 /var/x";
        let unlinked = "1000-5000 rw-s 00000000 00:01 7 /memfd:x (deleted)";
        let vdso = "1000-5000 r-xp 00000000 00:00 0 [vdso]";
        let table = [
            (heap, written, DEFAULT, Dumped::Whole),
            (heap, written, 0, Dumped::Nothing),
            (heap, plain, ALL, Dumped::Nothing),
            (heap, left_out, ALL, Dumped::Nothing),
            (heap, device, ALL, Dumped::Nothing),
            (heap, huge, DEFAULT, Dumped::Whole),
            (heap, huge, DEFAULT & !HUGETLB_PRIVATE, Dumped::Nothing),
            (unlinked, huge, DEFAULT, Dumped::Nothing),
            (unlinked, huge, ALL, Dumped::Whole),
            (unlinked, plain, DEFAULT, Dumped::Whole),
            (unlinked, plain, DEFAULT & !ANON_SHARED, Dumped::Nothing),
            (shared, plain, DEFAULT, Dumped::Nothing),
            (shared, plain, MAPPED_SHARED, Dumped::Whole),
            (elf, plain, DEFAULT, Dumped::HeaderOfElf),
            (elf, written, DEFAULT, Dumped::Whole),
            (elf, written, ELF_HEADERS, Dumped::HeaderOfElf),
            (elf, plain, MAPPED_PRIVATE, Dumped::Whole),
            (elf, plain, 0, Dumped::Nothing),
            (code, plain, DEFAULT, Dumped::Nothing),
            (vdso, left_out, 0, Dumped::Whole),
        ];
        for (line, vma, filter, expected) in table {
            let found = of(line, &vma, filter);
            assert_eq!(found, expected, "{line} {vma:?} {filter:#x}");
        }
    }
}
