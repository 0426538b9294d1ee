//! A map whose keys are numbers that are hashes already.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::Inode;

/// So many tables there are: each grows by itself, so that all of them never are copied at once.
const TABLES: usize = 64;

/// A table of so many places is not worth to be made smaller.
const SMALL: usize = 64;

/// Spreads numbers that are hashes already: a table looks at the highest bits, which they do not have.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Table<V> = HashMap<Inode, V, BuildHasherDefault<Spread>>;

/// Values by the number of an inode.
///
/// Many small tables, which grow and shrink by small steps: a single one would be copied as a whole now and then, and keep its
/// size once most of it is gone. A tree is searched for several times as long.
#[derive(Debug)]
pub(super) struct InodeMap<V> {
    tables: Box<[Table<V>]>,
    len: usize,
}

impl<V> Default for InodeMap<V> {
    fn default() -> Self {
        Self {
            tables: (0..TABLES).map(|_| Table::default()).collect(),
            len: 0,
        }
    }
}

impl<V> InodeMap<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, inode: Inode) -> Option<&V> {
        self.tables[table_of(inode)].get(&inode)
    }

    pub(super) fn get_mut(&mut self, inode: Inode) -> Option<&mut V> {
        self.tables[table_of(inode)].get_mut(&inode)
    }

    /// Puts a value in, in place of the former one, which it returns.
    pub(super) fn insert(&mut self, inode: Inode, value: V) -> Option<V> {
        let former = match self.tables[table_of(inode)].entry(inode) {
            Entry::Occupied(mut entry) => Some(entry.insert(value)),
            Entry::Vacant(entry) => {
                entry.insert(value);
                None
            }
        };
        self.len += usize::from(former.is_none());
        former
    }

    pub(super) fn remove(&mut self, inode: Inode) -> Option<V> {
        let table = &mut self.tables[table_of(inode)];
        let value = table.remove(&inode)?;
        // A quarter, so that it does not grow and shrink by turns.
        if table.capacity() > SMALL && table.len() < table.capacity() / 4 {
            table.shrink_to(2 * table.len());
        }
        self.len -= 1;
        Some(value)
    }
}

/// The table of a number: by bits that say little of its place in there.
fn table_of(inode: Inode) -> usize {
    (inode.0 % TABLES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let mut map = InodeMap::default();
        let inodes = || (1..20_000).map(|number| Inode(number * 7));
        for inode in inodes() {
            assert_eq!(map.insert(inode, inode.0), None);
        }
        assert_eq!(map.len(), inodes().count());
        assert_eq!(map.insert(Inode(7), 8), Some(7));
        assert_eq!(map.get_mut(Inode(7)).copied(), Some(8));
        assert_eq!(map.get(Inode(8)), None);
        for inode in inodes().skip(1) {
            assert_eq!(map.get(inode), Some(&inode.0));
            assert_eq!(map.remove(inode), Some(inode.0));
            assert_eq!(map.remove(inode), None);
        }
        assert_eq!(map.len(), 1);
        let places: usize = map.tables.iter().map(Table::capacity).sum();
        assert!(places <= TABLES * 2 * SMALL, "{places} places");
    }
}
