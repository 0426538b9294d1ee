//! Taking a snapshot: `mkdir`.

use std::sync::Arc;

use super::table::Copied;
use super::{Node, SnapshotName};
use crate::common::error::{Error, Result};
use crate::files::{Context, Subject};
use crate::target::snapshot::{self, Capture, Watch};

/// A snapshot that is about to be taken.
#[derive(Debug)]
pub(crate) struct Taking {
    name: SnapshotName,
    owner: (u32, u32),
    capture: Capture,
}

impl Taking {
    /// Whether it gets the name that was asked for; else one by time.
    pub(crate) fn is_named(&self) -> bool {
        !self.name.name.is_empty()
    }

    /// Copies the processes, which stand still meanwhile. It may wait for them, and for files that they have mapped.
    ///
    /// # Errors
    /// As [`Capture::take`].
    pub(crate) fn copy(&self, watch: &Watch) -> Result<Vec<Copied>> {
        let taken = self.capture.take(watch)?.into_iter();
        Ok(taken.map(Copied::new).collect())
    }
}

impl Context {
    /// Begins to take the snapshot that `name` says, for `subject`: as the kernel judges it now, they may read all of the processes.
    ///
    /// # Errors
    /// `Exists`, `StopOff`, `NoProcess`, `CallerDenied`, and why a process cannot be opened.
    pub(crate) fn begin_snapshot(&self, name: SnapshotName, subject: &Subject) -> Result<Taking> {
        if self.options.no_stop {
            return Err(Error::StopOff);
        }
        if !name.name.is_empty() && self.snapshots.has(&name.at(self.clock().wall())) {
            return Err(Error::Exists);
        }
        let subjects = name.processes.iter().map(|pid| {
            let info = self
                .processes
                .describe(subject.credentials.as_ref(), *pid)?;
            if info.identity.pid.get() == std::process::id() {
                return Err(Error::OwnMemory);
            }
            self.opened.ask_pinned(&info.identity, |process| {
                let memory = match &subject.credentials {
                    None => process.memory()?,
                    Some(who) => process.memory_for(who, false)?,
                };
                Ok(snapshot::Subject {
                    earlier: self.snapshots.newest_of(&info.identity),
                    info: Arc::clone(&info),
                    process: Arc::clone(process),
                    memory,
                })
            })
        });
        let capture = Capture {
            subjects: subjects.collect::<Result<_>>()?,
            waiting_thread: i32::try_from(subject.caller.pid).unwrap_or(0),
            boot: self.services.source.boot(),
            stores: Arc::clone(&self.services.stores),
            budget: Arc::clone(&self.services.budget),
            tracks_writes: self.options.inject,
            clock: Arc::clone(self.clock()),
        };
        Ok(Taking {
            name,
            owner: (subject.caller.uid, subject.caller.gid),
            capture,
        })
    }

    /// Whether a thread that waits for an answer has a signal to see to.
    pub(crate) fn is_interrupted(&self, thread: u32) -> bool {
        self.services.source.has_signal(thread)
    }

    /// Shows what was copied.
    ///
    /// # Errors
    /// `Exists`.
    pub(crate) fn end_snapshot(&self, taking: &Taking, processes: Vec<Copied>) -> Result<Node> {
        let taken = processes.iter().map(|process| process.frozen.taken).max();
        let is_group = processes.len() > 1;
        let name = taking.name.at(taken.unwrap_or_else(|| self.clock().wall()));
        let added = self.snapshots.add(name, taking.owner, is_group, processes);
        added.map(|snapshot| snapshot.node()).ok_or(Error::Exists)
    }
}
