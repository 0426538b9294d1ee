//! Inode numbers, and the nodes that the kernel knows by them.

mod map;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use crate::common::error::{Error, Result};
use crate::common::sync::RwLock;
use crate::files::Node;

use map::InodeMap;

/// The number of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Inode(pub(crate) u64);

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What tells objects apart that have the same number one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u32);

/// The mount point's inode (`FUSE_ROOT_ID`).
pub(crate) const ROOT: Inode = Inode(1);

/// The lowest number that is not the root's.
const LOWEST: u32 = 2;

#[derive(Debug)]
struct Known {
    node: Node,
    /// How often the kernel was told of it, less how often it said it forgot; never 0.
    lookups: u64,
}

/// The nodes that the kernel holds a reference to.
///
/// A number is a keyed hash of what the object is, so that listing a directory
/// costs no memory here, a name has the same number each time, and nobody can
/// make two objects collide on purpose. Where two do, the later one gets the
/// next free number, and keeps it as long as the kernel holds it.
///
/// Numbers fit into 32 bits: a program of 32 bits without large-file support gets `EOVERFLOW`
/// from `stat` and `readdir` for others (`cp_new_stat` of `fs/stat.c`, glibc's `getdents`). The
/// other half of the hash is the generation, so that a file handle of an object that is gone
/// never opens another one.
#[derive(Debug)]
pub(super) struct InodeTable {
    hasher: RandomState,
    /// Guards which nodes the kernel holds. Nothing is locked inside it, and no node is dropped.
    nodes: RwLock<Nodes>,
}

/// So many nodes that their memory is worth giving back to the system: some 9 MB.
const MANY: usize = 1 << 16;

/// So few that they keep hardly any of it: nodes that stay lie scattered among those that go.
const FEW: usize = 1 << 10;

/// What the kernel holds.
#[derive(Debug)]
struct Nodes {
    /// The most that there were since memory was given back.
    most: usize,
    /// Whether there were many, and are more than a few since.
    were_many: bool,
    known: InodeMap<Known>,
    /// Those among them that have another number than their hash says: all are in `known`. There is hardly ever one.
    displaced: Vec<Inode>,
}

impl Default for InodeTable {
    fn default() -> Self {
        let root = Known {
            node: Node::ROOT,
            lookups: 1,
        };
        let mut known = InodeMap::default();
        known.insert(ROOT, root);
        Self {
            hasher: RandomState::new(),
            nodes: RwLock::new(Nodes {
                most: 1,
                were_many: false,
                known,
                displaced: Vec::new(),
            }),
        }
    }
}

impl InodeTable {
    /// The node that the kernel calls `inode`.
    ///
    /// # Errors
    /// `NoEntry` where it was never told of one, or has forgotten it.
    pub(super) fn get(&self, inode: Inode) -> Result<Node> {
        let nodes = self.nodes.read();
        let known = nodes.known.get(inode).ok_or(Error::NoEntry)?;
        Ok(known.node.clone())
    }

    /// The number of a node, whether or not the kernel holds it.
    pub(super) fn number(&self, node: &Node) -> Inode {
        let hash = self.hasher.hash_one(node);
        self.nodes.read().number(node, hash)
    }

    /// Counts a reference that the kernel is about to get, and returns its number and generation.
    pub(super) fn remember(&self, node: &Node) -> (Inode, Generation) {
        let hash = self.hasher.hash_one(node);
        let mut nodes = self.nodes.write();
        let inode = nodes.number(node, hash);
        let node = node.clone();
        let former = match nodes.known.get_mut(inode) {
            Some(known) => {
                known.lookups += 1;
                // The same object may be known better now: where its file ends, say.
                Some(std::mem::replace(&mut known.node, node))
            }
            None => {
                nodes.known.insert(inode, Known { node, lookups: 1 });
                if inode != first_choice(hash) && inode != ROOT {
                    nodes.displaced.push(inode);
                }
                None
            }
        };
        nodes.most = nodes.most.max(nodes.known.len());
        nodes.were_many |= nodes.most >= MANY;
        nodes.check();
        drop(nodes);
        // Outside the lock: this may be the last one to refer to a process or a mapping.
        drop(former);
        (inode, Generation((hash >> 32) as u32))
    }

