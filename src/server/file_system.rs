//! Every operation of the file system as a plain function.

mod ahead;
mod opened;
mod snapshots;

use std::ffi::OsStr;
use std::sync::Arc;

use super::admission::Target;
use super::ahead::{ReadAhead, Stream};
use super::audit::{self, Trail};
use super::directory::OpenDirectory;
use super::handles::{FileHandle, Handle, HandleTable};
use super::inodes::{Generation, Inode, InodeTable};
use super::request::{Operation, Request};
use crate::common::error::{Error, Result};
use crate::files::view::Seek;
use crate::files::{
    Access, Attributes, Change, Context, CountedUsage, Kind, Listing, Node, Open, Pass, Subject,
    WaitsFor, xattr_list,
};
use crate::target::live::trim_heap;

pub(crate) use opened::Opened;

/// A file as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: Inode,
    /// Its generation, where the kernel gets a reference to it.
    pub(crate) generation: Generation,
    pub(crate) attributes: Attributes,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes that got there.
    pub(crate) bytes: usize,
    /// Files of which the kernel may have pages that are stale now: it is told before the writer is answered.
    pub(crate) stale: Vec<Inode>,
}

/// The files under the numbers by which the kernel knows them.
#[derive(Debug)]
pub(crate) struct FileSystem {
    context: Context,
    /// Whether each open is to be told of.
    audit: bool,
    inodes: InodeTable,
    handles: HandleTable,
}

