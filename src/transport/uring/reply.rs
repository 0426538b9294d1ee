//! Answers as they lie in an entry.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc;
use zerocopy::{Immutable, IntoBytes};

use super::backing::Backing;
use super::entry::Entry;
use super::protocol::{
    Attr, AttrOut, Dirent, EntryOut, GetxattrOut, Kstatfs, LseekOut, OpenOut, WriteOut, fopen,
};
use super::threads::Threads;
use crate::common::address::PAGE_SIZE;
use crate::files::{Kind, Statistics};
use crate::server::{self, Inode, Opened, Reply, Respond};

/// Who waits for the answer to the request in an entry.
///
/// One that is dropped without an answer is answered with an error: the entry would be lost otherwise.
#[derive(Debug)]
pub(super) struct EntryReply {
    /// `None` once it was answered.
    entry: Option<Box<Entry>>,
    threads: Arc<Threads>,
    /// How many bytes may be answered where the request bounds that: those of a directory, or of an extended attribute.
    size: usize,
}

impl EntryReply {
    pub(super) fn new(entry: Box<Entry>, threads: Arc<Threads>, size: usize) -> Self {
        Self {
            entry: Some(entry),
            threads,
            size,
        }
    }

    fn give(&mut self, answer: impl FnOnce(&mut Payload<'_>) -> Result<usize, Errno>) -> usize {
        let Some(mut entry) = self.entry.take() else {
            return 0;
        };
        let mut payload = Payload {
            entry: &mut entry,
            len: 0,
        };
        let answer = answer(&mut payload);
        let len = payload.len;
        entry.answer(answer.err(), len);
        self.threads.answered(entry);
        answer.unwrap_or(0)
    }
}

impl Drop for EntryReply {
    fn drop(&mut self) {
        self.give(|_| Err(Errno::EIO));
    }
}

/// Where an answer is put together.
struct Payload<'a> {
    entry: &'a mut Entry,
    len: usize,
}

impl Payload<'_> {
    fn put(&mut self, value: &(impl IntoBytes + Immutable)) -> Result<usize, Errno> {
        self.bytes(value.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let end = self.len + bytes.len();
        let room = self.entry.payload().get_mut(self.len..end);
        room.ok_or(Errno::EIO)?.copy_from_slice(bytes);
        self.len = end;
        Ok(0)
    }

    /// Those of a file, which may lie there already.
    fn data(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.entry.is_in_place(bytes) {
            self.len = bytes.len();
            return Ok(0);
        }
        self.bytes(bytes)
    }

    /// A name and what goes before it, where they find place within so many bytes of all.
    fn entry(&mut self, head: &[u8], dirent: Dirent, name: &str, size: usize) -> bool {
        let len = head.len() + size_of::<Dirent>() + name.len();
        let end = self.len + len.next_multiple_of(size_of::<u64>());
        let payload = self.entry.payload();
        let Some(room) = payload.get_mut(self.len..end).filter(|_| end <= size) else {
            return false;
        };
        room.fill(0);
        let (start, rest) = room.split_at_mut(head.len());
        start.copy_from_slice(head);
        let (start, rest) = rest.split_at_mut(size_of::<Dirent>());
        start.copy_from_slice(dirent.as_bytes());
        rest[..name.len()].copy_from_slice(name.as_bytes());
        self.len = end;
        true
    }
}

