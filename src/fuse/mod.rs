//! The adapter to FUSE, and the only user of `fuser`: it translates, and decides nothing.

mod convert;
mod guard;
mod negotiate;
mod outdate;
mod shared;
mod slot;
mod survey;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::common::address::PAGE_SIZE;
use crate::common::contained::contained;
use crate::common::error::Error;
use crate::common::metrics::Operation;
use crate::fs::{Change, FileSystem};
use crate::server::admission::Admission;
use crate::target::mapping::MAX_NAME;
use crate::tree::{Inode, Pass};

pub use negotiate::{MAX_REQUEST, negotiate};
pub use outdate::{Jobs, Outdated};

use shared::Shared;
use slot::Slot;

/// A [`FileSystem`] that answers to FUSE.
#[derive(Debug)]
pub struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    /// Puts `fs` behind FUSE; `outdated` takes what the kernel must not believe any more, and
    /// `admission` says what may wait for a target.
    pub fn new(fs: Arc<FileSystem>, outdated: Outdated, admission: Arc<Admission>) -> Self {
        Self {
            shared: Arc::new(Shared::new(fs, outdated, admission)),
        }
    }

    fn count(&self, operation: Operation) -> &Arc<Shared> {
        self.shared.fs.metrics().count_request(operation);
        &self.shared
    }

    fn refuse(&self, inode: INodeNo) -> fuser::Errno {
        let shared = self.count(Operation::Refused);
        shared.fail(Operation::Refused, Inode(inode.0), &Error::NotPermitted)
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn destroy(&mut self) {
        self.shared.admission.end();
        self.shared.tell_rest();
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (Inode(parent.0), name.to_owned());
        let shared = self.count(Operation::Lookup);
        let involves = shared.fs.name_involves(parent, &name);
        let work = move |shared: &Shared, slot: &Slot<ReplyEntry>, pass: &Pass<'_>| {
            shared.lookup(parent, &name, slot, pass);
        };
        shared.surveyed(Operation::Lookup, parent, involves, reply, work);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        contained(|| self.shared.fs.forget(Inode(inode.0), lookups));
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let (inode, handle) = (Inode(inode.0), handle.map(|handle| handle.0));
        let shared = self.count(Operation::GetAttributes);
        shared.guarded(
            Operation::GetAttributes,
            inode,
            reply,
            move |shared, slot| {
                let found = shared.fs.attributes(inode, handle);
                shared.answer_attributes(Operation::GetAttributes, inode, found, slot);
            },
        );
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
        let (inode, handle) = (Inode(inode.0), handle.map(|handle| handle.0));
        let shared = self.count(Operation::SetAttributes);
        shared.guarded(
            Operation::SetAttributes,
            inode,
            reply,
            move |shared, slot| {
                let found = shared.fs.set_attributes(inode, change, handle);
                shared.answer_attributes(Operation::SetAttributes, inode, found, slot);
            },
        );
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let (inode, caller) = (Inode(inode.0), request.pid());
        let shared = self.count(Operation::ReadLink);
        shared.guarded(Operation::ReadLink, inode, reply, move |shared, slot| {
            shared.read_link(inode, caller, slot);
        });
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (inode, access) = (Inode(inode.0), convert::open_access(flags));
        let shared = self.count(Operation::Open);
        shared.guarded(Operation::Open, inode, reply, move |shared, slot| {
            shared.open(inode, access, slot);
        });
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
        let (inode, size) = (Inode(inode.0), size as usize);
        let shared = self.count(Operation::Read);
        shared.guarded(Operation::Read, inode, reply, move |shared, slot| {
            shared.read(inode, handle.0, offset, size, slot);
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
        let inode = Inode(inode.0);
        let shared = self.count(Operation::Write);
        let is_mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let work = move |shared: &Shared, slot: &Slot<ReplyWrite>, data: &[u8]| {
            shared.write(inode, handle.0, offset, data, is_mapped, slot);
        };
        let involves = shared.fs.involves(inode);
        shared.guarded_with(Operation::Write, inode, involves, reply, data, work);
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
        reply.ok();
        self.shared.released(handle.0);
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let inode = Inode(inode.0);
        let shared = self.count(Operation::OpenDirectory);
        let involves = shared.fs.listing_involves(inode);
        let work = move |shared: &Shared, slot: &Slot<ReplyOpen>, pass: &Pass<'_>| {
            shared.open_directory(inode, slot, pass);
        };
        shared.surveyed(Operation::OpenDirectory, inode, involves, reply, work);
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let inode = Inode(inode.0);
        let shared = self.count(Operation::ReadDirectory);
        let involves = shared.fs.reading_involves(inode, offset);
        let work = move |shared: &Shared, slot: &Slot<ReplyDirectory>, pass: &Pass<'_>| {
            shared.list_directory(inode, handle.0, offset, slot, pass);
        };
        shared.surveyed(Operation::ReadDirectory, inode, involves, reply, work);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let inode = Inode(inode.0);
        let shared = self.count(Operation::ReadDirectory);
        let involves = shared.fs.reading_involves(inode, offset);
        let work = move |shared: &Shared, slot: &Slot<ReplyDirectoryPlus>, pass: &Pass<'_>| {
            shared.read_directory(inode, handle.0, offset, slot, pass);
        };
        shared.surveyed(Operation::ReadDirectory, inode, involves, reply, work);
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        self.shared.released(handle.0);
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        // As `/proc`: no space to be counted.
        reply.statfs(
            0,
            0,
            0,
            0,
            0,
            PAGE_SIZE as u32,
            MAX_NAME as u32,
            PAGE_SIZE as u32,
        );
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let (inode, name) = (Inode(inode.0), name.to_owned());
        let shared = self.count(Operation::ExtendedAttribute);
        shared.guarded(
            Operation::ExtendedAttribute,
            inode,
            reply,
            move |shared, slot| {
                let value = name
                    .to_str()
                    .ok_or(Error::NoAttribute)
                    .and_then(|name| shared.fs.extended_attribute(inode, name));
                shared.answer_xattr(inode, size, value, slot);
            },
        );
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let inode = Inode(inode.0);
        let shared = self.count(Operation::ExtendedAttribute);
        shared.guarded(
            Operation::ExtendedAttribute,
            inode,
            reply,
            move |shared, slot| {
                shared.answer_xattr(inode, size, shared.fs.extended_attributes(inode), slot);
            },
        );
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

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        // Python and others ask every file whether it is a terminal.
        reply.error(fuser::Errno::ENOTTY);
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
        let inode = Inode(inode.0);
        let shared = self.count(Operation::Seek);
        shared.guarded(Operation::Seek, inode, reply, move |shared, slot| {
            shared.seek(inode, handle.0, offset, whence, slot);
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn poll(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Always ready, as any regular file; the kernel does not ask again after this.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EOPNOTSUPP);
    }

    fn access(&self, _request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (inode, access) = (Inode(inode.0), convert::access(mask));
        let shared = self.count(Operation::Access);
        contained(|| match shared.fs.check_access(inode, access) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(shared.fail(Operation::Access, inode, &error)),
        });
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