impl FileSystem {
    /// A file system of which nobody knows a file yet but its root.
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            audit: false,
            inodes: InodeTable::default(),
            handles: HandleTable::default(),
        }
    }

    /// The same, with an audit trail.
    pub(crate) fn with_audit(self) -> Self {
        Self {
            audit: true,
            ..self
        }
    }

    /// What its files share.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Finds `name` in a directory for `subject`. The kernel then holds one more reference to what it found. Where all
    /// processes must be visited for it, `pass` does that.
    ///
    /// # Errors
    /// `NoEntry`, `NoProcess`, `ProcessDenied`, `CallerDenied`, `NotADirectory`, `TimedOut`.
    pub(super) fn lookup(
        &self,
        parent: Inode,
        name: &OsStr,
        subject: &Subject,
        pass: &Pass<'_>,
    ) -> Result<Entry> {
        let parent = self.visible(parent, subject)?;
        let pass = &pass.for_subject(subject);
        // Every name here is ASCII.
        let name = name.to_str().ok_or(Error::NoEntry)?;
        let node = parent.lookup(&self.context, name, pass)?;
        Ok(self.remember(&node, &CountedUsage::default()))
    }

    /// A node for the kernel to keep, which takes a reference.
    pub(super) fn remember(&self, node: &Node, counted: &CountedUsage) -> Entry {
        let (inode, generation) = self.inodes.remember(node);
        self.count_inodes();
        Entry {
            inode,
            generation,
            attributes: self.context.attributes(node, counted),
        }
    }

    /// A node that is only to be shown, without a reference to it.
    pub(super) fn show(&self, node: &Node, counted: &CountedUsage) -> Entry {
        Entry {
            inode: self.inode_of(node),
            generation: Generation::default(),
            attributes: self.context.attributes(node, counted),
        }
    }

    /// Gives references back.
    pub(super) fn forget(&self, inode: Inode, lookups: u64) {
        if self.inodes.forget(inode, lookups) {
            trim_heap();
        }
        self.count_inodes();
    }

    fn count_inodes(&self) {
        let held = self.inodes.len() as u64;
        self.context.metrics().inodes.set(held);
    }

    /// The number of a node, without a reference to it.
    pub(super) fn inode_of(&self, node: &Node) -> Inode {
        self.inodes.number(node)
    }

    /// How many inodes the kernel holds, the root included, and how many handles.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.inodes.len(), self.handles.len())
    }

    /// The node of a number.
    ///
    /// # Errors
    /// `NoEntry`.
    pub(crate) fn node(&self, inode: Inode) -> Result<Node> {
        self.inodes.get(inode)
    }

    /// The node of a number, if `subject` may know of it.
    ///
    /// # Errors
    /// `NoEntry`, `CallerDenied`, and why the process cannot be asked.
    fn visible(&self, inode: Inode, subject: &Subject) -> Result<Node> {
        let node = self.inodes.get(inode)?;
        self.context.check_visible(&node, subject)?;
        Ok(node)
    }

    /// The attributes of an inode for `subject`, or of what a handle holds open under it, for whoever has that.
    ///
    /// # Errors
    /// `NoEntry`, `CallerDenied`; for a handle `Ended` and `Replaced`, and without one
    /// `Replaced` for both, which makes the kernel look the path up again.
    pub(super) fn attributes(
        &self,
        inode: Inode,
        handle: Option<u64>,
        subject: &Subject,
    ) -> Result<Entry> {
        let node = self.inodes.get(inode)?;
        if let Some(info) = node.process() {
            self.context.verify(info).map_err(|error| match error {
                Error::Ended(pid) if handle.is_none() && !self.handles.holds(inode) => {
                    Error::Replaced(pid)
                }
                error => error,
            })?;
        }
        if handle.is_none() {
            self.context.check_visible(&node, subject)?;
        }
        Ok(Entry {
            inode,
            generation: Generation::default(),
            attributes: self.context.attributes(&node, &CountedUsage::default()),
        })
    }

    /// Takes note of a change, which changes nothing: truncation is accepted
    /// as on a device, anything else is refused.
    ///
    /// # Errors
    /// `NotPermitted`, and as [`attributes`](Self::attributes).
    pub(super) fn set_attributes(
        &self,
        inode: Inode,
        change: Change,
        handle: Option<u64>,
        subject: &Subject,
    ) -> Result<Entry> {
        if change.metadata {
            return Err(Error::NotPermitted);
        }
        if change.size.is_some() {
            self.inodes.get(inode)?.check_truncatable(&self.context)?;
        }
        self.attributes(inode, handle, subject)
    }

    /// Whether `access` would be granted to `subject`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn check_access(
        &self,
        inode: Inode,
        access: Access,
        subject: &Subject,
    ) -> Result<()> {
        let node = self.visible(inode, subject)?;
        if access.write {
            node.check_writable(&self.context)?;
        }
        if access.execute && node.kind() == Kind::File {
            return Err(Error::Protected);
        }
        Ok(())
    }

    /// Where a link leads, for `subject`.
    ///
    /// # Errors
    /// `Invalid` for what is no link, `NoEntry` where it leads nowhere, `CallerDenied`.
    pub(super) fn read_link(&self, inode: Inode, subject: &Subject) -> Result<String> {
        let link = self.visible(inode, subject)?;
        link.target(&self.context, &subject.caller)
    }

    /// The value of an extended attribute, for `subject`.
    ///
    /// # Errors
    /// `NoAttribute`, `NotSupported`, `CallerDenied`, and why the process cannot be asked.
    pub(super) fn extended_attribute(
        &self,
        inode: Inode,
        name: &OsStr,
        subject: &Subject,
    ) -> Result<Vec<u8>> {
        let name = name.to_str().ok_or(Error::NoAttribute)?;
        self.context.xattr(&self.visible(inode, subject)?, name)
    }

    /// The names of all extended attributes for `subject`, each ended by a NUL.
    ///
    /// # Errors
    /// `NoEntry`, `CallerDenied`.
    pub(super) fn extended_attributes(&self, inode: Inode, subject: &Subject) -> Result<Vec<u8>> {
        Ok(xattr_list(&self.visible(inode, subject)?))
    }

    /// Opens a file for `subject`; what is read through it from now on is no older than now.
    ///
    /// # Errors
    /// As [`File::open`](crate::files::File::open).
    pub(super) fn open(&self, inode: Inode, subject: &Subject, access: Access) -> Result<Opened> {
        let node = self.inodes.get(inode)?;
        // Who opens memory of a process is judged with that; a snapshot belongs to who has taken it.
        if node.snapshot().is_some() {
            self.context.check_visible(&node, subject)?;
        }
        // One that has ended was looked up a moment ago: told so, the kernel looks the path up again.
        let opened = node
            .open(&self.context, subject, access)
            .map_err(|error| match error {
                Error::Ended(pid) => Error::Replaced(pid),
                error => error,
            });
        let trail = self
            .audit
            .then(|| Arc::new(Trail::new(&self.context, &subject.caller, &node)));
        let handle = opened.and_then(|open| self.keep_open(inode, open, subject, trail.clone()));
        if let Some(trail) = trail {
            trail.opened(access, &handle);
        }
        handle
    }

    /// Gives what was opened for `subject` a number.
    fn keep_open(
        &self,
        inode: Inode,
        open: Open,
        subject: &Subject,
        trail: Option<Arc<Trail>>,
    ) -> Result<Opened> {
        let user = self.context.other_user(&subject.caller);
        let process = open.file.process().filter(|_| open.reads_ahead);
        let stream = process.map(|process| {
            let identity = process.identity();
            Arc::new(Stream::new(Target {
                pid: identity.pid,
                instance: Some(identity.pidfd_inode),
                user,
            }))
        });
        let file = FileHandle {
            inode,
            file: open.file,
            // Whoever maps a file that is read past the kernel's cache has pages there, too.
            is_buffered: (!open.direct || open.reads_ahead) && !open.is_constant,
            stream,
            trail,
        };
        let backing = file.file.backing().map(Arc::clone);
        let handle = self.handles.open(Handle::File(file), user)?;
        Ok(Opened {
            handle,
            direct: open.direct,
            is_constant: open.is_constant,
            stale: open.is_resized.then_some(inode),
            backing,
        })
    }

    /// Reads from `offset` on, and returns how many bytes it got. What is to be read ahead `ahead` does.
    ///
    /// # Errors
    /// `BadHandle`, and as [`OpenFile::read_at`].
    pub(super) fn read(
        &self,
        handle: u64,
        offset: u64,
        buffer: &mut [u8],
        ahead: Option<&Arc<ReadAhead>>,
    ) -> Result<usize> {
        let Handle::File(open) = self.handles.get(handle)? else {
            return Err(Error::IsADirectory);
        };
        open.file.was_read(&self.context, buffer.len());
        let read = match (&open.stream, ahead) {
            (Some(stream), Some(ahead)) => ahead.read(stream, &open.file, offset, buffer)?,
            _ => open.file.read_at(&self.context, offset, buffer)?,
        };
        self.context.metrics().read_bytes.add(read as u64);
        Ok(read)
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// `BadHandle`, and as [`OpenFile::write_at`].
    pub(super) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<Written> {
        let open = self.file(handle)?;
        let written = open.file.write_at(&self.context, offset, data);
        if let Some(trail) = &open.trail {
            trail.wrote(&written);
        }
        let bytes = written?;
        self.context.metrics().written_bytes.add(bytes as u64);
        Ok(Written {
            bytes,
            // All that are buffered: the same bytes may be mapped in any of them.
            stale: self.handles.buffered(),
        })
    }

    /// Where data or a hole starts, from `offset` on (`lseek` with `SEEK_DATA`, `SEEK_HOLE`).
    ///
    /// # Errors
    /// `NoMoreData` at and past the end, `BadHandle`.
    pub(super) fn seek(&self, handle: u64, offset: u64, whence: Seek) -> Result<u64> {
        let open = self.file(handle)?;
        open.file.seek(&self.context, offset, whence)
    }

    fn file(&self, handle: u64) -> Result<FileHandle> {
        match self.handles.get(handle)? {
            Handle::File(open) => Ok(open),
            Handle::Directory(_) => Err(Error::BadHandle),
        }
    }

    /// Closes a file or a directory.
    pub(super) fn release(&self, handle: u64) {
        let Some(Handle::File(open)) = self.handles.close(handle) else {
            return;
        };
        if let Some(trail) = &open.trail {
            trail.end();
        }
        if let Some(process) = open.file.process()
            && !self.handles.uses(process)
        {
            process.drop_caches();
        }
    }

    /// Tells of a request that was refused to its caller.
    pub(super) fn audit_refusal(&self, request: &Request, error: &Error) {
        // These have told by themselves, where it was known who asks.
        let tells = matches!(
            request.operation,
            Operation::Open { .. }
                | Operation::MakeDirectory { .. }
                | Operation::RemoveDirectory { .. }
        );
        let is_told = tells && *error != Error::UnknownCaller;
        if self.audit && !is_told {
            let node = self.inodes.get(request.operation.inode()).ok();
            audit::refused(&self.context, request, node.as_ref(), error);
        }
    }

    /// Tells what was written through all that is still open.
    pub(super) fn end_audit(&self) {
        for trail in self.handles.trails() {
            trail.end();
        }
    }

    /// Opens a directory as it is now for `subject`; where all processes are listed, `pass` finds them.
    ///
    /// # Errors
    /// `NotADirectory`, `CallerDenied`, `TimedOut`, and what listing the processes or reading `maps` says.
    pub(super) fn open_directory(
        &self,
        inode: Inode,
        subject: &Subject,
        pass: &Pass<'_>,
    ) -> Result<u64> {
        let node = self.visible(inode, subject)?;
        let taken = self.context.clock().now();
        let listing = self.context.list(&node, &pass.for_subject(subject))?;
        let open = OpenDirectory::new(node, listing, taken);
        let user = self.context.other_user(&subject.caller);
        self.handles.open(Handle::Directory(Arc::new(open)), user)
    }

    /// The entries of an open directory, `.` and `..` first, for the `subject` that reads them from `position`
    /// on: as they are now where a walk begins, and else as they were when it began.
    ///
    /// # Errors
    /// `BadHandle`, `TooManyOpen`, and as [`open_directory`](Self::open_directory).
    pub(super) fn read_directory(
        &self,
        handle: u64,
        position: u64,
        subject: impl FnOnce() -> Result<Subject>,
        pass: &Pass<'_>,
    ) -> Result<Arc<Listing>> {
        let Handle::Directory(open) = self.handles.get(handle)? else {
            return Err(Error::BadHandle);
        };
        let now = self.context.clock().now();
        if let Some(listing) = open.known_listing(position, now) {
            return Ok(listing);
        }
        let subject = &subject()?;
        self.context.check_visible(open.node(), subject)?;
        let listing = self.context.list(open.node(), &pass.for_subject(subject))?;
        self.handles.recount(handle, listing.len())?;
        Ok(open.begin(listing, now))
    }

    /// Whom a request for this inode may wait for.
    pub(super) fn waits_for(&self, inode: Inode) -> WaitsFor {
        self.of_node(inode, |node| node.waits_for())
    }

    /// Whom a look-up of `name` may wait for.
    pub(super) fn lookup_waits_for(&self, parent: Inode, name: &OsStr) -> WaitsFor {
        let name = name.to_str().unwrap_or_default();
        self.of_node(parent, |node| node.lookup_waits_for(name))
    }

    /// Whom reading this directory from `position` on may wait for: where a walk begins it may be listed again.
    pub(super) fn entries_wait_for(&self, inode: Inode, position: u64) -> WaitsFor {
        match position {
            0 => self.of_node(inode, |node| node.entries_wait_for()),
            _ => self.waits_for(inode),
        }
    }

    /// Whom closing this handle may wait for.
    pub(super) fn release_waits_for(&self, handle: u64) -> WaitsFor {
        let Ok(Handle::File(open)) = self.handles.get(handle) else {
            return WaitsFor::Nobody;
        };
        open.file.process().map_or(WaitsFor::Nobody, |process| {
            WaitsFor::program(process.identity())
        })
    }

    fn of_node(&self, inode: Inode, of: impl FnOnce(&Node) -> WaitsFor) -> WaitsFor {
        self.inodes
            .get(inode)
            .map_or(WaitsFor::Nobody, |node| of(&node))
    }
}

#[cfg(test)]
pub(crate) mod tests;
