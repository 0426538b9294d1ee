//! Inode numbers, and the nodes that the kernel knows by them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use parking_lot::RwLock;

use super::node::{Node, NodeKey};
use crate::common::error::{Error, Result};

/// The number of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What tells objects apart that have the same number one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// The mount point's inode (`FUSE_ROOT_ID`).
pub const ROOT: Inode = Inode(1);

/// The lowest number that is not the root's.
const LOWEST: u32 = 2;

#[derive(Debug)]
struct Known {
    node: Node,
    /// How often the kernel was told of it, less how often it said it forgot.
    lookups: u64,
}

/// The nodes that the kernel holds a reference to.
///
/// A number is a keyed hash of what the object is, so that listing a directory
/// costs no memory here, a name has the same number each time, and nobody can
/// make two objects collide on purpose. Where two do, the later one gets the
/// next free number.
///
/// Numbers fit into 32 bits: a program of 32 bits without large-file support gets `EOVERFLOW`
/// from `stat` and `readdir` for others (`cp_new_stat` of `fs/stat.c`, glibc's `getdents`). The
/// other half of the hash is the generation, so that a file handle of an object that is gone
/// never opens another one.
///
/// A tree, since it grows by small steps: a hash table of the same nodes would
/// be copied as a whole now and then, and keep its size when they are gone.
#[derive(Debug)]
pub struct InodeTable {
    hasher: RandomState,
    known: RwLock<BTreeMap<Inode, Known>>,
}

impl Default for InodeTable {
    fn default() -> Self {
        let root = Known {
            node: Node::Root,
            lookups: 1,
        };
        Self {
            hasher: RandomState::new(),
            known: RwLock::new(BTreeMap::from([(ROOT, root)])),
        }
    }
}

impl InodeTable {
    /// The node that the kernel calls `inode`.
    ///
    /// # Errors
    /// `NoEntry` where it was never told of one, or has forgotten it.
    pub fn get(&self, inode: Inode) -> Result<Node> {
        self.known
            .read()
            .get(&inode)
            .map(|known| known.node.clone())
            .ok_or(Error::NoEntry)
    }

    /// The number of a node, whether or not the kernel holds it.
    pub fn number(&self, node: &Node) -> Inode {
        let hash = self.hasher.hash_one(node.key());
        place(&self.known.read(), node.key(), hash)
    }

    /// Counts a reference that the kernel is about to get, and returns its number and generation.
    pub fn remember(&self, node: &Node) -> (Inode, Generation) {
        let hash = self.hasher.hash_one(node.key());
        let mut known = self.known.write();
        let inode = place(&known, node.key(), hash);
        let node = node.clone();
        let former = match known.entry(inode) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.lookups += 1;
                // The same object may be known better now: where its file ends, say.
                Some(std::mem::replace(&mut entry.node, node))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Known { node, lookups: 1 });
                None
            }
        };
        drop(known);
        // Outside the lock: this may be the last one to refer to a process or a mapping.
        drop(former);
        (inode, Generation((hash >> 32) as u32))
    }

    /// Takes references back.
    pub fn forget(&self, inode: Inode, lookups: u64) {
        if inode == ROOT {
            return;
        }
        let mut known = self.known.write();
        let Entry::Occupied(mut entry) = known.entry(inode) else {
            return;
        };
        let left = entry.get().lookups.saturating_sub(lookups);
        entry.get_mut().lookups = left;
        let forgotten = (left == 0).then(|| entry.remove());
        drop(known);
        // As above.
        drop(forgotten);
    }

    /// How many nodes the kernel holds.
    pub fn len(&self) -> usize {
        self.known.read().len()
    }

    /// Whether the kernel holds none; never, since it holds the root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The number of what has this key, by the hash of that.
fn place(known: &BTreeMap<Inode, Known>, key: NodeKey<'_>, hash: u64) -> Inode {
    if key == NodeKey::Root {
        return ROOT;
    }
    let mut number = (hash as u32).max(LOWEST);
    while known
        .get(&Inode(number.into()))
        .is_some_and(|other| other.node.key() != key)
    {
        number = number.checked_add(1).unwrap_or(LOWEST);
    }
    Inode(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ProcessId;

    fn link(pid: u32) -> Node {
        Node::CommandLink(ProcessId::new(pid).unwrap())
    }

    #[test]
    fn a_node_lives_as_long_as_the_kernel_refers_to_it() {
        let table = InodeTable::default();
        let inode = table.remember(&link(5)).0;
        assert_eq!(table.remember(&link(5)).0, inode);
        assert_ne!(table.remember(&link(6)).0, inode);
        table.forget(inode, 1);
        assert!(table.get(inode).is_ok());
        table.forget(inode, 1);
        assert!(matches!(table.get(inode), Err(Error::NoEntry)));
        assert_eq!(table.number(&link(5)), inode, "the number stays the same");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let table = InodeTable::default();
        table.forget(ROOT, u64::MAX);
        assert!(matches!(table.get(ROOT), Ok(Node::Root)));
        assert_eq!(table.number(&Node::Root), ROOT);
    }

    #[test]
    fn two_objects_never_have_one_number() {
        let table = InodeTable::default();
        let inode = table.remember(&link(5)).0;
        let other = Known {
            node: link(6),
            lookups: 1,
        };
        table.known.write().insert(inode, other);
        let next = table.remember(&link(5)).0;
        assert_ne!(next, inode);
        assert_eq!(table.number(&link(5)), next);
        assert!(matches!(table.get(inode), Ok(Node::CommandLink(pid)) if pid.get() == 6));
        assert!(matches!(table.get(next), Ok(Node::CommandLink(pid)) if pid.get() == 5));
    }

    /// SEMANTICS: inode numbers fit into 32 bits.
    #[test]
    fn numbers_fit_into_32_bits_and_the_generation_is_the_rest() {
        let table = InodeTable::default();
        let mut generations = std::collections::BTreeSet::new();
        for pid in 1..1000 {
            let (number, generation) = table.remember(&link(pid));
            assert!((u64::from(LOWEST)..=u64::from(u32::MAX)).contains(&number.0));
            generations.insert(generation);
        }
        assert_eq!(table.len(), 1000, "no two have the same number");
        assert!(generations.len() > 990, "{}", generations.len());
        assert_eq!(table.remember(&link(5)), table.remember(&link(5)));
    }

    #[test]
    fn a_node_that_is_known_takes_little_room() {
        assert!(size_of::<(Inode, Known)>() <= 40);
    }

    #[test]
    fn forgetting_too_much_does_no_harm() {
        let table = InodeTable::default();
        let inode = table.remember(&link(5)).0;
        table.forget(inode, 10);
        table.forget(inode, 1);
        assert!(matches!(table.get(inode), Err(Error::NoEntry)));
    }
}
