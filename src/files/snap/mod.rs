//! `snap`: copies of processes at one moment. `mkdir` takes one, `rmdir` drops it.

mod directory;
mod extents;
mod file;
mod mapping;
mod name;
mod record;
mod table;
mod take;

use std::sync::Arc;
use std::time::Duration;

use super::{Attributes, Context, CountedUsage, File, Kind, Listing, Node, Pass, Subject};
use crate::common::error::{Error, Result};

pub(crate) use directory::{FrozenDirectory, SnapshotGroup};
pub(crate) use extents::FrozenExtents;
pub(crate) use file::{FrozenCore, FrozenSpace};
pub(crate) use mapping::{FrozenLink, FrozenMapping};
pub(crate) use name::SnapshotName;
pub(crate) use record::FrozenRecord;
pub(crate) use table::{Copied, Snapshot, SnapshotTable};
pub(crate) use take::Taking;

/// How long the kernel may keep what it is told of a snapshot: nothing of it changes but that it goes, and whoever has it go does
/// that through the kernel.
const VALID: Duration = Duration::from_secs(60);

/// All snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshots;

impl File for Snapshots {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        "snap".to_owned()
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        Attributes {
            // As `/tmp`, where others may enter: each removes their own.
            mode: match context.options.allow_other {
                true => 0o1777,
                false => 0o700,
            },
            ..plain
        }
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        let found = context.snapshots.find(name).ok_or(Error::NoEntry)?;
        match pass.who().is_none_or(|who| found.belongs_to(who.uid)) {
            true => Ok(found.node()),
            false => Err(Error::NoEntry),
        }
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        for snapshot in context.snapshots.all() {
            if pass.who().is_none_or(|who| snapshot.belongs_to(who.uid)) {
                listing.add(snapshot.name(), snapshot.node());
            }
        }
        Ok(listing)
    }
}

impl Context {
    /// The snapshot of this name, whoever has taken it.
    pub(crate) fn snapshot(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.snapshots.find(name)
    }

    /// Removes a snapshot for `subject`, whatever is in it. What is open of it stays until it is closed.
    ///
    /// # Errors
    /// `NoEntry`, `NotPermitted`.
    pub(crate) fn remove_snapshot(&self, name: &str, subject: &Subject) -> Result<()> {
        let found = self.snapshots.find(name).ok_or(Error::NoEntry)?;
        match subject.credentials() {
            Some(who) if !found.belongs_to(who.uid) => Err(Error::NotPermitted),
            _ => {
                self.snapshots.remove(&found);
                Ok(())
            }
        }
    }
}

/// A process of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Frozen {
    snapshot: Arc<Snapshot>,
    /// Which of its processes.
    index: u16,
}

impl Frozen {
    /// What was copied.
    ///
    /// # Errors
    /// `NoEntry` where the snapshot was removed.
    fn process(&self) -> Result<Arc<table::Copied>> {
        self.snapshot
            .copied(self.index as usize)
            .ok_or(Error::NoEntry)
    }

    /// Its path from the mount point on.
    fn path(&self) -> String {
        let name = self.snapshot.name();
        match self.snapshot.is_group() {
            false => format!("snap/{name}"),
            true => match self.process() {
                Ok(process) => format!("snap/{name}/{}", process.frozen.info.identity.pid),
                Err(_) => format!("snap/{name}/*"),
            },
        }
    }

    /// Attributes of what belongs to it.
    fn attributes(&self, plain: Attributes) -> Attributes {
        let snapshot = &self.snapshot;
        snapshot.attributes(plain)
    }
}
