//! A system of fake processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{FakeMemory, FakeProcess};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::target::mapping::{AddressSpace, Mapping};
use crate::target::{
    CgroupPath, Credentials, DumpFacts, DumpVma, Process, ProcessId, ProcessIdentity, ProcessInfo,
    ProcessMemory, ProcessSource, ProcessStatus, Program, ReadCounts, RegisterSet, Stopped,
    ThreadRegisters, ThreadStatus, WriteTracker, register_kind,
};

/// One program of a fake process.
#[derive(Debug)]
struct PinnedFake(Arc<FakeMemory>);

impl PinnedFake {
    fn ask(&self) -> Result<&FakeProcess> {
        let FakeMemory { identity, process } = &*self.0;
        process.check()?;
        match process.identity() == *identity {
            true => Ok(process),
            false => Err(Error::Replaced(identity.pid)),
        }
    }
}

impl Process for PinnedFake {
    fn identity(&self) -> &ProcessIdentity {
        &self.0.identity
    }

    fn verify(&self) -> Result<()> {
        self.0.verify()?;
        // The kernel does not say any more where its memory is.
        match self.0.process.check() {
            Err(Error::ProcessDenied(pid)) => Err(Error::Replaced(pid)),
            answer => answer,
        }
    }

    fn check_space(&self) -> Result<()> {
        self.0.verify()
    }

    fn describe(&self) -> Result<ProcessInfo> {
        let process = self.ask()?;
        process.wait();
        let state = process.state.lock();
        match state.in_exec {
            true => Err(Error::Replaced(self.0.identity.pid)),
            false => Ok(state.info.clone()),
        }
    }

    fn memory(&self) -> Result<Arc<dyn ProcessMemory>> {
        #[cfg(test)]
        if let Some(faults) = self.0.process.state.lock().faults.clone() {
            let inner = Arc::clone(&self.0) as _;
            return Ok(Arc::new(super::FaultyMemory::new(inner, faults)));
        }
        Ok(Arc::clone(&self.0) as _)
    }

    fn memory_for(&self, who: &Credentials, _write: bool) -> Result<Arc<dyn ProcessMemory>> {
        self.check_visible(who)?;
        self.memory()
    }

    fn check_visible(&self, who: &Credentials) -> Result<()> {
        self.ask()?.check_visible(who)
    }

    fn address_space(&self) -> Result<AddressSpace> {
        let mut state = self.ask()?.state.lock();
        state.maps_reads += 1;
        AddressSpace::parse(&state.maps).map_err(|_| Error::Invalid)
    }

    fn executable(&self) -> Result<Vec<u8>> {
        self.ask().map(|_| b"/usr/bin/fake".to_vec())
    }

    fn arguments(&self) -> Result<Vec<u8>> {
        self.ask().map(|_| b"fake\0--flag\0".to_vec())
    }

    fn state(&self) -> Result<u8> {
        self.ask().map(|_| b'S')
    }

    fn dump_facts(&self) -> Result<DumpFacts> {
        let space = self.address_space()?;
        let vmas = space.mappings().iter().map(|mapping| DumpVma {
            range: mapping.range(),
            anonymous: if mapping.has_file() { 0 } else { PAGE_SIZE },
            ..DumpVma::default()
        });
        let pid = self.0.identity.pid.as_pid_t();
        Ok(DumpFacts {
            process: ProcessStatus {
                pid,
                ..ProcessStatus::default()
            },
            threads: vec![ThreadStatus {
                tid: pid,
                ..ThreadStatus::default()
            }],
            auxiliary: self.ask()?.state.lock().auxiliary.clone(),
            filter: 0x33,
            vmas: vmas.collect(),
        })
    }

    fn stop(&self) -> Result<Box<dyn Stopped>> {
        let process = self.ask()?;
        let pid = self.0.identity.pid;
        let mut state = process.state.lock();
        if state.traced {
            return Err(Error::Traced(pid));
        }
        state.stops += 1;
        state.stopped += 1;
        let threads = vec![ThreadRegisters {
            tid: pid.as_pid_t(),
            sets: vec![RegisterSet {
                kind: register_kind::PRSTATUS,
                bytes: vec![0; 216],
            }],
            signal: None,
        }];
        let process = process.clone();
        Ok(Box::new(StoppedFake { process, threads }))
    }

    fn resident(&self) -> Result<u64> {
        let pages = self.ask()?.state.lock().pages.len() as u64;
        Ok(pages * PAGE_SIZE)
    }
}

/// A fake process that stands still.
#[derive(Debug)]
struct StoppedFake {
    process: FakeProcess,
    threads: Vec<ThreadRegisters>,
}

impl Drop for StoppedFake {
    fn drop(&mut self) {
        self.process.state.lock().stopped -= 1;
    }
}

impl Stopped for StoppedFake {
    fn threads(&self) -> &[ThreadRegisters] {
        &self.threads
    }

