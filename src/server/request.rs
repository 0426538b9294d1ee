//! What the kernel asks for, whatever transport brings it.

use std::ffi::{OsStr, OsString};

use super::file_system::FileSystem;
use super::inodes::Inode;
use crate::common::metrics;
use crate::files::view::Seek;
use crate::files::{Access, Caller, Change, WaitsFor};
use crate::server::admission::Kind;

/// A request: what a line of the log says of it is all in here.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its number, as the transport has it.
    pub(crate) number: u64,
    pub(crate) caller: Caller,
    pub(crate) operation: Operation,
}

#[cfg(test)]
impl Request {
    /// One of the kernel's own.
    pub(super) fn of(operation: Operation) -> Self {
        Self {
            number: 1,
            caller: Caller::default(),
            operation,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Answered with [`Reply::Entry`](super::Reply::Entry), of which the kernel then holds a reference.
    Lookup { parent: Inode, name: OsString },
    /// Answered with [`Reply::Attributes`](super::Reply::Attributes).
    GetAttributes { inode: Inode, handle: Option<u64> },
    /// Answered with [`Reply::Attributes`](super::Reply::Attributes).
    SetAttributes {
        inode: Inode,
        handle: Option<u64>,
        change: Change,
    },
    /// Answered with [`Reply::Data`](super::Reply::Data).
    ReadLink { inode: Inode },
    /// Answered with [`Reply::Opened`](super::Reply::Opened).
    Open { inode: Inode, access: Access },
    /// Answered with [`Reply::Data`](super::Reply::Data).
    Read {
        inode: Inode,
        handle: u64,
        offset: u64,
        size: usize,
    },
    /// The data come beside the request. Answered with [`Reply::Written`](super::Reply::Written).
    Write {
        inode: Inode,
        handle: u64,
        offset: u64,
        /// Whether the data are whole pages of somebody's `mmap`.
        is_mapped: bool,
    },
    /// `whence` is `None` where neither data nor a hole is asked for.
    /// Answered with [`Reply::Offset`](super::Reply::Offset).
    Seek {
        inode: Inode,
        handle: u64,
        offset: i64,
        whence: Option<Seek>,
    },
    /// Answered with [`Reply::Opened`](super::Reply::Opened).
    OpenDirectory { inode: Inode },
    /// Answered with [`Reply::Names`](super::Reply::Names).
    ReadDirectory {
        inode: Inode,
        handle: u64,
        position: u64,
    },
    /// Answered with [`Reply::Entries`](super::Reply::Entries), to each of which that is taken the kernel then
    /// holds a reference, but for `.` and `..`.
    ReadDirectoryPlus {
        inode: Inode,
        handle: u64,
        position: u64,
    },
    /// Answered with [`Reply::Attribute`](super::Reply::Attribute).
    GetExtendedAttribute { inode: Inode, name: OsString },
    /// Answered with [`Reply::Attribute`](super::Reply::Attribute).
    ListExtendedAttributes { inode: Inode },
    /// Answered with [`Reply::Done`](super::Reply::Done).
    Access { inode: Inode, access: Access },
    /// Answered with [`Reply::Entry`](super::Reply::Entry), of which the kernel then holds a reference. It takes as long as it
    /// takes.
    MakeDirectory { parent: Inode, name: OsString },
    /// Answered with [`Reply::Done`](super::Reply::Done).
    RemoveDirectory { parent: Inode, name: OsString },
    /// The file system as a whole. Answered with [`Reply::Statistics`](super::Reply::Statistics).
    Statfs { inode: Inode },
    /// Something that never succeeds here: create, rename, link, remove.
    Change { inode: Inode },
}

impl Operation {
    /// The inode that it is about.
    pub(super) fn inode(&self) -> Inode {
        match self {
            Self::Lookup { parent: inode, .. }
            | Self::MakeDirectory { parent: inode, .. }
            | Self::RemoveDirectory { parent: inode, .. }
            | Self::GetAttributes { inode, .. }
            | Self::SetAttributes { inode, .. }
            | Self::ReadLink { inode }
            | Self::Open { inode, .. }
            | Self::Read { inode, .. }
            | Self::Write { inode, .. }
            | Self::Seek { inode, .. }
            | Self::OpenDirectory { inode }
            | Self::ReadDirectory { inode, .. }
            | Self::ReadDirectoryPlus { inode, .. }
            | Self::GetExtendedAttribute { inode, .. }
            | Self::ListExtendedAttributes { inode }
            | Self::Access { inode, .. }
            | Self::Statfs { inode }
            | Self::Change { inode } => *inode,
        }
    }

    /// The name in that directory which it is about.
    pub(super) fn name(&self) -> Option<&OsStr> {
        match self {
            Self::Lookup { name, .. }
            | Self::MakeDirectory { name, .. }
            | Self::RemoveDirectory { name, .. } => Some(name),
            _ => None,
        }
    }

    /// As what it is counted.
    pub(super) fn counted(&self) -> metrics::Operation {
        match self {
            Self::Lookup { .. } => metrics::Operation::Lookup,
            Self::GetAttributes { .. } => metrics::Operation::GetAttributes,
            Self::SetAttributes { .. } => metrics::Operation::SetAttributes,
            Self::ReadLink { .. } => metrics::Operation::ReadLink,
            Self::Open { .. } => metrics::Operation::Open,
            Self::Read { .. } => metrics::Operation::Read,
            Self::Write { .. } => metrics::Operation::Write,
            Self::Seek { .. } => metrics::Operation::Seek,
            Self::OpenDirectory { .. } => metrics::Operation::OpenDirectory,
            Self::ReadDirectory { .. } | Self::ReadDirectoryPlus { .. } => {
                metrics::Operation::ReadDirectory
            }
            Self::GetExtendedAttribute { .. } | Self::ListExtendedAttributes { .. } => {
                metrics::Operation::ExtendedAttribute
            }
            Self::Access { .. } => metrics::Operation::Access,
            Self::MakeDirectory { .. } => metrics::Operation::MakeDirectory,
            Self::RemoveDirectory { .. } => metrics::Operation::RemoveDirectory,
            Self::Statfs { .. } => metrics::Operation::Statfs,
            Self::Change { .. } => metrics::Operation::Refused,
        }
    }

    /// Whom it may wait for.
    pub(super) fn waits_for(&self, fs: &FileSystem) -> WaitsFor {
        match self {
            Self::Lookup { parent, name } => fs.lookup_waits_for(*parent, name),
            Self::OpenDirectory { inode } => fs.entries_wait_for(*inode, 0),
            Self::ReadDirectory {
                inode, position, ..
            }
            | Self::ReadDirectoryPlus {
                inode, position, ..
            } => fs.entries_wait_for(*inode, *position),
            Self::Access { .. }
            | Self::MakeDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::Statfs { .. }
            | Self::Change { .. } => WaitsFor::Nobody,
            other => fs.waits_for(other.inode()),
        }
    }

    /// Whether an answer shows that the process answers, and not only that we know something of it.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Seek { .. }
            | Self::OpenDirectory { .. } => Kind::Probe,
            Self::Lookup { .. }
            | Self::GetAttributes { .. }
            | Self::SetAttributes { .. }
            | Self::ReadLink { .. }
            | Self::Open { .. }
            | Self::ReadDirectory { .. }
            | Self::ReadDirectoryPlus { .. }
            | Self::GetExtendedAttribute { .. }
            | Self::ListExtendedAttributes { .. }
            | Self::Access { .. }
            | Self::MakeDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::Statfs { .. }
            | Self::Change { .. } => Kind::Other,
        }
    }
}
