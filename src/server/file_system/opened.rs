//! What an open is answered with.

use std::sync::Arc;

use crate::server::inodes::Inode;
use crate::target::snapshot::KeptStore;

/// A file or a directory that was opened.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) handle: u64,
    /// Whether the kernel must keep none of its pages.
    pub(crate) direct: bool,
    /// Whether it may keep them for as long as it likes.
    pub(crate) is_constant: bool,
    /// The inode whose attributes the kernel must forget first.
    pub(in crate::server) stale: Option<Inode>,
    /// The store that the kernel may read itself, where it can.
    pub(crate) backing: Option<Arc<KeptStore>>,
}

/// No two handles have one number.
#[cfg(test)]
impl PartialEq for Opened {
    fn eq(&self, other: &Self) -> bool {
        self.handle == other.handle
    }
}

impl Opened {
    /// A directory.
    pub(in crate::server) fn new(handle: u64) -> Self {
        Self {
            handle,
            direct: false,
            is_constant: false,
            stale: None,
            backing: None,
        }
    }
}
