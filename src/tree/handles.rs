//! What callers hold open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::{Inode, OpenDirectory};
use crate::common::error::{Error, Result};
use crate::target::cache::SpaceEpoch;
use crate::target::{ProcessInfo, ProcessMemory, WriteMode};
use crate::view::{MappingFile, Short};

/// A process whose memory is open: one for all handles on one program.
#[derive(Debug)]
pub struct OpenProcess {
    /// Its memory, behind the cache where there is one.
    pub memory: Arc<dyn ProcessMemory>,
    /// The freshness of all that is read from it.
    pub epoch: SpaceEpoch,
}

/// The view that a handle shows.
#[derive(Debug)]
pub enum OpenView {
    /// One mapping, as it was when it was opened.
    Mapping(MappingFile),
    /// All of an address space, with the mappings that it has at the moment.
    Space(Arc<ProcessInfo>),
}

/// An open file of memory.
#[derive(Debug)]
pub struct OpenMemory {
    /// Its inode, to tell the kernel what to drop.
    pub inode: Inode,
    /// Its bytes.
    pub view: OpenView,
    /// How a write treats the protection; `None` where it is open for reading only.
    pub write: Option<WriteMode>,
    /// Whether a read may be answered in part.
    pub short: Short,
    /// The process, held so that all who open it meanwhile share its epoch.
    pub process: Arc<OpenProcess>,
}

impl OpenMemory {
    /// Opens `view` under `inode`.
    pub fn new(
        inode: Inode,
        view: OpenView,
        write: Option<WriteMode>,
        short: Short,
        process: Arc<OpenProcess>,
    ) -> Self {
        Self {
            inode,
            view,
            write,
            short,
            process,
        }
    }
}

/// Something that is open.
#[derive(Clone, Debug)]
pub enum Handle {
    /// Memory of a process.
    Memory(Arc<OpenMemory>),
    /// A text, as it was when it was opened.
    Text(Arc<str>),
    /// A directory.
    Directory(Arc<OpenDirectory>),
}

/// All that is open.
#[derive(Debug, Default)]
pub struct HandleTable {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Handle>>,
}

impl HandleTable {
    /// Opens `handle`, and returns its number.
    pub fn open(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, handle);
        number
    }

    /// The handle of this number.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn get(&self, number: u64) -> Result<Handle> {
        self.open
            .read()
            .get(&number)
            .cloned()
            .ok_or(Error::BadHandle)
    }

    /// Closes it, and returns what it was: to be dropped outside the lock, since the last user
    /// of a process closes descriptors and empties its cache.
    pub fn close(&self, number: u64) -> Option<Handle> {
        self.open.write().remove(&number)
    }

    /// Whether any handle is on this process.
    pub fn uses(&self, process: &Arc<OpenProcess>) -> bool {
        self.open.read().values().any(
            |handle| matches!(handle, Handle::Memory(open) if Arc::ptr_eq(&open.process, process)),
        )
    }

    /// Whether memory is open under this inode.
    pub fn holds(&self, inode: Inode) -> bool {
        self.open
            .read()
            .values()
            .any(|handle| matches!(handle, Handle::Memory(open) if open.inode == inode))
    }

    /// Inodes of files whose bytes the kernel may hold in its own cache.
    pub fn buffered(&self) -> Vec<Inode> {
        let mut inodes: Vec<Inode> = self
            .open
            .read()
            .values()
            .filter_map(|handle| match handle {
                Handle::Memory(open) if open.short == Short::Refused => Some(open.inode),
                _ => None,
            })
            .collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::common::clock::ManualClock;
    use crate::target::cache::Freshness;
    use crate::target::fake::FakeProcess;
    use crate::target::mapping::AddressSpace;
    use crate::view::FaultPolicy;

    fn mapping(inode: u64, short: Short) -> OpenMemory {
        let space = AddressSpace::parse(b"1000-2000 rw-p 00000000 00:00 0\n").unwrap();
        let memory = FakeProcess::new(7, b"fake").open();
        let file = MappingFile::new(
            Arc::clone(&memory),
            Arc::new(space.mappings()[0].clone()),
            FaultPolicy::Error,
        );
        let freshness = Freshness::new(Duration::ZERO, Arc::new(ManualClock::new()));
        let epoch = freshness.new_space();
        let process = Arc::new(OpenProcess { memory, epoch });
        let view = OpenView::Mapping(file);
        OpenMemory::new(Inode(inode), view, None, short, process)
    }

    #[test]
    fn a_handle_is_good_until_it_is_closed() {
        let table = HandleTable::default();
        let first = table.open(Handle::Text("a".into()));
        let second = table.open(Handle::Text("b".into()));
        assert_ne!(first, second);
        table.close(first);
        assert!(matches!(table.get(first), Err(Error::BadHandle)));
        assert!(matches!(table.get(second), Ok(Handle::Text(text)) if &*text == "b"));
    }

    #[test]
    fn buffered_files_are_listed_once() {
        let table = HandleTable::default();
        for (inode, short) in [
            (5, Short::Refused),
            (5, Short::Refused),
            (6, Short::Allowed),
        ] {
            table.open(Handle::Memory(Arc::new(mapping(inode, short))));
        }
        assert_eq!(table.buffered(), [Inode(5)]);
    }
}
