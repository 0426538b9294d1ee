//! A process as it was at one moment.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::budget::Reservation;
use super::record::{ProcessRecord, ThreadPlace};
use super::store::Store;
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result, Unknown};
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage, PageState, Run, push};
use crate::target::{
    DumpFacts, ProcessIdentity, ProcessInfo, ProcessMemory, ReadSegment, ThreadRegisters,
    WriteMode, build_id,
};

/// A file that is held open because a process that was copied had mapped it.
pub trait HeldFile: Debug + Send + Sync {
    /// Reads from `offset` on; returns the bytes up to the end of the page in which the file ends.
    ///
    /// # Errors
    /// `None` where it has changed since the process was copied, or cannot be read.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Option<usize>;

    /// Whether it is as it was when the process was copied.
    fn is_unchanged(&self) -> bool;
}

/// A store with what it takes of the budget.
#[derive(Debug)]
pub struct KeptStore {
    store: Box<dyn Store>,
    /// Bytes from its beginning to its end, with all holes.
    len: u64,
    reservation: Reservation,
    /// What somebody has made of it that must be kept as long as itself.
    registered: OnceLock<Option<Registered>>,
}

/// Whatever it is.
struct Registered(Box<dyn Any + Send + Sync>);

impl Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registered")
    }
}

impl KeptStore {
    pub(super) fn new(store: Box<dyn Store>, len: u64, reservation: Reservation) -> Self {
        Self {
            store,
            len,
            reservation,
            registered: OnceLock::new(),
        }
    }

    /// What `register` makes of the store's file when it is first asked for; kept as long as the store. `None` where that failed.
    pub(crate) fn registered<T: Any + Send + Sync>(
        &self,
        register: impl FnOnce(BorrowedFd<'_>) -> Option<T>,
    ) -> Option<&T> {
        let registered = self.registered.get_or_init(|| {
            let made = register(self.store.descriptor()?)?;
            Some(Registered(Box::new(made)))
        });
        registered.as_ref()?.0.downcast_ref()
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Gives the memory of whole pages back.
    pub(super) fn discard(&self, offset: u64, len: u64) {
        self.store.discard(offset, len);
        self.reservation.give_back(len);
    }
}

/// Where the bytes of pages are that were copied.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a store, from that offset on.
    Stored {
        /// Which.
        store: Arc<KeptStore>,
        /// Where in it.
        offset: u64,
    },
    /// In the file of the mapping.
    File {
        /// Which.
        file: Arc<dyn HeldFile>,
        /// Where in it.
        offset: u64,
    },
    /// They could not be read.
    Unreadable,
}

impl Place {
    /// Whether it holds bytes that can be read.
    pub(crate) fn is_data(&self) -> bool {
        match self {
            Self::Stored { .. } => true,
            Self::File { file, .. } => file.is_unchanged(),
            Self::Unreadable => false,
        }
    }

    /// The same, so many bytes further on.
    pub(super) fn after(&self, bytes: u64) -> Self {
        match self {
            Self::Stored { store, offset } => Self::Stored {
                store: Arc::clone(store),
                offset: offset + bytes,
            },
            Self::File { file, offset } => Self::File {
                file: Arc::clone(file),
                offset: offset.wrapping_add(bytes),
            },
            Self::Unreadable => Self::Unreadable,
        }
    }
}

/// What is to be known of a process that was copied.
#[derive(Debug)]
pub struct FrozenProcess {
    /// Which it was.
    pub info: Arc<ProcessInfo>,
    /// What its core file says of it.
    pub facts: DumpFacts,
    /// The registers of its threads, the first one first.
    pub threads: Vec<ThreadRegisters>,
    /// Its mappings, lowest address first.
    pub mappings: Arc<[Arc<Mapping>]>,
    /// The path of its program.
    pub executable: Vec<u8>,
    /// The identification of the boot.
    pub boot: String,
    /// When it was copied.
    pub taken: SystemTime,
    /// Its memory.
    pub memory: Arc<FrozenMemory>,
}

impl FrozenProcess {
    /// What identifies it. That may wait for the file of its program, where the process has no page of its beginning.
    pub fn record(&self) -> ProcessRecord {
        let identity = &self.info.identity;
        let places = self.threads.iter().filter_map(ThreadPlace::of);
        let mut threads: Vec<_> = places.collect();
        threads.sort_unstable();
        ProcessRecord {
            pid: identity.pid.get(),
            command: ProcessRecord::printable(&self.info.command),
            executable: ProcessRecord::printable(&self.executable),
            build_id: build_id(&*self.memory, &self.mappings, &self.facts.auxiliary),
            boot: self.boot.clone(),
            started: identity.start_time,
            layout: identity.layout,
            threads,
            unreadable: self.memory.unreadable(),
        }
    }
}

/// The memory of a process as it was at one moment.
#[derive(Debug)]
pub struct FrozenMemory {
    identity: ProcessIdentity,
    /// Where the bytes are, lowest address first; what is in none of them and in a mapping is zeros.
    runs: Vec<Run<Place>>,
}

impl FrozenMemory {
    /// Bytes that are in these runs, which lie in order and do not overlap.
    pub(super) fn new(identity: ProcessIdentity, runs: Vec<Run<Place>>) -> Self {
        debug_assert!(
            runs.windows(2)
                .all(|two| two[0].range.end() <= two[1].range.start()),
            "runs are in order"
        );
        Self { identity, runs }
    }