impl Respond for EntryReply {
    fn respond(mut self, reply: Result<Reply<'_>, Errno>) -> usize {
        let (size, threads) = (self.size, Arc::clone(&self.threads));
        self.give(|payload| match reply? {
            Reply::Done => Ok(0),
            Reply::Entry(entry, name_valid) => payload.put(&entry_out(entry, name_valid)),
            Reply::Attributes(entry) => {
                let (attr_valid, attr_valid_nsec) = lifetime(entry.attributes.valid);
                payload.put(&AttrOut {
                    attr_valid,
                    attr_valid_nsec,
                    dummy: 0,
                    attr: attr(entry),
                })
            }
            Reply::Opened(opened) => payload.put(&open_out(opened, threads.device())),
            Reply::Data(bytes) => payload.data(bytes),
            Reply::Written(size) => payload.put(&WriteOut { size, padding: 0 }),
            Reply::Offset(offset) => payload.put(&LseekOut { offset }),
            Reply::Names(names) => {
                for name in names {
                    let dirent = dirent(name.inode, name.kind, &name.name, name.next);
                    if !payload.entry(&[], dirent, &name.name, size) {
                        break;
                    }
                }
                Ok(0)
            }
            Reply::Entries(entries) => {
                let taken = entries.iter().take_while(|named| {
                    let (entry, name) = (&named.entry, &named.name);
                    let head = entry_out(entry, named.valid);
                    let dirent = dirent(entry.inode, entry.attributes.kind, name, named.next);
                    payload.entry(head.as_bytes(), dirent, name, size)
                });
                Ok(taken.count())
            }
            Reply::Statistics(of) => payload.put(&statistics(&of)),
            // A size of zero asks how long the value is (getxattr(2)).
            Reply::Attribute(value) => match size {
                0 => payload.put(&GetxattrOut {
                    size: value.len() as u32,
                    padding: 0,
                }),
                size if value.len() <= size => payload.bytes(value),
                _ => Err(Errno::ERANGE),
            },
        })
    }
}

fn entry_out(entry: &server::Entry, name_valid: Duration) -> EntryOut {
    let (entry_valid, entry_valid_nsec) = lifetime(name_valid);
    let (attr_valid, attr_valid_nsec) = lifetime(entry.attributes.valid);
    EntryOut {
        nodeid: entry.inode.0,
        generation: entry.generation.0.into(),
        entry_valid,
        attr_valid,
        entry_valid_nsec,
        attr_valid_nsec,
        attr: attr(entry),
    }
}

fn attr(entry: &server::Entry) -> Attr {
    let found = &entry.attributes;
    let (mtime, mtimensec) = since_epoch(found.modified);
    let (ctime, ctimensec) = since_epoch(found.changed);
    Attr {
        ino: entry.inode.0,
        size: found.size,
        blocks: found.blocks,
        atime: mtime,
        mtime,
        ctime,
        atimensec: mtimensec,
        mtimensec,
        ctimensec,
        mode: file_type(found.kind) | u32::from(found.mode),
        nlink: found.links,
        uid: found.uid,
        gid: found.gid,
        rdev: 0,
        blksize: PAGE_SIZE as u32,
        flags: 0,
    }
}

fn statistics(of: &Statistics) -> Kstatfs {
    Kstatfs {
        blocks: of.blocks,
        bfree: of.free,
        bavail: of.available,
        files: of.files,
        ffree: of.files_free,
        bsize: of.block_size,
        namelen: of.name_length,
        frsize: of.block_size,
        padding: 0,
        spare: [0; 6],
    }
}

fn dirent(inode: Inode, kind: Kind, name: &str, next: u64) -> Dirent {
    Dirent {
        ino: inode.0,
        off: next,
        namelen: name.len() as u32,
        // `DT_DIR` and its like are those bits of the mode.
        r#type: file_type(kind) >> 12,
    }
}

fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::File => libc::S_IFREG,
        Kind::Link => libc::S_IFLNK,
    }
}

/// Seconds and nanoseconds.
fn lifetime(valid: Duration) -> (u64, u32) {
    (valid.as_secs(), valid.subsec_nanos())
}

fn since_epoch(time: SystemTime) -> (u64, u32) {
    lifetime(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn open_out(opened: &Opened, device: &Arc<OwnedFd>) -> OpenOut {
    let backing: Option<&Backing> = opened.backing.as_ref().and_then(|store| {
        store.registered(|file| {
            let registered = Backing::new(device, file);
            if let Err(error) = &registered {
                log::debug!("no passthrough for a snapshot: {error}");
            }
            registered.ok()
        })
    });
    let (open_flags, backing_id) = match backing {
        Some(backing) => (fopen::PASSTHROUGH, backing.id().cast_signed()),
        None => {
            let direct = if opened.direct { fopen::DIRECT_IO } else { 0 };
            let keep = if opened.is_constant {
                fopen::KEEP_CACHE
            } else {
                0
            };
            (direct | keep, 0)
        }
    };
    OpenOut {
        fh: opened.handle,
        open_flags,
        backing_id,
    }
}
