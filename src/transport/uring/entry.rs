//! Entries of a ring: each holds one request at a time, and its answer.

use std::fs::File;
use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{MmapMut, MmapOptions};
use nix::errno::Errno;
use nix::libc;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MremapFlags, mremap_fixed};
use zerocopy::{FromBytes, IntoBytes};

use super::protocol::{InHeader, OutHeader, RequestHeader};
use super::request::Incoming;
use crate::common::address::PAGE_SIZE;

/// Where the heads of a request are; the payload begins after it.
const HEADER_LEN: usize = PAGE_SIZE as usize;

const _: () = assert!(size_of::<RequestHeader>() <= HEADER_LEN);

/// Memory for entries, as a file, so that each payload can be mapped twice.
#[derive(Debug)]
pub(super) struct EntryMemory {
    file: File,
    payload_len: usize,
    count: usize,
    /// How many were given out.
    used: AtomicUsize,
}

impl EntryMemory {
    /// Memory for so many entries with payloads of that many bytes, a multiple of a page. It is taken as it is used.
    ///
    /// # Errors
    /// memfd_create(2), ftruncate(2).
    pub(super) fn new(count: usize, payload_len: usize) -> io::Result<Self> {
        let file = File::from(memfd_create(c"procmemfs-ring", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, (count * (HEADER_LEN + payload_len)) as u64)?;
        Ok(Self {
            file,
            payload_len,
            count,
            used: AtomicUsize::new(0),
        })
    }

    /// An entry for this queue that the kernel does not know yet; `None` where all were given out.
    ///
    /// # Errors
    /// mmap(2).
    pub(super) fn entry(&self, queue: u16) -> io::Result<Option<Entry>> {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < self.count).then_some(used + 1)
            });
        let Ok(number) = taken else { return Ok(None) };
        let offset = (number * (HEADER_LEN + self.payload_len)) as u64;
        let map = |offset, len| {
            // SAFETY: the file has no name, is of this size for good, and nobody else has it.
            unsafe {
                MmapOptions::new()
                    .offset(offset)
                    .len(len)
                    .map_mut(&self.file)
            }
        };
        let shared = map(offset, HEADER_LEN + self.payload_len)?;
        let payload = offset + HEADER_LEN as u64;
        let alias = Alias::new(map(payload, self.payload_len)?);
        Ok(Some(Entry {
            shared,
            alias: Arc::new(alias),
            payload,
            queue,
            commit: 0,
            unique: 0,
        }))
    }
}

/// The payload of an entry once more, for whoever serves the request in it.
///
/// A call that waits for a target may go on with the payload after somebody else has answered in its place, and the kernel may have put
/// the next request there by then. So it works on a mapping of its own, which is taken off the payload first ([`Alias::part`]).
#[derive(Debug)]
pub(super) struct Alias {
    bytes: MmapMut,
    /// Guards who has it. Nothing is locked inside it.
    usage: Mutex<Usage>,
}

/// How the payload is used.
#[derive(Debug, Default)]
struct Usage {
    user: User,
    turn: Turn,
}

/// Tells those apart who have had the payload, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn(u64);

/// Who has the payload.
#[derive(Debug, Default)]
enum User {
    /// Nobody.
    #[default]
    Nobody,
    /// A thread serves the request.
    Thread,
    /// So it does, and somebody else has answered that by now: the entry is left for it.
    Answered(Box<Entry>),
}

impl Alias {
    fn new(bytes: MmapMut) -> Self {
        Self {
            bytes,
            usage: Mutex::default(),
        }
    }

