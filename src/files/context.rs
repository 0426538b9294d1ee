//! What all files of one mount share: the processes they show, and how they behave.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::block_sizes::{BlockSizes, DirectReads};
use super::by_cgroup::CgroupTable;
use super::core::CoreTable;
use super::opened::OpenProcesses;
use super::processes::ProcessTable;
use super::snap::SnapshotTable;
use super::usage::MemoryUsages;
use super::view::FaultPolicy;
use super::{Caller, Node, Subject};
use crate::common::choice::Choice;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
#[cfg(test)]
use crate::target::ProcessIdentity;
use crate::target::cache::{Freshness, PageCache};
use crate::target::snapshot::{Budget, StoreSource};
use crate::target::{self, ProcessInfo, ProcessSource, Program};

/// What the files work with.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// The processes they show.
    pub(crate) source: Arc<dyn ProcessSource>,
    /// Memory that was read a moment ago.
    pub(crate) cache: Arc<PageCache>,
    /// How old data may be.
    pub(crate) freshness: Arc<Freshness>,
    /// Where pages of snapshots go.
    pub(crate) stores: Arc<dyn StoreSource>,
    /// How many of them there may be.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// How the files behave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileOptions {
    /// Whether memory may be written (`write`).
    pub(crate) writable: bool,
    /// Whether nothing at all may be written (`ro`).
    pub(crate) read_only: bool,
    /// Whether a mapping's own protection is passed over by writes (`force`).
    pub(crate) force: bool,
    /// Whether others than the mounter may enter, each judged by their own credentials (`allow_other`).
    pub(crate) allow_other: bool,
    /// Whether no process is ever stopped, also not for the registers of its core file (`nostop`).
    pub(crate) no_stop: bool,
    /// Whether a thread of a process may be made to open a `userfaultfd`, so that it stands still for a shorter time (`inject`).
    pub(crate) inject: bool,
    /// Whether all that can be read is in a core file (`fullcore`).
    pub(crate) full_core: bool,
    /// What becomes of unreadable bytes (`fault`).
    pub(crate) faults: FaultPolicy,
    /// Whether files are opened past the kernel's page cache (`direct`).
    pub(crate) direct: Choice,
    /// Owner of whatever belongs to no process.
    pub(crate) uid: u32,
    /// Group of whatever belongs to no process.
    pub(crate) gid: u32,
}

impl FileOptions {
    /// Whether memory may be written at all.
    ///
    /// # Errors
    /// `ReadOnlyMount`, `WriteOff`.
    pub(super) fn check_writable(&self) -> Result<()> {
        match (self.writable, self.read_only) {
            (true, _) => Ok(()),
            // The kernel refuses that by itself, until root makes the mount writable (`mount -i -o remount,rw`).
            (false, true) => Err(Error::ReadOnlyMount),
            (false, false) => Err(Error::WriteOff),
        }
    }
}

/// What all files of one mount share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) services: Services,
    pub(super) options: FileOptions,
    pub(super) processes: ProcessTable,
    pub(super) opened: Arc<OpenProcesses>,
    pub(super) usages: MemoryUsages,
    pub(super) cgroups: CgroupTable,
    pub(super) cores: CoreTable,
    pub(super) snapshots: SnapshotTable,
    pub(super) block_sizes: BlockSizes,
    /// What reads past the kernel's page cache cost; empty until kernel and program have agreed.
    pub(super) direct: OnceLock<DirectReads>,
    /// When it was mounted, as the times of what belongs to no process show it.
    pub(super) mounted: SystemTime,
}

impl Context {
    /// What the files of the processes of `services.source` share.
    pub(crate) fn new(services: Services, options: FileOptions) -> Self {
        let clock = services.freshness.clock();
        let bound = services.freshness.bound();
        let opened = Arc::new(OpenProcesses::new(services.clone(), Arc::clone(clock)));
        let source = Arc::clone(&services.source);
        Self {
            mounted: clock.wall(),
            usages: MemoryUsages::new(Arc::clone(clock), bound),
            cores: CoreTable::new(Arc::clone(clock), bound),
            cgroups: CgroupTable::default(),
            snapshots: SnapshotTable::default(),
            block_sizes: BlockSizes::default(),
            direct: OnceLock::new(),
            processes: ProcessTable::new(source, Arc::clone(&opened), Arc::clone(clock), bound),
            opened,
            services,
            options,
        }
    }

    /// The clock that they go by.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.services.freshness.clock()
    }

    /// Takes note of what reads past the kernel's page cache cost here.
    pub(crate) fn set_direct_reads(&self, direct: DirectReads) {
        // Once for a mount.
        let _ = self.direct.set(direct);
    }

    /// How old data may be.
    pub(crate) fn freshness(&self) -> &Freshness {
        &self.services.freshness
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Closes what is kept open for speed alone and was not used for long. Returns how long it is until
    /// there is more to close; `None` where nothing is kept. May wait for a file system.
    pub(crate) fn close_unused(&self) -> Option<Duration> {
        self.opened.close_unused()
    }

    /// Whose rights a request of `caller` is judged by.
    ///
    /// # Errors
    /// `UnknownCaller`.
    pub(crate) fn subject(&self, caller: &Caller) -> Result<Subject> {
        let credentials = match self.options.allow_other {
            true => {
                let Caller { pid, uid, gid } = *caller;
                self.services.source.credentials(pid, uid, gid)?
            }
            false => None,
        };
        Ok(Subject {
            caller: *caller,
            credentials: credentials.map(Arc::new),
        })
    }

    /// The user who asks, where that is not the mounter.
    pub(crate) fn other_user(&self, caller: &Caller) -> Option<u32> {
        (self.options.allow_other && caller.uid != self.options.uid).then_some(caller.uid)
    }

    /// The program that asks, for the audit trail; `None` where it is not seen.
    pub(crate) fn program_of(&self, caller: &Caller) -> Option<Program> {
        self.services.source.program_of_thread(caller.pid)
    }

    /// The path of the program that a process runs.
    ///
    /// # Errors
    /// Why the process cannot be asked.
    pub(crate) fn executable(&self, info: &ProcessInfo) -> Result<Vec<u8>> {
        self.opened
            .ask(&info.identity, |process| process.executable())
    }

    /// Whether `subject` may know of the process that a file belongs to, if it belongs to one.
    ///
    /// # Errors
    /// `CallerDenied`, and why the process cannot be asked.
    pub(crate) fn check_visible(&self, node: &Node, subject: &Subject) -> Result<()> {
        let Some(who) = subject.credentials() else {
            return Ok(());
        };
        if let Some(info) = node.process() {
            let check = |process: &dyn target::Process| process.check_visible(who);
            return self.opened.ask(&info.identity, check);
        }
        match node.snapshot() {
            Some(snapshot) if !snapshot.belongs_to(who.uid) => Err(Error::NotOwner),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the program that was seen as `info` still runs.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, or why it cannot be known.
    pub(crate) fn verify(&self, info: &ProcessInfo) -> Result<()> {
        self.opened.verify(&info.identity)
    }

    #[cfg(test)]
    pub(crate) fn is_pinned(&self, identity: &ProcessIdentity) -> bool {
        self.opened.known(identity).is_some()
    }
}
