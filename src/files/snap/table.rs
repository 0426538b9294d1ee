//! The snapshots that there are.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::VALID;
use super::extents::extents;
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::common::sync::{Mutex, RwLock};
use crate::files::Attributes;
use crate::files::mapping_table::MappingTable;
use crate::target::snapshot::FrozenProcess;
use crate::target::{ProcessIdentity, ProcessInfo};

/// A process that was copied, with the names of its mappings.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(super) frozen: Arc<FrozenProcess>,
    pub(super) mappings: Arc<MappingTable>,
    /// The extents of these, once somebody has asked for them.
    extents: OnceLock<Arc<MappingTable>>,
    /// The text of its record.
    pub(super) record: String,
    /// The size of its core file, once somebody has asked for it: all headers are made for that.
    pub(super) core_size: OnceLock<u64>,
}

impl Copied {
    /// May wait for the file of its program.
    pub(super) fn new(frozen: FrozenProcess) -> Self {
        Self {
            mappings: Arc::new(MappingTable::of_known(Arc::clone(&frozen.mappings))),
            record: frozen.record().to_string(),
            core_size: OnceLock::new(),
            extents: OnceLock::new(),
            frozen: Arc::new(frozen),
        }
    }

    pub(super) fn extents(&self) -> &Arc<MappingTable> {
        self.extents.get_or_init(|| Arc::new(extents(&self.frozen)))
    }
}

/// Copies of one or more processes, all of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What no other one has.
    number: u64,
    name: String,
    taken: SystemTime,
    /// The user and the group of whoever has taken it.
    owner: (u32, u32),
    is_group: bool,
    /// Lowest number first; empty once it was removed. Guards which there are: nothing is locked inside, and none is dropped.
    copied: RwLock<Vec<Arc<Copied>>>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Snapshot {}

impl Hash for Snapshot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Snapshot {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which processes it is of, and the paths of their programs; none once it was removed.
    pub(crate) fn programs(&self) -> Vec<(Arc<ProcessInfo>, Vec<u8>)> {
        let all = self.all().into_iter().map(|copied| {
            let frozen = &copied.frozen;
            (Arc::clone(&frozen.info), frozen.executable.clone())
        });
        all.collect()
    }

    /// Whether it is of several processes, and so has a directory for each of them.
    pub(super) fn is_group(&self) -> bool {
        self.is_group
    }

    /// Whether this user has taken it.
    pub(in crate::files) fn belongs_to(&self, user: u32) -> bool {
        self.owner.0 == user
    }

    pub(super) fn copied(&self, index: usize) -> Option<Arc<Copied>> {
        self.copied.read().get(index).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Copied>> {
        self.copied.read().clone()
    }

    /// Attributes of what is in it.
    pub(super) fn attributes(&self, plain: Attributes) -> Attributes {
        let (uid, gid) = self.owner;
        Attributes {
            modified: self.taken,
            changed: self.taken,
            uid,
            gid,
            valid: VALID,
            ..plain
        }
    }
}

/// All snapshots of a mount.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTable {
    next: AtomicU64,
    /// By name. Nothing is locked inside, and none is dropped.
    by_name: Mutex<BTreeMap<String, Arc<Snapshot>>>,
}

impl SnapshotTable {
    /// The snapshot of this name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.by_name.lock().get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Snapshot>> {
        self.by_name.lock().values().cloned().collect()
    }

    /// The newest copy of the program that this identity is of.
    pub(super) fn newest_of(&self, process: &ProcessIdentity) -> Option<Arc<FrozenProcess>> {
        let all = self.all().into_iter();
        let copies = all.flat_map(|snapshot| {
            let number = snapshot.number;
            let copied = snapshot.all().into_iter();
            copied.map(move |copied| (number, Arc::clone(&copied.frozen)))
        });
        let same = copies.filter(|(_, frozen)| frozen.info.identity == *process);
        same.max_by_key(|(number, _)| *number)
            .map(|(_, frozen)| frozen)
    }

    /// Adds a snapshot; `None` where there is one of this name.
    pub(super) fn add(
        &self,
        name: String,
        owner: (u32, u32),
        is_group: bool,
        processes: Vec<Copied>,
    ) -> Option<Arc<Snapshot>> {
        let taken = processes.iter().map(|process| process.frozen.taken).max();
        let snapshot = Arc::new(Snapshot {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            taken: taken.unwrap_or(SystemTime::UNIX_EPOCH),
            owner,
            is_group,
            copied: RwLock::new(processes.into_iter().map(Arc::new).collect()),
        });
        let mut by_name = self.by_name.lock();
        if by_name.contains_key(&name) {
            return None;
        }
        by_name.insert(name, Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.lock().contains_key(name)
    }

    /// Removes a snapshot: what is open of it alone stays.
    pub(super) fn remove(&self, snapshot: &Arc<Snapshot>) {
        let mut by_name = self.by_name.lock();
        let is_it = by_name
            .get(&snapshot.name)
            .is_some_and(|known| known.number == snapshot.number);
        let removed = is_it.then(|| by_name.remove(&snapshot.name));
        drop(by_name);
        let copied = std::mem::take(&mut *snapshot.copied.write());
        // Outside the locks: this closes files and gives memory back.
        drop((removed, copied));
    }
}
