//! The auxiliary vector, as the kernel gave it to a program (getauxval(3)): pairs of a tag and a value, each a word of the program's.

/// Where the program headers lie (`include/uapi/linux/auxvec.h`).
pub(crate) const AT_PHDR: u64 = 3;

/// The size of a program header.
const AT_PHENT: u64 = 4;

/// How many of them there are.
pub(crate) const AT_PHNUM: u64 = 5;

/// Sizes of a program header of 64 and of 32 bits.
const PHENT: [u64; 2] = [56, 32];

/// Bytes of a word of the program: 8 or 4. One whose program headers are of neither size is said to have 8, as most have.
pub(crate) fn word(auxiliary: &[u8]) -> usize {
    let size = |word| value_of(auxiliary, AT_PHENT, word);
    match size(4) == Some(PHENT[1]) {
        // Read as words of 64 bits it would be found there, too, if at all.
        true if size(8) != Some(PHENT[0]) => 4,
        _ => 8,
    }
}

/// The value with this tag.
pub(crate) fn value(auxiliary: &[u8], tag: u64) -> Option<u64> {
    value_of(auxiliary, tag, word(auxiliary))
}

fn value_of(auxiliary: &[u8], tag: u64, word: usize) -> Option<u64> {
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..word].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let entries = auxiliary.chunks_exact(2 * word);
    let mut entries = entries.map(|entry| (number(&entry[..word]), number(&entry[word..])));
    entries
        .find(|(found, _)| *found == tag)
        .map(|(_, value)| value)
}

/// One with these tags and values, of words of so many bytes.
#[cfg(test)]
pub(crate) fn of_entries(word: usize, entries: &[(u64, u64)]) -> Vec<u8> {
    let words = entries.iter().flat_map(|(tag, value)| [*tag, *value]);
    words
        .flat_map(|number| number.to_le_bytes()[..word].to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_of_a_program_is_that_of_its_program_headers() {
        // AT_SYSINFO_EHDR, AT_PHDR, AT_PHENT, AT_PHNUM.
        let wide = [
            (33, 0x7fff_0000_0000),
            (AT_PHDR, 0x40_0040),
            (AT_PHENT, 56),
            (AT_PHNUM, 9),
            (0, 0),
        ];
        let narrow = [
            (32, 0xf7f0_0000),
            (33, 0xf7f0_0000),
            (AT_PHDR, 0x804_8034),
            (AT_PHENT, 32),
            (AT_PHNUM, 9),
            (0, 0),
        ];
        for (bytes, entries) in [(8, &wide[..]), (4, &narrow)] {
            let auxiliary = of_entries(bytes, entries);
            assert_eq!(word(&auxiliary), bytes);
            for (tag, expected) in entries {
                assert_eq!(value(&auxiliary, *tag), Some(*expected), "{tag}");
            }
            assert_eq!(value(&auxiliary, 4711), None);
        }
        for odd in [&b""[..], b"123", &[0; 64]] {
            assert_eq!(word(odd), 8, "as most have");
        }
    }
}
