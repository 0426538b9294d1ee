//! What callers hold open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::directory::OpenDirectory;
use super::inodes::Inode;
use crate::common::error::{Error, Result};
use crate::files::{OpenFile, OpenProcess};

/// Something that is open.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    File(FileHandle),
    Directory(Arc<OpenDirectory>),
}

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct FileHandle {
    /// Its inode, to tell the kernel what to drop.
    pub(super) inode: Inode,
    pub(super) file: Arc<dyn OpenFile>,
    /// Whether the kernel may hold some of its bytes in its own cache.
    pub(super) is_buffered: bool,
}

impl Handle {
    fn file(&self) -> Option<&FileHandle> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory(_) => None,
        }
    }
}

/// All that is open.
#[derive(Debug, Default)]
pub(super) struct HandleTable {
    next: AtomicU64,
    /// Guards which handles there are. Nothing is locked inside it, and none is dropped.
    open: RwLock<HashMap<u64, Handle>>,
}

impl HandleTable {
    /// Opens `handle`, and returns its number.
    pub(super) fn open(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, handle);
        number
    }

    /// The handle of this number.
    ///
    /// # Errors
    /// `BadHandle`.
    pub(super) fn get(&self, number: u64) -> Result<Handle> {
        self.open
            .read()
            .get(&number)
            .cloned()
            .ok_or(Error::BadHandle)
    }

    /// Closes it, and returns what it was: to be dropped outside the lock, since the last user
    /// of a process closes descriptors and empties its cache.
    pub(super) fn close(&self, number: u64) -> Option<Handle> {
        self.open.write().remove(&number)
    }

    /// How many are open.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.open.read().len()
    }

    /// Whether any handle is on this process.
    pub(super) fn uses(&self, process: &Arc<OpenProcess>) -> bool {
        let is_of = |file: &FileHandle| {
            let own = file.file.process();
            own.is_some_and(|own| Arc::ptr_eq(own, process))
        };
        self.open
            .read()
            .values()
            .filter_map(Handle::file)
            .any(is_of)
    }

    /// Whether memory is open under this inode.
    pub(super) fn holds(&self, inode: Inode) -> bool {
        let open = self.open.read();
        let mut files = open.values().filter_map(Handle::file);
        files.any(|file| file.inode == inode && file.file.process().is_some())
    }

    /// Inodes of files whose bytes the kernel may hold in its own cache.
    pub(super) fn buffered(&self) -> Vec<Inode> {
        let open = self.open.read();
        let files = open.values().filter_map(Handle::file);
        let mut inodes: Vec<Inode> = files
            .filter(|file| file.is_buffered)
            .map(|file| file.inode)
            .collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Context;
    use crate::files::view::Seek;

    #[derive(Debug)]
    struct Empty;

    impl OpenFile for Empty {
        fn read_at(&self, _context: &Context, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
            Ok(0)
        }

        fn seek(&self, _context: &Context, _offset: u64, _whence: Seek) -> Result<u64> {
            Err(Error::NoMoreData)
        }
    }

    fn handle(inode: u64, is_buffered: bool) -> Handle {
        Handle::File(FileHandle {
            inode: Inode(inode),
            file: Arc::new(Empty),
            is_buffered,
        })
    }

    #[test]
    fn a_handle_is_good_until_it_is_closed() {
        let table = HandleTable::default();
        let first = table.open(handle(5, false));
        let second = table.open(handle(6, false));
        assert_ne!(first, second);
        table.close(first);
        assert!(matches!(table.get(first), Err(Error::BadHandle)));
        let open = table.get(second).unwrap();
        assert_eq!(open.file().unwrap().inode, Inode(6));
    }

    #[test]
    fn buffered_files_are_listed_once() {
        let table = HandleTable::default();
        for (inode, is_buffered) in [(5, true), (5, true), (6, false)] {
            table.open(handle(inode, is_buffered));
        }
        assert_eq!(table.buffered(), [Inode(5)]);
    }
}
