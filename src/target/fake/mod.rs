//! Processes that exist only in this program, for tests and benchmarks.

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
mod faulty;
mod source;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::common::sync::{Condvar, Mutex};

use super::{
    CgroupPath, Credentials, ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory, ReadSegment,
    WriteMode, requested,
};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::{Error, Result};
use crate::target::mapping::{AddressSpace, Mapping};
use crate::target::page_state::{Extent, MemoryUsage, PageState, push};

#[cfg(test)]
pub(crate) use faulty::{Fault, Faults, FaultyMemory, plans};
pub use source::FakeSource;
pub use stores::FakeStores;

/// A call that reached a fake process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Address and length of each segment asked for.
    Read(Vec<(u64, usize)>),
    /// Address and length.
    Write(u64, usize),
    /// For how many ranges it was asked how much memory they take.
    MemoryUsage(usize),
}

#[derive(Debug)]
struct State {
    info: ProcessInfo,
    maps: Vec<u8>,
    cgroup: CgroupPath,
    /// How often it was asked for.
    cgroup_reads: usize,
    pages: BTreeMap<u64, Vec<u8>>,
    /// Pages that the process has never written.
    zeros: BTreeSet<u64>,
    /// Pages that are said to be in swap.
    swapped: BTreeSet<u64>,
    /// What it has read.
    reads: Option<crate::target::ReadCounts>,
    alive: bool,
    denied: bool,
    /// Users who may not read it.
    denied_to: BTreeSet<u32>,
    /// Whether it is in the middle of an exec.
    in_exec: bool,
    /// Whether whoever asks for it waits.
    stalled: bool,
    waiting: usize,
    calls: Vec<Call>,
    maps_reads: usize,
    descriptions: usize,
    /// Its auxiliary vector.
    auxiliary: Vec<u8>,
    /// Whether somebody traces it.
    traced: bool,
    /// Whether nobody may track what it writes.
    is_untracked: bool,
    /// How often it was stopped.
    stops: usize,
    /// By how many it is.
    stopped: usize,
    /// How calls of its memory fail.
    #[cfg(test)]
    faults: Option<Faults>,
}

/// A process with pages, a text of `maps`, and a record of what was asked of it.
#[derive(Clone, Debug)]
pub struct FakeProcess {
    /// Guards all that the process has. Nothing else is locked while it is held.
    state: Arc<Mutex<State>>,
    goes_on: Arc<Condvar>,
}

impl FakeProcess {
    /// What the process is said to have read.
    pub fn set_reads(&self, reads: crate::target::ReadCounts) {
        self.state.lock().reads = Some(reads);
    }

    /// A live process without mappings.
    ///
    /// # Panics
    /// Where `pid` is no process's number.
    pub fn new(pid: u32, command: &[u8]) -> Self {
        let pid = ProcessId::new(pid).expect("a process's number");
        let identity = ProcessIdentity {
            pid,
            start_time: 1,
            pidfd_inode: u64::from(pid.get()),
            layout: [1, 1],
            random: 0,
        };
        Self {
            state: Arc::new(Mutex::new(State {
                reads: None,
                info: ProcessInfo {
                    identity,
                    command: command.to_vec(),
                    uid: 1000,
                    gid: 1000,
                    memory_owner: (1000, 1000),
                    started: 1_000_000,
                },
                maps: Vec::new(),
                cgroup: CgroupPath::root(),
                cgroup_reads: 0,
                pages: BTreeMap::new(),
                zeros: BTreeSet::new(),
                swapped: BTreeSet::new(),
                alive: true,
                denied: false,
                denied_to: BTreeSet::new(),
                in_exec: false,
                stalled: false,
                waiting: 0,
                calls: Vec::new(),
                maps_reads: 0,
                descriptions: 0,
                auxiliary: Vec::new(),
                traced: false,
                is_untracked: false,
                stops: 0,
                stopped: 0,
                #[cfg(test)]
                faults: None,
            })),
            goes_on: Arc::default(),
        }
    }

    /// Replaces the text of `maps`.
    pub fn set_maps(&self, maps: &[u8]) -> &Self {
        self.state.lock().maps = maps.to_vec();
        self
    }

    /// Moves it into another control group: the text of its `/proc/PID/cgroup`.
    pub fn set_cgroup(&self, text: &[u8]) -> &Self {
        self.state.lock().cgroup = CgroupPath::parse(text);
        self
    }

    /// How often its control group was asked for.
    pub fn cgroup_reads(&self) -> usize {
        self.state.lock().cgroup_reads
    }

    /// Puts `bytes` at `address`, which must start a page; the last page is filled up with zeros.
    pub fn map(&self, address: u64, bytes: &[u8]) -> &Self {
        assert_eq!(address % PAGE_SIZE, 0, "pages start at a page's start");
        let mut state = self.state.lock();
        for (index, chunk) in (0_u64..).zip(bytes.chunks(PAGE_SIZE as usize)) {
            let mut page = chunk.to_vec();
            page.resize(PAGE_SIZE as usize, 0);
            state.zeros.remove(&(address + index * PAGE_SIZE));
            state.pages.insert(address + index * PAGE_SIZE, page);
        }
        drop(state);
        self
    }

