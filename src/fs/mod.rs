//! Every operation of the file system as a plain function; no type of FUSE's in it.

mod attributes;
mod directory;
mod held;
mod io;
mod opened;
mod place;
mod xattr;

use std::sync::Arc;

use crate::common::metrics::Metrics;
use crate::common::recent::sooner;
use crate::target::ProcessSource;
use crate::target::cache::{Freshness, PageCache};
use crate::tree::{HandleTable, InodeTable, ProcessTable};
use crate::view::FaultPolicy;

pub use attributes::{Attributes, Change};
pub use directory::Involves;
pub use held::Counted;
pub use io::{Access, Opened, Written};

use held::HeldMemory;
use opened::OpenProcesses;

/// What the file system works with.
#[derive(Clone, Debug)]
pub struct Services {
    /// The processes it shows.
    pub source: Arc<dyn ProcessSource>,
    /// Memory that was read a moment ago.
    pub cache: Arc<PageCache>,
    /// How old data may be.
    pub freshness: Arc<Freshness>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
}

/// How the file system behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsOptions {
    /// Whether memory may be written (`write`).
    pub writable: bool,
    /// Whether nothing at all may be written (`ro`).
    pub read_only: bool,
    /// Whether a mapping's own protection is passed over by writes (`force`).
    pub force: bool,
    /// What becomes of unreadable bytes (`fault`).
    pub faults: FaultPolicy,
    /// Owner of whatever belongs to no process.
    pub uid: u32,
    /// Group of whatever belongs to no process.
    pub gid: u32,
}

/// The file system.
#[derive(Debug)]
pub struct FileSystem {
    services: Services,
    options: FsOptions,
    inodes: InodeTable,
    handles: HandleTable,
    processes: ProcessTable,
    opened: OpenProcesses,
    held: HeldMemory,
    /// When it was mounted, as the times of what belongs to no process show it.
    mounted: std::time::SystemTime,
}

impl FileSystem {
    /// A file system that shows the processes of `services.source`.
    pub fn new(
        services: Services,
        options: FsOptions,
        clock: Arc<dyn crate::common::clock::Clock>,
    ) -> Self {
        let mounted = clock.wall();
        Self {
            inodes: InodeTable::default(),
            opened: OpenProcesses::new(services.clone(), Arc::clone(&clock)),
            handles: HandleTable::default(),
            held: HeldMemory::new(Arc::clone(&clock), services.freshness.bound()),
            processes: ProcessTable::new(
                Arc::clone(&services.source),
                clock,
                services.freshness.bound(),
            ),
            services,
            options,
            mounted,
        }
    }

    /// The clock that it goes by.
    pub fn clock(&self) -> &Arc<dyn crate::common::clock::Clock> {
        self.services.freshness.clock()
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Closes what is kept open for speed alone and was not used for long. Returns how long it is until
    /// there is more to close; `None` where nothing is kept. May wait for a file system.
    pub fn close_unused(&self) -> Option<std::time::Duration> {
        let memory = self.opened.close_unused();
        sooner(memory, self.services.source.close_unused())
    }
}

#[cfg(test)]
pub(crate) mod tests;