    /// The payload, for the one thread that serves the request in the entry.
    ///
    /// # Safety
    /// Nobody else has called this since the entry was last given to the kernel, and the result is not used any more once
    /// [`release`](Self::release) was called.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn bytes(&self) -> (&mut [u8], Turn) {
        let turn = {
            let mut now = self.usage.lock();
            now.user = User::Thread;
            now.turn.0 += 1;
            now.turn
        };
        // SAFETY: the mapping lives as long as `self`, and by the caller's promise nobody else uses it.
        let bytes =
            unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr().cast_mut(), self.bytes.len()) };
        (bytes, turn)
    }

    /// The end of that; the entry, where it was left for this thread.
    #[must_use]
    pub(super) fn release(&self, turn: Turn) -> Option<Box<Entry>> {
        let mut now = self.usage.lock();
        // Another thread serves the next request in this entry by now.
        if now.turn != turn {
            return None;
        }
        match std::mem::take(&mut now.user) {
            User::Answered(entry) => Some(entry),
            User::Nobody | User::Thread => None,
        }
    }

    /// Has whoever had it use it no more: it has answered, and goes on with something else.
    pub(super) fn end_turn(&self) {
        let mut now = self.usage.lock();
        now.user = User::Nobody;
        now.turn.0 += 1;
    }

    /// Leaves the entry to the thread that serves the request in it; gives it back where there is none.
    #[must_use]
    pub(super) fn leave(&self, entry: Box<Entry>) -> Option<Box<Entry>> {
        let user = &mut self.usage.lock().user;
        match user {
            User::Thread => *user = User::Answered(entry),
            User::Nobody | User::Answered(_) => return Some(entry),
        }
        None
    }

    /// Takes back what was left, unless the thread has it by now.
    pub(super) fn take_back(&self) -> Option<Box<Entry>> {
        let user = &mut self.usage.lock().user;
        match std::mem::replace(user, User::Thread) {
            User::Answered(entry) => Some(entry),
            other => {
                *user = other;
                None
            }
        }
    }

    /// Where it begins.
    fn start(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Has whoever works on it still see the bytes that are there now, and change no others than their own.
    ///
    /// # Errors
    /// mmap(2), mremap(2).
    fn part(&self) -> io::Result<()> {
        let mut copy = MmapMut::map_anon(self.bytes.len())?;
        copy.copy_from_slice(&self.bytes);
        let (from, to, len) = (copy.as_mut_ptr(), self.bytes.as_ptr(), self.bytes.len());
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: both are mappings of this length that belong to us. Whoever reads the old one reads the same bytes after it, and whoever
        // writes there writes to memory that is nobody else's.
        unsafe { mremap_fixed(from.cast(), len, len, flags, to.cast_mut().cast()) }?;
        // It lies in the place of the other one now, and goes with that.
        std::mem::forget(copy);
        Ok(())
    }
}

/// Which entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryNumber(pub(super) u64);

/// An entry of a ring.
#[derive(Debug)]
pub(super) struct Entry {
    /// What the kernel knows it by: heads and payload.
    shared: MmapMut,
    alias: Arc<Alias>,
    /// Where the payload lies in the file of all.
    payload: u64,
    queue: u16,
    /// By what the request in it is answered.
    commit: u64,
    unique: u64,
}

impl Entry {
    /// Which one it is of all.
    pub(super) fn number(&self) -> EntryNumber {
        EntryNumber(self.payload)
    }

    /// The processor whose requests come here.
    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    /// By what the request in it is answered.
    pub(super) fn commit(&self) -> u64 {
        self.commit
    }

    /// Heads and payload, as the kernel is told of them.
    pub(super) fn places(&mut self) -> [libc::iovec; 2] {
        let start = self.shared.as_mut_ptr();
        let place = |offset, len| libc::iovec {
            iov_base: start.wrapping_add(offset).cast(),
            iov_len: len,
        };
        let len = self.shared.len();
        [place(0, HEADER_LEN), place(HEADER_LEN, len - HEADER_LEN)]
    }

