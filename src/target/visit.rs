//! Visiting many processes one after another, without waiting for any.

use std::fmt::Debug;

use crate::common::pid::ProcessId;

/// What to do with the next process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Visit it.
    Enter,
    /// Pass over it: somebody waits for that one already, or there is no time left.
    Skip,
    /// Go no further: another thread has taken over.
    Stop,
}

/// Decides which processes are visited, and so knows which one a visitor may be waiting for.
pub(crate) trait Visits: Debug {
    /// What to do with `process`, which comes next.
    fn visit(&self, process: ProcessId) -> Visit;
}

/// Visits every process, however long that takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Everywhere;

impl Visits for Everywhere {
    fn visit(&self, _process: ProcessId) -> Visit {
        Visit::Enter
    }
}
