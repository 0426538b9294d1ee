//! This process's own vDSO: the kernel gives every process of a kind the same (vdso(7)).

use std::sync::OnceLock;

/// Copies from our vDSO, if it is `len` bytes long; a 32-bit program has another.
pub(super) fn copy(len: u64, offset: u64, buffer: &mut [u8]) -> bool {
    static OWN: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let Some(own) = OWN.get_or_init(read_own) else {
        return false;
    };
    let Ok(from) = usize::try_from(offset) else {
        return false;
    };
    match own.get(from..from + buffer.len()) {
        Some(bytes) if own.len() as u64 == len => {
            buffer.copy_from_slice(bytes);
            true
        }
        _ => false,
    }
}

fn read_own() -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;

    let maps = std::fs::read("/proc/self/maps").ok()?;
    let space = crate::mapping::AddressSpace::parse(&maps).ok()?;
    let vdso = space.mappings().iter().find(|mapping| mapping.is_vdso())?;
    let mut bytes = vec![0; usize::try_from(vdso.range().len()).ok()?];
    let mem = std::fs::File::open("/proc/self/mem").ok()?;
    mem.read_exact_at(&mut bytes, vdso.range().start().get())
        .ok()?;
    Some(bytes)
}
