//! A system of fake processes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{FakeProcess, PinnedFake};
use crate::common::address::PAGE_SIZE;
use crate::common::error::{Error, Result};
use crate::target::{Process, ProcessId, ProcessIdentity, ProcessInfo, ProcessSource};

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

    fn find(&self, pid: ProcessId) -> Result<FakeProcess> {
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

    fn describe(&self, pid: ProcessId) -> Result<ProcessInfo> {
        let process = self.find(pid)?;
        process.wait();
        let state = process.state.lock();
        match state.in_exec {
            true => Err(Error::TimedOut(pid)),
            false => Ok(state.info.clone()),
        }
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

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn Process>> {
        let process = self.find(identity.pid)?;
        if process.identity() == *identity {
            Ok(Arc::new(PinnedFake(process.memory())))
        } else {
            Err(Error::Replaced(identity.pid))
        }
    }

    fn process_of_thread(&self, tid: u32) -> Result<ProcessId> {
        ProcessId::new(tid).ok_or(Error::NoEntry)
    }
}
