//! What each request does and how it is answered, on whatever thread that happens.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite, ReplyXattr,
};

use nix::errno::Errno;

use super::convert;
use super::outdate::Outdated;
use super::slot::Slot;
use crate::common::error::{Error, Result};
use crate::common::log_limit::LogLimit;
use crate::common::metrics::Operation;
use crate::fs::{Access, Attributes, FileSystem};
use crate::server::admission::Admission;
use crate::tree::{Inode, Pass};

/// How long the kernel may keep a name at the most, whatever the freshness
/// bound: programs end and others start under the same number.
const NAME_VALID: Duration = Duration::from_secs(1);

/// Entries that are put together for one answer to `readdirplus`, at first and at the most.
const ENTRIES: (usize, usize) = (32, 512);

thread_local! {
    /// Where answers to reads are put together; it grows to the largest of them and stays.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) fs: Arc<FileSystem>,
    pub(super) outdated: Outdated,
    pub(super) admission: Arc<Admission>,
    /// Entries to put together for the next answer to `readdirplus`: a few more than the last one took.
    entries: AtomicUsize,
    /// Failures that were told of a moment ago.
    failures: LogLimit<(Operation, i32)>,
}

impl Shared {
    pub(super) fn new(fs: Arc<FileSystem>, outdated: Outdated, admission: Arc<Admission>) -> Self {
        Self {
            failures: LogLimit::new(Arc::clone(fs.clock())),
            fs,
            outdated,
            admission,
            entries: AtomicUsize::new(ENTRIES.0),
        }
    }

    /// Counts and logs a failure, once and here.
    pub(super) fn fail(&self, operation: Operation, inode: Inode, error: &Error) -> fuser::Errno {
        self.fail_at(operation, inode, None, error)
    }

    /// As [`fail`](Self::fail), for what was asked of `name` in the directory `inode`.
    fn fail_at(
        &self,
        operation: Operation,
        inode: Inode,
        name: Option<&OsStr>,
        error: &Error,
    ) -> fuser::Errno {
        let errno = error.errno();
        self.fs.metrics().count_error(errno);
        let mut level = convert::level(error);
        let mut left_out = None;
        // What only who debugs wants to know is told each time.
        if level <= log::Level::Info {
            left_out = self.failures.admit((operation, errno as i32));
            if left_out.is_none() {
                level = log::Level::Debug;
            }
        }
        if log::log_enabled!(level) {
            let place = self.fs.place(operation.name(), inode, name);
            let left_out = left_out.map_or_else(String::new, |count| count.to_string());
            log::log!(level, "{place}: {errno:?}: {error}{left_out}");
        }
        fuser::Errno::from_i32(errno as i32)
    }

    /// Tells at the end how many failures were not.
    pub(super) fn tell_rest(&self) {
        for ((operation, errno), count) in self.failures.rest() {
            log::info!(
                "failures of {} with {:?} that were not logged: {count}",
                operation.name(),
                Errno::from_raw(errno)
            );
        }
    }

    pub(super) fn lookup(
        &self,
        parent: Inode,
        name: &OsStr,
        slot: &Slot<ReplyEntry>,
        pass: &Pass<'_>,
    ) {
        let found = self.fs.lookup_on(parent, name, pass);
        let given = slot.answer(|reply| match &found {
            Ok(found) => {
                let name_valid = found.valid.min(NAME_VALID);
                let attributes = convert::attributes(found);
                reply.entry_with_ttls(&found.valid, &name_valid, &attributes, generation(found));
            }
            Err(error) => reply.error(self.fail_at(Operation::Lookup, parent, Some(name), error)),
        });
        // The kernel has no reference to what it was not told of.
        if let (false, Ok(found)) = (given, found) {
            self.fs.forget(found.inode, 1);
        }
    }

    pub(super) fn answer_attributes(
        &self,
        operation: Operation,
        inode: Inode,
        found: Result<Attributes>,
        slot: &Slot<ReplyAttr>,
    ) {
        slot.answer(|reply| match found {
            Ok(found) => reply.attr(&found.valid, &convert::attributes(&found)),
            Err(error) => reply.error(self.fail(operation, inode, &error)),
        });
    }

