//! Between the file system's types and FUSE's.

use fuser::{AccessFlags, FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags};

use crate::common::address::PAGE_SIZE;
use crate::common::error::{Error, Result};
use crate::fs::{Access, Attributes};
use crate::tree::Kind;
use crate::view::Seek;

pub(super) fn attributes(found: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(found.inode.0),
        size: found.size,
        blocks: found.blocks,
        atime: found.modified,
        mtime: found.modified,
        ctime: found.changed,
        crtime: found.changed,
        kind: kind(found.kind),
        perm: found.mode,
        nlink: found.links,
        uid: found.uid,
        gid: found.gid,
        rdev: 0,
        blksize: PAGE_SIZE as u32,
        flags: 0,
    }
}

pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

pub(super) fn open_access(flags: OpenFlags) -> Access {
    let mode = flags.acc_mode();
    Access {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        execute: false,
    }
}

pub(super) fn access(mask: AccessFlags) -> Access {
    Access {
        read: mask.contains(AccessFlags::R_OK),
        write: mask.contains(AccessFlags::W_OK),
        execute: mask.contains(AccessFlags::X_OK),
    }
}

/// What `lseek` asks for: the kernel sends `SEEK_DATA` and `SEEK_HOLE` only.
pub(super) fn seek(offset: i64, whence: i32) -> Result<(u64, Seek)> {
    /// `SEEK_DATA` and `SEEK_HOLE` of `include/uapi/linux/fs.h`.
    const DATA: i32 = 3;
    const HOLE: i32 = 4;

    let offset = u64::try_from(offset).map_err(|_| Error::NoMoreData)?;
    match whence {
        DATA => Ok((offset, Seek::Data)),
        HOLE => Ok((offset, Seek::Hole)),
        _ => Err(Error::Invalid),
    }
}

/// How loudly a failure is told: what a user may wonder about, before what is part of the day.
pub(super) fn level(error: &Error) -> log::Level {
    match error {
        Error::ProcessDenied(_) | Error::System { .. } | Error::BadHandle => log::Level::Warn,
        Error::OwnMemory | Error::WrongProc | Error::TooManyMappings(..) | Error::TimedOut(_) => {
            log::Level::Warn
        }
        Error::Protected | Error::WriteOff | Error::ReadOnlyMount | Error::MappedWrite => {
            log::Level::Info
        }
        Error::Unknown(..) => log::Level::Info,
        Error::NoEntry
        | Error::NoProcess(_)
        | Error::Ended(_)
        | Error::Replaced(_)
        | Error::Unreachable(_)
        | Error::Incomplete(_)
        | Error::NoMoreData
        | Error::NoAttribute
        | Error::NotSupported
        | Error::PastEnd
        | Error::NotPermitted
        | Error::NotADirectory
        | Error::IsADirectory
        | Error::Invalid => log::Level::Debug,
    }
}
