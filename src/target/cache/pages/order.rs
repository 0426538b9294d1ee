//! The order in which pages were used, in two generations.

use super::slab::Slot;

/// How a page has proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// It has come in.
    Probation,
    /// It was asked for again.
    Proven,
}

/// The neighbours of a slot in its generation, by their positions.
#[derive(Clone, Copy, Debug)]
struct Link {
    generation: Generation,
    older: u32,
    newer: u32,
}

/// Two rings of slots. Each has one position more, between its newest and its
/// oldest slot, and those two come before the slots' own.
///
/// Two `lru::LruCache`s in their place took a quarter longer for a hit of one page, half as long again for
/// pages that lie apart, and up to a third more memory beside each page, in pieces that stayed when it was forgotten.
#[derive(Debug)]
pub(super) struct Order {
    links: Vec<Link>,
    len: [usize; 2],
}

const RINGS: [Generation; 2] = [Generation::Probation, Generation::Proven];

fn position(slot: Slot) -> usize {
    slot as usize + RINGS.len()
}

impl Default for Order {
    fn default() -> Self {
        let empty = |generation| Link {
            generation,
            older: generation as u32,
            newer: generation as u32,
        };
        Self {
            links: RINGS.map(empty).to_vec(),
            len: [0; 2],
        }
    }
}

impl Order {
    /// Bytes for each slot.
    #[cfg(test)]
    pub(super) const COST: usize = size_of::<Link>();

    /// Slots of a generation.
    pub(super) fn len(&self, generation: Generation) -> usize {
        self.len[generation as usize]
    }

    /// The generation of a slot that was put in.
    pub(super) fn generation(&self, slot: Slot) -> Generation {
        self.links[position(slot)].generation
    }

    /// Whether there is memory for one slot more.
    pub(super) fn try_reserve(&mut self) -> bool {
        self.links.try_reserve(1).is_ok()
    }

    /// Puts a slot that is in neither into a generation, as its newest.
    pub(super) fn put(&mut self, generation: Generation, slot: Slot) {
        let (ring, at) = (generation as usize, position(slot));
        let link = Link {
            generation,
            older: self.links[ring].older,
            newer: ring as u32,
        };
        if at >= self.links.len() {
            self.links.resize(at + 1, link);
        }
        self.links[at] = link;
        self.links[link.older as usize].newer = at as u32;
        self.links[ring].older = at as u32;
        self.len[ring] += 1;
    }

    /// Takes a slot out of its generation.
    pub(super) fn take(&mut self, slot: Slot) {
        let link = self.links[position(slot)];
        self.links[link.older as usize].newer = link.newer;
        self.links[link.newer as usize].older = link.older;
        self.len[link.generation as usize] -= 1;
    }

    /// Makes a slot the newest of a generation.
    pub(super) fn renew(&mut self, generation: Generation, slot: Slot) {
        if self.links[generation as usize].older as usize != position(slot) {
            self.take(slot);
            self.put(generation, slot);
        }
    }

    /// The slot of a generation that was not used for the longest time.
    pub(super) fn oldest(&self, generation: Generation) -> Option<Slot> {
        self.oldest_first(generation).next()
    }

    /// The slots of a generation, the one that was not used for the longest time first.
    pub(super) fn oldest_first(&self, generation: Generation) -> impl Iterator<Item = Slot> {
        let mut at = generation as usize;
        std::iter::from_fn(move || {
            at = self.links[at].newer as usize;
            at.checked_sub(RINGS.len()).map(|slot| slot as Slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Generation::{Probation, Proven};
    use super::*;

    fn drain(order: &mut Order, generation: Generation) -> Vec<Slot> {
        let mut slots = Vec::new();
        while let Some(slot) = order.oldest(generation) {
            assert_eq!(order.generation(slot), generation);
            order.take(slot);
            slots.push(slot);
        }
        assert_eq!(order.len(generation), 0);
        slots
    }

    #[test]
    fn the_oldest_comes_first() {
        let mut order = Order::default();
        assert_eq!(order.oldest(Probation), None);
        for slot in 0..6 {
            order.put(Probation, slot);
        }
        for slot in [3, 0, 5, 5] {
            order.renew(Proven, slot);
        }
        order.renew(Probation, 1);
        order.renew(Probation, 1);
        assert_eq!((order.len(Probation), order.len(Proven)), (3, 3));
        assert_eq!(drain(&mut order, Probation), [2, 4, 1]);
        assert_eq!(drain(&mut order, Proven), [3, 0, 5]);
        order.put(Proven, 2);
        assert_eq!(drain(&mut order, Proven), [2]);
    }
}
