//! The control groups of processes that were listed a moment ago.

use std::sync::Arc;

use lru::LruCache;

use super::groups::Groups;
use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::files::processes::{List, VIEWERS, Viewer};
use crate::files::{Context, Pass};
use crate::target::{CgroupPath, ProcessId};

/// Which processes are in which control group, for each who was shown it: one for each list of processes, and no older than that.
///
/// The lock is not held while processes are asked, and nothing is locked inside it.
#[derive(Debug)]
pub(in crate::files) struct CgroupTable(Mutex<LruCache<Viewer, (List, Arc<Groups>)>>);

impl Default for CgroupTable {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(VIEWERS)))
    }
}

impl CgroupTable {
    fn of(&self, who: &Viewer, list: &List) -> Option<Arc<Groups>> {
        let mut known = self.0.lock();
        let (of, groups) = known.get(who)?;
        Arc::ptr_eq(of, list).then(|| Arc::clone(groups))
    }

    fn keep(&self, who: Viewer, list: List, groups: &Arc<Groups>) {
        let former = self.0.lock().push(who, (list, Arc::clone(groups)));
        // Outside the lock: it may be the last to refer to many processes.
        drop(former);
    }
}

impl Context {
    /// The control groups of the processes of `list`, which `pass` has found.
    ///
    /// # Errors
    /// What this daemon lacks: groups without the processes that it could not ask for would be a lie.
    pub(super) fn groups_of(&self, list: List, pass: &Pass<'_>) -> Result<Arc<Groups>> {
        let who = pass.who().cloned();
        if let Some(groups) = self.cgroups.of(&who, &list) {
            return Ok(groups);
        }
        let mut processes = Vec::with_capacity(list.len());
        for info in list.iter() {
            let pid = info.identity.pid;
            if let Some(group) = self.group_of(pid)? {
                processes.push((pid, group));
            }
        }
        let groups = Arc::new(Groups::new(processes));
        self.cgroups.keep(who, list, &groups);
        Ok(groups)
    }

    /// The control group of a process; `None` where it has ended, or that cannot be known.
    fn group_of(&self, pid: ProcessId) -> Result<Option<CgroupPath>> {
        match self.opened.retry(|| self.services.source.cgroup(pid)) {
            Ok(group) => Ok(Some(group)),
            Err(Error::NoProcess(_) | Error::ProcessDenied(_)) => Ok(None),
            Err(error) if error.is_shortage() => Err(error),
            Err(error) => {
                log::debug!("process {pid} is shown in no control group: {error}");
                Ok(None)
            }
        }
    }
}
