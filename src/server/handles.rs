//! What callers hold open.

use std::collections::HashMap;
use std::sync::Arc;

use super::ahead::Stream;
use super::audit::Trail;
use super::directory::OpenDirectory;
use super::inodes::Inode;
use crate::common::error::{Error, Result};
use crate::common::sync::RwLock;
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::files::{OpenFile, OpenProcess};

/// What one user, other than the mounter, may have open: so many files, or directories of so many entries in all.
const MOST_OF_ONE_USER: usize = 4096;

/// Entries of a directory that count as a file.
const ENTRIES: usize = 64;

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
    /// What is read of it ahead, where the kernel does not.
    pub(super) stream: Option<Arc<Stream>>,
    /// What is to be told of its writes (`audit`).
    pub(super) trail: Option<Arc<Trail>>,
}

impl Handle {
    fn file(&self) -> Option<&FileHandle> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory(_) => None,
        }
    }
}

/// Something that is open, and for whom.
#[derive(Debug)]
struct Entry {
    handle: Handle,
    /// The user, where that is not the mounter.
    user: Option<u32>,
    /// For how many files it counts.
    cost: usize,
}

/// What is open, and how much of it each user has.
#[derive(Debug, Default)]
struct Open {
    handles: HashMap<u64, Entry>,
    /// The cost of all that is open for each user; none has 0.
    of_user: HashMap<u32, usize>,
}

impl Open {
    fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.handles.values().map(|entry| &entry.handle)
    }

    /// Counts for a user what costs so much, and cost something else before.
    ///
    /// # Errors
    /// `TooManyOpen` where it is more than before, and too much.
    fn count(&mut self, user: Option<u32>, before: usize, cost: usize) -> Result<()> {
        let Some(user) = user else { return Ok(()) };
        let held = self.of_user.get(&user).copied().unwrap_or_default() - before + cost;
        if cost > before && held > MOST_OF_ONE_USER {
            return Err(Error::TooManyOpen(user));
        }
        self.of_user.insert(user, held);
        Ok(())
    }
}

/// For how many files a directory of so many entries counts.
fn cost_of(entries: usize) -> usize {
    1 + entries / ENTRIES
}

/// All that is open.
#[derive(Debug, Default)]
pub(super) struct HandleTable {
    next: AtomicU64,
    /// Guards which handles there are. Nothing is locked inside it, and none is dropped.
    open: RwLock<Open>,
}

