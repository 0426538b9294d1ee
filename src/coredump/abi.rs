//! For what kind of machine a program is: how wide its words are, and which registers it has.

use object::elf;

/// A tag and a value of the auxiliary vector (getauxval(3)): the size of a program header.
const AT_PHENT: u64 = 4;

/// Sizes of a program header.
const PHENT: [u64; 2] = [56, 32];

/// The binary interface of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

/// Those of 64 and of 32 bits that run on the machine that this program is built for.
const NATIVE: [Abi; 2] = if cfg!(target_arch = "aarch64") {
    [Abi::Aarch64, Abi::Arm]
} else {
    [Abi::X86_64, Abi::X86]
};

impl Abi {
    /// That of the program with this auxiliary vector.
    pub(super) fn of(auxiliary: &[u8]) -> Self {
        let [wide, narrow] = NATIVE;
        match value(auxiliary, AT_PHENT, 4) == Some(PHENT[1]) {
            // Read as words of 64 bits it would be found there, too, if at all.
            true if value(auxiliary, AT_PHENT, 8) != Some(PHENT[0]) => narrow,
            _ => wide,
        }
    }

    pub(super) fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// Bytes of a word.
    pub(super) fn word(self) -> usize {
        if self.is_64_bit() { 8 } else { 4 }
    }

    pub(super) fn machine(self) -> elf::Machine {
        match self {
            Self::X86_64 => elf::EM_X86_64,
            Self::X86 => elf::EM_386,
            Self::Aarch64 => elf::EM_AARCH64,
            Self::Arm => elf::EM_ARM,
        }
    }
}

/// A value of the auxiliary vector, whose words have so many bytes.
fn value(auxiliary: &[u8], tag: u64, word: usize) -> Option<u64> {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::coredump) fn auxiliary(word: usize, entries: &[(u64, u64)]) -> Vec<u8> {
        let words = entries.iter().flat_map(|(tag, value)| [*tag, *value]);
        words
            .flat_map(|number| number.to_le_bytes()[..word].to_vec())
            .collect()
    }

    #[test]
    fn the_width_of_a_program_is_that_of_its_program_headers() {
        // AT_SYSINFO_EHDR, AT_PHDR, AT_PHENT, AT_PHNUM.
        let wide = [
            (33, 0x7fff_0000_0000),
            (3, 0x40_0040),
            (4, 56),
            (5, 9),
            (0, 0),
        ];
        let narrow = [
            (32, 0xf7f0_0000),
            (33, 0xf7f0_0000),
            (3, 0x804_8034),
            (4, 32),
            (0, 0),
        ];
        assert!(Abi::of(&auxiliary(8, &wide)).is_64_bit());
        assert!(!Abi::of(&auxiliary(4, &narrow)).is_64_bit());
        for odd in [&b""[..], b"123", &[0; 64]] {
            assert!(Abi::of(odd).is_64_bit(), "as most are");
        }
    }
}
