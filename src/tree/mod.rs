//! The names of the mount: what there is, under which inode, and who holds it open.

mod handles;
mod inodes;
mod listing;
mod node;
mod pass;
mod processes;

pub use handles::{Handle, HandleTable, OpenMemory, OpenProcess, OpenView};
pub use inodes::{Generation, Inode, InodeTable, ROOT};
pub use listing::{LISTING_VALID, Listing, OpenDirectory};
pub use node::{Kind, Node, WellKnown};
pub use pass::{Found, Pass};
pub use processes::{ProcessTable, Snapshot};

/// A name in a directory and what it stands for.
#[derive(Clone, Debug)]
pub struct DirectoryEntry {
    /// The name.
    pub name: String,
    /// The object.
    pub node: Node,
}
