//! Making and removing directories, which is done in `snap` alone.

use std::ffi::OsStr;

use super::FileSystem;
use crate::common::error::{Error, Result};
use crate::files::{Node, Subject};
use crate::server::Inode;

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
        let name = name.to_str().ok_or(Error::NoEntry)?;
        self.context.remove_snapshot(name, subject)
    }
}
