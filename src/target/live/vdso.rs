//! This process's own vDSO: the kernel gives every process of a kind the same (vdso(7)).

use std::sync::OnceLock;

use super::vm;
use crate::common::address::AddressRange;

/// Where the addresses of 32-bit programs end: theirs is another one.
const END_OF_32_BITS: u64 = 1 << 32;

/// Copies from our vDSO, if that of the process, at `range`, is of our kind.
pub(super) fn copy(range: AddressRange, offset: u64, buffer: &mut [u8]) -> bool {
    static OWN: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let Some(own) = OWN.get_or_init(read_own) else {
        return false;
    };
    if range.start().get() < END_OF_32_BITS {
        return false;
    }
    let Ok(from) = usize::try_from(offset) else {
        return false;
    };
    match own.get(from..from + buffer.len()) {
        Some(bytes) if own.len() as u64 == range.len() => {
            buffer.copy_from_slice(bytes);
            true
        }
        _ => false,
    }
}

fn read_own() -> Option<Vec<u8>> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let space = crate::target::mapping::AddressSpace::parse(&maps).ok()?;
    let vdso = space.mappings().iter().find(|mapping| mapping.is_vdso())?;
    let mut bytes = vec![0; usize::try_from(vdso.range().len()).ok()?];
    vm::read_own(vdso.range().start(), &mut bytes).ok()?;
    Some(bytes)
}