    /// Reserves `count` pages from `address` on that were never written.
    pub fn reserve(&self, address: u64, count: usize) -> &Self {
        self.map(address, &vec![0; count * PAGE_SIZE as usize]);
        let pages = (0..count as u64).map(|index| address + index * PAGE_SIZE);
        self.state.lock().zeros.extend(pages);
        self
    }

    /// Takes the page at `address` away.
    pub fn unmap(&self, address: u64) -> &Self {
        self.state.lock().pages.remove(&address);
        self
    }

    /// Says that the page at `address` is in swap.
    pub fn swap_out(&self, address: u64) -> &Self {
        self.state.lock().swapped.insert(address);
        self
    }

    /// Ends the process.
    pub fn end(&self) {
        self.state.lock().alive = false;
    }

    /// Runs another program: same process, another identity.
    pub fn exec(&self) {
        self.state.lock().info.identity.layout[0] += 1;
    }

    /// Forbids reading it.
    pub fn deny(&self) {
        self.state.lock().denied = true;
    }

    /// Forbids a user to read it.
    pub fn deny_to(&self, user: u32) {
        self.state.lock().denied_to.insert(user);
    }

    fn check_visible(&self, who: &Credentials) -> Result<()> {
        let state = self.state.lock();
        match state.denied_to.contains(&who.uid) {
            true => Err(Error::CallerDenied(state.info.identity.pid)),
            false => Ok(()),
        }
    }

    /// Begins an exec, or ends it.
    pub fn set_in_exec(&self, in_exec: bool) {
        self.state.lock().in_exec = in_exec;
    }

    /// Lets whoever asks for the process wait, or go on.
    pub fn set_stalled(&self, stalled: bool) {
        self.state.lock().stalled = stalled;
        self.goes_on.notify_all();
    }

    /// How many wait for it.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    fn wait(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.stalled {
            self.goes_on.wait(&mut state);
        }
        state.waiting -= 1;
    }

    /// Which program of which process it is now.
    pub fn identity(&self) -> ProcessIdentity {
        self.state.lock().info.identity
    }

    /// What reached its memory since the last call of this.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// How often `maps` was read.
    pub fn maps_reads(&self) -> usize {
        self.state.lock().maps_reads
    }

    /// How often it was described by its number alone, not by what was pinned of it.
    pub fn descriptions(&self) -> usize {
        self.state.lock().descriptions
    }

    /// Gives it an auxiliary vector.
    pub fn set_auxiliary(&self, auxiliary: &[u8]) -> &Self {
        self.state.lock().auxiliary = auxiliary.to_vec();
        self
    }

    /// Has somebody trace it, or nobody.
    pub fn set_traced(&self, traced: bool) {
        self.state.lock().traced = traced;
    }

    /// Lets nobody track what it writes.
    pub fn set_untracked(&self) {
        self.state.lock().is_untracked = true;
    }

    /// Whether it stands still.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped > 0
    }

    /// How often it was stopped.
    pub fn stops(&self) -> usize {
        self.state.lock().stops
    }

    /// Lets calls of its memory fail, when it is opened the next time.
    #[cfg(test)]
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = Some(faults);
    }

    /// What `pages` pages from `address` on hold; zeros where there is none.
    #[cfg(test)]
    pub(crate) fn bytes(&self, address: u64, pages: usize) -> Vec<u8> {
        let state = self.state.lock();
        let page = |number: usize| state.pages.get(&(address + number as u64 * PAGE_SIZE));
        let none = vec![0; PAGE_SIZE as usize];
        (0..pages)
            .flat_map(|number| page(number).unwrap_or(&none).clone())
            .collect()
    }

    /// Changes a byte, as the process itself does.
    #[cfg(test)]
    pub(crate) fn poke(&self, address: u64, byte: u8) {
        let at = address % PAGE_SIZE;
        if let Some(page) = self.state.lock().pages.get_mut(&(address - at)) {
            page[at as usize] = byte;
        }
    }

    /// Pins its memory.
    pub fn open(&self) -> Arc<dyn ProcessMemory> {
        self.memory()
    }

    fn memory(&self) -> Arc<FakeMemory> {
        Arc::new(FakeMemory {
            identity: self.identity(),
            process: self.clone(),
        })
    }

    fn check(&self) -> Result<()> {
        let state = self.state.lock();
        let pid = state.info.identity.pid;
        match (state.alive, state.denied) {
            (false, _) => Err(Error::NoProcess(pid)),
            (true, true) => Err(Error::ProcessDenied(pid)),
            (true, false) => Ok(()),
        }
    }
}

