//! Which pages of a large reservation hold something.

/// `count` page-aligned offsets below `len`, in order, one in each part of
/// equal length, nowhere at a regular distance; the last page is one of them.
pub(crate) fn offsets(len: usize, count: usize) -> Vec<usize> {
    const PAGE: usize = 4096;
    let pages_each = len / PAGE / count;
    let mut offsets: Vec<usize> = (0..count)
        .map(|part| {
            let odd = part.wrapping_mul(0x9e37_79b9) >> 7;
            (part * pages_each + odd % pages_each) * PAGE
        })
        .collect();
    if let Some(last) = offsets.last_mut() {
        *last = len - PAGE;
    }
    offsets
}
