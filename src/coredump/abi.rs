//! For what kind of machine a program is: how wide its words are, and which registers it has.

use object::elf;

use crate::target::auxiliary;

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
        match auxiliary::word(auxiliary) {
            4 => narrow,
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