    fn track_writes(
        &self,
        _mappings: &[Arc<Mapping>],
        tracked: &[AddressRange],
        advance: &dyn Fn() -> Result<()>,
    ) -> Result<Box<dyn WriteTracker>> {
        advance()?;
        let state = self.process.state.lock();
        if state.is_untracked {
            return Err(Error::Untracked(state.info.identity.pid, "so was it said"));
        }
        let is_tracked = |page: &u64| tracked.iter().any(|it| it.contains(Address::new(*page)));
        let pages = state.pages.iter().filter(|(page, _)| is_tracked(page));
        Ok(Box::new(FakeTracker {
            process: self.process.clone(),
            pages: pages.map(|(at, bytes)| (*at, bytes.clone())).collect(),
        }))
    }
}

/// Compares pages with what they were.
#[derive(Debug)]
struct FakeTracker {
    process: FakeProcess,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl WriteTracker for FakeTracker {
    fn unwritten(&self, range: AddressRange) -> Result<Vec<AddressRange>> {
        let state = self.process.state.lock();
        assert!(state.stopped > 0, "it stands still");
        let pages = self.pages.range(range.start().get()..range.end().get());
        let same = pages.filter(|(page, bytes)| state.pages.get(page) == Some(bytes));
        let ranges = same.filter_map(|(page, _)| {
            let start = Address::new(*page);
            AddressRange::new(start, start.plus(PAGE_SIZE))
        });
        Ok(ranges.collect())
    }
}

/// Fake processes that are held for speed alone.
const FAKES_HELD: usize = 16;

/// A system of fake processes.
#[derive(Clone, Debug, Default)]
pub struct FakeSource {
    /// By number. No process is locked while this is held.
    processes: Arc<Mutex<BTreeMap<u32, FakeProcess>>>,
}

impl FakeSource {
    /// Adds a process, in place of one of the same number.
    pub fn add(&self, process: FakeProcess) {
        let pid = process.identity().pid.get();
        self.processes.lock().insert(pid, process);
    }

    /// The process of this number.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`.
    pub fn find(&self, pid: ProcessId) -> Result<FakeProcess> {
        let process = self
            .processes
            .lock()
            .get(&pid.get())
            .cloned()
            .ok_or(Error::NoProcess(pid))?;
        process.check()?;
        Ok(process)
    }
}

impl ProcessSource for FakeSource {
    fn numbers(&self) -> Result<Vec<ProcessId>> {
        let processes = self.processes.lock();
        Ok(processes
            .keys()
            .copied()
            .filter_map(ProcessId::new)
            .collect())
    }

    fn describe_pinned(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
        _timeout: Duration,
    ) -> Result<(ProcessInfo, Arc<dyn Process>)> {
        let process = self.find(pid)?;
        process.wait();
        who.map_or(Ok(()), |who| process.check_visible(who))?;
        let info = {
            let mut state = process.state.lock();
            state.descriptions += 1;
            match state.in_exec {
                true => return Err(Error::TimedOut(pid)),
                false => state.info.clone(),
            }
        };
        Ok((info, Arc::new(PinnedFake(process.memory()))))
    }

    fn most_held(&self) -> usize {
        FAKES_HELD
    }

    fn is_current(&self, identity: &ProcessIdentity) -> bool {
        let found = self.find(identity.pid);
        found.is_ok_and(|process| process.identity() == *identity)
    }

    fn resident(&self, pid: ProcessId) -> Result<u64> {
        let process = self.find(pid)?;
        let pages = process.state.lock().pages.len() as u64;
        Ok(pages * PAGE_SIZE)
    }

    fn cgroup(&self, pid: ProcessId) -> Result<CgroupPath> {
        let process = self.find(pid)?;
        let mut state = process.state.lock();
        state.cgroup_reads += 1;
        Ok(state.cgroup.clone())
    }

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn Process>> {
        let process = self.find(identity.pid)?;
        if process.identity() == *identity {
            Ok(Arc::new(PinnedFake(process.memory())))
        } else {
            Err(Error::Replaced(identity.pid))
        }
    }

    /// The user 0 is the one who has mounted.
    fn credentials(&self, _thread: u32, uid: u32, gid: u32) -> Result<Option<Credentials>> {
        Ok((uid != 0).then(|| Credentials::plain(uid, gid)))
    }

    fn program_of_thread(&self, tid: u32) -> Option<Program> {
        let process = self.find(ProcessId::new(tid)?).ok()?;
        let state = process.state.lock();
        Some(Program {
            pid: state.info.identity.pid,
            command: state.info.command.clone(),
            executable: b"/usr/bin/fake".to_vec(),
        })
    }

    fn reads_of_thread(&self, tid: u32) -> Option<ReadCounts> {
        let process = self.find(ProcessId::new(tid)?).ok()?;
        let state = process.state.lock();
        state.reads
    }

    fn boot(&self) -> String {
        "a boot".to_owned()
    }

    fn has_signal(&self, _tid: u32) -> bool {
        false
    }

    fn process_of_thread(&self, tid: u32) -> Result<ProcessId> {
        ProcessId::new(tid).ok_or(Error::NoEntry)
    }
}
