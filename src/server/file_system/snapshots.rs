//! Making and removing directories, which is done in `snap` alone.

use std::ffi::OsStr;
use std::time::Duration;

use super::{Entry, FileSystem};
use crate::common::error::{Error, Result};
use crate::common::metrics;
use crate::files::{Caller, Node, Subject};
use crate::server::Inode;
use crate::server::audit::SnapshotTrail;

impl FileSystem {
    /// The directory that `name` would be made in, if that is one where something can be made: it is a snapshot then.
    ///
    /// # Errors
    /// `NotPermitted`, `NoEntry`.
    pub(in crate::server) fn check_snapshots(&self, parent: Inode) -> Result<()> {
        match self.inodes.get(parent)? {
            Node::Snapshots(_) => Ok(()),
            _ => Err(Error::NotPermitted),
        }
    }

    /// Removes a snapshot for `subject`, with all that is in it.
    ///
    /// # Errors
    /// `NotPermitted` for any other directory, `NoEntry`.
    pub(in crate::server) fn remove_directory(
        &self,
        parent: Inode,
        name: &OsStr,
        subject: &Subject,
    ) -> Result<()> {
        self.check_snapshots(parent)?;
        let trail = self.audit.then(|| {
            let found = name.to_str().and_then(|it| self.context.snapshot(it));
            match found {
                Some(snapshot) => SnapshotTrail::of(&snapshot),
                None => SnapshotTrail::named(name),
            }
        });
        let name = name.to_str().ok_or(Error::NoEntry);
        let removed = name.and_then(|name| self.context.remove_snapshot(name, subject));
        if let Some(trail) = trail {
            let operation = metrics::Operation::RemoveDirectory;
            trail.tell(&self.context, operation, &subject.caller, &removed);
        }
        removed
    }

    /// Tells that `caller` has taken a snapshot, which `made` has added, or was refused it.
    pub(in crate::server) fn audit_made(
        &self,
        caller: &Caller,
        name: &OsStr,
        made: &Result<(Entry, Duration)>,
    ) {
        // Of somebody who is not known the refusal tells.
        if !self.audit || matches!(made, Err(Error::UnknownCaller)) {
            return;
        }
        let entry = made.as_ref().ok();
        let node = entry.and_then(|(entry, _)| self.inodes.get(entry.inode).ok());
        let trail = match node.as_ref().and_then(|node| node.snapshot()) {
            Some(snapshot) => SnapshotTrail::of(snapshot),
            None => SnapshotTrail::named(name),
        };
        let operation = metrics::Operation::MakeDirectory;
        trail.tell(&self.context, operation, caller, made);
    }
}