    /// The runs that have a part in `range`, lowest address first.
    pub fn runs(&self, range: AddressRange) -> impl Iterator<Item = Run<&Place>> {
        let first = self
            .runs
            .partition_point(|run| run.range.end() <= range.start());
        let runs = self.runs[first..].iter();
        let runs = runs.take_while(move |run| run.range.start() < range.end());
        runs.map(|run| Run {
            range: run.range,
            state: &run.state,
        })
    }

    /// The store that holds all of `range` and nothing else, from its first byte on, so that the kernel can read it as a file of
    /// its own. `None` where a part of it is elsewhere or a hole, or something else is in it.
    pub fn sole_store(&self, range: AddressRange) -> Option<Arc<KeptStore>> {
        let mut sole: Option<&Arc<KeptStore>> = None;
        let mut stored = 0;
        for run in self.runs(range) {
            let Place::Stored { store, offset } = run.state else {
                return None;
            };
            let is_same = sole.is_none_or(|sole| Arc::ptr_eq(sole, store));
            if !is_same || *offset != run.range.start().since(range.start()) {
                return None;
            }
            stored += run.range.intersection(range).len();
            sole = Some(store);
        }
        // Longer is that of several small mappings. One with holes would take memory for them: whoever maps a file of tmpfs and reads
        // a hole has a page allocated there.
        let is_all = |store: &&Arc<KeptStore>| store.len == range.len() && stored == range.len();
        sole.filter(is_all).map(Arc::clone)
    }

    /// Bytes of `range` that are in stores.
    pub fn stored(&self, range: AddressRange) -> u64 {
        let runs = self.runs(range);
        let stored = runs.filter(|run| matches!(run.state, Place::Stored { .. }));
        stored.map(|run| run.range.intersection(range).len()).sum()
    }

    /// What could not be copied.
    fn unreadable(&self) -> Vec<AddressRange> {
        let runs = self
            .runs
            .iter()
            .filter(|run| matches!(run.state, Place::Unreadable));
        runs.map(|run| run.range).collect()
    }

    /// Whether some bytes of `range` are in files.
    pub fn has_files(&self, range: AddressRange) -> bool {
        self.runs(range)
            .any(|run| matches!(run.state, Place::File { .. }))
    }

    /// Fills a buffer with the bytes from `start` on; returns how many it got before the first that cannot be read.
    fn fill(&self, start: Address, buffer: &mut [u8]) -> (usize, Option<Error>) {
        let mut done = 0;
        while done < buffer.len() {
            let at = start.plus(done as u64);
            let rest = &mut buffer[done..];
            let end = at.plus(rest.len() as u64);
            let wanted = AddressRange::new(at, end).unwrap_or_default();
            let run = self.runs(wanted).next();
            let zeros_end = run.map_or(end, |run| run.range.start().max(at));
            if zeros_end > at {
                let len = length(zeros_end.since(at), rest.len());
                rest[..len].fill(0);
                done += len;
                continue;
            }
            let Some(run) = run else { break };
            let len = length(run.range.end().since(at), rest.len());
            match run.state.after(at.since(run.range.start())) {
                Place::Stored { store, offset } => {
                    if let Err(error) = store.store().read(offset, &mut rest[..len]) {
                        return (done, Some(error));
                    }
                }
                Place::File { file, offset } => match file.read(offset, &mut rest[..len]) {
                    Some(read) if read == len => (),
                    Some(read) if read > 0 => return (done + read, None),
                    Some(_) => return (done, Some(Error::Unreachable(at))),
                    None => return (done, Some(Error::Unknown(at, Unknown::Changed))),
                },
                Place::Unreadable => return (done, Some(Error::Unreachable(at))),
            }
            done += len;
        }
        (done, None)
    }
}

fn length(wanted: u64, most: usize) -> usize {
    usize::try_from(wanted).map_or(most, |wanted| wanted.min(most))
}

impl ProcessMemory for FrozenMemory {
    fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// It stays what it was.
    fn verify(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let mut done = 0;
        for segment in segments {
            let (read, error) = self.fill(segment.address, segment.buffer);
            done += read;
            match error {
                Some(error) if done == 0 => return Err(error),
                _ if read < segment.buffer.len() => break,
                _ => (),
            }
        }
        Ok(done)
    }

    fn extents(
        &self,
        _mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        let mut at = range.start();
        for run in self.runs(range) {
            if extents.len() > at_most {
                return Ok(extents);
            }
            let part = run.range.intersection(range);
            let zeros = AddressRange::new(at, part.start()).unwrap_or_default();
            push(&mut extents, zeros, PageState::Zero);
            let state = match run.state {
                Place::Stored { .. } => PageState::Resident,
                Place::File { file, .. } if file.is_unchanged() => PageState::File,
                Place::File { .. } | Place::Unreadable => PageState::Unreadable,
            };
            push(&mut extents, part, state);
            at = part.end();
        }
        let zeros = AddressRange::new(at, range.end()).unwrap_or_default();
        push(&mut extents, zeros, PageState::Zero);
        Ok(extents)
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        let usages = ranges.iter().map(|range| MemoryUsage {
            resident: self.stored(*range),
            ..MemoryUsage::default()
        });
        Ok(usages.collect())
    }

    fn write(&self, _address: Address, _data: &[u8], _mode: WriteMode) -> Result<usize> {
        Err(Error::NotPermitted)
    }
}
