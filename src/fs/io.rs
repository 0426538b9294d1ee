//! Opening, reading, writing and closing.

use std::sync::Arc;

use super::FileSystem;
use crate::error::{Error, Result};
use crate::process::WriteMode;
use crate::tree::{Handle, Inode, Kind, Node, OpenMapping};
use crate::view::{MappingFile, Short};

/// What a file is opened for, or what right is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Executing or entering.
    pub execute: bool,
}

/// A file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle's number.
    pub handle: u64,
    /// Whether the kernel must keep none of its pages.
    pub direct: bool,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes that got there.
    pub bytes: usize,
    /// Inodes whose pages the kernel must drop before the writer is answered.
    pub outdated: Vec<Inode>,
}

impl FileSystem {
    /// Opens a file; what is read through it from now on is no older than now.
    ///
    /// # Errors
    /// `IsADirectory`, `ReadOnlyMount`, `Protected`, `Replaced`, `ProcessDenied`.
    pub fn open(&self, inode: Inode, access: Access) -> Result<Opened> {
        match self.inodes.get(inode)? {
            Node::Mapping(info, mapping) => {
                let write = access
                    .write
                    .then(|| self.write_mode(&mapping))
                    .transpose()?;
                let process = self.opened.open(&info.identity)?;
                self.services.freshness.renew(&process.epoch);
                // Whole pages that come back from the kernel's cache would revert what the
                // target wrote meanwhile: a file that can be written is never cached there.
                let direct = write.is_some() || self.services.freshness.bound().is_zero();
                let file =
                    MappingFile::new(Arc::clone(&process.memory), &mapping, self.options.faults);
                let short = if direct {
                    Short::Allowed
                } else {
                    Short::Refused
                };
                let open = OpenMapping::new(inode, file, write, short, process);
                let handle = self.handles.open(Handle::Mapping(Arc::new(open)));
                Ok(Opened { handle, direct })
            }
            Node::Stats if access.write => Err(Error::NotPermitted),
            Node::Stats => {
                let text = self.services.metrics.render();
                let handle = self.handles.open(Handle::Text(text.into()));
                Ok(Opened {
                    handle,
                    direct: true,
                })
            }
            node if node.kind() == Kind::Directory => Err(Error::IsADirectory),
            _ => Err(Error::Invalid),
        }
    }

    /// Reads from `offset` on, and returns how many bytes it got.
    ///
    /// # Errors
    /// `BadHandle`, and what [`MappingFile::read_at`] says.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = match self.handles.get(handle)? {
            Handle::Mapping(open) => {
                let reuse = open.note_read(offset, buffer.len());
                open.file.read_at(offset, buffer, open.short, reuse)?
            }
            Handle::Text(text) => {
                let from = usize::try_from(offset).map_or(text.len(), |from| from.min(text.len()));
                let rest = &text.as_bytes()[from..];
                let len = rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                len
            }
            Handle::Directory(_) => return Err(Error::IsADirectory),
        };
        self.services.metrics.read_bytes.add(read as u64);
        Ok(read)
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// `BadHandle`, and what [`MappingFile::write_at`] says.
    pub fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<Written> {
        let Handle::Mapping(open) = self.handles.get(handle)? else {
            return Err(Error::BadHandle);
        };
        let mode = open.write.ok_or(Error::BadHandle)?;
        let bytes = open.file.write_at(offset, data, mode)?;
        self.services.metrics.written_bytes.add(bytes as u64);
        Ok(Written {
            bytes,
            // All that are buffered: the same bytes may be mapped in any of them.
            outdated: self.handles.buffered(),
        })
    }

    /// Closes a file or a directory.
    pub fn release(&self, handle: u64) {
        self.handles.close(handle);
    }

    /// Whether `access` would be granted.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn check_access(&self, inode: Inode, access: Access) -> Result<()> {
        let node = self.inodes.get(inode)?;
        match (&node, node.kind()) {
            (Node::Mapping(_, mapping), _) if access.write => self.write_mode(mapping).map(drop)?,
            (_, Kind::Directory | Kind::File) if access.write => return Err(Error::NotPermitted),
            _ => (),
        }
        if access.execute && node.kind() == Kind::File {
            return Err(Error::Protected);
        }
        Ok(())
    }

    fn write_mode(&self, mapping: &crate::mapping::Mapping) -> Result<WriteMode> {
        if !self.options.writable {
            Err(Error::ReadOnlyMount)
        } else if mapping.protection().write {
            Ok(WriteMode::Obey)
        } else if self.options.force {
            Ok(WriteMode::Force)
        } else {
            Err(Error::Protected)
        }
    }
}