impl HandleTable {
    /// Opens `handle` for a user, where that is not the mounter, and returns its number.
    ///
    /// # Errors
    /// `TooManyOpen`.
    pub(super) fn open(&self, handle: Handle, user: Option<u32>) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let cost = match &handle {
            Handle::File(_) => 1,
            Handle::Directory(directory) => cost_of(directory.entries()),
        };
        let mut open = self.open.write();
        open.count(user, 0, cost)?;
        let entry = Entry { handle, user, cost };
        open.handles.insert(number, entry);
        Ok(number)
    }

    /// Counts a directory anew, which is about to hold so many entries.
    ///
    /// # Errors
    /// `TooManyOpen`, `BadHandle`.
    pub(super) fn recount(&self, number: u64, entries: usize) -> Result<()> {
        let mut open = self.open.write();
        let entry = open.handles.get(&number).ok_or(Error::BadHandle)?;
        let (user, before, cost) = (entry.user, entry.cost, cost_of(entries));
        open.count(user, before, cost)?;
        if let Some(entry) = open.handles.get_mut(&number) {
            entry.cost = cost;
        }
        Ok(())
    }

    /// The handle of this number.
    ///
    /// # Errors
    /// `BadHandle`.
    pub(super) fn get(&self, number: u64) -> Result<Handle> {
        let open = self.open.read();
        let entry = open.handles.get(&number).ok_or(Error::BadHandle)?;
        Ok(entry.handle.clone())
    }

    /// The file of this handle, where it is read ahead; most are not, and cost little to find out.
    pub(super) fn read_ahead(&self, number: u64) -> Option<FileHandle> {
        let open = self.open.read();
        let file = open.handles.get(&number)?.handle.file()?;
        file.stream.is_some().then(|| file.clone())
    }

    /// Closes it, and returns what it was: to be dropped outside the lock, since the last user
    /// of a process closes descriptors and empties its cache.
    pub(super) fn close(&self, number: u64) -> Option<Handle> {
        let mut open = self.open.write();
        let Entry { handle, user, cost } = open.handles.remove(&number)?;
        if let Some(user) = user
            && let Some(held) = open.of_user.get_mut(&user)
        {
            *held -= cost;
            if *held == 0 {
                open.of_user.remove(&user);
            }
        }
        Some(handle)
    }

    /// How many are open.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.open.read().handles.len()
    }

    /// Whether any handle is on this process.
    pub(super) fn uses(&self, process: &Arc<OpenProcess>) -> bool {
        let is_of = |file: &FileHandle| {
            let own = file.file.process();
            own.is_some_and(|own| Arc::ptr_eq(own, process))
        };
        let open = self.open.read();
        open.handles().filter_map(Handle::file).any(is_of)
    }

    /// The trails of all that is open.
    pub(super) fn trails(&self) -> Vec<Arc<Trail>> {
        let open = self.open.read();
        let files = open.handles().filter_map(Handle::file);
        files.filter_map(|file| file.trail.clone()).collect()
    }

    /// Whether memory is open under this inode.
    pub(super) fn holds(&self, inode: Inode) -> bool {
        let open = self.open.read();
        let mut files = open.handles().filter_map(Handle::file);
        files.any(|file| file.inode == inode && file.file.process().is_some())
    }

    /// Inodes of files whose bytes the kernel may hold in its own cache.
    pub(super) fn buffered(&self) -> Vec<Inode> {
        let open = self.open.read();
        let files = open.handles().filter_map(Handle::file);
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
    use std::time::Duration;

    use crate::files::view::Seek;
    use crate::files::{Context, Listing, Node};

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
            stream: None,
            trail: None,
        })
    }

    #[test]
    fn a_handle_is_good_until_it_is_closed() {
        let table = HandleTable::default();
        let first = table.open(handle(5, false), None).unwrap();
        let second = table.open(handle(6, false), None).unwrap();
        assert_ne!(first, second);
        table.close(first);
        assert!(matches!(table.get(first), Err(Error::BadHandle)));
        let open = table.get(second).unwrap();
        assert_eq!(open.file().unwrap().inode, Inode(6));
    }

    /// SEMANTICS: one user takes no place from another.
    #[test]
    fn what_one_user_has_open_is_bounded() {
        let table = HandleTable::default();
        let open = |user| table.open(handle(5, false), user);
        let (one, other) = (Some(1001), Some(1002));
        let first = open(one).unwrap();
        for _ in 1..MOST_OF_ONE_USER {
            open(one).unwrap();
        }
        assert_eq!(open(one), Err(Error::TooManyOpen(1001)));
        for user in [other, None] {
            assert!(open(user).is_ok());
        }
        table.close(first);
        assert!(open(one).is_ok());
        let mut listing = Listing::default();
        for _ in 0..2 * ENTRIES {
            listing.add("name", Node::ROOT);
        }
        let directory = OpenDirectory::new(Node::ROOT, listing, Duration::ZERO);
        let opened = table.open(Handle::Directory(Arc::new(directory)), other);
        let opened = opened.unwrap();
        let held = || table.open.read().of_user[&1002];
        assert_eq!(held(), 4);
        // As many entries are there when it is rewound.
        let most = (MOST_OF_ONE_USER - 2) * ENTRIES;
        assert_eq!(table.recount(opened, most), Ok(()));
        assert_eq!(held(), MOST_OF_ONE_USER);
        let more = table.recount(opened, most + ENTRIES);
        assert_eq!(more, Err(Error::TooManyOpen(1002)));
        assert_eq!(held(), MOST_OF_ONE_USER);
        assert_eq!(table.recount(opened, 0), Ok(()));
        assert_eq!(held(), 2);
        table.close(opened);
        assert_eq!(table.open.read().of_user[&1002], 1);
    }

    #[test]
    fn buffered_files_are_listed_once() {
        let table = HandleTable::default();
        for (inode, is_buffered) in [(5, true), (5, true), (6, false)] {
            table.open(handle(inode, is_buffered), None).unwrap();
        }
        assert_eq!(table.buffered(), [Inode(5)]);
    }
}
