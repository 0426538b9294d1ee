//! Bytes around those that were asked for, for readers that jump about in one place.

use std::ops::Range;
use std::sync::Arc;

use super::FileSystem;
use crate::cache::Epoch;
use crate::mapping::Extent;
use crate::tree::{Handle, Inode, OpenMemory, OpenView};
use crate::view::{MappingFile, Short};

/// A range of a file that is worth having in the kernel's cache.
#[derive(Debug)]
pub struct Surroundings {
    /// Its file.
    pub inode: Inode,
    /// Where it lies, in bytes.
    pub range: Range<u64>,
    /// When they were asked for: the next epoch may have no use for them.
    epoch: Epoch,
    open: Arc<OpenMemory>,
}

impl Surroundings {
    /// The parts of them that nobody has asked for: what the kernel has, or is about to get, may be newer.
    pub fn unasked(&self) -> Vec<Range<u64>> {
        self.open.scatter.unasked(self.epoch, &self.range)
    }
}

impl FileSystem {
    /// Takes note of a read that the kernel's cache did not serve, before it is served, and returns
    /// what the kernel should be given, for the next reads not to come here.
    pub fn surroundings(&self, handle: u64, offset: u64, len: usize) -> Option<Surroundings> {
        let Ok(Handle::Memory(open)) = self.handles.get(handle) else {
            return None;
        };
        let size = self.surrounded(&open)?.size();
        let epoch = self.services.freshness.current(&open.process.epoch);
        let range = open.scatter.note(epoch, offset, len as u64, size)?;
        Some(Surroundings {
            inode: open.inode,
            range,
            epoch,
            open,
        })
    }

    /// Reads them; `false` where they cannot be had, or are not worth it any more.
    pub fn read_surroundings(&self, wanted: &Surroundings, bytes: &mut Vec<u8>) -> bool {
        let Some(file) = self.surrounded(&wanted.open) else {
            return false;
        };
        bytes.resize((wanted.range.end - wanted.range.start) as usize, 0);
        self.may_show(wanted)
            && file.read_at(wanted.range.start, bytes, Short::Refused) == Ok(bytes.len())
    }

    /// Whether what was read when they were asked for may still be shown: nobody has opened the
    /// process's memory or written since, and the bound has not passed.
    pub fn may_show(&self, wanted: &Surroundings) -> bool {
        self.services.freshness.current(&wanted.open.process.epoch) == wanted.epoch
    }

    /// The file behind a handle, if the kernel may be given more of it than it asked for.
    fn surrounded<'a>(&self, open: &'a OpenMemory) -> Option<&'a MappingFile> {
        match &open.view {
            // A file that the kernel keeps nothing of has no use for it, and who may touch absent
            // pages must touch no other than those asked for. What is given to the kernel behind
            // the end that it knows would move that end: so only where it cannot move.
            OpenView::Mapping(file)
                if open.short == Short::Refused
                    && !self.options.touch
                    && file.extent() == Extent::Whole =>
            {
                Some(file)
            }
            _ => None,
        }
    }
}
