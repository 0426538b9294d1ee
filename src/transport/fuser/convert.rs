//! Between the file system's types and FUSE's.

use fuser::{FileAttr, FileType, INodeNo};

use crate::common::address::PAGE_SIZE;
use crate::files::{Caller, Kind};
use crate::server::{Entry, Generation, Operation, Request};

pub(super) fn request(request: &fuser::Request, operation: Operation) -> Request {
    Request {
        number: request.unique().0,
        caller: Caller {
            pid: request.pid(),
            uid: request.uid(),
            gid: request.gid(),
        },
        operation,
    }
}

pub(super) fn generation(Generation(number): Generation) -> fuser::Generation {
    fuser::Generation(number.into())
}

pub(super) fn attributes(entry: &Entry) -> FileAttr {
    let found = &entry.attributes;
    FileAttr {
        ino: INodeNo(entry.inode.0),
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