    /// Takes note of a request that the kernel has put there.
    pub(super) fn receive(&mut self) -> Incoming<'_> {
        let (head, payload) = self.shared.split_at(HEADER_LEN);
        let head = RequestHeader::ref_from_prefix(head);
        // It is as long, and its fields need no alignment beyond that of a page.
        let (head, _) = head.expect("a page holds the heads");
        let header = InHeader::read_from_prefix(&head.in_out);
        let (header, _) = header.expect("there is place for it");
        let entry = head.ring_ent_in_out;
        self.commit = entry.commit_id;
        self.unique = header.unique;
        Incoming {
            header,
            argument: &head.op_in,
            payload: &payload[..(entry.payload_sz as usize).min(payload.len())],
        }
    }

    /// For whoever serves the request in it.
    pub(super) fn alias(&self) -> Arc<Alias> {
        Arc::clone(&self.alias)
    }

    /// Whether these bytes lie at the start of the payload already.
    pub(super) fn is_in_place(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(bytes.as_ptr(), self.alias.start())
    }

    /// Where an answer goes.
    pub(super) fn payload(&mut self) -> &mut [u8] {
        &mut self.shared[HEADER_LEN..]
    }

    /// Puts an answer there: an error, or so many bytes of the payload.
    pub(super) fn answer(&mut self, error: Option<Errno>, len: usize) {
        let out = OutHeader {
            len: (size_of::<OutHeader>() + len) as u32,
            error: error.map_or(0, |errno| -(errno as i32)),
            unique: self.unique,
        };
        let (head, _) = RequestHeader::mut_from_prefix(&mut self.shared[..HEADER_LEN])
            .expect("a page holds the heads");
        head.in_out[..size_of::<OutHeader>()].copy_from_slice(out.as_bytes());
        head.ring_ent_in_out.payload_sz = len as u32;
    }

    /// Takes the payload from the thread that is still at work on it, before the kernel gets it again.
    ///
    /// # Errors
    /// mmap(2), mremap(2): the kernel must not get it then.
    pub(super) fn part(&mut self, memory: &EntryMemory) -> io::Result<()> {
        // SAFETY: as in `EntryMemory::entry`.
        let fresh = unsafe {
            MmapOptions::new()
                .offset(self.payload)
                .len(memory.payload_len)
                .map_mut(&memory.file)
        }?;
        self.alias.part()?;
        self.alias = Arc::new(Alias::new(fresh));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 4 * PAGE_SIZE as usize;

    #[test]
    fn there_are_so_many_entries() {
        let memory = EntryMemory::new(2, LEN).unwrap();
        for _ in 0..2 {
            let entry = memory.entry(3).unwrap().unwrap();
            assert_eq!(entry.queue(), 3);
        }
        assert!(memory.entry(3).unwrap().is_none());
    }

    #[test]
    fn what_the_server_puts_there_the_kernel_gets() {
        let memory = EntryMemory::new(2, LEN).unwrap();
        let _other = memory.entry(0).unwrap();
        let mut entry = memory.entry(0).unwrap().unwrap();
        let alias = entry.alias();
        // SAFETY: nobody else serves it.
        let (room, _) = unsafe { alias.bytes() };
        room.fill(7);
        assert!(entry.is_in_place(&room[..5]));
        assert!(!entry.is_in_place(&room[1..5]));
        assert_eq!(entry.payload(), [7; LEN]);
    }

    /// SEMANTICS: a call that comes back late changes no other request.
    #[test]
    fn whoever_is_late_works_on_bytes_of_their_own() {
        let memory = EntryMemory::new(1, LEN).unwrap();
        let mut entry = memory.entry(0).unwrap().unwrap();
        entry.payload().fill(1);
        let late = entry.alias();
        // SAFETY: nobody else serves it.
        let (bytes, turn) = unsafe { late.bytes() };
        entry.part(&memory).unwrap();
        // The next request, which the late one does not see ...
        entry.payload().fill(2);
        assert_eq!(bytes, [1; LEN]);
        // ... nor change, and whoever serves that one sees it.
        bytes.fill(3);
        assert_eq!(entry.payload(), [2; LEN]);
        let alias = entry.alias();
        // SAFETY: the late one has another mapping.
        let (next, _) = unsafe { alias.bytes() };
        assert_eq!(next, [2; LEN]);
        assert!(late.release(turn).is_none());
        drop(late);
        assert_eq!(entry.payload(), [2; LEN]);
    }

    #[test]
    fn an_entry_is_left_for_the_thread_that_serves_it() {
        let memory = EntryMemory::new(1, LEN).unwrap();
        let entry = Box::new(memory.entry(0).unwrap().unwrap());
        let alias = entry.alias();
        let entry = alias.leave(entry).expect("nobody serves it");
        // SAFETY: nobody else serves it.
        let (_, turn) = unsafe { alias.bytes() };
        assert!(alias.leave(entry).is_none());
        let entry = alias.take_back().expect("the thread is at work");
        assert!(alias.take_back().is_none());
        assert!(alias.leave(entry).is_none());
        assert!(alias.release(turn).is_some());
        assert!(alias.take_back().is_none());
        assert!(alias.release(turn).is_none());
    }

    #[test]
    fn whoever_has_ended_takes_nothing_from_the_next_one() {
        let memory = EntryMemory::new(1, LEN).unwrap();
        let entry = Box::new(memory.entry(0).unwrap().unwrap());
        let alias = entry.alias();
        // SAFETY: nobody else serves it.
        let (_, first) = unsafe { alias.bytes() };
        alias.end_turn();
        let entry = alias.leave(entry).expect("nobody serves it");
        // SAFETY: the first one uses it no more.
        let (_, second) = unsafe { alias.bytes() };
        assert!(alias.leave(entry).is_none());
        assert!(alias.release(first).is_none());
        assert!(alias.release(second).is_some());
    }
}
