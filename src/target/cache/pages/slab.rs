//! Memory for pages, taken from the system in large pieces.

use memmap2::MmapMut;

use crate::common::address::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;

/// Pages of a piece, 64 MiB, which take memory as they are touched. Each page by itself would lie
/// between whatever else is allocated meanwhile, and keep the holes around it from ever being given back.
const PIECE: usize = 16 << 10;

/// The number of a page's place, from 0 on.
pub(super) type Slot = u32;

/// Places for pages, all of one size.
#[derive(Debug)]
pub(super) struct Slab {
    capacity: usize,
    /// All of [`PIECE`] pages, but for the last one, which ends with the capacity.
    pieces: Vec<MmapMut>,
    free: Vec<Slot>,
    /// Places in use or free; past them the last piece has not been touched.
    opened: usize,
}

impl Slab {
    /// Room for so many pages, none of it taken yet.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.min(Slot::MAX as usize / 2),
            pieces: Vec::new(),
            free: Vec::new(),
            opened: 0,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Pages that it holds.
    pub(super) fn len(&self) -> usize {
        self.opened - self.free.len()
    }

    /// Holds one more page; `None` where there is no room for it, or the system has no memory.
    pub(super) fn add(&mut self, page: &[u8]) -> Option<Slot> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.open()?,
        };
        self.page_mut(slot).copy_from_slice(page);
        Some(slot)
    }

    /// A place that was never used.
    fn open(&mut self) -> Option<Slot> {
        if self.opened == self.capacity {
            return None;
        }
        if self.opened == self.pieces.len() * PIECE {
            let pages = PIECE.min(self.capacity - self.opened);
            self.pieces.push(MmapMut::map_anon(pages * PAGE).ok()?);
        }
        let slot = self.opened;
        self.opened += 1;
        Some(slot as Slot)
    }

    /// The page in a place that `add` gave.
    pub(super) fn page(&self, slot: Slot) -> &[u8] {
        let (piece, at) = (slot as usize / PIECE, slot as usize % PIECE * PAGE);
        &self.pieces[piece][at..at + PAGE]
    }

    /// The same, to be changed.
    pub(super) fn page_mut(&mut self, slot: Slot) -> &mut [u8] {
        let (piece, at) = (slot as usize / PIECE, slot as usize % PIECE * PAGE);
        &mut self.pieces[piece][at..at + PAGE]
    }

    /// Lets a page go. With the last one all memory goes.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.free.push(slot);
        if self.len() == 0 {
            *self = Self::new(self.capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: usize) -> Vec<u8> {
        vec![byte as u8; PAGE]
    }

    #[test]
    fn pages_stay_in_their_places() {
        let mut slab = Slab::new(PIECE + 3);
        let slots: Vec<Slot> = (0..PIECE + 3)
            .map(|n| slab.add(&page(n)).unwrap())
            .collect();
        assert_eq!(slab.add(&page(0)), None, "no room");
        for (number, slot) in slots.iter().enumerate() {
            assert_eq!(slab.page(*slot), page(number));
        }
        slab.remove(slots[5]);
        assert_eq!(slab.len(), PIECE + 2);
        assert_eq!(slab.add(&page(77)), Some(slots[5]));
        slab.page_mut(slots[6])[1] = 78;
        assert_eq!(slab.page(slots[5]), page(77));
        assert_eq!(slab.page(slots[6])[..3], [6, 78, 6]);
    }

    #[test]
    fn memory_is_taken_as_it_is_needed_and_goes_with_the_last_page() {
        let mut slab = Slab::new(usize::MAX);
        assert!(slab.pieces.is_empty());
        let slots: Vec<Slot> = (0..=PIECE).map(|n| slab.add(&page(n)).unwrap()).collect();
        assert_eq!(slab.pieces.len(), 2);
        for slot in slots {
            assert!(!slab.pieces.is_empty());
            slab.remove(slot);
        }
        assert!(slab.pieces.is_empty() && slab.len() == 0);
        assert_eq!(Slab::new(3).add(&page(1)), Some(0));
    }
}
