//! The adapter to FUSE, and the only user of `fuser`: it translates, and decides nothing.

mod convert;
mod outdate;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::error::{Error, Result};
use crate::fs::{Change, FileSystem};
use crate::metrics::Operation;
use crate::tree::Inode;

pub use outdate::{Jobs, Outdated};

/// The largest request, in bytes: what the kernel takes without more privileges (`fs.fuse.max_pages_limit`).
const MAX_REQUEST: u32 = 1 << 20;

/// Requests of readahead that may wait at a time.
const MAX_BACKGROUND: u16 = 64;

/// Nothing here is ever created under an inode number that was used before.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// Where answers to reads are put together; it grows to the largest of them and stays.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A [`FileSystem`] that answers to FUSE.
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<FileSystem>,
    outdated: Outdated,
}

impl Adapter {
    /// Puts `fs` behind FUSE; `outdated` takes what the kernel must drop.
    pub fn new(fs: Arc<FileSystem>, outdated: Outdated) -> Self {
        Self { fs, outdated }
    }

    fn count(&self, operation: Operation) -> &FileSystem {
        self.fs.metrics().count_request(operation);
        &self.fs
    }

    /// Counts and logs a failure, once and here.
    fn fail(&self, operation: Operation, inode: u64, error: &Error) -> fuser::Errno {
        let errno = error.errno();
        self.fs.metrics().count_error(errno);
        let level = convert::level(error);
        log::log!(
            level,
            "{} of inode {inode}: {errno:?}: {error}",
            operation.name()
        );
        fuser::Errno::from_i32(errno as i32)
    }

    /// A size of zero asks how long the value is (getxattr(2)).
    fn answer_xattr(&self, inode: INodeNo, size: u32, value: Result<Vec<u8>>, reply: ReplyXattr) {
        match value {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() <= size as usize => reply.data(&value),
            Ok(_) => reply.error(fuser::Errno::ERANGE),
            Err(error) => reply.error(self.fail(Operation::ExtendedAttribute, inode.0, &error)),
        }
    }

