//! A pass over all processes that waits for none of them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::process::{ProcessId, ProcessInfo, ProcessSource};
use crate::visit::{Everywhere, Visit, Visits};

/// How long a pass waits at its end for processes that it met in the middle of an exec, for all of
/// them together: an exec takes far less, unless it waits for something that does not answer.
const EXECS: Duration = Duration::from_millis(30);

/// What one pass has found so far, lowest number first: whoever takes it over goes on from there.
#[derive(Debug, Default)]
pub struct Found(Mutex<Vec<(ProcessId, Option<Arc<ProcessInfo>>)>>);

impl Found {
    fn of(&self, pid: ProcessId) -> Option<Option<Arc<ProcessInfo>>> {
        let found = self.0.lock();
        let index = found.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        Some(found[index].1.clone())
    }

    fn add(&self, pid: ProcessId, info: Option<Arc<ProcessInfo>>) {
        let mut found = self.0.lock();
        if let Err(index) = found.binary_search_by_key(&pid, |(pid, _)| *pid) {
            found.insert(index, (pid, info));
        }
    }

    fn all(&self) -> Arc<[Arc<ProcessInfo>]> {
        let found = self.0.lock();
        found.iter().filter_map(|(_, info)| info.clone()).collect()
    }
}

/// One pass over all processes, which may have been begun by another thread.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    visits: &'a dyn Visits,
    found: &'a Found,
}

impl<'a> Pass<'a> {
    /// A pass that looks where `visits` says, and goes on from what was `found`.
    pub fn new(visits: &'a dyn Visits, found: &'a Found) -> Self {
        Self { visits, found }
    }

    /// A pass that looks everywhere, however long that takes.
    pub fn everywhere(found: &'a Found) -> Self {
        Self::new(&Everywhere, found)
    }

    /// The processes that can be seen now.
    pub(super) fn over(&self, source: &dyn ProcessSource) -> Result<Arc<[Arc<ProcessInfo>]>> {
        let mut in_exec = Vec::new();
        for pid in source.numbers()? {
            if self.found.of(pid).is_some() {
                continue;
            }
            match self.visits.visit(pid) {
                Visit::Look => (),
                Visit::Skip => continue,
                Visit::Stop => return Err(Error::TimedOut(pid)),
            }
            match source.describe_within(pid, Duration::ZERO) {
                Err(Error::TimedOut(_)) => in_exec.push(pid),
                answer => self.found.add(pid, listed(pid, answer)),
            }
        }
        let mut patience = EXECS;
        for pid in in_exec {
            match self.visits.visit(pid) {
                Visit::Look => (),
                Visit::Skip => continue,
                Visit::Stop => return Err(Error::TimedOut(pid)),
            }
            let answer = source.describe_within(pid, patience);
            if matches!(answer, Err(Error::TimedOut(_))) {
                // They had the same time to end.
                patience = Duration::ZERO;
            }
            self.found.add(pid, listed(pid, answer));
        }
        Ok(self.found.all())
    }
}

fn listed(pid: ProcessId, answer: Result<ProcessInfo>) -> Option<Arc<ProcessInfo>> {
    match answer {
        Ok(info) => Some(Arc::new(info)),
        Err(Error::NoProcess(_) | Error::ProcessDenied(_)) => None,
        Err(error) => {
            log::debug!("process {pid} is left out of the listing: {error}");
            None
        }
    }
}
