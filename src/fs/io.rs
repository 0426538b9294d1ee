//! Opening, reading, writing and closing.

use std::sync::Arc;

use super::{FileSystem, FsOptions, Involves};
use crate::common::error::{Error, Result};
use crate::target::{ProcessInfo, WriteMode};
use crate::tree::{Handle, Inode, Kind, Node, OpenMemory, OpenProcess, OpenView};
use crate::view::{MappingFile, Seek, Short, SpaceFile};

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
    /// Inodes whose pages the kernel must not believe any more before the writer is answered.
    pub outdated: Vec<Inode>,
}

impl FsOptions {
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

impl FileSystem {
    /// Opens a file; what is read through it from now on is no older than now.
    ///
    /// # Errors
    /// `IsADirectory`, `WriteOff`, `ReadOnlyMount`, `Protected`, `Replaced`, `ProcessDenied`.
    pub fn open(&self, inode: Inode, access: Access) -> Result<Opened> {
        match self.inodes.get(inode)? {
            Node::Mapping(info, mapping) => {
                let write = access
                    .write
                    .then(|| self.write_mode(&mapping))
                    .transpose()?;
                let process = self.opened.open(&info.identity)?;
                let memory = Arc::clone(&process.memory);
                let file = MappingFile::new(memory, mapping, self.options.faults);
                Ok(self.open_memory(inode, OpenView::Mapping(file), write, process))
            }
            Node::Space(info) => {
                let write = access.write.then(|| self.space_write_mode()).transpose()?;
                let process = self.opened.open(&info.identity)?;
                Ok(self.open_memory(inode, OpenView::Space(info), write, process))
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

    fn open_memory(
        &self,
        inode: Inode,
        view: OpenView,
        write: Option<WriteMode>,
        process: Arc<OpenProcess>,
    ) -> Opened {
        let freshness = &self.services.freshness;
        freshness.renew(&process.epoch);
        // Whole pages that come back from the kernel's cache would revert what the
        // target wrote meanwhile: a file that can be written is never cached there.
        let direct = write.is_some() || freshness.bound().is_zero();
        let short = if direct {
            Short::Allowed
        } else {
            Short::Refused
        };
        let open = OpenMemory::new(inode, view, write, short, process);
        let handle = self.handles.open(Handle::Memory(Arc::new(open)));
        Opened { handle, direct }
    }

    /// Reads from `offset` on, and returns how many bytes it got.
    ///
    /// # Errors
    /// `BadHandle`, and what [`MappingFile::read_at`] says.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = match self.handles.get(handle)? {
            Handle::Memory(open) => match &open.view {
                OpenView::Mapping(file) => file.read_at(offset, buffer, open.short)?,
                OpenView::Space(info) => {
                    let file = self.space(&open.process, info)?;
                    file.read_at(offset, buffer, open.short)?
                }
            },
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
        let open = self.open_file(handle)?;
        let mode = open.write.ok_or(Error::BadHandle)?;
        let bytes = match &open.view {
            OpenView::Mapping(file) => file.write_at(offset, data, mode)?,
            OpenView::Space(info) => self
                .space(&open.process, info)?
                .write_at(offset, data, mode)?,
        };
        self.services.metrics.written_bytes.add(bytes as u64);
        Ok(Written {
            bytes,
            // All that are buffered: the same bytes may be mapped in any of them.
            outdated: self.handles.buffered(),
        })
    }

    /// Where data or a hole starts, from `offset` on (`lseek` with `SEEK_DATA`, `SEEK_HOLE`).
    ///
    /// # Errors
    /// `NoMoreData` at and behind the end, `BadHandle`.
    pub fn seek(&self, handle: u64, offset: u64, whence: Seek) -> Result<u64> {
        if let Handle::Text(text) = self.handles.get(handle)? {
            return match whence {
                _ if offset >= text.len() as u64 => Err(Error::NoMoreData),
                Seek::Data => Ok(offset),
                Seek::Hole => Ok(text.len() as u64),
            };
        }
        let open = self.open_file(handle)?;
        match &open.view {
            OpenView::Mapping(file) => file.seek(offset, whence),
            OpenView::Space(info) => self.space(&open.process, info)?.seek(offset, whence),
        }
    }

    fn open_file(&self, handle: u64) -> Result<Arc<OpenMemory>> {
        match self.handles.get(handle)? {
            Handle::Memory(open) => Ok(open),
            Handle::Text(_) | Handle::Directory(_) => Err(Error::BadHandle),
        }
    }

    /// The address space as it is now, or was a moment ago.
    pub(super) fn space(
        &self,
        process: &OpenProcess,
        info: &Arc<ProcessInfo>,
    ) -> Result<SpaceFile> {
        let snapshot = self.processes.fresh(info).map_err(|error| match error {
            Error::NoProcess(pid) => Error::Ended(pid),
            error => error,
        })?;
        Ok(SpaceFile::new(
            Arc::clone(&process.memory),
            Arc::clone(snapshot.mappings()),
            self.options.faults,
        ))
    }

    /// Whom closing this handle may wait for.
    pub fn handle_involves(&self, handle: u64) -> Involves {
        match self.handles.get(handle) {
            Ok(Handle::Memory(open)) => {
                let identity = open.process.memory.identity();
                Involves::Process(identity.pid, Some(identity.pidfd_inode))
            }
            _ => Involves::Nobody,
        }
    }

    /// Closes a file or a directory.
    pub fn release(&self, handle: u64) {
        if let Some(Handle::Memory(open)) = self.handles.close(handle)
            && !self.handles.uses(&open.process)
        {
            open.process.memory.rest();
        }
    }

    /// Whether `access` would be granted.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn check_access(&self, inode: Inode, access: Access) -> Result<()> {
        let node = self.inodes.get(inode)?;
        match (&node, node.kind()) {
            (Node::Mapping(_, mapping), _) if access.write => self.write_mode(mapping).map(drop)?,
            (Node::Space(_), _) if access.write => self.space_write_mode().map(drop)?,
            (_, Kind::Directory | Kind::File) if access.write => return Err(Error::NotPermitted),
            _ => (),
        }
        if access.execute && node.kind() == Kind::File {
            return Err(Error::Protected);
        }
        Ok(())
    }

    /// How `mem/PID` is written: each write is then judged by the mapping it meets.
    fn space_write_mode(&self) -> Result<WriteMode> {
        self.options.check_writable()?;
        Ok(match self.options.force {
            false => WriteMode::Obey,
            true => WriteMode::Force,
        })
    }

    fn write_mode(&self, mapping: &crate::target::mapping::Mapping) -> Result<WriteMode> {
        self.options.check_writable()?;
        if mapping.protection().write {
            Ok(WriteMode::Obey)
        } else if self.options.force {
            Ok(WriteMode::Force)
        } else {
            Err(Error::Protected)
        }
    }
}
