//! The dispatcher: what each operation does, and what its answer is.

use std::cell::RefCell;

use nix::errno::Errno;

use super::file_system::Written;
use super::reply::OneShot;
use super::{Buffers, Entry, Name, NamedEntry, Opened, Operation, Reply, Request, Respond, Server};
use crate::common::error::{Error, Result};
use crate::common::sync::atomic::Ordering;
use crate::files::{DirectoryEntry, Listing, Pass, Subject};

/// Entries that are put together for one answer to `readdirplus`, at first and at most.
pub(super) const ENTRIES: (usize, usize) = (32, 512);

thread_local! {
    /// Where answers to reads are put together; it grows to the largest of them and stays.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Server {
    /// Does what a request asks for, and answers it, unless somebody else has.
    pub(super) fn dispatch<R: Respond>(
        &self,
        request: &Request,
        buffers: Buffers<'_>,
        one_shot: &OneShot<R>,
        pass: &Pass<'_>,
    ) {
        let Buffers { data, room } = buffers;
        let fs = &self.fs;
        // Found out only where it is needed: that can take some system calls.
        let subject = || fs.context().subject(&request.caller);
        match &request.operation {
            Operation::Lookup { parent, name } => {
                let found = subject().and_then(|who| fs.lookup(*parent, name, &who, pass));
                let reply = found.as_ref().map(|entry: &Entry| {
                    Reply::Entry(entry, fs.context().name_valid(&entry.attributes))
                });
                let is_given = self.give(request, one_shot, reply);
                // The kernel has no reference to what it was not told of.
                if let (false, Ok(entry)) = (is_given, found) {
                    fs.forget(entry.inode, 1);
                }
            }
            Operation::GetAttributes { inode, handle } => {
                let found = subject_of(*handle, subject)
                    .and_then(|who| fs.attributes(*inode, *handle, &who));
                self.give(request, one_shot, found.as_ref().map(Reply::Attributes));
            }
            Operation::SetAttributes {
                inode,
                handle,
                change,
            } => {
                let found = subject_of(*handle, subject)
                    .and_then(|who| fs.set_attributes(*inode, *change, *handle, &who));
                self.give(request, one_shot, found.as_ref().map(Reply::Attributes));
            }
            Operation::ReadLink { inode } => {
                let target = subject().and_then(|who| fs.read_link(*inode, &who));
                let target = target.as_ref().map(String::as_bytes);
                self.give(request, one_shot, target.map(Reply::Data));
            }
            Operation::Open { inode, access } => {
                let opened = subject().and_then(|who| fs.open(*inode, &who, *access));
                self.give_opened(request, one_shot, opened);
            }
            Operation::OpenDirectory { inode } => {
                let handle = subject().and_then(|who| fs.open_directory(*inode, &who, pass));
                let opened = handle.map(Opened::new);
                self.give_opened(request, one_shot, opened);
            }
            Operation::Read {
                handle,
                offset,
                size,
                ..
            } => {
                with_place(room, *size, |answer| {
                    let read = answer.and_then(|answer| {
                        let read = fs.read(*handle, *offset, answer, Some(&self.ahead))?;
                        Ok(&answer[..read])
                    });
                    let read = read.as_ref().map(|bytes| Reply::Data(bytes));
                    self.give(request, one_shot, read);
                });
            }
            Operation::Write {
                handle,
                offset,
                is_mapped,
                ..
            } => {
                let written = match is_mapped {
                    // Bytes that the target has changed since would go back to what they were.
                    true => Err(Error::MappedWrite),
                    false => fs.write(*handle, *offset, data),
                };
                self.give_written(request, one_shot, written);
            }
            Operation::Seek {
                handle,
                offset,
                whence,
                ..
            } => {
                let found = match (u64::try_from(*offset), whence) {
                    (Err(_), _) => Err(Error::NoMoreData),
                    (_, None) => Err(Error::Invalid),
                    (Ok(offset), Some(whence)) => fs.seek(*handle, offset, *whence),
                };
                let found = found.as_ref().map(|found| Reply::Offset(*found));
                self.give(request, one_shot, found);
            }
            Operation::ReadDirectory {
                handle, position, ..
            } => {
                let listing = fs.read_directory(*handle, *position, subject, pass);
                if let Some(listing) = self.done(request, one_shot, listing) {
                    self.give_names(request, one_shot, &listing, *position);
                }
            }
            Operation::ReadDirectoryPlus {
                handle, position, ..
            } => {
                let listing = fs.read_directory(*handle, *position, subject, pass);
                if let Some(listing) = self.done(request, one_shot, listing) {
                    self.give_entries(request, one_shot, &listing, *position);
                }
            }
            Operation::GetExtendedAttribute { inode, name } => {
                let value = subject().and_then(|who| fs.extended_attribute(*inode, name, &who));
                let value = value.as_deref().map(Reply::Attribute);
                self.give(request, one_shot, value);
            }
            Operation::ListExtendedAttributes { inode } => {
                let names = subject().and_then(|who| fs.extended_attributes(*inode, &who));
                let names = names.as_deref().map(Reply::Attribute);
                self.give(request, one_shot, names);
            }
            Operation::Access { inode, access } => {
                let answer = subject().and_then(|who| fs.check_access(*inode, *access, &who));
                self.give(request, one_shot, answer.as_ref().map(|()| Reply::Done));
            }
            Operation::Statfs { .. } => {
                let statistics = fs.context().statistics();
                self.give(request, one_shot, Ok(Reply::Statistics(statistics)));
            }
            Operation::RemoveDirectory { parent, name } => {
                let removed = subject().and_then(|who| fs.remove_directory(*parent, name, &who));
                self.give(request, one_shot, removed.as_ref().map(|()| Reply::Done));
            }
            // It is done by a thread of its own (`snapshots`).
            Operation::MakeDirectory { .. } | Operation::Change { .. } => {
                self.give(request, one_shot, Err(&Error::NotPermitted));
            }
        }
    }

    /// Answers a read of bytes that were read ahead: nobody is waited for, so it takes no permit. Returns whether it was one.
    pub(super) fn give_read_ahead<R: Respond>(
        &self,
        request: &Request,
        buffers: &mut Buffers<'_>,
        one_shot: &OneShot<R>,
    ) -> bool {
        let Operation::Read {
            handle,
            offset,
            size,
            ..
        } = request.operation
        else {
            return false;
        };
        let Some(file) = self.fs.read_ahead_file(handle) else {
            return false;
        };
        if let Some(bytes) = self.fs.lend_read_ahead(&file, offset, size, &self.ahead) {
            return self.give(request, one_shot, Ok(Reply::Data(&bytes)));
        }
        with_place(buffers.room, size, |answer| {
            let Ok(answer) = answer else {
                return false;
            };
            self.fs.take_read_ahead(&file, offset, answer, &self.ahead)
                && self.give(request, one_shot, Ok(Reply::Data(answer)))
        })
    }

    /// Answers, unless somebody else has; returns whether it did.
    pub(super) fn give<R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        outcome: std::result::Result<Reply<'_>, &Error>,
    ) -> bool {
        if let Err(error) = &outcome {
            one_shot.note(error);
        }
        let Some(reply) = self.take_reply(request, one_shot) else {
            return false;
        };
        reply.respond(outcome.map_err(|error| self.fail(request, error)));
        true
    }

    /// What was done; `None` where it failed, which is answered.
    fn done<T, R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        outcome: Result<T>,
    ) -> Option<T> {
        let failed = |error| self.give(request, one_shot, Err(&error));
        outcome.map_err(failed).ok()
    }

    /// An open is answered once the kernel was told where it does not know the size any more.
    fn give_opened<R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        opened: Result<Opened>,
    ) {
        let Some(opened) = self.done(request, one_shot, opened) else {
            return;
        };
        let Some(reply) = self.take_reply(request, one_shot) else {
            // Nobody will ever release a handle that nobody was told of.
            return self.fs.release(opened.handle);
        };
        let stale = opened.stale;
        // Where the kernel could not be told it believes in the former size for as long as that was to be kept.
        self.invalidations.answer(stale.as_slice(), move |_| {
            reply.respond(Ok(Reply::Opened(&opened)));
        });
    }

    /// A write is answered once the kernel was told which pages are stale.
    fn give_written<R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        written: Result<Written>,
    ) {
        let Some(written) = self.done(request, one_shot, written) else {
            return;
        };
        let Some(reply) = self.take_reply(request, one_shot) else {
            // Too late for the writer, but the bytes are there.
            return self.invalidations.add(&written.stale);
        };
        let bytes = written.bytes as u32;
        self.invalidations.answer(&written.stale, move |is_told| {
            // The bytes are there, and nobody can promise that all readers see them yet.
            let reply_with = is_told
                .then_some(Reply::Written(bytes))
                .ok_or(Errno::EAGAIN);
            reply.respond(reply_with);
        });
    }

    /// Names alone.
    fn give_names<R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        listing: &Listing,
        position: u64,
    ) {
        let entries = listing.starting_at(position);
        let mut names = entries.map(|(next, DirectoryEntry { name, node })| Name {
            name,
            inode: self.fs.inode_of(&node),
            kind: node.kind(),
            next,
        });
        self.give(request, one_shot, Ok(Reply::Names(&mut names)));
    }

    /// Names with attributes, which are found before the reply is taken: that can take long.
    fn give_entries<R: Respond>(
        &self,
        request: &Request,
        one_shot: &OneShot<R>,
        listing: &Listing,
        position: u64,
    ) {
        let fs = &self.fs;
        let most = self.entries.load(Ordering::Relaxed);
        let mut entries = Vec::with_capacity(most.min(listing.len()));
        entries.extend(listing.starting_at(position).take(most));
        let nodes = entries.iter().map(|(_, entry)| &entry.node);
        let counted = fs.context().count(nodes);
        let entries: Vec<NamedEntry> = entries
            .into_iter()
            .map(|(next, DirectoryEntry { name, node })| {
                let entry = match has_reference(&name) {
                    true => fs.remember(&node, &counted),
                    false => fs.show(&node, &counted),
                };
                NamedEntry {
                    valid: fs.context().name_valid(&entry.attributes),
                    name,
                    entry,
                    next,
                }
            })
            .collect();
        let taken = match self.take_reply(request, one_shot) {
            Some(reply) => reply.respond(Ok(Reply::Entries(&entries))),
            None => 0,
        };
        if taken < entries.len() {
            self.entries.store(taken + 2, Ordering::Relaxed);
        } else {
            let more = (2 * taken).clamp(ENTRIES.0, ENTRIES.1);
            self.entries.fetch_max(more, Ordering::Relaxed);
        }
        for NamedEntry { name, entry, .. } in &entries[taken..] {
            if has_reference(name) {
                fs.forget(entry.inode, 1);
            }
        }
    }
}