    fn refuse(&self, inode: INodeNo) -> fuser::Errno {
        self.count(Operation::Refused);
        self.fail(Operation::Refused, inode.0, &Error::NotPermitted)
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in [
            // The kernel drops its pages when the mtime it is told moves.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            if config.add_capabilities(wish).is_err() {
                log::debug!("the kernel does without {wish:?}");
            }
        }
        // Each of these says the nearest value that it takes instead.
        if let Err(nearest) = config.set_max_write(MAX_REQUEST) {
            log::debug!("requests hold {nearest} bytes at the most");
        }
        if let Err(nearest) = config.set_max_readahead(MAX_REQUEST) {
            log::debug!("readahead is {nearest} bytes at the most");
        }
        if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
            log::debug!("{nearest} requests may wait at the most");
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.count(Operation::Lookup).lookup(Inode(parent.0), name) {
            Ok(found) => reply.entry(&found.valid, &convert::attributes(&found), GENERATION),
            Err(error) => reply.error(self.fail(Operation::Lookup, parent.0, &error)),
        }
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.fs.forget(Inode(inode.0), lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let handle = handle.map(|handle| handle.0);
        match self
            .count(Operation::GetAttributes)
            .attributes(Inode(inode.0), handle)
        {
            Ok(found) => reply.attr(&found.valid, &convert::attributes(&found)),
            Err(error) => reply.error(self.fail(Operation::GetAttributes, inode.0, &error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            // A truncation brings times along, which are not what was asked for.
            metadata: mode.is_some()
                || uid.is_some()
                || gid.is_some()
                || (size.is_none() && (atime.is_some() || mtime.is_some())),
            size,
        };
        let handle = handle.map(|handle| handle.0);
        let fs = self.count(Operation::SetAttributes);
        match fs.set_attributes(Inode(inode.0), change, handle) {
            Ok(found) => reply.attr(&found.valid, &convert::attributes(&found)),
            Err(error) => reply.error(self.fail(Operation::SetAttributes, inode.0, &error)),
        }
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        match self
            .count(Operation::ReadLink)
            .read_link(Inode(inode.0), request.pid())
        {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(self.fail(Operation::ReadLink, inode.0, &error)),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = convert::open_access(flags);
        match self.count(Operation::Open).open(Inode(inode.0), access) {
            Ok(opened) => {
                let mut flags = FopenFlags::empty();
                flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
                reply.opened(FileHandle(opened.handle), flags);
            }
            Err(error) => reply.error(self.fail(Operation::Open, inode.0, &error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.count(Operation::Read);
        ANSWER.with_borrow_mut(|answer| {
            let size = size as usize;
            if answer.len() < size {
                answer.resize(size, 0);
            }
            match fs.read(handle.0, offset, &mut answer[..size]) {
                Ok(read) => reply.data(&answer[..read]),
                Err(error) => reply.error(self.fail(Operation::Read, inode.0, &error)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let fs = self.count(Operation::Write);
        let answer = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            Err(Error::MappedWrite)
        } else {
            fs.write(handle.0, offset, data)
        };
        match answer {
            Ok(written) => self.outdated.answer(reply, written),
            Err(error) => reply.error(self.fail(Operation::Write, inode.0, &error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing is ever held back; the kernel does not ask again after this.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self
            .count(Operation::OpenDirectory)
            .open_directory(Inode(inode.0))
        {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(self.fail(Operation::OpenDirectory, inode.0, &error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let fs = self.count(Operation::ReadDirectory);
        let entries = match fs.read_directory(handle.0) {
            Ok(entries) => entries,
            Err(error) => {
                return reply.error(self.fail(Operation::ReadDirectory, inode.0, &error));
            }
        };
        for (next, entry) in (1..).zip(entries.iter()).skip(offset as usize) {
            let number = INodeNo(fs.inode_of(&entry.node).0);
            if reply.add(number, next, convert::kind(entry.node.kind()), &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let fs = self.count(Operation::ReadDirectory);
        let entries = match fs.read_directory(handle.0) {
            Ok(entries) => entries,
            Err(error) => {
                return reply.error(self.fail(Operation::ReadDirectory, inode.0, &error));
            }
        };
        for (next, entry) in (1..).zip(entries.iter()).skip(offset as usize) {
            // The kernel takes a reference to each entry but these two.
            let is_dot = entry.name == "." || entry.name == "..";
            let found = if is_dot {
                fs.show(&entry.node)
            } else {
                fs.remember(&entry.node)
            };
            let attributes = convert::attributes(&found);
            let number = attributes.ino;
            if reply.add(
                number,
                next,
                &entry.name,
                &found.valid,
                &attributes,
                GENERATION,
            ) {
                if !is_dot {
                    fs.forget(found.inode, 1);
                }
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.release(handle.0);
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let fs = self.count(Operation::ExtendedAttribute);
        let value = name
            .to_str()
            .ok_or(Error::NoAttribute)
            .and_then(|name| fs.extended_attribute(Inode(inode.0), name));
        self.answer_xattr(inode, size, value, reply);
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.count(Operation::ExtendedAttribute);
        self.answer_xattr(inode, size, fs.extended_attributes(Inode(inode.0)), reply);
    }

    fn setxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.refuse(inode));
    }

    fn removexattr(&self, _request: &Request, inode: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.refuse(inode));
    }

    fn lseek(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let fs = self.count(Operation::Seek);
        let found = convert::seek(offset, whence)
            .and_then(|(offset, whence)| fs.seek(handle.0, offset, whence));
        match found {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(error) => reply.error(self.fail(Operation::Seek, inode.0, &error)),
        }
    }

    fn access(&self, _request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let access = convert::access(mask);
        match self
            .count(Operation::Access)
            .check_access(Inode(inode.0), access)
        {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.fail(Operation::Access, inode.0, &error)),
        }
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(self.refuse(parent));
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(self.refuse(parent));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.refuse(parent));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.refuse(parent));
    }

    fn symlink(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(self.refuse(parent));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(self.refuse(parent));
    }

    fn link(
        &self,
        _request: &Request,
        _inode: INodeNo,
        new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(self.refuse(new_parent));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(self.refuse(parent));
    }
}
