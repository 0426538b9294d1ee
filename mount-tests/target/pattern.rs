//! The bytes that a region holds: a function of address and generation.
//!
//! The target writes them, the tests compute them again. No two words of one
//! generation are alike, so a byte from a wrong address or from a wrong
//! program cannot pass for a right one.

/// One step of splitmix64.
const fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `bytes`, which begin at `address` (a multiple of 8), with the
/// pattern of `generation`.
pub(crate) fn fill(bytes: &mut [u8], address: u64, generation: u64) {
    for (word, chunk) in (address / 8..).zip(bytes.chunks_mut(8)) {
        let value = splitmix64(word ^ (generation << 56)).to_le_bytes();
        chunk.copy_from_slice(&value[..chunk.len()]);
    }
}

/// The `len` bytes of `generation` that begin at `address`.
pub(crate) fn bytes(address: u64, len: usize, generation: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, address, generation);
    bytes
}