    pub(super) fn read_link(&self, inode: Inode, caller: u32, slot: &Slot<ReplyData>) {
        let target = self.fs.read_link(inode, caller);
        slot.answer(|reply| match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(self.fail(Operation::ReadLink, inode, &error)),
        });
    }

    pub(super) fn open(&self, inode: Inode, access: Access, slot: &Slot<ReplyOpen>) {
        let opened = self.fs.open(inode, access).map(|opened| {
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
            (opened.handle, flags)
        });
        self.answer_open(Operation::Open, inode, opened, slot);
    }

    pub(super) fn open_directory(&self, inode: Inode, slot: &Slot<ReplyOpen>, pass: &Pass<'_>) {
        let opened = self.fs.open_directory_on(inode, pass);
        slot.note(&opened);
        let opened = opened.map(|handle| (handle, FopenFlags::empty()));
        self.answer_open(Operation::OpenDirectory, inode, opened, slot);
    }

    fn answer_open(
        &self,
        operation: Operation,
        inode: Inode,
        opened: Result<(u64, FopenFlags)>,
        slot: &Slot<ReplyOpen>,
    ) {
        let given = slot.answer(|reply| match &opened {
            Ok((handle, flags)) => reply.opened(FileHandle(*handle), *flags),
            Err(error) => reply.error(self.fail(operation, inode, error)),
        });
        // Nobody will ever release a handle that nobody was told of.
        if let (false, Ok((handle, _))) = (given, opened) {
            self.fs.release(handle);
        }
    }

    pub(super) fn read(
        &self,
        inode: Inode,
        handle: u64,
        offset: u64,
        size: usize,
        slot: &Slot<ReplyData>,
    ) {
        ANSWER.with_borrow_mut(|answer| {
            if answer.len() < size {
                answer.resize(size, 0);
            }
            let read = self.fs.read(handle, offset, &mut answer[..size]);
            slot.note(&read);
            slot.answer(|reply| match read {
                Ok(read) => reply.data(&answer[..read]),
                Err(error) => reply.error(self.fail(Operation::Read, inode, &error)),
            });
        });
    }

    /// `is_mapped` says that the data are whole pages of somebody's mmap.
    pub(super) fn write(
        &self,
        inode: Inode,
        handle: u64,
        offset: u64,
        data: &[u8],
        is_mapped: bool,
        slot: &Slot<ReplyWrite>,
    ) {
        let written = if is_mapped {
            Err(Error::MappedWrite)
        } else {
            self.fs.write(handle, offset, data)
        };
        slot.note(&written);
        match (slot.take(), written) {
            (Some(reply), Ok(written)) => self.outdated.answer(reply, &written),
            (Some(reply), Err(error)) => reply.error(self.fail(Operation::Write, inode, &error)),
            // Too late for the writer, but the bytes are there.
            (None, Ok(written)) => self.outdated.tell(&written),
            (None, Err(_)) => (),
        }
    }

    pub(super) fn seek(
        &self,
        inode: Inode,
        handle: u64,
        offset: i64,
        whence: i32,
        slot: &Slot<ReplyLseek>,
    ) {
        let found = convert::seek(offset, whence)
            .and_then(|(offset, whence)| self.fs.seek(handle, offset, whence));
        slot.note(&found);
        slot.answer(|reply| match found {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(error) => reply.error(self.fail(Operation::Seek, inode, &error)),
        });
    }

    /// Names alone.
    pub(super) fn list_directory(
        &self,
        inode: Inode,
        handle: u64,
        offset: u64,
        slot: &Slot<ReplyDirectory>,
        pass: &Pass<'_>,
    ) {
        // Before the reply is taken: a walk that begins lists the directory, which can take long.
        let listing = self.fs.read_directory_on(handle, offset, pass);
        slot.answer(|mut reply| match listing {
            Ok(listing) => {
                for (next, entry) in listing.from_position(offset) {
                    let number = INodeNo(self.fs.inode_of(&entry.node).0);
                    if reply.add(number, next, convert::kind(entry.node.kind()), &entry.name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(self.fail(Operation::ReadDirectory, inode, &error)),
        });
    }

    /// Names with attributes, which are looked up before the reply is taken: that can take long.
    pub(super) fn read_directory(
        &self,
        inode: Inode,
        handle: u64,
        offset: u64,
        slot: &Slot<ReplyDirectoryPlus>,
        pass: &Pass<'_>,
    ) {
        let listing = match self.fs.read_directory_on(handle, offset, pass) {
            Ok(listing) => listing,
            Err(error) => {
                slot.answer(|reply| {
                    reply.error(self.fail(Operation::ReadDirectory, inode, &error));
                });
                return;
            }
        };
        // The kernel takes a reference to each entry but these two.
        let is_dot = |name: &str| name == "." || name == "..";
        let entries: Vec<_> = listing
            .from_position(offset)
            .take(self.entries.load(Ordering::Relaxed))
            .collect();
        let counted = self.fs.count(entries.iter().map(|(_, entry)| &entry.node));
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(next, entry)| {
                let found = if is_dot(&entry.name) {
                    self.fs.show(&entry.node, &counted)
                } else {
                    self.fs.remember(&entry.node, &counted)
                };
                (next, entry, found)
            })
            .collect();
        let mut taken = 0;
        slot.answer(|mut reply| {
            for (next, entry, found) in &entries {
                let attributes = convert::attributes(found);
                let (name, valid) = (&entry.name, &found.valid.min(NAME_VALID));
                if reply.add(
                    attributes.ino,
                    *next,
                    name,
                    valid,
                    &attributes,
                    generation(found),
                ) {
                    break;
                }
                taken += 1;
            }
            reply.ok();
        });
        if taken < entries.len() {
            self.entries.store(taken + 2, Ordering::Relaxed);
        } else {
            let more = (2 * taken).clamp(ENTRIES.0, ENTRIES.1);
            self.entries.fetch_max(more, Ordering::Relaxed);
        }
        for (_, entry, found) in &entries[taken..] {
            if !is_dot(&entry.name) {
                self.fs.forget(found.inode, 1);
            }
        }
    }

    /// A size of zero asks how long the value is (getxattr(2)).
    pub(super) fn answer_xattr(
        &self,
        inode: Inode,
        size: u32,
        value: Result<Vec<u8>>,
        slot: &Slot<ReplyXattr>,
    ) {
        slot.note(&value);
        slot.answer(|reply| match value {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() <= size as usize => reply.data(&value),
            Ok(_) => reply.error(fuser::Errno::ERANGE),
            Err(error) => reply.error(self.fail(Operation::ExtendedAttribute, inode, &error)),
        });
    }
}

fn generation(found: &Attributes) -> Generation {
    Generation(found.generation.0.into())
}
