//! `/dev/fuse`, by the crate `fuser`: its only user.

mod convert;
mod negotiate;
mod reply;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow, WriteFlags,
};

use crate::files::view::Seek;
use crate::files::{Access, Change};
use crate::server::{Buffers, Inode, Invalidate, Operation, Respond, Server};

pub(crate) use negotiate::Features;
pub use negotiate::negotiate;

use reply::XattrReply;

/// Serves `/dev/fuse` with a [`Server`].
#[derive(Debug)]
pub(crate) struct Adapter {
    server: Arc<Server>,
    wishes: Features,
    granted: Arc<OnceLock<Features>>,
}

impl Adapter {
    /// What is wished for and what of it the kernel has granted is put into `granted` once the two have agreed. With
    /// rings all requests but FORGET go another way.
    pub(crate) fn new(
        server: Arc<Server>,
        wishes: Features,
        granted: Arc<OnceLock<Features>>,
    ) -> Self {
        Self {
            server,
            wishes,
            granted,
        }
    }

    fn serve(&self, request: &fuser::Request, operation: Operation, reply: impl Respond) {
        self.server
            .serve(convert::request(request, operation), Buffers::none(), reply);
    }

    fn change(&self, request: &fuser::Request, inode: INodeNo, reply: impl Respond) {
        let inode = Inode(inode.0);
        self.serve(request, Operation::Change { inode }, reply);
    }
}

/// An offset that stands for the attributes alone (`fuse_reverse_inval_inode` in `fs/fuse/inode.c`).
const ATTRIBUTES: i64 = -1;

impl Invalidate for Notifier {
    fn invalidate_attributes(&self, inode: Inode) -> io::Result<()> {
        self.inval_inode(INodeNo(inode.0), ATTRIBUTES, 0)
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        // Once for each mount.
        let _ = self.granted.set(self.wishes.negotiate(config));
        Ok(())
    }

    fn destroy(&mut self) {
        self.server.end();
    }

    fn lookup(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (Inode(parent.0), name.to_owned());
        self.serve(request, Operation::Lookup { parent, name }, reply);
    }

    fn forget(&self, _request: &fuser::Request, inode: INodeNo, lookups: u64) {
        self.server.forget(Inode(inode.0), lookups);
    }

    fn getattr(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let (inode, handle) = (Inode(inode.0), handle.map(|handle| handle.0));
        self.serve(request, Operation::GetAttributes { inode, handle }, reply);
    }

    fn setattr(
        &self,
        request: &fuser::Request,
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
        let has_owner_or_mode = mode.is_some() || uid.is_some() || gid.is_some();
        let has_times = atime.is_some() || mtime.is_some();
        let change = Change::new(has_owner_or_mode, has_times, size);
        let operation = Operation::SetAttributes {
            inode: Inode(inode.0),
            handle: handle.map(|handle| handle.0),
            change,
        };
        self.serve(request, operation, reply);
    }

    fn readlink(&self, request: &fuser::Request, inode: INodeNo, reply: ReplyData) {
        let inode = Inode(inode.0);
        self.serve(request, Operation::ReadLink { inode }, reply);
    }

    fn open(&self, request: &fuser::Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (inode, access) = (Inode(inode.0), Access::of_open(flags.0));
        self.serve(request, Operation::Open { inode, access }, reply);
    }

    fn read(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let operation = Operation::Read {
            inode: Inode(inode.0),
            handle: handle.0,
            offset,
            size: size as usize,
        };
        self.serve(request, operation, reply);
    }

    fn write(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let operation = Operation::Write {
            inode: Inode(inode.0),
            handle: handle.0,
            offset,
            is_mapped: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        self.server.serve(
            convert::request(request, operation),
            Buffers::of(data),
            reply,
        );
    }

    fn flush(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Every write is done when it is answered; the kernel does not ask again after this.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        self.server.release(handle.0);
    }

    fn opendir(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        _flags: OpenFlags,
        reply: ReplyOpen,
    ) {
        let inode = Inode(inode.0);
        self.serve(request, Operation::OpenDirectory { inode }, reply);
    }

    fn readdir(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let operation = Operation::ReadDirectory {
            inode: Inode(inode.0),
            handle: handle.0,
            position: offset,
        };
        self.serve(request, operation, reply);
    }

    fn readdirplus(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let operation = Operation::ReadDirectoryPlus {
            inode: Inode(inode.0),
            handle: handle.0,
            position: offset,
        };
        self.serve(request, operation, reply);
    }

    fn releasedir(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        self.server.release(handle.0);
    }

    fn statfs(&self, request: &fuser::Request, inode: INodeNo, reply: ReplyStatfs) {
        let inode = Inode(inode.0);
        self.serve(request, Operation::Statfs { inode }, reply);
    }

    fn getxattr(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let (inode, name) = (Inode(inode.0), name.to_owned());
        let operation = Operation::GetExtendedAttribute { inode, name };
        self.serve(request, operation, XattrReply { reply, size });
    }

    fn listxattr(&self, request: &fuser::Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let inode = Inode(inode.0);
        let operation = Operation::ListExtendedAttributes { inode };
        self.serve(request, operation, XattrReply { reply, size });
    }

    fn setxattr(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.change(request, inode, reply);
    }

    fn removexattr(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        _name: &OsStr,
        reply: ReplyEmpty,
    ) {
        self.change(request, inode, reply);
    }

    fn ioctl(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        // Python and others ask every file whether it is a terminal.
        reply.error(Errno::ENOTTY);
    }

    fn lseek(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let operation = Operation::Seek {
            inode: Inode(inode.0),
            handle: handle.0,
            offset,
            whence: Seek::of_lseek(whence),
        };
        self.serve(request, operation, reply);
    }

    fn fsyncdir(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn poll(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Always ready, as any regular file; the kernel does not ask again after this.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &fuser::Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn access(
        &self,
        request: &fuser::Request,
        inode: INodeNo,
        mask: AccessFlags,
        reply: ReplyEmpty,
    ) {
        let access = Access::of_mask(mask.bits().cast_unsigned());
        let inode = Inode(inode.0);
        self.serve(request, Operation::Access { inode, access }, reply);
    }

    fn mknod(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.change(request, parent, reply);
    }

    fn mkdir(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (parent, name) = (Inode(parent.0), name.to_owned());
        self.serve(request, Operation::MakeDirectory { parent, name }, reply);
    }

    fn unlink(&self, request: &fuser::Request, parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        self.change(request, parent, reply);
    }

    fn rmdir(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (Inode(parent.0), name.to_owned());
        self.serve(request, Operation::RemoveDirectory { parent, name }, reply);
    }

    fn symlink(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        self.change(request, parent, reply);
    }

    fn rename(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.change(request, parent, reply);
    }

    fn create(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.change(request, parent, reply);
    }

    fn link(
        &self,
        request: &fuser::Request,
        _inode: INodeNo,
        new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.change(request, new_parent, reply);
    }
}
