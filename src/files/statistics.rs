//! What `df` and `stat -f` show: the room for snapshots, which are all that can be made here.

use super::Context;
use crate::common::address::PAGE_SIZE;
use crate::target::mapping::MAX_NAME;

/// The file system as a whole (statfs(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Bytes of a block.
    pub(crate) block_size: u32,
    /// Blocks that there are, used or not.
    pub(crate) blocks: u64,
    /// Those that are not used.
    pub(crate) free: u64,
    /// Those of them that can be had.
    pub(crate) available: u64,
    /// Inodes that there can be; 0 where they are not counted.
    pub(crate) files: u64,
    /// Those of them that are not used.
    pub(crate) files_free: u64,
    /// The most bytes of a name.
    pub(crate) name_length: u32,
}

impl Context {
    /// The room that snapshots take, and what they can take besides: no more than `snap_size`, and no more than can be had. It is none where no
    /// snapshot can be taken. Files are not counted, as on btrfs: they come and go with processes, and none can be made.
    ///
    /// The memory of processes is not in it. It is no one's to make room in here, and a file system that is full makes monitors cry.
    ///
    /// May wait for the file system of `snap_dir`, and for no process.
    pub(crate) fn statistics(&self) -> Statistics {
        let budget = &self.services.budget;
        let (limit, taken) = (budget.limit(), budget.taken());
        let is_closed = self.options.read_only || self.options.no_stop;
        let left = match is_closed {
            true => 0,
            false => limit
                .saturating_sub(taken)
                .min(self.services.stores.available()),
        };
        let free = left / PAGE_SIZE;
        Statistics {
            block_size: PAGE_SIZE as u32,
            blocks: taken.div_ceil(PAGE_SIZE) + free,
            free,
            available: free,
            files: 0,
            files_free: 0,
            name_length: MAX_NAME as u32,
        }
    }
}