/// An anonymous mapping of `pages` pages from `start` on, readable and writable.
///
/// # Panics
/// Where that is no range of addresses.
pub fn mapping(start: u64, pages: u64) -> Mapping {
    let end = start + pages * PAGE_SIZE;
    let line = format!("{start:x}-{end:x} rw-p 00000000 00:00 0");
    let space = AddressSpace::parse(line.as_bytes()).expect("a line of maps");
    space.mappings()[0].clone()
}

#[derive(Debug)]
struct FakeMemory {
    identity: ProcessIdentity,
    process: FakeProcess,
}

impl ProcessMemory for FakeMemory {
    fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    fn verify(&self) -> Result<()> {
        let state = self.process.state.lock();
        if !state.alive {
            Err(Error::Ended(self.identity.pid))
        } else if state.info.identity != self.identity {
            Err(Error::Replaced(self.identity.pid))
        } else {
            Ok(())
        }
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let mut state = self.process.state.lock();
        state.calls.push(Call::Read(
            segments
                .iter()
                .map(|segment| (segment.address.get(), segment.buffer.len()))
                .collect(),
        ));
        let wanted = requested(segments);
        let mut done = 0;
        let mut stopped_at = None;
        'segments: for segment in segments {
            let mut filled = 0;
            while filled < segment.buffer.len() {
                let at = segment.address.plus(filled as u64);
                let Some(page) = state.pages.get(&at.page_start().get()) else {
                    stopped_at = Some(at);
                    break 'segments;
                };
                let left =
                    at.left_in_page()
                        .min((segment.buffer.len() - filled) as u64) as usize;
                let from = at.since(at.page_start()) as usize;
                segment.buffer[filled..filled + left].copy_from_slice(&page[from..from + left]);
                filled += left;
                done += left;
            }
        }
        drop(state);
        self.verify()?;
        match stopped_at {
            Some(at) if done == 0 && wanted > 0 => Err(Error::Unreachable(at)),
            _ => Ok(done),
        }
    }

    fn extents(
        &self,
        _mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        self.verify()?;
        let state = self.process.state.lock();
        let State {
            pages,
            zeros,
            swapped,
            ..
        } = &*state;
        let mut extents = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let page = at.page_start();
            let end = page.plus(PAGE_SIZE).min(range.end());
            let page_state = match pages.contains_key(&page.get()) {
                true if zeros.contains(&page.get()) => PageState::Zero,
                true if swapped.contains(&page.get()) => PageState::Swapped,
                true => PageState::Resident,
                false => PageState::Unreadable,
            };
            if extents.len() >= at_most
                && extents
                    .last()
                    .is_some_and(|last: &Extent| last.state != page_state)
            {
                break;
            }
            push(
                &mut extents,
                AddressRange::new(at, end).unwrap_or_default(),
                page_state,
            );
            at = end;
        }
        Ok(extents)
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        let mut state = self.process.state.lock();
        state.calls.push(Call::MemoryUsage(ranges.len()));
        let resident = |range: &AddressRange| {
            let pages = state.pages.range(range.start().get()..range.end().get());
            let written = pages.filter(|(page, _)| !state.zeros.contains(page));
            written.count() as u64 * PAGE_SIZE
        };
        Ok(ranges
            .iter()
            .map(|range| MemoryUsage {
                resident: resident(range),
                ..MemoryUsage::default()
            })
            .collect())
    }

    fn write(&self, address: Address, data: &[u8], _mode: WriteMode) -> Result<usize> {
        self.verify()?;
        let mut state = self.process.state.lock();
        state.calls.push(Call::Write(address.get(), data.len()));
        let mut done = 0;
        while done < data.len() {
            let at = address.plus(done as u64);
            let Some(page) = state.pages.get_mut(&at.page_start().get()) else {
                break;
            };
            let left = at.left_in_page().min((data.len() - done) as u64) as usize;
            let from = at.since(at.page_start()) as usize;
            page[from..from + left].copy_from_slice(&data[done..done + left]);
            done += left;
        }
        if done == 0 && !data.is_empty() {
            return Err(Error::Unreachable(address));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::fake::conformance::{self, Layout};

    #[test]
    fn a_fake_keeps_to_the_contract() {
        let process = FakeProcess::new(7, b"fake");
        let layout = Layout {
            mapping: super::mapping(0x10_000, 3),
            start: Address::new(0x10_000),
            first: (0..4096).map(|i| (i % 251) as u8).collect(),
            second: (0..4096).map(|i| (i % 241) as u8).collect(),
        };
        process
            .map(0x10_000, &layout.first)
            .map(0x11_000, &layout.second);
        conformance::check(&*process.open(), &layout);
    }

    #[test]
    fn a_pinned_memory_is_lost_with_its_program() {
        let process = FakeProcess::new(7, b"fake");
        process.map(0x10_000, b"bytes");
        let memory = process.open();
        process.exec();
        assert_eq!(
            memory.verify(),
            Err(Error::Replaced(process.identity().pid))
        );
        let again = process.open();
        process.end();
        assert_eq!(again.verify(), Err(Error::Ended(process.identity().pid)));
    }
}
