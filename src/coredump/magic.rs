//! How an ELF file begins.

use crate::target::mapping::Mapping;
use crate::target::{ProcessMemory, ReadSegment};

/// The first bytes of each ELF file (elf(5)).
const ELF: [u8; 4] = *b"\x7fELF";

/// Whether a mapping begins as an ELF file does, which [`CoreImage::new`](super::CoreImage::new) asks. `false` where that
/// cannot be read.
pub fn begins_as_elf(memory: &dyn ProcessMemory, mapping: &Mapping) -> bool {
    let mut start = [0; ELF.len()];
    let segment = ReadSegment {
        address: mapping.range().start(),
        buffer: &mut start,
        mapping,
    };
    memory.read(&mut [segment]) == Ok(ELF.len()) && start == ELF
}