    /// Takes references back. Returns whether so many nodes were dropped since this last said so that their memory is worth
    /// giving back.
    pub(super) fn forget(&self, inode: Inode, lookups: u64) -> bool {
        if inode == ROOT {
            return false;
        }
        let mut nodes = self.nodes.write();
        let Some(known) = nodes.known.get_mut(inode) else {
            return false;
        };
        known.lookups = known.lookups.saturating_sub(lookups);
        let is_forgotten = known.lookups == 0;
        let forgotten = is_forgotten.then(|| nodes.known.remove(inode));
        if is_forgotten {
            nodes.displaced.retain(|displaced| *displaced != inode);
        }
        let left = nodes.known.len();
        let is_much = nodes.were_many && left <= nodes.most / 2;
        if is_much {
            nodes.most = left;
            nodes.were_many = left > FEW;
        }
        nodes.check();
        drop(nodes);
        // As above.
        drop(forgotten);
        is_much
    }

    /// How many nodes the kernel holds: never none, since it holds the root.
    pub(super) fn len(&self) -> usize {
        self.nodes.read().known.len()
    }
}

/// The number of what has this hash, where nothing else has it.
fn first_choice(hash: u64) -> Inode {
    Inode((hash as u32).max(LOWEST).into())
}

impl Nodes {
    /// The number of a node that has this hash.
    fn number(&self, node: &Node, hash: u64) -> Inode {
        if *node == Node::ROOT {
            return ROOT;
        }
        let is_node = |inode: &Inode| {
            let known = self.known.get(*inode);
            known.is_some_and(|known| known.node == *node)
        };
        // It keeps its number though what took its first choice may be gone.
        if let Some(displaced) = self.displaced.iter().find(|inode| is_node(inode)) {
            return *displaced;
        }
        let mut inode = first_choice(hash);
        while let Some(known) = self.known.get(inode)
            && known.node != *node
        {
            let next = u32::try_from(inode.0 + 1).unwrap_or(LOWEST);
            inode = Inode(next.into());
        }
        inode
    }

    /// Whether what is displaced is held; debug builds check it.
    fn check(&self) {
        debug_assert!(
            self.displaced
                .iter()
                .all(|inode| self.known.get(*inode).is_some()),
            "only what the kernel holds has a number to keep"
        );
        debug_assert!(self.known.get(ROOT).is_some(), "the root stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ProcessId;

    fn link(pid: u32) -> Node {
        Node::command_link(ProcessId::new(pid).unwrap())
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
        assert_eq!(table.get(ROOT), Ok(Node::ROOT));
        assert_eq!(table.number(&Node::ROOT), ROOT);
    }

    #[test]
    fn two_objects_never_have_one_number() {
        let table = InodeTable::default();
        let inode = table.remember(&link(5)).0;
        let other = Known {
            node: link(6),
            lookups: 1,
        };
        table.nodes.write().known.insert(inode, other);
        let next = table.remember(&link(5)).0;
        assert_ne!(next, inode);
        assert_eq!(table.number(&link(5)), next);
        assert_eq!(table.get(inode), Ok(link(6)));
        assert_eq!(table.get(next), Ok(link(5)));
        table.forget(inode, 1);
        assert_eq!(table.number(&link(5)), next, "it keeps its number");
        table.forget(next, 1);
        assert_eq!(table.number(&link(5)), inode);
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
    fn memory_is_worth_giving_back_each_time_that_half_of_it_is_gone() {
        let table = InodeTable::default();
        let inodes: Vec<Inode> = (1..=MANY as u32)
            .map(|pid| table.remember(&link(pid)).0)
            .collect();
        let mut left = Vec::new();
        for inode in &inodes {
            if table.forget(*inode, 1) {
                left.push(table.len());
            }
        }
        assert_eq!(left.len(), 6, "{left:?}");
        assert!(left[0] > MANY / 3 && left[5] <= FEW, "{left:?}");
        assert_eq!(table.len(), 1);
        for inode in &inodes[..10] {
            assert!(!table.forget(*inode, 1));
        }
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
