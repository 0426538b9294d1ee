//! Where the few pages lie that are used of a large reservation.

use super::{Noise, PAGE, SEED};

/// The offsets of so many of the pages of `bytes`, in rising order and at no
/// regular distance: one in each part of equal length, the very first and the
/// very last among them.
pub(super) fn scattered(bytes: u64, pages: u64) -> impl Iterator<Item = u64> {
    let page = PAGE as u64;
    let all = bytes / page;
    let each = all / pages;
    let mut noise = Noise(SEED);
    (0..pages).map(move |part| {
        let odd = noise.next() % each;
        let index = match part {
            0 => 0,
            _ if part + 1 == pages => all - 1,
            _ => part * each + odd,
        };
        index * page
    })
}