/// Has `read` use the place for an answer of so many bytes: `room`, where that is large enough, or else memory of this thread's own.
fn with_place<T>(room: &mut [u8], size: usize, read: impl FnOnce(Result<&mut [u8]>) -> T) -> T {
    match room.get_mut(..size) {
        Some(answer) if size > 0 => read(Ok(answer)),
        _ => ANSWER.with_borrow_mut(|answer| read(lengthened(answer, size))),
    }
}

/// Who asks for attributes: whoever has the handle, where there is one.
fn subject_of(handle: Option<u64>, subject: impl FnOnce() -> Result<Subject>) -> Result<Subject> {
    match handle {
        Some(_) => Ok(Subject::default()),
        None => subject(),
    }
}

/// The first `len` bytes of a vector that has at least as many from now on.
///
/// # Errors
/// `System` where there is no memory.
fn lengthened(bytes: &mut Vec<u8>, len: usize) -> Result<&mut [u8]> {
    if let Some(missing) = len.checked_sub(bytes.len()) {
        bytes
            .try_reserve_exact(missing)
            .map_err(|_| Error::system("memory for an answer", Errno::ENOMEM))?;
        bytes.resize(len, 0);
    }
    Ok(&mut bytes[..len])
}

/// Whether the kernel takes a reference to an entry of `readdirplus`: to each but these two.
fn has_reference(name: &str) -> bool {
    name != "." && name != ".."
}
